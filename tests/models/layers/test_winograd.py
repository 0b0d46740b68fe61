import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models.layers import winograd
from mnist_jax.models.layers.winograd import MAX_TILE, Plan
from tests.compiling import quick_jit


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (3, 5), (4, 5), (5, 2), (5, 4)])
def test_the_transforms_convolve_exactly_in_float64(m, r):
    to_input, to_kernel, to_output = winograd.matrices(m, r)
    random = np.random.default_rng(m * r)
    inputs, kernel = random.standard_normal(m + r - 1), random.standard_normal(r)
    found = to_output @ ((to_kernel @ kernel) * (to_input @ inputs))
    np.testing.assert_allclose(found, np.correlate(inputs, kernel, "valid"), atol=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1, 3), (2, 6), (3, 4), (4, 4), (5, 7)])
def test_paste_is_the_transpose_of_cut(m, n):
    side = m * (2 + -(-n // m))
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((2, side, side, 3)), jnp.float32)
    tiles = quick_jit(lambda images: winograd.cut(images, m, n))(images)
    grad = jnp.asarray(random.standard_normal(tiles.shape), jnp.float32)

    @quick_jit
    def both(images, grad):
        (expected,) = jax.vjp(lambda images: winograd.cut(images, m, n), images)[1](grad)
        return winograd.paste(grad, m), expected

    np.testing.assert_allclose(*both(images, grad), atol=1e-5)
    for row, column in ((0, 0), (1, 2)):  # a tile is where it should be
        here = np.asarray(images)[:, row * m : row * m + n, column * m : column * m + n]
        tile = np.asarray(tiles)[:, :, :, row, column].transpose(2, 0, 1, 3)
        np.testing.assert_array_equal(tile, here)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("group", [1, 2, 5])
def test_groups_and_lanes_do_not_change_the_result(group, lanes):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((5, 7, 8, 3)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((3, 3, 3, 4)), jnp.float32)

    def value_and_gradients(plan):
        value, pullback = jax.vjp(lambda x, kernel: winograd.convolve(x, kernel, plan), x, kernel)
        return value, *pullback(jnp.cos(value))

    compiled = quick_jit(value_and_gradients, static_argnums=0)
    expected, found = compiled(Plan(4, 5, 1)), compiled(Plan(4, group, lanes))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * float(jnp.abs(other).max()))


def test_the_largest_tile_keeps_four_digits():
    random = np.random.default_rng(0)
    for r in (3, 4, 5):
        x = random.standard_normal((1, 16, 16, 64)).astype(np.float32)
        kernel = random.standard_normal((r, r, 64, 8)).astype(np.float32)
        convolve = quick_jit(winograd.convolve, static_argnums=2)
        found = convolve(x, kernel, Plan(MAX_TILE - r + 1, 1, 1))
        windows = np.lib.stride_tricks.sliding_window_view(x, (r, r), axis=(1, 2))
        expected = np.einsum(
            "bhwcij,ijcf->bhwf", windows.astype(np.float64), kernel.astype(np.float64)
        )
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
