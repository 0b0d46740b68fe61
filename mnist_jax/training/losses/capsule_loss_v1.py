"""`capsule_loss_v1`: the margin loss of capsules."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from mnist_jax.models.capsules import lengths


def capsule_loss_v1(
    capsules: Float[Array, "batch classes dims"], labels: Integer[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the margin loss of the capsules' lengths, at least 0.

    Sabour, Frosst, Hinton 2017, equation 4: the true class's length should reach 0.9, the others'
    should stay below 0.1; what is missing is squared, halved for the others, and summed.
    """
    return margin_loss(capsules, jax.nn.one_hot(labels, capsules.shape[1]))


capsule_loss_v1.takes = "capsules"  # pyright: ignore[reportFunctionMemberAccess]


def margin_loss(
    capsules: Float[Array, "batch classes dims"], is_label: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Returns the same for images that may show several classes: 1 for each of these, else 0."""
    length = lengths(capsules)
    too_short = jnp.maximum(0.9 - length, 0) ** 2
    too_long = jnp.maximum(length - 0.1, 0) ** 2
    return (is_label * too_short + 0.5 * (1 - is_label) * too_long).sum(axis=-1)
