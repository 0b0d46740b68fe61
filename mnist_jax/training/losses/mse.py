"""`mse`: the Brier score."""

import jax
from jaxtyping import Array, Float, Integer


def mse(
    logits: Float[Array, "batch classes"], labels: Integer[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the Brier score: the squared distance of the probabilities from the truth, 0..2.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.
    """
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    return ((jax.nn.softmax(logits) - one_hot) ** 2).sum(axis=-1)
