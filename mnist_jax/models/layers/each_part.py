"""Functions of images that XLA would not split over devices by itself."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

AXIS = "batch"  # of the mesh, along which devices share the images


def on_each_part(function: Callable[..., Any], images: Any, *weights: Any) -> Any:
    """Computes a function of images, each for itself, on each device's part of the batch.

    For what XLA would not split by itself, such as a loop over the images. Which devices share the
    batch is JAX's own context: `jax.sharding.use_abstract_mesh`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(images, *weights)
    batch, whole = PartitionSpec(AXIS), PartitionSpec()
    in_specs = (batch, *[whole] * len(weights))
    # Without the check, since `custom_vjp` rules do not say over which devices they vary.
    split_up = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=batch, check_vma=False
    )
    return split_up(images, *weights)
