"""Plain JPEG files by the short way: what Pillow makes of them, and all others left to Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mnist_jax.data import jpeg, pictures


def contents(mode="RGB", size=(21, 13), **options):
    rows = np.add.outer(np.arange(size[1]) * 7, np.arange(size[0]) * 5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rows).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(file):
    """Size, mode and pixels, or nothing where Pillow cannot read it."""
    try:
        with Image.open(io.BytesIO(file)) as image:
            return image.size, image.mode, np.asarray(image.convert("RGB"))
    except Exception:
        return None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "L"},
        {"progressive": True},
        {"subsampling": 2, "quality": 30},
        {"optimize": True, "comment": b"of a person"},
        {"restart_marker_blocks": 1, "size": (40, 40)},
        {"size": (1, 1)},
    ],
    ids=str,
)
def test_a_plain_file_is_what_pillow_reads(options):
    file = contents(**options) + b"what follows the picture"
    size, mode, pixels = by_pillow(file)
    assert jpeg.header(file) == (mode, size)
    assert jpeg.decode(file, mode, size) is not None  # no fall back to Pillow's own way
    found = pictures.decode(file)
    assert (found.size, found.mode) == (size, mode)
    np.testing.assert_array_equal(found.pixels, pixels)


def upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    "file",
    [
        contents(exif=upright(6)),
        contents("CMYK"),
        contents(icc_profile=b"a profile"),
        contents()[:100],
        contents().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        b"\x89PNG",
        b"",
    ],
    ids=["EXIF", "CMYK", "ICC", "cut", "12 bits", "PNG", "empty"],
)
def test_other_files_are_left_to_pillow(file):
    assert jpeg.header(file) is None


@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_a_damaged_file_is_what_pillow_makes_of_it(at, byte, is_cut):
    file = bytearray(contents())
    file[at % len(file)] = byte
    file = bytes(file[: len(file) - 90 * is_cut])
    expected = by_pillow(file)
    try:
        found = pictures.decode(file)
    except pictures.Unreadable:
        assert expected is None or expected[0][0] * expected[0][1] > pictures.MAX_PIXELS
        return
    assert expected is not None and (found.size, found.mode) == expected[:2]
    np.testing.assert_array_equal(found.pixels, expected[2])


def test_a_bomb_is_not_decoded(monkeypatch):
    height, width = (13).to_bytes(2, "big"), (21).to_bytes(2, "big")
    bomb = contents().replace(height + width, b"\xff\xff" * 2, 1)
    assert jpeg.header(bomb) == ("RGB", (65_535, 65_535))
    monkeypatch.setattr(jpeg, "decode", None)  # which cannot be called
    with pytest.raises(pictures.Unreadable, match="more than 50,000,000 pixels"):
        pictures.decode(bomb)
