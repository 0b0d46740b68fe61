"""`mnist_cnn_v1`: the two-convolution network of the PyTorch MNIST example."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mnist_jax.models import layers


class CNN(nnx.Module):
    """conv 3x3x32, conv 3x3x64, max-pool 2, dense 128, dense classes; 1,199,882 parameters for ten.

    Source: github.com/pytorch/examples, mnist/main.py. The dense layer reads its input channel by
    channel, as there, so that the exported graph, which ONNX wants channels-first, needs no
    transposition.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_mean: float,
        image_std: float,
        rngs: nnx.Rngs,
        image_side: int = 28,
        num_channels: int = 1,
    ) -> None:
        """Draws the initial weights.

        Args:
            num_classes: logits.
            image_mean: of the data set's levels, which is subtracted.
            image_std: of the data set's levels, to divide by.
            rngs: streams named `params` and `dropout`.
            image_side: of the square images, in pixels.
            num_channels: 1 for grey images, 3 for colour.
        """
        self.image_mean = nnx.Variable(jnp.float32(image_mean))
        self.image_std = nnx.Variable(jnp.float32(image_std))
        self.conv1 = nnx.Conv(num_channels, 32, (3, 3), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", rngs=rngs)
        self.dense1 = nnx.Linear(64 * ((image_side - 4) // 2) ** 2, 128, rngs=rngs)
        self.dense2 = nnx.Linear(128, num_classes, rngs=rngs)
        self.dropout1 = layers.Dropout(0.25, rngs=rngs)
        self.dropout2 = layers.Dropout(0.5, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes"]:
        """Returns logits."""
        x = (images - self.image_mean[...]) / self.image_std[...]
        x = layers.conv_conv_pool(x, self.conv1, self.conv2)  # (batch, 12, 12, 64)
        x = self.dropout1(x)
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)  # (batch, 64 * 12 * 12)
        x = self.dropout2(nnx.relu(self.dense1(x)))
        return self.dense2(x)
