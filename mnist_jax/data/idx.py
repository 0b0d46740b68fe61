"""Reads IDX files, the format in which the MNIST family is published."""

import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mnist_jax.errors import UserError


def read_idx(
    path: Path, shape: tuple[int, ...], max_value: int, sha256: str | None
) -> UInt8[np.ndarray, "..."]:
    """Reads one file of bytes, gzipped if it is or its name ends in `.gz`, and checks all of it.

    The caller says what must be there, so memory never depends on what the file claims.

    Args:
        path: the file.
        shape: expected counts, `(num_images, rows, columns)` or `(num_labels,)`.
        max_value: the largest value allowed: 255 for grey levels, the last class for labels.
        sha256: published SHA-256 of the uncompressed contents, in hex; None where there is none.

    Raises:
        UserError: the file is missing, damaged, or not the one expected.
    """
    header = _header(shape)
    num_values = math.prod(shape)
    try:
        # One byte more than expected, so that a file that is too long is noticed.
        with _open(path) as file:
            found, values = file.read(len(header)), b""
            if found == header:
                values = file.read(num_values + 1)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; put the published file there") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _wrong(path, f"is a damaged or truncated gzip file ({error})") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from error

    if len(found) < len(header) and header.startswith(found[:4]):
        raise _wrong(path, f"is truncated: {len(found)} bytes of a {len(header)}-byte header")
    if found[:4] != header[:4]:
        raise _wrong(path, f"has magic number 0x{found[:4].hex()}, not 0x{header[:4].hex()}")
    if found != header:
        counts = struct.unpack(f">{len(shape)}I", found[4:])
        raise _wrong(path, f"declares {_times(counts)} values, not {_times(shape)}")
    if len(values) < num_values:
        raise _wrong(path, f"is truncated: {len(values)} of {num_values} values")
    if len(values) > num_values:
        raise _wrong(path, f"has more than its {num_values} values")
    array = np.frombuffer(values, np.uint8).reshape(shape)
    if array.max(initial=0) > max_value:
        raise _wrong(path, f"holds the value {array.max()}, above {max_value}")
    if sha256 is not None and contents_sha256(array) != sha256:
        raise _wrong(path, f"has contents of SHA-256 {contents_sha256(array)}, not {sha256}")
    return array


def contents_sha256(array: UInt8[np.ndarray, "..."]) -> str:
    """Returns the sum, in hex, of the uncompressed IDX file that holds `array`."""
    digest = hashlib.sha256(_header(array.shape))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _header(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 0x08, len(shape), *shape)  # 0x08: unsigned bytes


def _open(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    if not is_packed:
        if path.suffix != ".gz":
            return path.open("rb")
        raise _wrong(path, "is not a gzip file, though its name ends in .gz")
    return gzip.GzipFile(path, "rb")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _wrong(path: Path, problem: str) -> UserError:
    return UserError(f"{path} {problem}; replace it with the published file")
