"""Data sets by id: prepared once, kept as arrays, read in a moment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_jax.data.arrays import Split
    from mnist_jax.data.datasets import DATASET_IDS, Dataset, names, prepare, prepare_own, read

__all__ = ["DATASET_IDS", "Dataset", "Split", "names", "prepare", "prepare_own", "read"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for; the processes that decode pictures start in half the time."""
    if name in __all__:
        from mnist_jax.data import datasets

        return getattr(datasets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
