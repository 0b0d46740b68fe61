"""In place of the CNN, whose training would be most of the time of a run."""

import jax.numpy as jnp
from flax import nnx


class SmallNetwork(nnx.Module):
    """Normalisation, two dense layers, and dropout between them."""

    def __init__(self, *, num_classes, image_side, image_mean, image_std, rngs):
        self.image_mean = nnx.Variable(jnp.float32(image_mean))
        self.image_std = nnx.Variable(jnp.float32(image_std))
        self.dense1 = nnx.Linear(image_side**2, 32, rngs=rngs)
        self.dense2 = nnx.Linear(32, num_classes, rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)

    def __call__(self, images):
        x = (images - self.image_mean[...]) / self.image_std[...]
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(self.dropout(x))
