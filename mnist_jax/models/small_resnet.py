"""`small_resnet_v1`: a residual network for small pictures, grey or colour, and for two cores."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mnist_jax.models import layers

WIDTHS = (32, 64, 128, 256)
MAX_SIDE_OF_FIRST_STAGE = 32  # pixels; larger images are made smaller before it


class Block(nnx.Module):
    """Two 3x3 convolutions with batch normalisation, added to what came in.

    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (arXiv 1512.03385),
    figure 5, left; where the shape changes, the shortcut is a 1x1 convolution (their option B).
    """

    def __init__(self, num_inputs: int, num_outputs: int, strides: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(num_inputs, num_outputs, 3, strides, rngs=rngs)
        self.norm1 = layers.BatchNorm(num_outputs, momentum=0.9, rngs=rngs)
        self.conv2 = _conv(num_outputs, num_outputs, 3, 1, rngs=rngs)
        self.norm2 = layers.BatchNorm(num_outputs, momentum=0.9, rngs=rngs)
        self.changes_shape = strides > 1 or num_inputs != num_outputs
        if self.changes_shape:
            self.shortcut = _conv(num_inputs, num_outputs, 1, strides, rngs=rngs)

    def __call__(self, x: Float[Array, "batch side side inputs"]) -> Float[Array, "batch _ _ _"]:
        """Returns the block's features."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (self.shortcut(x) if self.changes_shape else x))


class SmallResNet(nnx.Module):
    """A 3x3 convolution, four residual blocks of 32 to 256 features, the mean over the places.

    For images of 16 to 128 pixels; 1,228,074 parameters for ten classes in colour. The first
    convolution halves images of more than 32 pixels, and a pool halves those of more than 64 again.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_side: int,
        num_channels: int,
        image_mean: float,
        image_std: float,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the initial weights; the arguments are those that `network.Network` describes."""
        self.image_mean = nnx.Variable(jnp.float32(image_mean))
        self.image_std = nnx.Variable(jnp.float32(image_std))
        strides = 1 if image_side <= MAX_SIDE_OF_FIRST_STAGE else 2
        self.has_pool = image_side > 2 * MAX_SIDE_OF_FIRST_STAGE
        self.stem = _conv(num_channels, WIDTHS[0], 3, strides, rngs=rngs)
        self.stem_norm = layers.BatchNorm(WIDTHS[0], momentum=0.9, rngs=rngs)
        self.blocks = nnx.List(
            Block(num_inputs, num_outputs, 1 if index == 0 else 2, rngs=rngs)
            for index, (num_inputs, num_outputs) in enumerate(
                zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)
            )
        )
        self.dropout = layers.Dropout(0.25, rngs=rngs)
        self.dense = nnx.Linear(WIDTHS[-1], num_classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes"]:
        """Returns logits."""
        x = (images - self.image_mean[...]) / self.image_std[...]
        x = nnx.relu(self.stem_norm(self.stem(x)))
        if self.has_pool:
            x = layers.max_pool_2x2(x)
        for block in self.blocks:
            x = block(x)
        x = jnp.mean(x, axis=(1, 2))
        return self.dense(self.dropout(x))


def _conv(
    num_inputs: int,
    num_outputs: int,
    size: int,
    strides: int,
    *,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    return nnx.Conv(
        num_inputs,
        num_outputs,
        (size, size),
        strides=strides,
        padding="SAME",
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )
