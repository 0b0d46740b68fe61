"""Layers in the forms that a CPU is fast at, for any network; elsewhere they are JAX's own.

Each computes what the plain layer of `lax` or `nnx` computes, to float32 rounding, with gradients
written by hand where the automatic ones are slow. What they share: nearly all arithmetic is in
products of matrices, which XLA spreads over the cores, and a batch that takes too much memory at
once passes in groups.

Every `nnx.Conv` of a network that is built here gets its form from `conv.choose_plan`: `quicken`.
What is exported is `plain`: the one operation that says what is meant.
"""

from typing import Any

from flax import nnx
from jax import lax

from mnist_jax.models.layers.conv import conv_general_dilated, direct_forms
from mnist_jax.models.layers.conv_conv_pool import conv_conv_pool
from mnist_jax.models.layers.dropout import Dropout
from mnist_jax.models.layers.max_pool import max_pool_2x2
from mnist_jax.models.layers.norm import BatchNorm

__all__ = [
    "BatchNorm",
    "Dropout",
    "compute_in",
    "conv_conv_pool",
    "direct_forms",
    "max_pool_2x2",
    "plain",
    "quicken",
]


def quicken(model: nnx.Module) -> None:
    """Gives every convolution of a network the form that is fastest where it runs."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Conv) and module.conv_general_dilated is lax.conv_general_dilated:
            module.conv_general_dilated = conv_general_dilated


def plain(model: nnx.Module) -> nnx.Module:
    """Returns the network with every convolution as `lax` has it; the weights are shared."""
    copy = nnx.merge(*nnx.split(model))
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = lax.conv_general_dilated
    return copy


def compute_in(model: nnx.Module, dtype: str) -> int:
    """Has every layer that is not told its own dtype compute in `dtype`; returns how many."""
    modules: list[Any] = [module for _, module in nnx.iter_modules(model)]
    layers = [module for module in modules if getattr(module, "dtype", 0) is None]
    for layer in layers:
        layer.dtype = dtype
    return len(layers)
