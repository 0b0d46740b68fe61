"""Losses per example, by criterion id; the caller reduces."""

import jax
import optax
from jaxtyping import Array, Float, Integer

from mnist_jax.errors import UserError


def nll(
    logits: Float[Array, "batch classes"], labels: Integer[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the negative log-likelihood of the true class under softmax, at least 0."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def mse(
    logits: Float[Array, "batch classes"], labels: Integer[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the Brier score: the squared distance of the probabilities from the truth, 0..2.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.
    """
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    return ((jax.nn.softmax(logits) - one_hot) ** 2).sum(axis=-1)


CRITERIA = {"nll": nll, "mse": mse}


def check_criterion(criterion_id: str, model_id: str, fitting: tuple[str, ...]) -> None:
    """Refuses a loss that the outputs of a network do not suit.

    Raises:
        UserError: `criterion_id` is not among `fitting`.
    """
    if criterion_id not in fitting:
        raise UserError(
            f"criterion_id is {criterion_id!r}, but {model_id} takes {' or '.join(fitting)}: "
            f"give --criterion-id={fitting[0]}"
        )
