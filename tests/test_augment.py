import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mnist_jax.augment import _transform, shift_and_rotate


def blob():
    """Something smooth without symmetry, dark at the rim."""
    image = np.zeros((28, 28), np.float32)
    image[8:20, 10:14] = 1.0
    image[16:20, 10:22] = 0.7
    return ndimage.gaussian_filter(image, 1.0)


def test_a_shift_is_numpys_roll_where_nothing_leaves_the_frame():
    moved = _transform(jnp.array(blob()), jnp.array([3, -2]), jnp.float32(0))
    np.testing.assert_allclose(moved, np.roll(blob(), (3, -2), (0, 1)), atol=1e-6)


@pytest.mark.parametrize("degrees", [-20.0, 7.5, 90.0])
def test_a_rotation_is_scipys(degrees):
    turned = _transform(jnp.array(blob()), jnp.array([0, 0]), jnp.deg2rad(jnp.float32(degrees)))
    expected = ndimage.rotate(blob(), -degrees, reshape=False, order=1)
    expected_other_way = ndimage.rotate(blob(), degrees, reshape=False, order=1)
    assert np.abs(turned - expected_other_way).max() > 0.1  # the directions can be told apart
    np.testing.assert_allclose(turned, expected, atol=1e-4)


def test_nothing_asked_for_changes_nothing():
    images = jnp.array(blob())[None, :, :, None]
    same = shift_and_rotate(jax.random.key(0), images, 0, 0.0)
    np.testing.assert_allclose(same, images, atol=1e-6)


def test_shifts_stay_within_the_limit_and_reach_it_on_every_side():
    images = jnp.tile(jnp.array(blob())[None, :, :, None], (400, 1, 1, 1))
    moved = np.asarray(shift_and_rotate(jax.random.key(1), images, 2, 0.0))[..., 0]
    before = np.array(ndimage.center_of_mass(blob()))
    shifts = np.array([ndimage.center_of_mass(image) for image in moved]) - before
    np.testing.assert_allclose(shifts, shifts.round(), atol=1e-3)
    assert {tuple(shift) for shift in shifts.round().astype(int)} == {
        (row, column) for row in range(-2, 3) for column in range(-2, 3)
    }


def test_the_key_decides():
    images = jnp.array(blob())[None, :, :, None]
    first, again, other = (
        shift_and_rotate(jax.random.key(seed), images, 3, 30.0) for seed in (5, 5, 6)
    )
    assert (first == again).all()
    assert not (first == other).all()
