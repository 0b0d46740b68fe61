"""Two-dimensional convolutions, each in the form that is fastest where it runs.

`conv_general_dilated` is for `nnx.Conv(..., conv_general_dilated=conv_general_dilated)`: whatever
has no better form is `lax`'s own. `choose_plan` is the one place that decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from mnist_jax.models.layers import winograd
from mnist_jax.models.layers.lanes import num_lanes

# A batch whose tiles take no more is computed at once: XLA then keeps the forward pass's tiles for
# the gradient, and spreads each product over the cores.
WHOLE_BATCH_BYTES = 80 << 20
# Else of one lane: what its loop should hold in the cache, and transformed kernels above which
# lanes, each with a gradient of that size, lose to one.
GROUP_BYTES, LARGE_KERNEL_BYTES = 4 << 20, 8 << 20
MIN_CHANNELS = 48  # of Winograd's products, in and out; below, lax is as fast
MAX_KERNEL = 5  # above it a tile has too few outputs
LAYOUT = ("NHWC", "HWIO", "NHWC")
_IS_DIRECT = ContextVar("is_direct", default=False)


@contextmanager
def direct_forms() -> Iterator[None]:
    """Keeps convolutions traced within to sums of products, for comparisons to 1e-5 of the largest.

    Winograd's forms lose one or two digits a layer more. What is compiled stays as it was traced,
    so trace a function of its own within.
    """
    token = _IS_DIRECT.set(True)
    try:
        yield
    finally:
        _IS_DIRECT.reset(token)


def choose_plan(
    backend: str,
    x_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    stride: int,
    lanes: int,
) -> winograd.Plan | None:
    """Returns how to compute a float32 convolution without padding; measurements: docs/log.md.

    Args:
        backend: `cpu`, or an accelerator, which has good convolutions of its own.
        x_shape: `[batch, height, width, channels]`.
        kernel_shape: `[size, size, channels, features]`.
        stride: of both axes.
        lanes: that may run side by side.

    Returns:
        None where `lax` is as fast.
    """
    size, width_of_kernel, channels, features = kernel_shape
    r = -(-size // stride)  # of the kernel, once a stride is turned into channels
    is_covered = size == width_of_kernel and 3 <= r <= MAX_KERNEL and stride in (1, 2)
    if backend != "cpu" or not is_covered or min(x_shape) == 0:
        return None
    if min(channels, features) < MIN_CHANNELS:
        return None
    height, width = ((n - size) // stride + 1 for n in x_shape[1:3])
    if min(height, width) < 1:
        return None
    channels *= stride * stride

    def tiles_and_side(m: int) -> tuple[int, int]:
        return -(-height // m) * -(-width // m), m + r - 1

    def multiplications(m: int) -> int:
        """Of an image: the products of a step, and the transforms around them."""
        tiles, n = tiles_and_side(m)
        products = 3 * n**2 * channels * features
        return tiles * (products + 2 * n**4 * channels + 2 * n**2 * m**2 * features)

    outputs = min(range(2, winograd.MAX_TILE - r + 2), key=multiplications)
    tiles, n = tiles_and_side(outputs)
    image_bytes = 4 * tiles * n**2 * (channels + features)
    batch = x_shape[0]
    if batch * image_bytes <= WHOLE_BATCH_BYTES:
        return winograd.Plan(outputs, batch, 1)
    group_bytes = GROUP_BYTES
    if 4 * n**2 * channels * features > LARGE_KERNEL_BYTES:
        lanes, group_bytes = 1, WHOLE_BATCH_BYTES
    lanes = min(lanes, batch)
    most = max(1, group_bytes // image_bytes)
    group = -(-batch // (lanes * -(-batch // (lanes * most))))
    # A batch that divides evenly needs no copy; groups of half the size are worth it.
    even = [size for size in range(group, group // 2, -1) if batch % (lanes * size) == 0]
    return winograd.Plan(outputs, even[0] if even else group, lanes)


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels features"],
    *,
    strides: int = 1,
    padding: str = "VALID",
) -> Float[Array, "batch new_height new_width features"]:
    """Convolves as `lax.conv_general_dilated` does, to 1e-4 of the largest element.

    Under a mesh (`jax.set_mesh`) each device convolves its part of the batch.

    Args:
        x: images; those of another precision than float32 pass to `lax`, and so do those of a
            symbolic batch size.
        kernel: cast to the precision of the images.
        strides: of both axes.
        padding: `VALID` or `SAME`.

    Raises:
        ValueError: another padding.
    """
    kernel = kernel.astype(x.dtype)
    if padding not in ("VALID", "SAME"):
        raise ValueError(f"padding is {padding!r}; give 'VALID' or 'SAME'")
    if x.dtype != jnp.float32 or not isinstance(x.shape[0], int):
        # A batch of any size is being exported: the graph says what is meant, in one operation.
        return _by_lax(x, kernel, strides, padding)
    if padding == "SAME":
        amounts = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (strides, strides), "SAME")
        x = jnp.pad(x, ((0, 0), *amounts, (0, 0)))
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        lanes = 1 if not mesh.empty and mesh.manual_axes else num_lanes()
        return _in_its_form(x, kernel, strides, lanes)

    def on_each_part(x, kernel):
        return _in_its_form(x, kernel, strides, 1)

    # XLA does not split a loop over images by itself. Without the check, since `custom_vjp` rules
    # do not say over which devices they vary.
    batch, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    return jax.shard_map(on_each_part, in_specs=(batch, whole), out_specs=batch, check_vma=False)(
        x, kernel
    )


def conv_general_dilated(
    x: Array,
    kernel: Array,
    strides: Any,
    padding: Any,
    **others: Any,
) -> Array:
    """Does what `lax.conv_general_dilated` does, by `convolve` where that covers the arguments."""
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, others.get("dimension_numbers"))
    dilations = {*(others.get("lhs_dilation") or (1,)), *(others.get("rhs_dilation") or (1,))}
    groups = {others.get("feature_group_count", 1), others.get("batch_group_count", 1)}
    is_plain = (
        x.ndim == 4
        and numbers == lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT)
        and dilations == groups == {1}
        and len(set(strides)) == 1
        and others.get("preferred_element_type") in (None, x.dtype)
        and others.get("precision") is None
    )
    pads = padding
    if is_plain and not isinstance(padding, str) and all(tuple(pad) == (0, 0) for pad in padding):
        pads = "VALID"
    if is_plain and pads in ("VALID", "SAME"):
        return convolve(x, kernel, strides=strides[0], padding=pads)
    return lax.conv_general_dilated(x, kernel, strides, padding, **others)


def _in_its_form(x: Array, kernel: Array, stride: int, lanes: int) -> Array:
    plan = choose_plan(jax.default_backend(), x.shape, kernel.shape, stride, lanes)
    if plan is None or _IS_DIRECT.get():
        return _by_lax(x, kernel, stride, "VALID")
    if stride > 1:
        x, kernel = _space_to_depth(x, kernel, stride)
    return winograd.convolve(x, kernel, plan)


def _by_lax(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def _space_to_depth(x: Array, kernel: Array, stride: int) -> tuple[Array, Array]:
    """Turns a stride into channels: the phases of images and kernel side by side.

    A kernel of a size that is not a multiple of the stride gets zeros at its far ends.
    """
    batch, _, _, channels = x.shape
    size = kernel.shape[0]
    r = -(-size // stride)
    height, width = (stride * ((n - size) // stride + r) for n in x.shape[1:3])
    x = x[:, :height, :width]
    missing = ((0, height - x.shape[1]), (0, width - x.shape[2]))
    x = jnp.pad(x, ((0, 0), *missing, (0, 0)))
    x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // stride, width // stride, -1)
    more = r * stride - size
    kernel = jnp.pad(kernel, ((0, more), (0, more), (0, 0), (0, 0)))
    kernel = kernel.reshape(r, stride, r, stride, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return x, kernel.reshape(r, r, stride * stride * channels, -1)
