"""Convolutions by Winograd's minimal filtering: fewer products, all of them of matrices.

F(m x m, r x r) computes m x m outputs of a kernel of r x r from a tile of n x n inputs, n = m+r-1,
with n^2 products for each pair of channels where the sum over the kernel needs m^2 r^2. Tile,
kernel and gradient each pass through a linear transform; between them stands one product of
matrices, [tiles, channels] by [channels, features], for each of the n^2 frequencies. A transform of
both axes at once is one product with a Kronecker square, which is faster on a CPU than its two
factors one after the other.

Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Where the polynomials are evaluated, beside infinity: small and symmetric, so that few digits are
# lost. With seven of them (n = 8) float32 loses one to two digits; with more it loses three.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
MAX_TILE = len(POINTS) + 1


class Plan(NamedTuple):
    """How to compute: sizes alone, so that it is an argument that needs no tracing.

    Attributes:
        outputs: m, the side of a tile of outputs.
        group: images a lane takes at a time.
        lanes: computed side by side.
    """

    outputs: int
    group: int
    lanes: int


@functools.lru_cache
def matrices(m: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the transforms of one axis, for input [n, n], kernel [n, r] and output [m, n].

    float64. Each row of the input's is scaled to about 1 by a power of two, which loses nothing.
    """
    n = m + r - 1
    points = np.array(POINTS[: n - 1])
    to_input, to_kernel, to_output = np.zeros((n, n)), np.zeros((n, r)), np.zeros((m, n))
    for index, point in enumerate(points):
        others = np.delete(points, index)
        to_input[index, :-1] = np.poly(others)[::-1]
        to_kernel[index] = point ** np.arange(r) / np.prod(point - others)
        to_output[:, index] = point ** np.arange(m)
    to_input[-1] = np.poly(points)[::-1]
    to_kernel[-1, -1] = to_output[-1, -1] = 1
    scale = 2 ** np.round(np.log2(np.abs(to_input).max(axis=1, keepdims=True)))
    return to_input / scale, to_kernel * scale, to_output


@functools.lru_cache
def transforms(m: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the same for both axes: [n^2, n^2], [n^2, r^2] and [m^2, n^2], float32."""
    to_input, to_kernel, to_output = (
        np.kron(matrix, matrix).astype(np.float32) for matrix in matrices(m, r)
    )
    return to_input, to_kernel, to_output


def cut(
    images: Float[Array, "images height width channels"], m: int, n: int
) -> Float[Array, "n n images rows columns channels"]:
    """Cuts images into tiles of n x n, one every m pixels; height and width are multiples of m."""
    images_, height, width, channels = images.shape
    blocks = images.reshape(images_, height // m, m, width // m, m, channels)
    blocks = blocks.transpose(2, 4, 0, 1, 3, 5)
    reach = -(-n // m)  # blocks that a tile reaches over
    rows, columns = height // m - reach + 1, width // m - reach + 1
    sizes = [min(m, n - m * block) for block in range(reach)]
    blocks = jnp.concatenate(
        [blocks[:size, :, :, block : block + rows] for block, size in enumerate(sizes)], axis=0
    )
    return jnp.concatenate(
        [blocks[:, :size, :, :, block : block + columns] for block, size in enumerate(sizes)],
        axis=1,
    )


def paste(
    tiles: Float[Array, "n n images rows columns channels"], m: int
) -> Float[Array, "images height width channels"]:
    """Adds up tiles where they came from: the transpose of `cut`, in gather form."""
    reach = -(-tiles.shape[0] // m)

    def blocks(tiles, block, axis):
        part = lax.slice_in_dim(tiles, m * block, min(m * (block + 1), tiles.shape[axis]), 1, axis)
        padding = [(0, 0)] * 6
        padding[axis] = (0, m - part.shape[axis])
        padding[axis + 3] = (block, reach - 1 - block)
        return jnp.pad(part, padding)

    for axis in (1, 0):
        parts = [blocks(tiles, block, axis) for block in range(reach)]
        tiles = functools.reduce(jnp.add, parts)
    _, _, images, rows, columns, channels = tiles.shape
    tiles = tiles.transpose(2, 3, 0, 4, 1, 5)
    return tiles.reshape(images, rows * m, columns * m, channels)


class _Sizes(NamedTuple):
    """The sizes that follow from those of images, kernel and plan."""

    r: int
    n: int
    height: int  # of the outputs
    width: int
    rows: int  # of tiles
    columns: int
    padded: tuple[int, int]  # inputs that the tiles reach over

    @classmethod
    def of(cls, x_shape: tuple[int, ...], r: int, m: int) -> "_Sizes":
        n = m + r - 1
        height, width = x_shape[1] - r + 1, x_shape[2] - r + 1
        rows, columns = -(-height // m), -(-width // m)
        more = -(-n // m) - 1
        return cls(r, n, height, width, rows, columns, ((rows + more) * m, (columns + more) * m))


def _in_groups(images: Array, plan: Plan) -> Array:
    """Cuts the batch to [groups, lanes, group, ...], filled up with zeros."""
    missing = -images.shape[0] % (plan.lanes * plan.group)
    if missing:  # else it is not a copy
        images = jnp.pad(images, ((0, missing), *[(0, 0)] * 3))
    return images.reshape(-1, plan.lanes, plan.group, *images.shape[1:])


def _fit(images: Array, height: int, width: int) -> Array:
    """Cuts off what is too much at the far ends, and fills up with zeros what is missing."""
    images = images[:, :height, :width]
    missing = ((0, height - images.shape[1]), (0, width - images.shape[2]))
    return jnp.pad(images, ((0, 0), *missing, (0, 0)))


def _frequencies(
    images: Array, plan: Plan, padded: tuple[int, int], n: int, to_input: np.ndarray
) -> Array:
    """Transforms the tiles of a group: [n^2, tiles, channels]."""
    tiles = cut(_fit(images, *padded), plan.outputs, n).reshape(n * n, -1)
    return jnp.matmul(to_input, tiles).reshape(n * n, -1, images.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "r r channels features"],
    plan: Plan,
) -> Float[Array, "batch new_height new_width features"]:
    """Convolves with stride 1 and without padding; float32."""
    return _forward(x, kernel, plan)[0]


def _forward(x, kernel, plan):
    m = plan.outputs
    r, _, channels, features = kernel.shape
    to_input, to_kernel, to_output = transforms(m, r)
    sizes = _Sizes.of(x.shape, r, m)
    weights = (to_kernel @ kernel.reshape(r * r, -1)).reshape(-1, channels, features)

    def lane(images):
        frequencies = _frequencies(images, plan, sizes.padded, sizes.n, to_input)
        products = jnp.einsum("ptc,pcf->ptf", frequencies, weights)
        outputs = jnp.matmul(to_output, products.reshape(sizes.n**2, -1))
        outputs = outputs.reshape(m, m, plan.group, sizes.rows, sizes.columns, features)
        return _fit(paste(outputs, m), sizes.height, sizes.width)

    def group(images):
        return jnp.stack([lane(images[index]) for index in range(plan.lanes)])

    outputs = lax.map(group, _in_groups(x, plan))
    outputs = outputs.reshape(-1, sizes.height, sizes.width, features)
    return outputs[: x.shape[0]], (x, weights)


def _backward(plan, residuals, grad):
    x, weights = residuals
    m = plan.outputs
    n = round(len(weights) ** 0.5)
    r = n - m + 1
    to_input, to_kernel, to_output = transforms(m, r)
    sizes = _Sizes.of(x.shape, r, m)
    channels = x.shape[-1]

    def lane(weights_grad, images, grad):
        # The frequencies again: computing them costs less than memory fresh from the system.
        frequencies = _frequencies(images, plan, sizes.padded, n, to_input)
        grad = cut(_fit(grad, sizes.rows * m, sizes.columns * m), m, m)
        grad = jnp.matmul(to_output.T, grad.reshape(m * m, -1)).reshape(n * n, -1, grad.shape[-1])
        weights_grad += jnp.einsum("ptc,ptf->pcf", frequencies, grad)
        grad = jnp.einsum("ptf,pcf->ptc", grad, weights)
        grad = jnp.matmul(to_input.T, grad.reshape(n * n, -1)).reshape(
            n, n, plan.group, sizes.rows, sizes.columns, channels
        )
        return weights_grad, _fit(paste(grad, m), *x.shape[1:3])

    def group(weights_grads, images_and_grads):
        images, grads = images_and_grads
        lanes = [
            lane(weights_grad, images[index], grads[index])
            for index, weights_grad in enumerate(weights_grads)
        ]
        return [first for first, _ in lanes], jnp.stack([second for _, second in lanes])

    start = [jnp.zeros_like(weights)] * plan.lanes
    groups = (_in_groups(x, plan), _in_groups(grad, plan))
    weights_grads, x_grad = lax.scan(group, start, groups)
    x_grad = x_grad.reshape(-1, *x.shape[1:])[: x.shape[0]]
    kernel_grad = to_kernel.T @ functools.reduce(jnp.add, weights_grads).reshape(n * n, -1)
    return x_grad, kernel_grad.reshape(r, r, channels, -1)


convolve.defvjp(_forward, _backward)
