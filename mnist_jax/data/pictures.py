"""One picture of the user's own to whole levels: docs/preprocessing.md, "Own pictures"."""

from __future__ import annotations

import io
import os
import stat
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from mnist_jax.data import jpeg

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # else a third of the time that decoders start in
    from jaxtyping import Float64, UInt8

FITS = ("pad", "crop", "stretch")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 50_000_000  # of one picture; with the longest side it bounds the memory
LONGEST_SIDE = 65_535  # pixels, as in a JPEG file: the weights of a long axis are many
MAX_FILE_BYTES = 256 * 2**20
_BLOCK_PIXELS = 2**20  # computed at a time
_LONGEST_KEPT = 2048  # pixels of an axis whose weights are kept: at most 2 MB
_ORIENTATION = 0x0112  # EXIF
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class Unreadable(Exception):  # noqa: N818, the word in which the report speaks of it
    """A picture that cannot be used; the message is the reason, in a few words."""


class Picture(NamedTuple):
    """A decoded picture and what its file said of it."""

    pixels: UInt8[np.ndarray, "height width channels"]  # RGB, 0 to 255, upright; perhaps alpha
    size: tuple[int, int]  # width and height in the file, before EXIF rotation
    mode: str  # Pillow's name of the pixel format: L, RGB, RGBA, P, CMYK, I;16, ...


def read_file(path: str | Path) -> bytes:
    """Reads a regular file; never waits on a FIFO and never opens a device.

    Raises:
        Unreadable: it is missing, no regular file, empty, or larger than `MAX_FILE_BYTES`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise Unreadable(f"{status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}")
            contents = os.read(handle, status.st_size)  # a file object takes as long to make
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    if not contents:
        raise Unreadable("an empty file")
    return contents


def header(contents: bytes) -> tuple[int, int]:
    """Returns width and height as the header says, without decoding.

    Raises:
        Unreadable: it is not a picture.
    """
    with warnings.catch_warnings(), _as_unreadable():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
            return image.size


def decode(contents: bytes, *, keeps_alpha: bool = False) -> Picture:
    """Decodes the first frame of a picture file to upright RGB.

    Args:
        contents: of the file.
        keeps_alpha: leaves straight alpha as a fourth channel where there is any, in place of
            putting the picture on white.

    Raises:
        Unreadable: it is not a picture, damaged, truncated, too large, or has pixels of 32 bits.
    """
    plain = jpeg.header(contents)
    if plain is not None and plain[1][0] * plain[1][1] <= MAX_PIXELS:
        image = jpeg.decode(contents, *plain)
        if image is not None:
            with _as_unreadable():  # memory may be too little
                return Picture(_levels(image), image.size, image.mode)
    with warnings.catch_warnings(), _as_unreadable():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
            size, mode = image.size, image.mode
            if max(size) > LONGEST_SIDE:
                raise Unreadable(f"{size[0]}x{size[1]} pixels, more than {LONGEST_SIDE:,} a side")
            if size[0] * size[1] > MAX_PIXELS:
                raise Unreadable(f"{size[0]}x{size[1]} pixels, more than {MAX_PIXELS:,} in all")
            image.load()
            if image.getexif().get(_ORIENTATION, 1) != 1:
                ImageOps.exif_transpose(image, in_place=True)
            pixels = _levels(image)
            return Picture(pixels if keeps_alpha else over_white(pixels), size, mode)


def prepare(
    pixels: UInt8[np.ndarray, "height width channels"], side: int, fit: str
) -> UInt8[np.ndarray, "side side channels"]:
    """Brings a picture to a square of `side` pixels with whole-number arithmetic.

    Args:
        pixels: any size.
        side: of the result, in pixels.
        fit: `pad` (black around the whole picture), `crop` (the middle square) or `stretch`.
    """
    height, width, channels = pixels.shape
    square = min(height, width) if fit == "crop" else max(height, width)
    if fit == "crop":
        top, left = (height - square) // 2, (width - square) // 2
        pixels = pixels[top : top + square, left : left + square]
    spans = pixels.shape[:2] if fit == "stretch" else (square, square)
    if pixels.shape[:2] == spans == (side, side):
        return np.ascontiguousarray(pixels)
    rows, columns = (
        _used_weights(span, side, used) for span, used in zip(spans, pixels.shape[:2], strict=True)
    )
    total = _total(spans[0], side) * _total(spans[1], side)
    # Whole numbers below 2**53 (2**24) are exact in float64 (float32), in whatever order they add.
    exact = np.float32 if 255 * total < 2**24 else np.float64
    rows, columns = rows.astype(exact), columns.astype(exact)
    flat = pixels.reshape(pixels.shape[0], -1)
    block = max(1, 2**20 // flat.shape[0])  # columns at a time: 8 MB of floats
    means = [rows @ flat[:, x : x + block].astype(exact) for x in range(0, flat.shape[1], block)]
    by_row = np.concatenate(means, axis=1).reshape(side, pixels.shape[1], channels)
    # One product of matrices: a stack of many with three columns each takes ten times as long.
    by_column = by_row.transpose(1, 0, 2).reshape(pixels.shape[1], -1)
    sums = (columns @ by_column).astype(np.int64).reshape(side, side, channels).transpose(1, 0, 2)
    return ((2 * sums + total) // (2 * total)).astype(np.uint8)


def over_white(pixels: UInt8[np.ndarray, "height width _"]) -> UInt8[np.ndarray, "height width 3"]:
    """Puts RGBA with straight alpha on white; RGB stays as it is."""
    return pixels if pixels.shape[2] == 3 else _by_rows(_blocks_over_white, pixels)


def _blocks_over_white(pixels: UInt8[np.ndarray, "rows width 4"]) -> np.ndarray:
    rgba = pixels.astype(np.int32)
    colour, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    return (colour * alpha + 255 * (255 - alpha) + 127) // 255


def _grey_of_deep(levels: np.ndarray) -> np.ndarray:
    grey = (levels.astype(np.int64) * 255 + 32_767) // 65_535
    return np.repeat(grey[:, :, None], 3, axis=2)


def _by_rows(
    function: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray
) -> UInt8[np.ndarray, "height width 3"]:
    """Computes levels a few rows at a time: wider whole numbers take many times the memory."""
    result = np.empty((*pixels.shape[:2], 3), np.uint8)
    rows = max(1, _BLOCK_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        result[top : top + rows] = function(pixels[top : top + rows])
    return result


def to_grey(pixels: UInt8[np.ndarray, "... 3"]) -> UInt8[np.ndarray, "... 1"]:
    """Returns `(299 red + 587 green + 114 blue + 500) // 1000`."""
    sums = pixels.astype(np.int32) @ np.array([299, 587, 114], np.int32)
    return ((sums + 500) // 1000).astype(np.uint8)[..., None]


def weights(source: int, target: int) -> Float64[np.ndarray, "target source"]:
    """Returns the whole-number weights of one axis; each row adds up to `_total`.

    Shrinking shares by area, enlarging is bilinear between pixel centres.
    """
    return (_kept_weights if source <= _LONGEST_KEPT else _weights)(source, target)


def _weights(source: int, target: int) -> Float64[np.ndarray, "target source"]:
    i, j = np.arange(source)[None, :], np.arange(target)[:, None]
    if source == target:
        return np.eye(source)
    if source > target:
        overlap = np.minimum((i + 1) * target, (j + 1) * source) - np.maximum(
            i * target, j * source
        )
        return np.maximum(overlap, 0).astype(np.float64)
    first, share = np.divmod((2 * j + 1) * source - target, 2 * target)
    near = np.where(np.clip(first, 0, source - 1) == i, 2 * target - share, 0)
    far = np.where(np.clip(first + 1, 0, source - 1) == i, share, 0)
    return (near + far).astype(np.float64)


_kept_weights = lru_cache(maxsize=64)(_weights)


def _total(source: int, target: int) -> int:
    return 1 if source == target else source if source > target else 2 * target


def _used_weights(span: int, side: int, used: int) -> Float64[np.ndarray, "side used"]:
    """The weights of the pixels that are there: padding is 0 and adds nothing."""
    margin = (span - used) // 2
    return weights(span, side)[:, margin : margin + used]


def _levels(image: Image.Image) -> UInt8[np.ndarray, "height width channels"]:
    """RGB, or RGBA where something may be transparent."""
    if image.mode == "F":
        raise Unreadable("pixels of 32-bit floats")
    if image.mode in _DEEP_GREY:
        levels = np.asarray(image)
        if levels.min(initial=0) < 0 or levels.max(initial=0) > 65_535:
            raise Unreadable("pixels of 32 bits")
        return _by_rows(_grey_of_deep, levels)
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    if image.mode in ("L", "1"):
        return np.repeat(np.asarray(image.convert("L"))[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


class _as_unreadable:  # noqa: N801, used as a function
    """Turns whatever a decoder raises into `Unreadable`: what that is, is up to each format."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, Unreadable):
            if isinstance(error, Image.UnidentifiedImageError):
                raise Unreadable("not a picture in a known format") from error
            if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
                raise Unreadable(f"more than {MAX_PIXELS:,} pixels") from error
            lines = str(error).splitlines() or [type(error).__name__]
            raise Unreadable(lines[0][:200]) from error
