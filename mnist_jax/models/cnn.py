"""`mnist_cnn_v1`: the two-convolution network of the PyTorch MNIST example."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from mnist_jax.mesh import on_each_part
from mnist_jax.models.dropout import dropout
from mnist_jax.models.layers.conv import conv_general_dilated
from mnist_jax.models.max_pool import max_pool_2x2
from mnist_jax.models.winograd import conv_conv_pool


class CNN(nnx.Module):
    """conv 3x3x32, conv 3x3x64, max-pool 2, dense 128, dense classes; 1,199,882 parameters for ten.

    Source: github.com/pytorch/examples, mnist/main.py. The dense layer reads its input channel by
    channel, as there, so that the exported graph, which ONNX wants channels-first, needs no
    transposition.
    """

    criteria = ("nll", "mse")
    choices = ()
    needs_transpose = False

    def __init__(
        self,
        *,
        num_classes: int,
        image_mean: float,
        image_std: float,
        rngs: nnx.Rngs,
        image_side: int = 28,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        """Draws the initial weights.

        Args:
            num_classes: logits.
            image_mean: of the data set's grey levels, which is subtracted.
            image_std: of the data set's grey levels, to divide by.
            rngs: a stream named `params`.
            image_side: of the square images, in pixels.
            dtype: of the layers; weights and logits are float32.
        """
        self.image_side = image_side
        self.dtype = jnp.dtype(dtype)
        self.image_mean = nnx.Variable(jnp.float32(image_mean))
        self.image_std = nnx.Variable(jnp.float32(image_std))
        options = {"padding": "VALID", "conv_general_dilated": conv_general_dilated}
        self.conv1 = nnx.Conv(1, 32, (3, 3), dtype=dtype, rngs=rngs, **options)
        self.conv2 = nnx.Conv(32, 64, (3, 3), dtype=dtype, rngs=rngs, **options)
        self.dense1 = nnx.Linear(64 * ((image_side - 4) // 2) ** 2, 128, dtype=dtype, rngs=rngs)
        self.dense2 = nnx.Linear(128, num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch side side 1"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch classes"]:
        """Returns logits; drops activations only where `rngs` brings a stream named `dropout`."""
        x = (images - self.image_mean[...]) / self.image_std[...]
        is_slow = rngs is not None and jax.default_backend() == "cpu"
        if is_slow and self.image_side == 28 and self.dtype == jnp.float32:
            # The same three layers, where their gradients would be slow; tiled for this size.
            layers = (self.conv1.kernel, self.conv1.bias, self.conv2.kernel, self.conv2.bias)
            weights = (layer[...] for layer in layers)  # pyright: ignore[reportOptionalSubscript]
            x = on_each_part(conv_conv_pool, x, *weights)  # (batch, 12, 12, 64)
        else:
            x = nnx.relu(self.conv1(x))  # (batch, 26, 26, 32)
            x = nnx.relu(self.conv2(x))  # (batch, 24, 24, 64)
            x = max_pool_2x2(x)  # (batch, 12, 12, 64)
        if rngs is not None:
            x = dropout(x, 0.25, rngs.dropout())
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)  # (batch, 64 * 12 * 12)
        x = nnx.relu(self.dense1(x))
        if rngs is not None:
            x = dropout(x, 0.5, rngs.dropout())
        return self.dense2(x).astype(jnp.float32)

    def scores_of(self, outputs: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
        """Turns logits into the probability of each class; a row sums to one."""
        return jax.nn.softmax(outputs)

    def scores(self, images: Float[Array, "batch side side 1"]) -> Float[Array, "batch classes"]:
        """Returns the probability of each class: what is exported."""
        return self.scores_of(self(images))
