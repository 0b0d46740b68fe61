"""Two convolutions and a pool in one, where that trains faster: `mnist_cnn_v1` on a CPU.

The same function and the same gradients as its layers one after another (conv 3x3x32, ReLU,
conv 3x3x64, ReLU, max-pool 2), four times as fast there: XLA's convolutions on a CPU, their
gradients most of all, leave most of the machine idle, while its matrix products do not. So
everything here is a matrix product, the second convolution by Winograd's F(4x4, 3x3), which needs a
quarter of the multiplications. The gradient is written by hand, since the automatic one is slow.

The 24x24 outputs of the second convolution are cut into 6x6 tiles of 4x4. A tile needs 6x6 outputs
of the first convolution, and those 8x8 pixels. What neighbouring tiles share, each computes for
itself; that is cheaper than moving it. The images pass in small groups, whose tiles stay in the
cache, and the gradient computes the first convolution again instead of keeping it: memory fresh
from the system costs more than the products.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, has the matrices.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mnist_jax.models.layers.conv import conv_general_dilated
from mnist_jax.models.layers.each_part import on_each_part
from mnist_jax.models.layers.max_pool import max_pool_2x2

# What the form below is made for: the kernels of the two layers, and the side of the images.
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
    """Layer after layer: faster than `_forward` where no gradient is asked for."""

    def conv(x, kernel, bias):
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)
        return nnx.relu(y + bias.reshape(1, 1, 1, -1))

    return max_pool_2x2(conv(conv(x, kernel1, bias1), kernel2, bias2))


IMAGES_PER_GROUP = 8
TILES_PER_IMAGE = 6 * 6

_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
_KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
) / np.float32(24)
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32
)


def _pick_patches() -> np.ndarray:
    """The matrix that copies a tile's 8x8 pixels and a one to [3x3 taps and a one, 6x6 places]."""
    pick = np.zeros((10, 6, 6, 65), np.float32)
    for tap in range(9):
        for row in range(6):
            for column in range(6):
                pick[tap, row, column, 8 * (row + tap // 3) + column + tap % 3] = 1
    pick[9, :, :, 64] = 1
    return pick.reshape(360, 65)


_PATCHES = _pick_patches()
_TO_INPUT = np.kron(_INPUT, _INPUT)  # [36 frequencies, 36 places]
_TO_KERNEL = np.kron(_KERNEL, _KERNEL)  # [36 frequencies, 9 taps]
_TO_OUTPUT = (  # [2x2 places of a pooling window, 2x2 windows] x 36 frequencies
    np.kron(_OUTPUT, _OUTPUT).reshape(2, 2, 2, 2, 36).transpose(1, 3, 0, 2, 4).reshape(16, 36)
)


def _forward(
    images: Float[Array, "batch 28 28 1"],
    kernel1: Float[Array, "3 3 1 32"],
    bias1: Float[Array, "32"],
    kernel2: Float[Array, "3 3 32 64"],
    bias2: Float[Array, "64"],
) -> tuple[Float[Array, "batch 12 12 64"], Any]:
    """Returns max_pool(relu(conv(relu(conv(images))))), and what the gradient needs."""
    pixels = _cut_tiles(images[..., 0])
    weights1 = jnp.concatenate([kernel1.reshape(9, 32), bias1[None]])
    weights2 = (_TO_KERNEL @ kernel2.reshape(9, 32 * 64)).reshape(36, 32, 64)

    def forward_group(pixels):
        _, _, frequencies = _first_layer(pixels, weights1)
        products = jnp.einsum("ptc,pcf->ptf", frequencies, weights2)
        outputs = (_TO_OUTPUT @ products.reshape(36, -1)).reshape(4, 4, -1, 64)
        largest = functools.reduce(jnp.maximum, outputs)  # jnp.max is ten times slower
        # The first of equals, as `max_pool_2x2`; where ReLU is zero, none.
        winner = jnp.uint8(3)
        for place in (2, 1, 0):
            winner = jnp.where(outputs[place] == largest, jnp.uint8(place), winner)
        summed = largest + bias2[None, None]
        return jax.nn.relu(summed), jnp.where(summed > 0, winner, jnp.uint8(4))

    pooled, winner = jax.lax.map(forward_group, pixels)
    return _from_tiles(pooled, images.shape[0]), (pixels, weights1, weights2, winner)


def _backward(residuals: Any, grad: Float[Array, "batch 12 12 64"]) -> tuple[Any, ...]:
    """Returns the gradients to the arguments of `_forward`.

    A training asks for none to the images, and the compiler then leaves those products out.
    """
    pixels, weights1, weights2, winner = residuals
    batch = grad.shape[0]
    grad = _to_tiles(grad, winner.shape[0])

    def backward_group(sums, group):
        pixels, winner, grad = group
        patches, hidden, frequencies = _first_layer(pixels, weights1)
        tiles = pixels.shape[1]
        place = jnp.arange(4, dtype=jnp.uint8)[:, None, None, None]
        grad = jnp.where(winner[None] == place, grad[None], 0)
        grad = (_TO_OUTPUT.T @ grad.reshape(16, -1)).reshape(36, tiles, 64)
        grad2 = jnp.einsum("ptc,ptf->pcf", frequencies, grad)
        grad = jnp.einsum("ptf,pcf->ptc", grad, weights2)
        grad = (_TO_INPUT.T @ grad.reshape(36, -1)).reshape(hidden.shape)
        grad = jnp.where(hidden > 0, grad, 0)
        grad1 = patches @ grad
        grad_pixels = _PATCHES.T @ (weights1 @ grad.T).reshape(360, tiles)
        return (sums[0] + grad1, sums[1] + grad2), grad_pixels

    zeros = (jnp.zeros_like(weights1), jnp.zeros_like(weights2))
    (grad1, grad2), grad_pixels = jax.lax.scan(backward_group, zeros, (pixels, winner, grad))
    _, to_images = jax.vjp(_cut_tiles, jnp.zeros((batch, SIDE, SIDE), grad.dtype))
    (grad_images,) = to_images(grad_pixels)
    return (
        grad_images[..., None],
        grad1[:9].reshape(3, 3, 1, 32),
        grad1[9],
        (_TO_KERNEL.T @ grad2.reshape(36, -1)).reshape(3, 3, 32, 64),
        jnp.sum(jnp.where(winner < 4, grad, 0), axis=(0, 1, 2)),
    )


def _first_layer(pixels, weights):
    """Returns patches [10, 36 * tiles], what ReLU leaves [36 * tiles, 32] and its frequencies."""
    patches = (_PATCHES @ pixels).reshape(10, -1)
    hidden = jax.nn.relu(jnp.einsum("kt,kc->tc", patches, weights))
    frequencies = _TO_INPUT @ hidden.reshape(36, -1)
    return patches, hidden, frequencies.reshape(36, -1, 32)  # [36, tiles, 32]


def _cut_tiles(images):
    """[batch, 28, 28] -> [groups, 65, tiles]: a tile's 8x8 pixels, and a one for the bias."""
    images = jnp.pad(images, ((0, -images.shape[0] % IMAGES_PER_GROUP), (0, 0), (0, 0)))
    blocks = images.reshape(-1, IMAGES_PER_GROUP, 7, 4, 7, 4).transpose(0, 3, 5, 1, 2, 4)
    rows = jnp.concatenate([blocks[..., :6, :], blocks[..., 1:, :]], axis=1)
    tiles = jnp.concatenate([rows[..., :6], rows[..., 1:]], axis=2)
    tiles = tiles.reshape(tiles.shape[0], 64, IMAGES_PER_GROUP * TILES_PER_IMAGE)
    return jnp.pad(tiles, ((0, 0), (0, 1), (0, 0)), constant_values=1)


def _from_tiles(pooled, batch):
    """[groups, 2x2 windows, tiles, 64] -> [batch, 12, 12, 64]."""
    pooled = pooled.reshape(-1, 2, 2, IMAGES_PER_GROUP, 6, 6, 64).transpose(0, 3, 4, 1, 5, 2, 6)
    return pooled.reshape(-1, 12, 12, 64)[:batch]


def _to_tiles(grad, groups):
    """[batch, 12, 12, 64] -> [groups, 2x2 windows, tiles, 64]."""
    grad = jnp.pad(grad, ((0, groups * IMAGES_PER_GROUP - grad.shape[0]), (0, 0), (0, 0), (0, 0)))
    grad = grad.reshape(groups, IMAGES_PER_GROUP, 6, 2, 6, 2, 64).transpose(0, 3, 5, 1, 2, 4, 6)
    return grad.reshape(groups, 4, -1, 64)


_fused.defvjp(_forward, _backward)
