"""Losses per example, a file each; the file's name is the id. The caller reduces."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from jaxtyping import Array

from mnist_jax.errors import UserError
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


def check_fit(criterion_id: str, model_id: str, outputs: OutputKind) -> None:
    """Refuses a loss that does not take what a network gives.

    Raises:
        UserError: it takes another kind of outputs.
    """
    taken = takes(find(criterion_id))
    if taken != outputs:
        fitting = [other for other in IDS if takes(find(other)) == outputs]
        raise UserError(
            f"criterion_id is {criterion_id!r}, which takes {taken}, but {model_id} gives "
            f"{outputs}; use --criterion-id={' or '.join(fitting)}"
        )
