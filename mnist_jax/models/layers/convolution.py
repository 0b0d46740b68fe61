"""Convolutions as matrix products, where XLA's own are slow on a CPU."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv_general_dilated(
    lhs: Array, rhs: Array, window_strides: Any, padding: Any, **others: Any
) -> Array:
    """Computes `lax.conv_general_dilated`, in the form that is fastest here; for `nnx.Conv`.

    A layer has it as `nnx.Conv(..., conv_general_dilated=layers.conv_general_dilated)`. On an
    accelerator, and for what no form here covers, it is `lax`'s own.
    """
    is_plain = others["feature_group_count"] == 1 and lhs.ndim == 4
    is_plain &= set(others["lhs_dilation"]) == set(others["rhs_dilation"]) == {1}
    is_covered = is_plain and padding == "VALID" and len(set(window_strides)) == 1
    if jax.default_backend() != "cpu" or not is_covered:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **others)
    return convolve(lhs, rhs, window_strides[0])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels features"],
    stride: int,
) -> Float[Array, "batch new_height new_width features"]:
    """Convolves without padding on a CPU; the value is `lax`'s, but for rounding.

    With a stride, XLA's CPU backend computes the gradient to the input on one thread: 24 s for 64
    images and the large layer of `sabour.py`, where the products below take 0.4 s; forwards they
    take 0.4 of the time. Without a stride, they save a third of the gradients in wide layers, for
    three times the memory (docs/log.md); there, what is not differentiated stays with `lax`.
    """
    if stride > 1:
        return convolve_by_products(x, kernel, stride)
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, Any]:
    return jax.vjp(lambda x, kernel: convolve_by_products(x, kernel, stride), x, kernel)


def _backward(stride: int, backward: Any, grad: Array) -> tuple[Array, Array]:
    return backward(grad)


convolve.defvjp(_forward, _backward)


def convolve_by_products(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels features"],
    stride: int,
) -> Float[Array, "batch new_height new_width features"]:
    """Convolves without padding: a product for each row of the kernel, and their sum."""
    size, _, channels, features = kernel.shape
    rows = kernel.astype(x.dtype).reshape(size, size * channels, features)
    height_span, width_span = ((n - size) // stride * stride + 1 for n in x.shape[1:3])
    shifted = [x[:, :, column : column + width_span : stride] for column in range(size)]
    windows = jnp.concatenate(shifted, axis=-1)  # [batch, height, new_width, size * channels]
    products = [
        jnp.matmul(
            windows[:, row : row + height_span : stride],
            rows[row],
            preferred_element_type="float32",
        )
        for row in range(size)
    ]
    return sum(products[1:], products[0])
