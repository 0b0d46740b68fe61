import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from mnist_jax.training.augment import (
    _amounts,
    _erase,
    _margin_shift,
    _rotate,
    _rotate_or_not,
    _shift_within_frame,
    _squeeze,
    _squeezing_matrices,
    _transform,
    augment_as_byerly,
    shift_and_rotate,
)
from tests.compiling import quick_jit


def blob():
    """Something smooth without symmetry, dark at the rim."""
    image = np.zeros((28, 28), np.float32)
    image[8:20, 10:14] = 1.0
    image[16:20, 10:22] = 0.7
    return ndimage.gaussian_filter(image, 1.0)


transform = quick_jit(_transform)
moved_and_turned = quick_jit(shift_and_rotate, static_argnums=(2, 3))


def test_a_shift_is_numpys_roll_where_nothing_leaves_the_frame():
    moved = transform(blob(), np.array([3, -2]), np.float32(0))
    np.testing.assert_allclose(moved, np.roll(blob(), (3, -2), (0, 1)), atol=1e-6)


@pytest.mark.parametrize("degrees", [-20.0, 7.5, 90.0])
def test_a_rotation_is_scipys(degrees):
    turned = transform(blob(), np.array([0, 0]), np.float32(np.radians(degrees)))
    expected = ndimage.rotate(blob(), -degrees, reshape=False, order=1)
    expected_other_way = ndimage.rotate(blob(), degrees, reshape=False, order=1)
    assert np.abs(turned - expected_other_way).max() > 0.1  # the directions can be told apart
    np.testing.assert_allclose(turned, expected, atol=1e-4)


def test_nothing_asked_for_changes_nothing():
    images = blob()[None, :, :, None]
    same = moved_and_turned(jax.random.key(0), images, 0, 0.0)
    np.testing.assert_allclose(same, images, atol=1e-6)


def test_shifts_stay_within_the_limit_and_reach_it_on_every_side():
    images = np.tile(blob()[None, :, :, None], (400, 1, 1, 1))
    moved = np.asarray(moved_and_turned(jax.random.key(1), images, 2, 0.0))[..., 0]
    before = np.array(ndimage.center_of_mass(blob()))
    shifts = np.array([ndimage.center_of_mass(image) for image in moved]) - before
    np.testing.assert_allclose(shifts, shifts.round(), atol=1e-3)
    assert {tuple(shift) for shift in shifts.round().astype(int)} == {
        (row, column) for row in range(-2, 3) for column in range(-2, 3)
    }


def test_the_key_decides():
    images = blob()[None, :, :, None]
    first, again, other = (
        moved_and_turned(jax.random.key(seed), images, 3, 30.0) for seed in (5, 5, 6)
    )
    assert (first == again).all()
    assert not (first == other).all()


augment, rotate, margin_shift = map(quick_jit, (augment_as_byerly, _rotate, _margin_shift))


def figure():
    """Something without symmetry that nearly fills the frame's upper left."""
    image = np.zeros((28, 28), np.float32)
    image[5:20, 6:9] = 1.0
    image[17:20, 6:21] = 0.7
    return ndimage.gaussian_filter(image, 0.7) * (ndimage.maximum_filter(image, 3) > 0)


@pytest.mark.parametrize("degrees", [-30.0, 7.5, 90.0])
def test_rotation_is_that_of_opencvs_matrix_about_pixel_14(degrees):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    # getRotationMatrix2D((14, 14), degrees, 1), on (x, y, 1); warpAffine applies its inverse.
    forwards = np.array(
        [
            [cosine, sine, (1 - cosine) * 14 - sine * 14],
            [-sine, cosine, sine * 14 + (1 - cosine) * 14],
            [0, 0, 1],
        ]
    )
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # SciPy has (row, column)
    backwards = swap @ np.linalg.inv(forwards) @ swap
    expected = ndimage.affine_transform(figure(), backwards, order=1, mode="grid-constant")
    turned = rotate(figure(), np.float32(np.radians(degrees)))
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_a_positive_angle_turns_counter_clockwise():
    dot = np.zeros((28, 28), np.float32)
    dot[14, 20] = 1  # to the right of the centre
    turned = rotate(dot, np.float32(np.pi / 2))
    assert np.unravel_index(turned.argmax(), (28, 28)) == (8, 14)  # above it


def test_half_of_the_images_are_not_rotated_and_angles_are_normal_within_30_degrees():
    keys = jax.random.split(jax.random.key(0), 2000)
    turned = np.asarray(quick_jit(jax.vmap(_rotate_or_not, (0, None)))(keys, figure()))
    share_same = (turned == figure()[None]).all(axis=(1, 2)).mean()
    assert 0.45 < share_same < 0.55
    amounts = np.asarray(quick_jit(jax.vmap(_amounts))(keys))
    assert np.abs(amounts).max() <= 0.9999
    assert amounts.std() == pytest.approx(0.33, rel=0.05)
    assert abs(amounts.mean()) < 0.02


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 14),
    st.integers(1, 14),
    # XLA takes what is below the smallest normal number for zero.
    st.floats(0, float(np.float32(0.9999)), width=32, allow_subnormal=False),
    st.booleans(),
)
def test_a_shift_is_a_part_of_the_margin(first, length, amount, is_towards_end):
    has_ink = np.zeros(28, bool)
    has_ink[first : first + length] = True
    before, after = first, 28 - first - length
    # As the code has it: floor of the negative amount one way, of one pixel more the other way.
    part = (
        np.float32(amount) * np.float32(1 + after)
        if is_towards_end
        else -np.float32(amount) * np.float32(before)
    )
    shift = margin_shift(has_ink, np.float32(amount), np.bool(is_towards_end))
    assert int(shift) == np.floor(part)
    assert -before <= int(shift) <= after


def test_a_shift_loses_no_ink_and_reaches_every_margin():
    keys = jax.random.split(jax.random.key(1), 3000)
    shifted = quick_jit(jax.vmap(_shift_within_frame, (0, None)))(keys, figure())
    rows, columns = np.nonzero(figure())
    moves = set()
    for image in np.asarray(shifted):
        new_rows, new_columns = np.nonzero(image)
        down, right = new_rows.min() - rows.min(), new_columns.min() - columns.min()
        moves.add((down, right))
        moved = np.zeros((28, 28), np.float32)
        moved[rows + down, columns + right] = figure()[rows, columns]
        np.testing.assert_array_equal(image, moved)
    assert {down for down, _ in moves} == set(range(-rows.min(), 28 - rows.max()))
    assert {right for _, right in moves} == set(range(-columns.min(), 28 - columns.max()))


def test_an_empty_image_stays_empty():
    empty = np.zeros((2, 28, 28, 1), np.float32)
    assert not np.asarray(augment(jax.random.key(0), empty)).any()


@functools.cache
def squeezing_matrices():
    return np.asarray(quick_jit(_squeezing_matrices)())


@pytest.mark.parametrize("num_lost", range(1, 8))
def test_squeezing_is_pillows_lanczos(num_lost):
    image = figure()
    narrow = Image.fromarray(image).resize((28 - num_lost, 28), Image.Resampling.LANCZOS)
    for extra_offset in (0, 1):
        left = num_lost // 2 + extra_offset
        expected = np.zeros((28, 28), np.float32)
        expected[:, left : left + 28 - num_lost] = np.asarray(narrow)
        squeezed = image @ squeezing_matrices()[num_lost - 1, extra_offset]
        np.testing.assert_allclose(squeezed, expected, atol=2e-6)


def test_a_squeeze_is_one_of_the_fourteen_and_mostly_without_extra_offset():
    keys = jax.random.split(jax.random.key(2), 2000)
    squeezed = np.asarray(quick_jit(jax.vmap(_squeeze, (0, None)))(keys, figure()))
    candidates = (figure()[None, None] @ squeezing_matrices()).reshape(14, -1)
    distances = np.abs(squeezed.reshape(2000, 1, -1) - candidates[None]).max(axis=-1)
    chosen = distances.argmin(axis=1)
    assert distances.min(axis=1).max() < 1e-5
    assert set(chosen) == set(range(14))
    # |g| >= 0.5 for a normal g of deviation 0.33: 12.97 %.
    assert (chosen % 2).mean() == pytest.approx(0.13, abs=0.025)


def test_erasing_takes_sixteen_pixels_in_a_square_within_4_to_25():
    keys = jax.random.split(jax.random.key(3), 3000)
    ones = np.ones((28, 28), np.float32)
    erased = np.asarray(quick_jit(jax.vmap(_erase, (0, None)))(keys, ones))
    corners = set()
    for image in erased:
        rows, columns = np.nonzero(image == 0)
        assert len(rows) == 16
        assert np.ptp(rows) == np.ptp(columns) == 3
        corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) > 355  # 3,000 draws of 361 miss 0.1 of them on average
    assert {row for row, _ in corners} == {column for _, column in corners} == set(range(4, 23))


def test_the_key_decides_and_an_image_is_changed_alike_in_whatever_company():
    image = figure()[None, :, :, None]
    both, with_black = (np.concatenate([image, x]) for x in (image, np.zeros_like(image)))
    first, again, other = (
        np.asarray(augment(jax.random.key(seed), images))
        for seed, images in ((5, both), (5, with_black), (6, both))
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - first[1]).max() > 0.1
    assert np.abs(first[0] - other[0]).max() > 0.1
