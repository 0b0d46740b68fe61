"""Functions of images, computed group by group: what is between stays in the cache.

The gradient computes a group again instead of keeping what was between, which would be memory fresh
from the system, dearer than the arithmetic.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array

from mnist_jax.models.layers.lanes import num_lanes


def in_groups(
    function: Callable[..., Array],
    images: Array,
    *weights: Array,
    group: int,
) -> Array:
    """Returns `function(images, *weights)`, on a CPU by groups.

    On an accelerator, and for a symbolic batch size (an export), it is the function as it stands.

    Under a mesh (`jax.set_mesh`) each device takes its part of the batch.

    Args:
        function: of a batch and of weights; the result's first axis is the batch's. What it
            computes of an image must not depend on the others; traced values are arguments.
        images: float32 `[batch, ...]`; filled up with zeros to whole groups.
        weights: float32.
        group: images at a time.
    """
    if jax.default_backend() != "cpu" or not isinstance(images.shape[0], int):
        return function(images, *weights)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _in_lanes(function, group, num_lanes(), images, weights)
    if mesh.manual_axes:
        return _in_lanes(function, group, 1, images, weights)
    batch, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    split_up = jax.shard_map(
        partial(_in_lanes, function, group, 1),
        in_specs=(batch, whole),
        out_specs=batch,
        check_vma=False,  # `custom_vjp` rules do not say over which devices they vary
    )
    return split_up(images, weights)


def _cut(images: Array, group: int, lanes: int) -> Array:
    missing = -images.shape[0] % (group * lanes)
    if missing:
        images = jnp.pad(images, ((0, missing), *[(0, 0)] * (images.ndim - 1)))
    return images.reshape(-1, lanes, group, *images.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _in_lanes(function, group, lanes, images, weights):
    lanes = min(lanes, images.shape[0])

    def one_group(images):
        return jnp.stack([function(images[lane], *weights) for lane in range(lanes)])

    outputs = lax.map(one_group, _cut(images, group, lanes))
    return outputs.reshape(-1, *outputs.shape[3:])[: images.shape[0]]


def _forward(function, group, lanes, images, weights):
    return _in_lanes(function, group, lanes, images, weights), (images, weights)


def _backward(function, group, lanes, residuals, grad):
    images, weights = residuals
    lanes = min(lanes, images.shape[0])

    def lane(sums, images, grad):
        _, pullback = jax.vjp(function, images, *weights)
        images_grad, *weights_grads = pullback(grad)
        return jax.tree.map(jnp.add, sums, tuple(weights_grads)), images_grad

    def one_group(sums, group):
        images, grads = group
        parts = [lane(sums[index], images[index], grads[index]) for index in range(lanes)]
        return [part for part, _ in parts], jnp.stack([part for _, part in parts])

    start = [jax.tree.map(jnp.zeros_like, weights)] * lanes
    groups = (_cut(images, group, lanes), _cut(grad, group, lanes))
    sums, images_grad = lax.scan(one_group, start, groups)
    images_grad = images_grad.reshape(-1, *images.shape[1:])[: images.shape[0]]
    return images_grad, jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *sums)


_in_lanes.defvjp(_forward, _backward)
