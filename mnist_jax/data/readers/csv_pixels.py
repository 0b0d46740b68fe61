"""CSV as Kaggle's: a label and one column for each pixel of a square grey picture."""

import math
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import csv

from mnist_jax.data.readers.listing import (
    MAX_ARRAY_BYTES,
    Listing,
    Part,
    array_part,
    classes_of,
    split_of_file,
    wrong,
)

_REMEDY = "write a first line label,pixel0,pixel1,... and whole levels from 0 to 255"


def files(path: Path) -> list[Path]:
    """Returns the CSV files of a folder, or the file itself."""
    return [path] if path.is_file() else sorted(f for f in path.glob("*.csv") if f.is_file())


def read(path: Path, transposed: bool) -> Listing:
    """Reads the files whole; one without labels is named and left out.

    Raises:
        UserError: a file is not such a table, or a value is not a level.
    """
    parts, ignored = {}, []
    for file in files(path):
        split = "train" if path.is_file() else split_of_file(file)
        part = _read(file, split, transposed)
        if part is None:
            ignored.append(f"{file.name} has no column label and is left out")
        elif split in parts:
            raise wrong(file, f"is a second file for {split}", "keep one file for each split")
        else:
            parts[split] = part
    if "train" not in parts:
        raise wrong(path, "has no labels to train on", _REMEDY)
    return Listing("CSV of pixels", parts, classes_of(parts), ignored=tuple(ignored))


def first_line(path: Path) -> list[str]:
    """Returns the names of the columns; none where it is not text."""
    try:
        with path.open("rb") as file:
            return file.readline(2**20).decode("utf-8-sig").strip().split(",")
    except (OSError, UnicodeDecodeError):
        return []


def is_pixels(names: list[str]) -> bool:
    """Says whether these are the columns of such a table, with labels or without."""
    pixels = names[1:] if names[:1] == ["label"] else names
    return len(pixels) > 1 and all(name.lower().startswith("pixel") for name in pixels)


def _read(path: Path, split: str, transposed: bool) -> Part | None:
    names = first_line(path)
    if not is_pixels(names):
        raise wrong(path, f"begins with {','.join(names)[:60]!r}", _REMEDY)
    if names[0] != "label":
        return None
    side = math.isqrt(len(names) - 1)
    if side * side != len(names) - 1:
        raise wrong(path, f"has {len(names) - 1} pixels a row, not a square", _REMEDY)
    types = {name: pyarrow.uint8() for name in names[1:]} | {"label": pyarrow.string()}
    blocks, labels, size = [], [], 0
    try:
        options = csv.ConvertOptions(column_types=types)
        with csv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                size += batch.num_rows * side * side
                if size > MAX_ARRAY_BYTES:
                    raise wrong(
                        path, f"has more than {MAX_ARRAY_BYTES:,} pixels", "take fewer rows"
                    )
                if any(column.null_count for column in batch.columns):
                    raise wrong(path, "has a row with a value that is missing", _REMEDY)
                labels += batch.column(0).to_pylist()
                pixels = [column.to_numpy() for column in batch.columns[1:]]
                blocks.append(np.stack(pixels, axis=1).reshape(-1, side, side))
    except (OSError, pyarrow.ArrowException) as error:
        raise wrong(path, f"cannot be read ({str(error).splitlines()[0]})", _REMEDY) from error
    if not labels:
        raise wrong(path, "has no rows", _REMEDY)
    if "" in labels:
        raise wrong(path, "has a row with an empty label", _REMEDY)
    images = np.concatenate(blocks)
    images = np.ascontiguousarray(images.swapaxes(1, 2)) if transposed else images
    return array_part(path, images, np.array(labels), split)
