"""`mnist_efficient_capsule_v1`: the small one, routing by self-attention; and a CNN of its size."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from mnist_jax.models import layers
from mnist_jax.models.capsules import (
    Decoder,
    cast_votes,
    self_attention_routing,
    squash_exponential,
)

CLASS_DIMS = 16
NUM_PRIMARY = 16
PRIMARY_DIMS = 8


class EfficientTrunk(nnx.Module):
    """Four convolutions, each with ReLU and BatchNorm, and one over each whole feature map.

    For images of more than 28 pixels the third has stride 2, as in the authors' network for two
    digits in 36x36 pixels.
    """

    def __init__(self, *, image_side: int, num_channels: int, rngs: nnx.Rngs) -> None:
        self.image_side = image_side
        he_normal = jax.nn.initializers.he_normal()

        def conv(num_inputs, num_outputs, size, stride):
            return nnx.Conv(
                num_inputs,
                num_outputs,
                (size, size),
                strides=stride,
                padding="VALID",
                kernel_init=he_normal,
                rngs=rngs,
            )

        def norm(num_features):  # momentum and epsilon are Keras's defaults
            return layers.BatchNorm(
                num_features,
                momentum=0.99,
                epsilon=1e-3,
                rngs=rngs,
            )

        stride = 1 if image_side == 28 else 2
        self.convs = nnx.List(
            [
                conv(num_channels, 32, 5, 1),
                conv(32, 64, 3, 1),
                conv(64, 64, 3, stride),
                conv(64, 128, 3, 2),
            ]
        )
        self.norms = nnx.List([norm(32), norm(64), norm(64), norm(128)])
        side = ((image_side - 6 - 3) // stride + 1 - 3) // 2 + 1  # 9 for 28
        features = NUM_PRIMARY * PRIMARY_DIMS
        self.primary_kernel = nnx.Param(
            jax.nn.initializers.glorot_uniform()(rngs.params(), (side, side, 1, features))
        )
        self.primary_biases = nnx.Param(jnp.zeros(features))

    def features(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch 128"]:
        """Returns one number for each feature map."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(nnx.relu(conv(x)))
        # [batch, 9, 9, 128]: a depthwise 9x9 convolution has one place to be at. Channels first, as
        # ONNX has them, so that the exported graph needs no transposition.
        x = jnp.transpose(x.astype(jnp.float32), (0, 3, 1, 2))
        x = x * jnp.transpose(self.primary_kernel[...], (2, 3, 0, 1))
        return jnp.sum(x, axis=(2, 3)) + self.primary_biases[...].reshape(1, -1)


class EfficientCapsNet(EfficientTrunk):
    """16 primary capsules of 8, class capsules of 16; a decoder beside.

    Mazzia, Salvetti, Chiaberge 2021, "Efficient-CapsNet: capsule network with self-attention
    routing" (arXiv 2101.12491), as in the authors' code (github.com/EscVM/Efficient-CapsNet). For
    ten classes 161,824 parameters and 1,411,344 of the decoder.
    """

    outputs = "capsules"

    def __init__(
        self,
        *,
        num_classes: int,
        rngs: nnx.Rngs,
        image_side: int = 28,
        num_channels: int = 1,
    ) -> None:
        """Draws the initial weights.

        Args:
            num_classes: class capsules.
            rngs: a stream named `params`.
            image_side: of the square images, in pixels.
            num_channels: 1 for grey images, 3 for colour.
        """
        super().__init__(image_side=image_side, num_channels=num_channels, rngs=rngs)
        # The fan-in, as Keras counts it for this shape, is classes * inputs * input dims.
        he_normal = jax.nn.initializers.he_normal()
        weights = he_normal(rngs.params(), (num_classes, NUM_PRIMARY, PRIMARY_DIMS, CLASS_DIMS))
        self.vote_weights = nnx.Param(
            weights.transpose(1, 2, 0, 3).reshape(NUM_PRIMARY, PRIMARY_DIMS, -1)
        )
        self.routing_biases = nnx.Param(jnp.zeros((NUM_PRIMARY, num_classes)))
        self.decoder = Decoder(
            num_classes=num_classes,
            dims=CLASS_DIMS,
            image_side=image_side,
            num_channels=num_channels,
            rngs=rngs,
        )

    def primary_capsules(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch 16 8"]:
        """Returns the capsules below the routing, of length below 1."""
        features = self.features(images)
        return squash_exponential(features.reshape(-1, NUM_PRIMARY, PRIMARY_DIMS))

    def route(
        self, capsules: Float[Array, "batch 16 8"]
    ) -> tuple[Float[Array, "batch classes 16"], Float[Array, "batch classes 16"]]:
        """Returns the class capsules and the couplings; see `self_attention_routing`."""
        votes = cast_votes(capsules, self.vote_weights[...])
        return self_attention_routing(votes, self.routing_biases[...])

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes 16"]:
        """Returns the class capsules."""
        return self.route(self.primary_capsules(images))[0]

    def reconstruct(
        self, outputs: Float[Array, "batch classes 16"], labels: Integer[Array, " batch"]
    ) -> Float[Array, "batch side side channels"]:
        """Draws the images again, each from the capsule of its label."""
        return self.decoder(outputs, labels)


class EfficientCNN(EfficientTrunk):
    """The same convolutions and, in place of capsules, 160 units and dense classes.

    As many weights as the capsule network of the same `image_side` has, and 1,610 more.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        rngs: nnx.Rngs,
        image_side: int = 28,
        num_channels: int = 1,
    ) -> None:
        """Draws the initial weights; the arguments are those of `EfficientCapsNet`."""
        super().__init__(image_side=image_side, num_channels=num_channels, rngs=rngs)
        num_units = num_classes * CLASS_DIMS
        self.dense1 = nnx.Linear(
            NUM_PRIMARY * PRIMARY_DIMS, num_units, dtype=jnp.float32, rngs=rngs
        )
        self.dense2 = nnx.Linear(num_units, num_classes, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes"]:
        """Returns logits."""
        x = nnx.relu(self.features(images))
        return self.dense2(nnx.relu(self.dense1(x)))
