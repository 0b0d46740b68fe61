"""The user's own pictures, in any of six formats, recognised by what is in them."""

import os
from pathlib import Path

from mnist_jax.data.readers import csv_pixels, folder, idx, npz, parquet, table
from mnist_jax.data.readers.listing import Listing, wrong

__all__ = ["FORMATS", "read", "recognise"]

FORMATS = ("folder", "table", "npz", "idx", "parquet", "csv")


def recognise(path: Path) -> str:
    """Returns which of `FORMATS` a path is: by contents, or by the names in a folder.

    Raises:
        UserError: it is not there, cannot be read, or is in none of them.
    """
    remedy = "name a folder of classes, or an .npz, IDX, Parquet or CSV file"
    try:
        if os.path.isdir(path):
            return _folder(path)
        if not os.path.exists(path):
            raise wrong(path, "is not there", remedy)
        if not os.path.isfile(path):
            raise wrong(path, "is not a regular file or folder", remedy)
        with path.open("rb") as file:
            start = file.read(4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise wrong(path, f"cannot be read ({reason})", "make it readable") from error
    if start == b"PK\x03\x04" or start == b"PK\x05\x06":
        return "npz"
    if start == b"PAR1":
        return "parquet"
    if start[:3] == b"\0\0\x08" or start[:2] == b"\x1f\x8b":
        raise wrong(path, "is one file of IDX's two or four", "name the folder that holds them")
    if csv_pixels.is_pixels(csv_pixels.first_line(path)):
        return "csv"
    raise wrong(path, "is in no format that is known", remedy)


def _folder(path: Path) -> str:
    if table.tables(path):
        return "table"
    if idx.files(path):
        return "idx"
    if parquet.files(path):
        return "parquet"
    if any(csv_pixels.is_pixels(csv_pixels.first_line(f)) for f in csv_pixels.files(path)):
        return "csv"
    return "folder"


def read(path: Path, transposed: bool = False) -> Listing:
    """Recognises a source and lists its pictures.

    Args:
        path: a file or folder.
        transposed: swap rows and columns of IDX and CSV pictures.

    Raises:
        UserError: see `recognise` and each reader; or `transposed` is given for another format.
    """
    kind = recognise(path)
    if transposed and kind not in ("idx", "csv"):
        raise wrong(path, f"is {kind}, for which there is no transposed", "leave transposed out")
    if kind == "idx":
        return idx.read(path, transposed)
    if kind == "csv":
        return csv_pixels.read(path, transposed)
    readers = {"folder": folder.read, "table": table.read, "npz": npz.read, "parquet": parquet.read}
    return readers[kind](path)
