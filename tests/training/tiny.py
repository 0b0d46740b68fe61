"""Networks that compile at once: what a user gives as `--model-id=path/to/tiny.py:Tiny`."""

from flax import nnx

from mnist_jax.models import layers


class Tiny(nnx.Module):
    """A dense layer."""

    def __init__(self, *, num_classes, image_side, rngs):
        self.dense = nnx.Linear(image_side**2, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(images.shape[0], -1))


class Dropping(nnx.Module):
    """Two dense layers, between which it drops some."""

    def __init__(self, *, num_classes, image_side, image_mean, image_std, rngs):
        self.image_mean, self.image_std = image_mean, image_std
        self.dense1 = nnx.Linear(image_side**2, 32, rngs=rngs)
        self.dense2 = nnx.Linear(32, num_classes, rngs=rngs)
        self.dropout = layers.Dropout(0.25, rngs=rngs)

    def __call__(self, images):
        x = ((images - self.image_mean) / self.image_std).reshape(images.shape[0], -1)
        return self.dense2(self.dropout(nnx.relu(self.dense1(x))))
