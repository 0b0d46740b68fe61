"""A network that compiles at once: what a user gives as `--model-id=path/to/tiny.py:Tiny`."""

from flax import nnx


class Tiny(nnx.Module):
    """A dense layer."""

    def __init__(self, *, num_classes, image_side, rngs):
        self.dense = nnx.Linear(image_side**2, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(images.shape[0], -1))
