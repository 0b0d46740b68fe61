"""`mnist_capsule_v1`: the capsule network with dynamic routing; and a CNN of its size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from mnist_jax.errors import UserError
from mnist_jax.models.capsules import (
    Decoder,
    cast_votes,
    drawn_flat,
    dynamic_routing,
    squash,
)
from mnist_jax.models.layers.routing import route

CLASS_DIMS = 16
PRIMARY_TYPES = 32
PRIMARY_DIMS = 8


class SabourTrunk(nnx.Module):
    """conv 9x9x256, ReLU, conv 9x9x256 with stride 2: 6x6 places for an image of 28x28."""

    min_image_side = 17

    def __init__(
        self, *, image_side: int, num_channels: int, primary_factor: float, rngs: nnx.Rngs
    ) -> None:
        self.image_side = image_side
        self.primary_factor = primary_factor
        self.num_places = ((image_side - 15) // 2) ** 2
        self.conv1 = nnx.Conv(
            num_channels,
            256,
            (9, 9),
            padding="VALID",
            kernel_init=_truncated_normal(0.05),
            bias_init=jax.nn.initializers.constant(0.1),
            rngs=rngs,
        )
        self.primary_conv = nnx.Conv(
            256,
            PRIMARY_TYPES * PRIMARY_DIMS,
            (9, 9),
            strides=2,
            padding="VALID",
            use_bias=False,
            kernel_init=_truncated_normal(0.1 / PRIMARY_TYPES / primary_factor),
            rngs=rngs,
        )
        self.primary_biases = nnx.Param(jnp.full(PRIMARY_TYPES * PRIMARY_DIMS, 0.1))

    def features(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch rows columns 256"]:
        """Returns what the two convolutions make of each place."""
        x = nnx.relu(self.conv1(images))  # [batch, 20, 20, 256]
        x = self.primary_conv(x)
        biases = self.primary_biases[...].reshape(1, 1, 1, -1)
        return x.astype(jnp.float32) * self.primary_factor + biases  # [batch, 6, 6, 256]


def _truncated_normal(deviation: float) -> Callable[..., Array]:
    return drawn_flat(jax.nn.initializers.truncated_normal(deviation))


class SabourCapsNet(SabourTrunk):
    """1152 primary capsules of 8, class capsules of 16 by routing; a decoder beside.

    Sabour, Frosst, Hinton 2017, "Dynamic routing between capsules" (arXiv 1710.09829). For ten
    classes 6,804,224 parameters, 160 biases of the class capsules and 1,411,344 of the decoder.
    Where the paper and its authors' code (github.com/Sarasra/models, research/capsules) differ,
    there is a choice, and the default is the code's; so are the initial values.
    """

    outputs = "capsules"

    def __init__(
        self,
        *,
        num_classes: int,
        rngs: nnx.Rngs,
        image_side: int = 28,
        num_channels: int = 1,
        routing_iterations: int = 3,
        primary_factor: float = 1 / PRIMARY_TYPES,
        has_class_biases: bool = True,
        stop_routing_gradient: bool = False,
    ) -> None:
        """Draws the initial weights.

        Args:
            num_classes: class capsules.
            rngs: a stream named `params`.
            image_side: of the square images, in pixels.
            num_channels: 1 for grey images, 3 for colour.
            routing_iterations: 1 or more.
            primary_factor: on the primary convolution, before its biases. The paper has 1. The
                code has 1/32, a softmax of zeros over the 32 capsule types. The initial kernel
                makes up for the factor, so what it changes is how fast the layer learns.
            has_class_biases: whether the class capsules have biases; the paper has none.
            stop_routing_gradient: see `dynamic_routing`.
        """
        if not 1 <= routing_iterations <= 10:
            raise UserError(
                f"network.routing_iterations is {routing_iterations!r}, but must be from 1 to 10"
            )
        if not 0 < primary_factor <= 1:
            raise UserError(
                f"network.primary_factor is {primary_factor!r}, but must be above 0 and at most 1"
            )
        super().__init__(
            image_side=image_side,
            num_channels=num_channels,
            primary_factor=primary_factor,
            rngs=rngs,
        )
        self.routing_iterations = routing_iterations
        self.stop_routing_gradient = stop_routing_gradient
        shape = (self.num_places * PRIMARY_TYPES, PRIMARY_DIMS, num_classes * CLASS_DIMS)
        self.vote_weights = nnx.Param(_truncated_normal(0.1)(rngs.params(), shape))
        if has_class_biases:
            self.class_biases = nnx.Param(jnp.full((num_classes, CLASS_DIMS), 0.1))
        else:
            self.class_biases = nnx.Variable(jnp.zeros((num_classes, CLASS_DIMS)))
        self.decoder = Decoder(
            num_classes=num_classes,
            dims=CLASS_DIMS,
            image_side=image_side,
            num_channels=num_channels,
            rngs=rngs,
        )

    def primary_capsules(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch inputs 8"]:
        """Returns the capsules below the routing, of length below 1: by row, column and type."""
        features = self.features(images)
        return squash(features.reshape(-1, self.num_places * PRIMARY_TYPES, PRIMARY_DIMS))

    def route(
        self, capsules: Float[Array, "batch inputs 8"]
    ) -> tuple[Float[Array, "batch classes 16"], Float[Array, "_ classes inputs"]]:
        """Returns the class capsules and the couplings; see `dynamic_routing`."""
        return dynamic_routing(
            cast_votes(capsules, self.vote_weights[...]),
            self.class_biases[...],
            num_iterations=self.routing_iterations,
            stop_gradient=self.stop_routing_gradient,
        )

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes 16"]:
        """Returns the class capsules."""
        return route(
            self.primary_capsules(images),
            self.vote_weights[...],
            self.class_biases[...],
            num_iterations=self.routing_iterations,
            stop_gradient=self.stop_routing_gradient,
        )

    def reconstruct(
        self, outputs: Float[Array, "batch classes 16"], labels: Integer[Array, " batch"]
    ) -> Float[Array, "batch side side channels"]:
        """Draws the images again, each from the capsule of its label."""
        return self.decoder(outputs, labels)


class SabourCNN(SabourTrunk):
    """The same two convolutions and, in place of capsules, 160 units and dense classes.

    As many weights as the capsule network of the same `image_side` has, and 1,450 more: what its
    capsules do beside what plain layers do.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        rngs: nnx.Rngs,
        image_side: int = 28,
        num_channels: int = 1,
    ) -> None:
        """Draws the initial weights; the arguments are those of `SabourCapsNet`."""
        super().__init__(
            image_side=image_side, num_channels=num_channels, primary_factor=1.0, rngs=rngs
        )
        num_features = self.num_places * PRIMARY_TYPES * PRIMARY_DIMS
        self.dense1 = nnx.Linear(
            num_features, num_classes * CLASS_DIMS, dtype=jnp.float32, rngs=rngs
        )
        self.dense2 = nnx.Linear(
            num_classes * CLASS_DIMS, num_classes, dtype=jnp.float32, rngs=rngs
        )

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes"]:
        """Returns logits."""
        return self.logits(self.features(images))

    def logits(self, features: Float[Array, "batch rows columns 256"]) -> Float[Array, "batch _"]:
        """Applies the dense layers."""
        x = nnx.relu(features)
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(x)
