"""Convolutions as matrix products, where `lax`'s are slow: gradients on a CPU, stacked weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

_WEIGHTS_ARE_STACKED = ContextVar("weights_are_stacked", default=False)


@contextmanager
def stacked_weights(model: nnx.Module) -> Iterator[None]:
    """Makes all convolutions of `model` matrix products, for a call whose weights `vmap` stacks.

    With a kernel for each seed, `vmap` turns a convolution into a grouped one, which GPUs are slow
    at, its gradients most of all (jax-ml/jax issue 13800); products it turns into batched products.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = _products_in_place_of_lax
    token = _WEIGHTS_ARE_STACKED.set(True)
    try:
        yield
    finally:
        _WEIGHTS_ARE_STACKED.reset(token)


def _products_in_place_of_lax(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Any, **others: Any
) -> Array:
    """Does what `nnx.Conv` asks of `lax.conv_general_dilated`, for the layers of this package."""
    is_plain = others["feature_group_count"] == 1 and set(others["rhs_dilation"]) == {1}
    if padding != "VALID" or strides[0] != strides[1] or not is_plain:
        raise ValueError("stacked weights need convolutions without padding, groups or dilation")
    return convolve_by_products(x, kernel, strides[0])


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels features"],
    stride: int,
) -> Float[Array, "batch new_height new_width features"]:
    """Convolves without padding, in the form to train and evaluate; the value is `lax`'s.

    With a stride, XLA's CPU backend computes the gradient to the input on one thread: 24 s for 64
    images and the large layer of `sabour_capsule.py`, where the sum over the rows of the kernel
    below, differentiated as it stands, takes 0.4 s; forwards it takes 0.4 of the time. Without a
    stride, it saves a third of the gradients in wide layers and a tenth forwards, for three times
    the memory (docs/log.md). An accelerator has good kernels of its own, and what is exported keeps
    the one operation that says what is meant.
    """
    if jax.default_backend() != "cpu" and not _WEIGHTS_ARE_STACKED.get():
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel.astype(x.dtype), (stride, stride), "VALID", dimension_numbers=layout
        )
    return convolve_by_products(x, kernel, stride)


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
