"""Functions of images, computed group by group, so that memory does not grow with the batch."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array


def in_groups(
    function: Callable[..., Array],
    images: Array,
    *weights: Array,
    group: int,
) -> Array:
    """Returns `function(images, *weights)`, on a CPU by groups.

    On an accelerator, and for a symbolic batch size (an export), it is the function as it stands.

    Under a mesh (`jax.set_mesh`) each device takes its part of the batch. The gradient computes a
    group again where there are several.

    Args:
        function: of a batch and of weights; the result's first axis is the batch's. What it
            computes of an image must not depend on the others; traced values are arguments.
        images: float32 `[batch, ...]`; filled up with zeros to groups of one size.
        weights: float32.
        group: images at a time, at most.
    """
    if jax.default_backend() != "cpu" or not isinstance(images.shape[0], int):
        return function(images, *weights)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return _in_groups(function, group, images, weights)
    batch, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    split_up = jax.shard_map(
        partial(_in_groups, function, group),
        in_specs=(batch, whole),
        out_specs=batch,
        check_vma=False,  # `custom_vjp` rules do not say over which devices they vary
    )
    return split_up(images, weights)


def _in_groups(function, group, images, weights):
    batch = images.shape[0]
    num_groups = -(-batch // group)
    if num_groups <= 1:
        return function(images, *weights)
    missing = -batch % num_groups
    if missing:
        images = jnp.pad(images, ((0, missing), *[(0, 0)] * (images.ndim - 1)))
    groups = images.reshape(num_groups, -1, *images.shape[1:])
    outputs = jax.lax.map(jax.checkpoint(lambda images: function(images, *weights)), groups)
    return outputs.reshape(-1, *outputs.shape[2:])[:batch]
