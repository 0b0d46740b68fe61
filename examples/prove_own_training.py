"""Trains a network of one's own with a loop of one's own, and ends in a verdict.

python examples/prove_own_training.py RUN_DIR
"""

import sys
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mnist_jax


class Network(nnx.Module):
    """A convolution, dropout and a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dense = nnx.Linear(4 * 4 * 32, 10, rngs=rngs)

    def __call__(self, images: Any) -> jax.Array:
        """Returns logits."""
        x = nnx.relu(self.conv(images))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return self.dense(self.dropout(x.reshape(x.shape[0], -1)))


@nnx.jit
def step(model: Network, optimizer: nnx.Optimizer, images: np.ndarray, labels: np.ndarray) -> None:
    """Takes one step."""

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
splits = train_test_split(images, labels, random_state=0)
train, test, train_labels, test_labels = map(np.asarray, splits)
model = Network(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
for batch in np.random.default_rng(0).integers(len(train), size=(600, 64)):
    step(model, optimizer, train[batch], train_labels[batch])
release = mnist_jax.prove(model, test, test_labels, sys.argv[1])
print(release["verdict"], *release["reasons"], sep="\n")
