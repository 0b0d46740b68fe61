"""What makes networks fast: forms of layers, chosen here by backend and shapes.

A network asks for them with `conv_general_dilated=layers.conv_general_dilated`, which `nnx.Conv`
takes, and with the functions and modules below, which are plain layers to whoever reads it. What is
exported is `plain`: the one operation that says what is meant.
"""

from flax import nnx
from jax import lax

from mnist_jax.models.layers.conv_conv_pool import conv_conv_pool
from mnist_jax.models.layers.convolution import conv_general_dilated
from mnist_jax.models.layers.dropout import Dropout
from mnist_jax.models.layers.max_pool import max_pool_2x2

__all__ = ["Dropout", "conv_conv_pool", "conv_general_dilated", "max_pool_2x2", "plain"]


def plain(model: nnx.Module) -> nnx.Module:
    """Returns the network with every convolution as `lax` has it; the weights are shared."""
    copy = nnx.merge(*nnx.split(model))
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = lax.conv_general_dilated
    return copy
