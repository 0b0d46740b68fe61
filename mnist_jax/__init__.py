"""A training-to-release pipeline for small image classifiers in JAX."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_jax.pipeline import prove
    from mnist_jax.release.records import Criteria

__all__ = ["Criteria", "prove"]

# ONNX Runtime gives the machine an id and reports its use to Microsoft, unless it finds this when
# it is loaded. It is set here, before all else, so that it holds for commands and for `prove`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and JAX with it; the server imports this package without."""
    if name == "prove":
        from mnist_jax.pipeline import prove

        return prove
    if name == "Criteria":
        from mnist_jax.release.records import Criteria

        return Criteria
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
