"""Training on several devices: each has all weights and a part of every batch.

The program says what is computed for the whole batch; XLA splits it over the devices and adds up
the gradients. So what a step computes, its random numbers included, does not depend on the number
of devices, but for the order of additions.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mnist_jax.errors import UserError
from mnist_jax.models.layers.each_part import AXIS


def make_mesh(num_devices: int, batch_size: int) -> Mesh | None:
    """Returns the devices to train on; None where it is one, without a mesh.

    Args:
        num_devices: 0: all there are, those of other processes of the run included.
        batch_size: images a step, over all devices.

    Raises:
        UserError: there are not so many devices, some of another process would be left out, or they
            cannot share a batch evenly.
    """
    available = jax.device_count()
    wanted = num_devices or available
    if wanted > available:
        raise UserError(
            f"mesh is {num_devices}, but there are {available} devices; give --config.mesh at most "
            "that, or 0 for all"
        )
    if jax.process_count() > 1 and wanted < available:
        raise UserError(
            f"mesh is {num_devices}, but a run of {jax.process_count()} processes takes all of "
            f"their {available} devices; give --config.mesh=0"
        )
    if batch_size % wanted:
        raise UserError(
            f"batch_size is {batch_size}, but must be a multiple of the {wanted} devices that "
            f"share it; give --batch-size={-(-batch_size // wanted) * wanted}, or another "
            "--config.mesh"
        )
    if wanted == 1:
        return None
    return jax.make_mesh(
        (wanted,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:wanted]
    )


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Puts arrays, which all processes have alike, on every device; without a mesh on the one.

    What lies there already stays as it is.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(leaf):
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def split(tree: Any, mesh: Mesh | None) -> Any:
    """Within `jit`: spreads the first axis over the devices."""
    return _constrain(tree, mesh, PartitionSpec(AXIS))


def keep_replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Within `jit`: has every device hold everything."""
    return _constrain(tree, mesh, PartitionSpec())


def _constrain(tree: Any, mesh: Mesh | None, spec: PartitionSpec) -> Any:
    return (
        tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))
    )
