import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mnist_jax.errors import UserError
from mnist_jax.training import photos
from mnist_jax.training.augment import Amounts, make_augment, shift_and_rotate
from tests.compiling import quick_jit

SHAPES = [(28, 28, 1), (32, 32, 3), (17, 17, 3)]


def pictures(shape, count=6):
    return np.random.default_rng(0).random((count, *shape)).astype(np.float32)


def compiled(name):
    """A change as a function of key, images and a fixed amount."""
    return quick_jit(getattr(photos, name), static_argnums=2)


CHANGES = {
    "flip": lambda key, images: photos.flip(key, images),
    "brightness": lambda key, images: photos.brightness(key, images, 0.4),
    "contrast": lambda key, images: photos.contrast(key, images, 0.4),
    "saturation": lambda key, images: photos.saturation(key, images, 0.4),
    "cutout": lambda key, images: photos.cutout(key, images, 5),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CHANGES)
def test_an_image_is_changed_by_its_own_draw_alone_and_the_key_decides(name, shape):
    change, images = quick_jit(CHANGES[name]), pictures(shape, 40)
    first, again, other = (np.asarray(change(jax.random.key(s), images)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    # Other company, the same change.
    company = np.concatenate([images[:3], np.zeros_like(images[3:])])
    np.testing.assert_array_equal(change(jax.random.key(0), company)[:3], first[:3])
    if name != "saturation" or shape[2] == 3:
        assert not np.array_equal(first, other)
        alike = np.tile(images[:1], (40, 1, 1, 1))
        assert len(np.unique(np.asarray(change(jax.random.key(0), alike)), axis=0)) > 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mirroring_twice_is_mirroring_never_and_half_are_mirrored(shape):
    key, images, flip = jax.random.key(0), pictures(shape, 400), quick_jit(photos.flip)
    once = flip(key, images)
    np.testing.assert_array_equal(flip(key, once), images)
    once = np.asarray(once)
    is_mirrored = (once == images[:, :, ::-1]).all(axis=(1, 2, 3))
    is_same = (once == images).all(axis=(1, 2, 3))
    assert (is_mirrored ^ is_same).all() and 160 < is_mirrored.sum() < 240


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_amount_of_0_is_the_identity(name, shape):
    images = pictures(shape)
    same = compiled(name)(jax.random.key(0), images, 0.0)
    np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_changes_of_colour_are_pillows(name, enhancer):
    images, key = pictures((32, 32, 3), 8), jax.random.key(3)
    levels = (images * 255).round().astype(np.uint8)
    factors = np.asarray(photos._factors(key, jnp.asarray(images), 0.6)).ravel()
    assert factors.min() < 0.9 and factors.max() > 1.1
    changed = compiled(name)(key, np.float32(levels) / 255, 0.6)
    for image, factor, found in zip(levels, factors, np.asarray(changed), strict=True):
        expected = enhancer(Image.fromarray(image)).enhance(float(factor))
        # Pillow rounds the grey, its mean and the result to whole levels.
        np.testing.assert_allclose(found * 255, np.asarray(expected), atol=1.6)


def test_saturation_leaves_grey_pixels_and_brightness_the_ratios():
    grey, key = np.tile(pictures((16, 16, 1)), (1, 1, 1, 3)), jax.random.key(0)
    np.testing.assert_allclose(compiled("saturation")(key, grey, 0.9), grey, atol=1e-6)
    dark = pictures((16, 16, 3)) / 4
    ratio = np.asarray(compiled("brightness")(key, dark, 0.5)) / dark
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] * np.ones_like(ratio), rtol=1e-5)


@pytest.mark.parametrize(("side", "size"), [(28, 1), (28, 5), (17, 17), (32, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_blackens_a_whole_square_and_reaches_every_place(side, size, channels):
    images = np.ones((1500, side, side, channels), np.float32)
    cut = np.asarray(compiled("cutout")(jax.random.key(0), images, size)) == 0
    assert (cut == cut[..., :1]).all()
    assert (cut[..., 0].sum(axis=(1, 2)) == size**2).all()
    rows, columns = cut[..., 0].any(axis=2), cut[..., 0].any(axis=1)
    assert (rows.sum(axis=1) == size).all() and (columns.sum(axis=1) == size).all()
    tops, lefts = rows.argmax(axis=1), columns.argmax(axis=1)
    assert {*tops.tolist()} == {*lefts.tolist()} == set(range(side - size + 1))


def test_nothing_is_done_unless_asked_for_and_shifts_alone_are_as_they_were():
    assert make_augment("shift_and_rotate", (28, 28, 1), Amounts()) is None
    images, key = pictures((28, 28, 1)), jax.random.key(7)
    augment = make_augment("shift_and_rotate", (28, 28, 1), Amounts(shift_px=2))
    assert augment is not None
    expected = quick_jit(lambda key, images: shift_and_rotate(key, images, 2, 0.0))
    np.testing.assert_array_equal(quick_jit(augment)(key, images), expected(key, images))


def test_all_of_it_together_is_jittable_for_any_shape():
    amounts = Amounts(2, 10.0, True, 6, 0.3, 0.3, 0.3)
    augment = make_augment("shift_and_rotate", (17, 17, 3), amounts)
    assert augment is not None
    images = pictures((17, 17, 3))
    changed = np.asarray(quick_jit(augment)(jax.random.key(0), images))
    assert changed.shape == images.shape and np.isfinite(changed).all()
    assert ((changed == 0).all(axis=-1).sum(axis=(1, 2)) >= 36).all()


def test_the_factor_of_brightness_says_nothing_of_that_of_contrast():
    augment = make_augment("shift_and_rotate", (1, 2, 1), Amounts(brightness=0.5, contrast=0.5))
    assert augment is not None
    images = np.tile(np.float32([0.4, 0.6]).reshape(1, 1, 2, 1), (500, 1, 1, 1))
    dark, light = np.asarray(quick_jit(augment)(jax.random.key(0), images)).reshape(-1, 2).T
    brightness, contrast = dark + light, (light - dark) / (dark + light)  # to a factor each
    assert np.ptp(brightness) > 0.9 and np.ptp(contrast) > 0.15
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("amounts", "shape", "message"),
    [
        (Amounts(cutout_px=29), (28, 28, 1), "augment_cutout_px is 29, but images have 28x28"),
        (Amounts(saturation=0.5), (28, 28, 1), "augment_saturation is 0.5, but the images are gr"),
    ],
)
def test_what_images_cannot_take_is_refused_in_one_line(amounts, shape, message):
    with pytest.raises(UserError) as raised:
        make_augment("shift_and_rotate", shape, amounts)
    assert message in str(raised.value) and ";" in str(raised.value)
