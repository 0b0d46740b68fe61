"""Losses per example, a file each; the file's name is the id. The caller reduces."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mnist_jax.errors import UserError, first_line
from mnist_jax.models.network import OutputKind
from mnist_jax.run import own_code

Criterion = Callable[[Array, Array], Array]
IDS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py")))


def find(criterion_id: str) -> Criterion:
    """Returns a loss `(outputs, labels) -> losses`, one for each example.

    Args:
        criterion_id: one of `IDS`, or a reference to the user's own.

    Raises:
        UserError: there is no such function.
    """
    is_own = own_code.is_reference(criterion_id)
    reference = criterion_id if is_own else f"{__name__}.{criterion_id}:{criterion_id}"
    criterion = own_code.load(reference, "criterion_id")
    if not callable(criterion):
        raise UserError(f"criterion_id names {criterion_id}, which is not a function; name one")
    return cast(Criterion, criterion)


def takes(criterion: Criterion) -> OutputKind:
    """Returns what a loss takes: its attribute `takes`, or logits."""
    return getattr(criterion, "takes", "logits")


def check_fit(criterion_id: str, model_id: str, outputs: OutputKind, num_classes: int) -> None:
    """Refuses a loss that does not take what a network gives, or does not give losses for it.

    Raises:
        UserError: it takes another kind of outputs, fails on two examples, or gives something else
            than a finite float for each.
    """
    criterion = find(criterion_id)
    taken = takes(criterion)
    if taken != outputs:
        fitting = [other for other in IDS if takes(find(other)) == outputs]
        raise UserError(
            f"criterion_id is {criterion_id!r}, which takes {taken}, but {model_id} gives "
            f"{outputs}; use --criterion-id={' or '.join(fitting)}"
        )
    if own_code.is_reference(criterion_id):
        _check_losses(criterion, criterion_id, taken, num_classes)


def _check_losses(
    criterion: Criterion, criterion_id: str, taken: OutputKind, num_classes: int
) -> None:
    """Tries a loss of the user's own on two examples."""
    shape = (2, num_classes) if taken == "logits" else (2, num_classes, 4)
    labels = np.array([0, num_classes - 1], np.uint8 if num_classes <= 256 else np.uint16)
    try:
        found = criterion(jnp.full(shape, 0.5), jnp.asarray(labels))
    except Exception as error:  # the user's code can raise anything
        raise UserError(
            f"{criterion_id} fails on {taken} {list(shape)} and two labels "
            f"({first_line(error)}); it must take (outputs, labels)"
        ) from error
    if getattr(found, "shape", None) != (2,) or found.dtype != jnp.float32:
        what = getattr(found, "shape", type(found).__name__), getattr(found, "dtype", "")
        raise UserError(
            f"{criterion_id} returns {what[0]} {what[1]} for two examples, but must return a "
            "float32 for each, [2]; leave the mean to the training"
        )
    if not bool(jnp.isfinite(found).all()):
        raise UserError(
            f"{criterion_id} returns losses that are not finite for outputs of 0.5; guard its "
            "logarithms and divisions"
        )
