"""A network and a loss of one's own: a class for `--model-id`, a function for `--criterion-id`.

README.md has the command, as `examples/own_network.py:Network` and `examples/own_network.py:focal`.
"""

import jax
import jax.numpy as jnp
from flax import nnx


class Network(nnx.Module):
    """Two convolutions with batch normalisation, dropout, and a dense layer."""

    def __init__(self, *, num_classes: int, image_side: int, num_channels: int, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(num_channels, 32, (3, 3), rngs=rngs)
        self.norm1 = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.norm2 = nnx.BatchNorm(64, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)
        self.dense = nnx.Linear(64 * (image_side // 4) ** 2, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Takes float32 [batch, side, side, channels], 0 to 1; returns logits [batch, classes]."""
        x = nnx.relu(self.norm1(self.conv1(images)))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return self.dense(self.dropout(x.reshape(x.shape[0], -1)))


def focal(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the focal loss of each example, [batch] (Lin et al. 2017, arXiv 1708.02002)."""
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return -((1 - jnp.exp(log_p)) ** 2) * log_p
