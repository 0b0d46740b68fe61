"""A training-to-release pipeline for small image classifiers in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_jax.pipeline import prove
    from mnist_jax.release.records import Criteria

__all__ = ["Criteria", "prove"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and JAX with it; the server imports this package without."""
    if name == "prove":
        from mnist_jax.pipeline import prove

        return prove
    if name == "Criteria":
        from mnist_jax.release.records import Criteria

        return Criteria
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
