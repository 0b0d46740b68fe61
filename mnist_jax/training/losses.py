"""Losses per example, by criterion id; the caller reduces."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from mnist_jax.errors import UserError
from mnist_jax.models.capsules import lengths

# What one unit of the drawing's error weighs beside one of the margin loss. The authors' code
# divides the margin loss by 20 (a half of it, and the mean over ten classes instead of the sum) and
# keeps the 0.0005; Adam ignores the common factor, so only the ratio of the two makes a difference.
RECONSTRUCTION_WEIGHT_OF_PAPER = 0.0005
RECONSTRUCTION_WEIGHT_OF_CODE = 0.01


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


def capsule_loss(
    capsules: Float[Array, "batch classes dims"], labels: Integer[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the margin loss of the capsules' lengths, at least 0.

    Sabour, Frosst, Hinton 2017, equation 4: the true class's length should reach 0.9, the others'
    should stay below 0.1; what is missing is squared, halved for the others, and summed.
    """
    return margin_loss(capsules, jax.nn.one_hot(labels, capsules.shape[1]))


def margin_loss(
    capsules: Float[Array, "batch classes dims"], is_label: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Returns the same for images that may show several classes: 1 for each of these, else 0."""
    length = lengths(capsules)
    too_short = jnp.maximum(0.9 - length, 0) ** 2
    too_long = jnp.maximum(length - 0.1, 0) ** 2
    return (is_label * too_short + 0.5 * (1 - is_label) * too_long).sum(axis=-1)


def reconstruction_loss(
    drawn: Float[Array, "batch height width 1"], images: Float[Array, "batch height width 1"]
) -> Float[Array, " batch"]:
    """Returns the squared error summed over the pixels of each image (not their mean)."""
    return ((drawn - images) ** 2).sum(axis=(1, 2, 3))


CRITERIA = {"nll": nll, "mse": mse, "capsule_loss_v1": capsule_loss}


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
