"""Decoded splits on disk: one file an array, an index with the checksum of each, all or nothing."""

import contextlib
import errno
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt8, UInt16

from mnist_jax import files
from mnist_jax.errors import UserError

STAGING = ".preparing_"  # begins the name of a folder in which data is being made
SPLITS = ("train", "validation", "test")


class Split(NamedTuple):
    """Images, published ones white on black, and the class of each."""

    images: UInt8[np.ndarray, "num_images side side"] | UInt8[np.ndarray, "num_images side side 3"]
    labels: UInt8[np.ndarray, " num_images"] | UInt16[np.ndarray, " num_images"]


def split_off(split: Split, size: int) -> tuple[Split, Split]:
    """Takes a fixed random slice of `size` images that holds every class in its share.

    Sorted by class, and at random within a class, every n/size-th image is taken. The random
    numbers are a bit generator's own output, which NumPy promises never to change.

    Returns:
        The rest and the slice, both in the order in which the images came.
    """
    taken = slice_by_class(split.labels, size)
    return Split(*(array[~taken] for array in split)), Split(*(array[taken] for array in split))


def slice_by_class(
    labels: Integer[np.ndarray, " num_images"], size: int
) -> Bool[np.ndarray, " num_images"]:
    """Says which images belong to the slice that `split_off` takes."""
    num_images = len(labels)
    random_keys = np.random.PCG64(0).random_raw(num_images)
    by_class = np.lexsort((random_keys, labels))
    taken = np.zeros(num_images, bool)
    taken[by_class[np.arange(size) * num_images // size]] = True
    return taken


def in_the_middle(split: Split, image_side: int) -> Split:
    """Puts each image into the middle of a black square; nothing to do where it is as large."""
    margin = (image_side - split.images.shape[1]) // 2
    if margin == 0:
        return split
    return Split(np.pad(split.images, [(0, 0), (margin, margin), (margin, margin)]), split.labels)


@contextlib.contextmanager
def alone_in(data_dir: Path) -> Iterator[None]:
    """Makes `data_dir` and waits until no other process prepares data in it.

    What a process that was killed has left there is removed.

    Raises:
        UserError: the folder cannot be made, opened or locked.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with files.locked(data_dir, partial(_cannot_write, data_dir), waits=True):
            for staging in data_dir.glob(f"{STAGING}*"):
                shutil.rmtree(staging, ignore_errors=True)
            yield
    except OSError as error:
        raise _cannot_write(data_dir, error) from error


@contextlib.contextmanager
def appears_whole(data_dir: Path, folder: Path) -> Iterator[Path]:
    """Lends an empty folder in `data_dir`; what is made there at `folder` is renamed into place.

    If the body fails nothing stays. If another process has put `folder` there meanwhile, it stays
    and ours is dropped: both are the same data.

    Args:
        data_dir: made if it is not there.
        folder: where the result belongs, relative to `data_dir` and to the folder lent.

    Raises:
        UserError: a folder cannot be written or the disk is full.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=data_dir) as staging:
            yield Path(staging)
            (data_dir / folder).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(Path(staging) / folder, data_dir / folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    except OSError as error:
        raise _cannot_write(data_dir, error) from error


def _cannot_write(data_dir: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write the data to {data_dir}: {error.strerror or error}; "
        "name a folder that you can write, with free space, with --data-dir"
    )


def write(folder: Path, splits: dict[str, Split]) -> None:
    """Writes every array of every split, and an index of them, to a folder that it makes."""
    folder.mkdir(parents=True)
    index = {}
    for split in SPLITS:
        for kind, array in splits[split]._asdict().items():
            path = folder / f"{split}_{kind}.npy"
            buffer = io.BytesIO()
            np.save(buffer, array)
            contents = buffer.getvalue()
            path.write_bytes(contents)
            index[path.name] = {"size_bytes": len(contents), "sha256": files.sha256(contents)}
    write_index(folder, index)


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Writes the index of a folder: `size_bytes` and `sha256` of each file in it, by name."""
    files.write_json(folder / "index.json", {"files": index, "data_hash": _hash_index(index)})


def data_hash(folder: Path) -> str:
    """Returns SHA-256, in hex, over the names and checksums of all files.

    Raises:
        UserError: the index is missing or damaged.
    """
    return _read_index(folder)["data_hash"]


def read(folder: Path, split: str) -> Split:
    """Reads one split and checks it against the index.

    Raises:
        UserError: a file is missing, truncated or not what was written.
    """
    index = _read_index(folder)["files"]
    return Split(*(_read_array(folder / f"{split}_{kind}.npy", index) for kind in Split._fields))


def check(folder: Path, split: str) -> None:
    """Checks one split against the index, without a look at what it holds.

    Raises:
        UserError: a file is missing, truncated or not what was written.
    """
    index = _read_index(folder)["files"]
    for kind in Split._fields:
        _read_contents(folder / f"{split}_{kind}.npy", index)


def mean_and_std(images: UInt8[np.ndarray, "num_images 28 28"]) -> tuple[float, float]:
    """Returns mean and standard deviation of all pixels / 255, from sums of whole numbers."""
    total = int(images.sum(dtype=np.int64))
    squares = int(np.einsum("nyx,nyx->", images, images, dtype=np.int64))
    return mean_and_std_of_sums(images.size, total, squares)


def mean_and_std_of_sums(count: int, total: int, squares: int) -> tuple[float, float]:
    """Returns mean and standard deviation of levels / 255.

    Args:
        count: of the levels, whole numbers of 0 to 255.
        total: their sum.
        squares: the sum of their squares.
    """
    variance = (count * squares - total**2) / count**2
    return total / count / 255, math.sqrt(variance) / 255


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    try:
        index = files.read_json(path)
        is_whole = isinstance(index["files"], dict) and (
            index["data_hash"] == _hash_index(index["files"])
        )
    except (UserError, LookupError, TypeError) as error:
        raise changed(path) from error
    if not is_whole:
        raise changed(path)
    return index


def _hash_index(index: dict[str, Any]) -> str:
    return files.json_sha256(index)


def _read_array(path: Path, index: dict[str, Any]) -> Integer[np.ndarray, "..."]:
    try:
        array = np.load(io.BytesIO(_read_contents(path, index)), allow_pickle=False)
    except (ValueError, EOFError) as error:  # no such file was ever written here
        raise changed(path) from error
    is_labels = array.ndim == 1 and array.dtype in (np.uint8, np.uint16)
    is_images = (
        array.dtype == np.uint8
        and array.ndim in (3, 4)
        and array.shape[1] == array.shape[2]
        and array.shape[3:] in ((), (3,))
    )
    if not (is_labels or is_images):
        raise changed(path)
    return array


def _read_contents(path: Path, index: dict[str, Any]) -> bytes:
    try:
        expected = index[path.name]
        is_whole = path.stat().st_size == expected["size_bytes"]
        contents = path.read_bytes() if is_whole else b""
        is_same = files.sha256(contents) == expected["sha256"]
    # All but the first: an index of another version, or one that someone has written by hand.
    except (OSError, KeyError, TypeError) as error:
        raise changed(path) from error
    if not is_same:
        raise changed(path)
    return contents


def changed(path: Path) -> UserError:
    """What to say where a file of prepared data is not what was written."""
    return UserError(
        f"{path} is missing, truncated or changed since it was prepared; "
        f"delete the folder {path.parent} and run again, which makes it again"
    )
