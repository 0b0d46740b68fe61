"""Random changes to training images: pure, keyed, jittable."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mnist_jax.errors import UserError
from mnist_jax.training import photos


class Amounts(NamedTuple):
    """How much `shift_and_rotate` changes; what is 0 is left out."""

    shift_px: int = 0
    rotation_degrees: float = 0.0
    flip: bool = False
    cutout_px: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Amounts":
        """Takes them from a configuration."""
        return cls(**{name: config[f"augment_{name}"] for name in cls._fields})


def make_augment(
    augment_id: str, image_shape: tuple[int, int, int], amounts: Amounts
) -> Callable[[PRNGKeyArray, Array], Array] | None:
    """Returns a function of a key and a batch of images, or None where nothing is to be changed.

    Args:
        augment_id: `shift_and_rotate`, which mirrors, turns and moves, changes the colours and
            cuts out, in this order; or `byerly`, which takes no amounts.
        image_shape: height, width and channels.
        amounts: of `shift_and_rotate`.

    Raises:
        UserError: what is asked for cannot be done to such images.
    """
    if augment_id == "byerly":
        if image_shape != (28, 28, 1):
            raise UserError(
                f"augment_id is 'byerly', but images are {image_shape}; it is made for grey images "
                "of 28x28 pixels, use shift_and_rotate"
            )
        return augment_as_byerly
    height, width, num_channels = image_shape
    if amounts.cutout_px > min(height, width):
        raise UserError(
            f"augment_cutout_px is {amounts.cutout_px}, but images have {height}x{width} pixels; "
            "give at most that, better a third"
        )
    if amounts.saturation and num_channels == 1:
        raise UserError(
            f"augment_saturation is {amounts.saturation:g}, but the images are grey; leave it out"
        )
    changes = _changes(amounts)
    if not changes:
        return None

    def augment(key, images):
        for number, change in changes.items():
            images = change(jax.random.fold_in(key, number) if number else key, images)
        return images

    return augment


def _changes(amounts: Amounts) -> dict[int, Callable[[PRNGKeyArray, Array], Array]]:
    """Returns what is to be done, in order, by the number of its random stream; 0: the key's own.

    `shift_and_rotate` splits the key itself, into the streams 0 and 1.
    """
    changes: dict[int, Callable[[PRNGKeyArray, Array], Array]] = {}
    if amounts.flip:
        changes[2] = photos.flip
    if amounts.shift_px or amounts.rotation_degrees:
        changes[0] = lambda key, images: shift_and_rotate(
            key, images, amounts.shift_px, amounts.rotation_degrees
        )
    others = (
        (photos.brightness, amounts.brightness),
        (photos.contrast, amounts.contrast),
        (photos.saturation, amounts.saturation),
        (photos.cutout, amounts.cutout_px),
    )
    for number, (change, amount) in enumerate(others, start=3):
        if amount:
            changes[number] = partial(change, amount=amount)
    return changes


def shift_and_rotate(
    key: PRNGKeyArray,
    images: Float[Array, "batch height width channels"],
    max_shift_px: int,
    max_rotation_degrees: float,
) -> Float[Array, "batch height width channels"]:
    """Turns each image about its centre, then moves it; bilinear, black outside.

    Args:
        key: one key for the batch.
        images: grey levels.
        max_shift_px: whole pixels along each axis, drawn uniformly from -max to max.
        max_rotation_degrees: drawn uniformly from -max to max.
    """
    batch = images.shape[0]
    shift_key, angle_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (batch, 2), -max_shift_px, max_shift_px + 1)
    limit = jnp.deg2rad(max_rotation_degrees)
    angles = jax.random.uniform(angle_key, (batch,), minval=-limit, maxval=limit)
    each_channel = jax.vmap(_transform, in_axes=(2, None, None), out_axes=2)
    return jax.vmap(each_channel)(images, shifts, angles)


def _transform(
    image: Float[Array, "height width"], shift: Array, angle: Array
) -> Float[Array, "height width"]:
    """Reads each pixel of the result from where it was in `image`."""
    height, width = image.shape
    centre_row, centre_column = (height - 1) / 2, (width - 1) / 2
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    rows = rows - shift[0] - centre_row
    columns = columns - shift[1] - centre_column
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    sources = [
        cosine * rows - sine * columns + centre_row,
        sine * rows + cosine * columns + centre_column,
    ]
    return map_coordinates(image, sources, order=1, mode="constant", cval=0.0)


def augment_as_byerly(
    key: PRNGKeyArray, images: Float[Array, "batch 28 28 1"]
) -> Float[Array, "batch 28 28 1"]:
    """Rotates every second image; shifts and squeezes each, and blackens a square in it.

    Byerly, Kalganova, Dear 2021 (arXiv 2001.09136), as in the authors' code
    (github.com/AdamByerly/BMCNNwHFCs, python/input); Efficient-CapsNet is trained with it too.

    Args:
        key: one key for the batch.
        images: grey levels, 0 where there is no ink.

    Returns:
        Grey levels; squeezing overshoots at edges, so they may leave 0..1 a little, as there.
    """

    def augment(key, image):
        rotate_key, shift_key, squeeze_key, erase_key = jax.random.split(key, 4)
        image = _rotate_or_not(rotate_key, image)
        image = _shift_within_frame(shift_key, image)
        image = _squeeze(squeeze_key, image)
        return _erase(erase_key, image)

    keys = jax.random.split(key, images.shape[0])
    return jax.vmap(augment)(keys, images[..., 0])[..., None]


def _amounts(key: PRNGKeyArray) -> Float[Array, "2"]:
    """Draws from a normal distribution of deviation 0.33, cut off short of -1 and 1."""
    return jnp.clip(0.33 * jax.random.normal(key, (2,)), -0.9999, 0.9999)


def _rotate_or_not(key: PRNGKeyArray, image: Float[Array, "28 28"]) -> Float[Array, "28 28"]:
    """Turns by up to 30 degrees about pixel (14, 14), or, half of the time, not at all."""
    amount, coin = _amounts(key)
    return jnp.where(coin > 0, image, _rotate(image, jnp.deg2rad(30 * amount)))


def _rotate(image: Float[Array, "28 28"], angle: Float[Array, ""]) -> Float[Array, "28 28"]:
    """Turns counter-clockwise about pixel (14, 14), as OpenCV's warpAffine does; black outside."""
    rows, columns = jnp.meshgrid(jnp.arange(28.0) - 14, jnp.arange(28.0) - 14, indexing="ij")
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    sources = [cosine * rows + sine * columns + 14, cosine * columns - sine * rows + 14]
    return map_coordinates(image, sources, order=1, mode="constant", cval=0.0)


def _shift_within_frame(key: PRNGKeyArray, image: Float[Array, "28 28"]) -> Float[Array, "28 28"]:
    """Moves along each axis by a part of the black margin on that side, so that no ink is lost."""
    amount_key, side_key = jax.random.split(key)
    amounts = jnp.abs(_amounts(amount_key))
    is_towards_end = jax.random.bernoulli(side_key, shape=(2,))
    has_ink = image > 0
    down, right = (
        _margin_shift(has_ink.any(axis=1 - axis), amounts[axis], is_towards_end[axis])
        for axis in (0, 1)
    )
    pixels = jnp.arange(28)
    # What leaves on one side comes in on the other: all black. (jnp.roll takes ten times as long.)
    return image[(pixels - down) % 28][:, (pixels - right) % 28]


def _margin_shift(
    has_ink: Bool[Array, "28"], amount: Float[Array, ""], is_towards_end: Bool[Array, ""]
) -> Int[Array, ""]:
    """Returns by how many pixels to move; the two directions round as the authors' code does."""
    margin_before, margin_after = jnp.argmax(has_ink), jnp.argmax(has_ink[::-1])
    back = -jnp.ceil(amount * margin_before)
    forth = jnp.floor(amount * (1 + margin_after))
    return jnp.where(is_towards_end, forth, back).astype(jnp.int32)


def _squeeze(key: PRNGKeyArray, image: Float[Array, "28 28"]) -> Float[Array, "28 28"]:
    """Makes the image 1 to 7 pixels narrower, about where it was or a pixel to the right."""
    width_amount, offset_amount = jnp.abs(_amounts(key))
    num_lost = jnp.floor(7 * width_amount + 1).astype(jnp.int32)
    extra_offset = jnp.floor(2 * offset_amount).astype(jnp.int32)
    return image @ _squeezing_matrices()[num_lost - 1, extra_offset]


def _squeezing_matrices() -> Float[Array, "7 2 28 28"]:
    """Returns the matrix of each squeeze: Lanczos resampling is linear in the pixels of a row.

    The first index is the number of columns lost, from 1; the second the extra offset.
    """
    identity = jnp.eye(28)

    def matrix(num_lost, extra_offset):
        resized = jax.image.resize(identity, (28, 28 - num_lost), "lanczos3", antialias=True)
        left = num_lost // 2 + extra_offset
        return jnp.pad(resized, ((0, 0), (left, num_lost - left)))

    return jnp.array([[matrix(lost, extra) for extra in (0, 1)] for lost in range(1, 8)])


def _erase(key: PRNGKeyArray, image: Float[Array, "28 28"]) -> Float[Array, "28 28"]:
    """Blackens a square of 4x4 pixels whose first row and column are 4 to 22 each."""
    top, left = jax.random.randint(key, (2,), 4, 23)
    pixels = jnp.arange(28)
    is_row = (pixels >= top) & (pixels < top + 4)
    is_column = (pixels >= left) & (pixels < left + 4)
    return jnp.where(is_row[:, None] & is_column[None, :], 0.0, image)
