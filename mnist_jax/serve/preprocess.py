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
    return image_of_ink(ink_of_strokes(strokes))


def image_of_picture(picture: np.ndarray) -> np.ndarray:
    """Returns a picture of one character, dark on light or light on dark, as a model sees it.

    Args:
        picture: uint8 `[height, width]` grey, `[height, width, 3]` RGB or `[height, width, 4]`
            RGBA with straight alpha.

    Returns:
        uint8 `[28, 28]`, white on black.

    Raises:
        NoInkError: nothing stands out from the paper.
        ValueError: the array is no such picture.
    """
    return image_of_ink(ink_of_picture(picture))


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


def holds_several(ink: np.ndarray) -> bool:
    """Returns whether ink looks like several digits, side by side or one above another.

    Args:
        ink: uint8 `[height, width]`, 0 where there is none; digits that touch count as one.
    """
    return _is_parted(ink, 3, 5) or _is_parted(ink.T, 2, 3)


def _is_parted(ink: np.ndarray, part: int, whole: int) -> bool:
    """Returns whether an empty column parts ink into two of at least part/whole its height."""
    columns = np.flatnonzero(ink.any(0))
    for last in columns[:-1][np.diff(columns) > 1]:
        sides = ink, ink[:, : last + 1], ink[:, last + 1 :]
        height, *heights = (np.ptp(np.nonzero(side)[0]) + 1 for side in sides)
        if whole * min(heights) >= part * height:
            return True
    return False


def ink_of_strokes(strokes: Sequence[Sequence[Sequence[int | float]]]) -> np.ndarray:
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


def ink_of_picture(picture: np.ndarray) -> np.ndarray:
    """Returns how far each pixel stands out from the paper, without frames and lines at the edge.

    Args:
        picture: as `image_of_picture` takes it.

    Returns:
        uint8 `[height, width]`, at most 400 pixels a side; 0 where there is no ink.

    Raises:
        ValueError: the array is no such picture.
    """
    grey = _reduced_grey(picture)
    depth = (min(grey.shape) + 9) // 10
    margin = _margins(grey.shape)
    is_edge = margin < depth
    inside = grey[~is_edge]
    if not inside.size or np.ptp(inside) < FAINTEST:  # what there is lies at the edge
        inside, is_edge = grey.ravel(), margin >= 0
    if not _is_dark_on_light(grey, inside, margin, depth):
        grey, inside = 255 - grey, 255 - inside
    darkest, lightest = inside.min(), inside.max()
    light = np.sort(inside[2 * inside >= darkest + lightest])
    paper = light[len(light) // 2]
    beside = np.sort(grey[is_edge & (3 * (grey - darkest) > paper - darkest)])
    if len(beside):
        paper = beside[len(beside) // 20]
    ink = np.maximum(0, paper - grey)
    ink = np.where(8 * ink < paper - darkest, 0, ink)
    ink = np.where(_is_frame(ink > 0, depth), 0, ink)
    return np.where(8 * ink < ink.max(), 0, ink).astype(np.uint8)


def _is_dark_on_light(grey: np.ndarray, inside: np.ndarray, margin: np.ndarray, depth: int) -> bool:
    """Returns whether the lighter half of the grey levels is the paper."""
    middle = int(inside.min()) + int(inside.max())
    num_light = int((2 * inside >= middle).sum())
    sizes = np.bincount(margin.ravel())
    lights = np.bincount(margin[2 * grey >= middle], minlength=len(sizes))
    for size, light in list(zip(sizes, lights, strict=True))[:depth][::-1]:
        if 10 * light >= 9 * size and 3 * num_light >= inside.size:
            return True
        if 10 * light <= size and 3 * num_light <= 2 * inside.size:
            return False
    return 2 * num_light > inside.size


def _margins(shape: tuple[int, ...]) -> np.ndarray:
    """Returns how far each pixel lies from the nearest edge, int64 `[height, width]`."""
    rows, columns = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in shape)
    return np.minimum(rows[:, None], columns)


def _is_frame(is_ink: np.ndarray, depth: int) -> np.ndarray:
    """Returns which ink is a line or a frame at the edge of a picture, bool `[height, width]`."""
    left = is_ink.copy()
    for lines in (left, left[::-1], left.T, left.T[::-1]):
        is_full = 10 * lines.sum(1) >= 9 * lines.shape[1]
        num_full = len(is_full) if is_full.all() else int(is_full.argmin())
        if num_full <= depth:
            lines[:num_full] = False
    labels, count = _parts(left)
    height, width = left.shape
    inner = labels[depth : height - depth, depth : width - depth]
    inner_sizes = np.bincount(inner.ravel(), minlength=count + 1)
    sizes = np.bincount(labels.ravel())
    inner_sizes[0] = sizes[0] = 0
    for label in np.flatnonzero(2 * sizes >= min(height, width)):  # the others are too short
        if inner_sizes[label] and label == inner_sizes.argmax():
            continue  # the largest is what is shown
        part = labels == label
        rows, columns = (np.ptp(places) + 1 for places in np.nonzero(part))
        is_long = 2 * rows >= height or 2 * columns >= width
        ends = part[0], part[-1], part[:, 0], part[:, -1]
        if any(2 * end.sum() >= len(end) for end in ends) or (is_long and not inner_sizes[label]):
            left[part] = False
    return is_ink & ~left


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
    block = (max(picture.shape[:2]) + LONGEST_PX - 1) // LONGEST_PX
    if not alphas:
        return _block_sums(thousandths, block) // (1000 * block * block)
    alpha, color = (_block_sums(part, block) for part in (alphas[0], thousandths * alphas[0]))
    return _grey_of_transparent(alpha, color, 255 * block * block)


def _grey_of_transparent(alpha: np.ndarray, color: np.ndarray, opaque: int) -> np.ndarray:
    """Returns int64 grey levels of blocks, by their colors or, where it holds the drawing, alpha.

    Args:
        alpha: sums over blocks.
        color: sums of thousandths of grey times alpha.
        opaque: what a block without a transparent pixel has for its alpha.
    """
    is_seen = (2 * alpha >= alpha.max()) & (alpha > 0)
    if not is_seen.any():
        return np.full(alpha.shape, 255)
    rows, columns = (np.flatnonzero(is_seen.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    tones = color[is_seen] // (1000 * alpha[is_seen])
    is_open = 4 * is_seen.sum() <= 3 * is_seen[box].size
    if is_open or (np.ptp(tones) < FAINTEST and not is_seen.all()):
        return (opaque - alpha) * 255 // opaque
    behind = tones.sum() // tones.size
    return (color[box] + 1000 * behind * (opaque - alpha[box])) // (1000 * opaque)


def _block_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Returns int64 sums of blocks of pixels; rows and columns that fill none are left out."""
    height, width = (side // block for side in values.shape)
    if not height or not width:
        raise ValueError(f"a picture of {list(values.shape)} pixels is too narrow; crop it")
    blocks = values[: height * block, : width * block].reshape(height, block, width, block)
    return blocks.sum((1, 3), dtype=np.int64)


def _parts(is_ink: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the number of each pixel's connected part, diagonals included, and how many."""
    height, width = is_ink.shape
    steps = np.diff(np.pad(is_ink, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, begins = np.nonzero(steps == 1)  # of runs, each one row high
    ends = np.nonzero(steps == -1)[1]
    roots = list(range(len(rows)))

    def root(run: int) -> int:
        while roots[run] != run:
            roots[run] = run = roots[roots[run]]
        return run

    stride = width + 2
    first = np.searchsorted(rows * stride + ends, (rows - 1) * stride + begins)
    last = np.searchsorted(rows * stride + begins, (rows - 1) * stride + ends, "right")
    for run, above in enumerate(zip(first, last, strict=True)):
        for other in range(above[0], above[1]):
            one, two = root(run), root(other)
            roots[max(one, two)] = min(one, two)  # so that parts are in the order of their begins
    found = np.array([root(run) for run in range(len(roots))], np.int64)
    names, labels = np.unique(found, return_inverse=True)
    out = np.zeros(height * width + 1, np.int64)
    np.add.at(out, rows * width + begins, labels + 1)
    np.add.at(out, rows * width + ends, -(labels + 1))
    return np.cumsum(out)[:-1].reshape(height, width), len(names)


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
