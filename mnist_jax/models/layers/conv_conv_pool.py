"""Two convolutions and a pool in one, where that trains faster."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mnist_jax.models.layers import winograd
from mnist_jax.models.layers.convolution import conv_general_dilated
from mnist_jax.models.layers.each_part import on_each_part
from mnist_jax.models.layers.max_pool import max_pool_2x2

# What `winograd` is made for: the kernels of the two layers, and the side of the images.
KERNELS, SIDE = ((3, 3, 1, 32), (3, 3, 32, 64)), 28


def conv_conv_pool(
    x: Float[Array, "batch side side channels"], conv1: nnx.Conv, conv2: nnx.Conv
) -> Float[Array, "batch new_side new_side features"]:
    """Returns `max_pool_2x2(relu(conv2(relu(conv1(x)))))`, the layers without padding or stride."""
    if not _is_covered(x, conv1, conv2):
        return max_pool_2x2(nnx.relu(conv2(nnx.relu(conv1(x)))))
    layers = (conv1.kernel, conv1.bias, conv2.kernel, conv2.bias)
    kernel1, bias1, kernel2, bias2 = (layer[...] for layer in layers)  # pyright: ignore
    return on_each_part(_fused, x, kernel1, bias1, kernel2, bias2)


def _is_covered(x: Array, conv1: nnx.Conv, conv2: nnx.Conv) -> bool:
    kernels = tuple(conv.kernel[...].shape for conv in (conv1, conv2))
    is_fast = all(conv.conv_general_dilated is conv_general_dilated for conv in (conv1, conv2))
    is_float32 = all(jnp.dtype(conv.dtype or x.dtype) == jnp.float32 for conv in (conv1, conv2))
    is_known = kernels == KERNELS and x.shape[1:] == (SIDE, SIDE, 1)
    return jax.default_backend() == "cpu" and is_fast and is_float32 and is_known


@jax.custom_vjp
def _fused(x, kernel1, bias1, kernel2, bias2):
    """Layer after layer: faster than `winograd` where no gradient is asked for."""

    def conv(x, kernel, bias):
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)
        return nnx.relu(y + bias.reshape(1, 1, 1, -1))

    return max_pool_2x2(conv(conv(x, kernel1, bias1), kernel2, bias2))


_fused.defvjp(winograd.forward, winograd.backward)
