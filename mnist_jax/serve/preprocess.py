"""Drawings and pictures to 28x28 pixels as MNIST's were made; NumPy only, for clients.

`docs/preprocessing.md` is the specification; `page/preprocess.js` is the same in JavaScript.
"""

from collections.abc import Sequence

import numpy as np

FIELD_PX = 280  # side of the field that is drawn on
PEN_RADIUS_PX = 11
LONGEST_PX = 400  # of a picture, after reduction
FAINTEST = 32  # grey levels
BOX_PX, IMAGE_PX = 20, 28


class NoInkError(ValueError):
    """There is nothing to look at."""


def model_input(image: np.ndarray, side: int = IMAGE_PX) -> np.ndarray:
    """Returns an image as what a model takes, in the middle of black where that is larger.

    Args:
        image: uint8 `[28, 28]`.
        side: of the model's images, in pixels: even, and at least 28.

    Returns:
        float32 `[1, 1, side, side]`, 0 to 1.
    """
    levels = np.pad(image, (side - IMAGE_PX) // 2)
    return (levels.astype(np.float32) / np.float32(255))[None, None]


def image_of_strokes(strokes: Sequence[Sequence[Sequence[int | float]]]) -> np.ndarray:
    """Returns lines drawn on a field of 280x280 as the image a model sees.

    Args:
        strokes: lists of points `[x, y]`, each 0 to 280, y downwards.

    Returns:
        uint8 `[28, 28]`, white on black.

    Raises:
        NoInkError: nothing is drawn.
    """
    return image_of_ink(_ink_of_strokes(strokes))


def image_of_picture(picture: np.ndarray) -> np.ndarray:
    """Returns a picture of one character, dark on light or light on dark, as a model sees it.

    Args:
        picture: uint8 `[height, width]` grey, `[height, width, 3]` RGB or `[height, width, 4]`
            RGBA with straight alpha.

    Returns:
        uint8 `[28, 28]`, white on black.

    Raises:
        NoInkError: nothing stands out from the picture's border.
        ValueError: the array is no such picture.
    """
    return image_of_ink(_ink_of_picture(picture))


def image_of_ink(ink: np.ndarray) -> np.ndarray:
    """Fits ink into a box of 20x20 pixels and puts its centre of mass into the middle of 28x28.

    Args:
        ink: uint8 `[height, width]`, 0 where there is none.

    Returns:
        uint8 `[28, 28]`, white on black.

    Raises:
        NoInkError: no level reaches 32.
    """
    if ink.max(initial=0) < FAINTEST:
        raise NoInkError("there is no ink to look at; draw a digit, or take a picture of one")
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.int64)
    longer = max(box.shape)
    height, width = (max(1, (2 * BOX_PX * side + longer) // (2 * longer)) for side in box.shape)
    sums = _shares(box.shape[0], height) @ box @ _shares(box.shape[1], width).T
    most = sums.max()
    fitted = (510 * sums + most) // (2 * most)
    image = np.zeros((IMAGE_PX, IMAGE_PX), np.uint8)
    top, left = _offset(fitted.sum(1)), _offset(fitted.sum(0))
    image[top : top + height, left : left + width] = fitted
    return image


def _ink_of_strokes(strokes: Sequence[Sequence[Sequence[int | float]]]) -> np.ndarray:
    """Draws lines with a round, anti-aliased pen; returns uint8 `[280, 280]`."""
    ink = np.zeros((FIELD_PX, FIELD_PX), np.uint8)
    centres = np.arange(FIELD_PX) + 0.5
    x, y = centres[None, :], centres[:, None]
    for stroke in strokes:
        for (ax, ay), (bx, by) in zip([*stroke[:1], *stroke], stroke, strict=False):
            vx, vy = bx - ax, by - ay
            length = vx * vx + vy * vy
            t = np.clip(((x - ax) * vx + (y - ay) * vy) / length, 0, 1) if length else 0.0
            dx, dy = x - (ax + t * vx), y - (ay + t * vy)
            distance = np.sqrt(dx * dx + dy * dy)
            level = np.floor(255 * np.clip(PEN_RADIUS_PX + 0.5 - distance, 0, 1) + 0.5)
            np.maximum(ink, level.astype(np.uint8), out=ink)
    return ink


def _ink_of_picture(picture: np.ndarray) -> np.ndarray:
    """Returns how far each pixel stands out from the paper, uint8, at most 400 pixels a side."""
    grey = _reduced_grey(picture)
    is_ring = np.ones(grey.shape, bool)
    is_ring[1:-1, 1:-1] = False
    ring = np.sort(grey[is_ring])
    lower, upper = ring[len(ring) // 10], ring[len(ring) - 1 - len(ring) // 10]
    is_dark_on_light = lower - grey.min() > grey.max() - upper
    ink = np.maximum(0, lower - grey if is_dark_on_light else grey - upper)
    return np.where(8 * ink < ink.max(), 0, ink).astype(np.uint8)


def _reduced_grey(picture: np.ndarray) -> np.ndarray:
    """Returns int64 grey levels, 0 to 255, of blocks of pixels."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or 0 in picture.shape:
        raise ValueError(
            f"a picture of {picture.dtype} {list(picture.shape)} must be uint8 [height, width], "
            "[height, width, 3] or [height, width, 4]; convert it"
        )
    if picture.ndim == 2:
        picture = np.broadcast_to(picture[..., None], (*picture.shape, 3))
    channels = picture.shape[2]
    if channels not in (3, 4):
        raise ValueError(f"a picture of {channels} channels must have 1, 3 or 4; convert it")
    red, green, blue, *alphas = (picture[..., i].astype(np.int32) for i in range(channels))
    thousandths = 299 * red + 587 * green + 114 * blue
    alpha = alphas[0] if alphas else np.int32(255)
    over_white = thousandths * alpha + 255_000 * (255 - alpha)
    block = (max(picture.shape[:2]) + LONGEST_PX - 1) // LONGEST_PX
    height, width = (side // block for side in picture.shape[:2])
    if not height or not width:
        raise ValueError(f"a picture of {list(picture.shape[:2])} pixels is too narrow; crop it")
    blocks = over_white[: height * block, : width * block].reshape(height, block, width, block)
    return blocks.sum((1, 3), dtype=np.int64) // (255_000 * block * block)


def _shares(source: int, target: int) -> np.ndarray:
    """Returns int64 `[target, source]`: what each target pixel covers of each source pixel."""
    i, j = np.arange(source)[None, :], np.arange(target)[:, None]
    overlap = np.minimum((i + 1) * target, (j + 1) * source) - np.maximum(i * target, j * source)
    return np.maximum(0, overlap)


def _offset(levels: np.ndarray) -> int:
    """Returns where a box begins whose centre of mass shall lie in the image's middle."""
    mass, moment = int(levels.sum()), int(levels @ np.arange(len(levels)))
    offset = -((2 * moment - 27 * mass) // (2 * mass))
    return min(max(0, offset), IMAGE_PX - len(levels))
