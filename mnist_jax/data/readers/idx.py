"""A folder of IDX files: images and labels to train on, and perhaps to test on."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from mnist_jax.data.idx import read_idx
from mnist_jax.data.readers.listing import MAX_ARRAY_BYTES, Listing, array_part, classes_of, wrong

_ENDS = {"images": ("images-idx3-ubyte", "images.idx3-ubyte"),
         "labels": ("labels-idx1-ubyte", "labels.idx1-ubyte")}  # fmt: skip
_SPLITS = {"train": "train", "test": "test", "t10k": "test", "val": "validation"}


def files(root: Path) -> dict[tuple[str, str], list[Path]]:
    """Returns the IDX files in a folder by (split, `images` or `labels`)."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(root.iterdir()):
        name = path.name.removesuffix(".gz")
        for kind, ends in _ENDS.items():
            for end in ends:
                split = _SPLITS.get(name.removesuffix(end).rstrip("-_.").rpartition("-")[2])
                if name.endswith(end) and split is not None and path.is_file():
                    found.setdefault((split, kind), []).append(path)
    return found


def read(root: Path, transposed: bool) -> Listing:
    """Reads the files whole.

    Args:
        root: the folder.
        transposed: swap rows and columns, as EMNIST's files need it.

    Raises:
        UserError: a file is missing, there twice, damaged, or declares too much.
    """
    found = files(root)
    parts = {}
    for split in ("train", "validation", "test"):
        pair = [found.get((split, kind), []) for kind in _ENDS]
        if not any(pair) and split != "train":
            continue
        for kind, paths in zip(_ENDS, pair, strict=True):
            if not paths:
                raise wrong(root, f"holds no {split} {kind} in IDX", "put that file there too")
            # The same file packed and unpacked is common; two different ones are a mistake.
            if len({path.name.removesuffix(".gz") for path in paths}) > 1:
                names = " and ".join(path.name for path in paths)
                raise wrong(root, f"holds {names}", "keep the files of one data set")
        images, labels = (
            _read(paths[0], dimensions) for paths, dimensions in zip(pair, (3, 1), strict=True)
        )
        if transposed:
            images = np.ascontiguousarray(images.swapaxes(1, 2))
        parts[split] = array_part(root, images, labels, split)
    title = "IDX files, transposed" if transposed else "IDX files"
    return Listing(title, parts, classes_of(parts))


def _read(path: Path, dimensions: int) -> np.ndarray:
    size = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(path, f"is damaged ({error})", "replace it") from error
    if len(header) < size or header[:4] != bytes([0, 0, 8, dimensions]):
        raise wrong(path, f"is not an IDX file of bytes in {dimensions} dimensions", "replace it")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if math.prod(shape) > MAX_ARRAY_BYTES:
        declared = f"declares {math.prod(shape):,} bytes, more than {MAX_ARRAY_BYTES:,}"
        raise wrong(path, declared, "replace it")
    return read_idx(path, shape, max_value=255, sha256=None)
