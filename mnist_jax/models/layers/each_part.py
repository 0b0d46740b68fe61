"""Functions of images that XLA would not split over devices by itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

AXIS = "batch"
_SHARING: ContextVar[Mesh | None] = ContextVar("sharing", default=None)


@contextmanager
def sharing(mesh: Mesh | None) -> Iterator[None]:
    """Within `jit`: tells `on_each_part` which devices share the batch."""
    token = _SHARING.set(mesh)
    try:
        yield
    finally:
        _SHARING.reset(token)


def on_each_part(function: Callable[..., Any], images: Any, *weights: Any) -> Any:
    """Computes a function of images, each for itself, on each device's part of the batch.

    For what XLA would not split by itself, such as a loop over the images.
    """
    mesh = _SHARING.get()
    if mesh is None:
        return function(images, *weights)
    batch, whole = PartitionSpec(AXIS), PartitionSpec()
    in_specs = (batch, *[whole] * len(weights))
    # Without the check, since `custom_vjp` rules do not say over which devices they vary.
    split_up = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=batch, check_vma=False
    )
    return split_up(images, *weights)
