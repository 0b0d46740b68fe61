"""`nll`: the negative log-likelihood."""

import optax
from jaxtyping import Array, Float, Integer


def nll(
    logits: Float[Array, "batch classes"], labels: Integer[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the negative log-likelihood of the true class under softmax, at least 0."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
