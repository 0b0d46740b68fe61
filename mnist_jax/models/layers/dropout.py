"""Dropout whose random bits are cheap."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray


def dropout(x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray) -> Float[Array, "*shape"]:
    """Sets each element to zero with probability `rate` and divides the others by `1 - rate`.

    One random byte decides an element, where `nnx.Dropout` spends four and, on a CPU, a tenth of
    the training step (docs/log.md). So `rate` must be a multiple of 1/256.

    Raises:
        ValueError: if it is not.
    """
    threshold = rate * 256
    if not (0 <= threshold < 256 and threshold == int(threshold)):
        raise ValueError(f"dropout rate {rate} is not a multiple of 1/256 below 1; choose one")
    words = jax.random.bits(key, (-(-x.size // 4),), jnp.uint32)
    random = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: x.size]
    return jnp.where(random.reshape(x.shape) >= int(threshold), x / (1 - rate), 0)


class Dropout(nnx.Dropout):
    """`nnx.Dropout` with the random bits of `dropout`; layers may share one stream.

    Args:
        rate: the share that is dropped, a multiple of 1/256 below 1.
        rngs: holds a stream named `dropout`, from which each call in training draws a key.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
        super().__init__(rate)
        self.rngs = rngs["dropout"]

    def __call__(self, inputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Drops elements in training mode; returns `inputs` in evaluation mode."""
        return inputs if self.deterministic else dropout(inputs, self.rate, self.rngs())
