"""What every reader returns: the pictures of each split by name, and a stream of them."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from mnist_jax.data.pictures import LONGEST_SIDE
from mnist_jax.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_DIGITS = re.compile("([0-9]+)")
MAX_ARRAY_BYTES = 4 * 2**30  # of one array file: what reading it may need
Chunk = list[str] | list[bytes] | UInt8[np.ndarray, "..."]


class Part(NamedTuple):
    """One split as it lies in the source."""

    names: Sequence[str]  # of each picture: its path in the folder, or its row
    labels: Sequence[str]  # of each picture, as written
    chunks: Callable[[], Iterator[Chunk]]  # all pictures in this order, a few at a time
    groups: Sequence[str] | None = None  # who or what each picture belongs to


class Listing(NamedTuple):
    """What a source holds."""

    format: str  # in words
    parts: dict[str, Part]  # by split: some of `train`, `validation`, `test`
    class_names: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()  # names that are never opened, and why
    ignored: tuple[str, ...] = ()  # one line each, for the log


def split_of_file(path: Path) -> str:
    """Returns the split that a word of a file's name stands for, as in mnist_test-00001.csv."""
    words = re.split(r"[-_.]", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "train")


def natural(name: str) -> list[str | int]:
    """A sort key in which 2 comes before 10: text, number, its digits, text, and so on."""
    pieces = _DIGITS.split(name)
    key: list[str | int] = [pieces[0]]
    for at in range(1, len(pieces), 2):
        key += (int(pieces[at]), pieces[at], pieces[at + 1])
    return key


def classes_of(parts: dict[str, Part]) -> tuple[str, ...]:
    """Returns the classes of all splits, in natural order."""
    return tuple(sorted({label for part in parts.values() for label in part.labels}, key=natural))


def label_indices(part: Part, class_names: tuple[str, ...]) -> Int64[np.ndarray, " num_pictures"]:
    """Returns the class of each picture as its index in `class_names`."""
    index = {name: number for number, name in enumerate(class_names)}
    return np.array([index[label] for label in part.labels], np.int64)


def wrong(path: Path, problem: str, remedy: str) -> UserError:
    """A line that names the file, what is wrong with it and what to do."""
    return UserError(f"{path} {problem}; {remedy}")


def array_part(path: Path, images: np.ndarray, labels: np.ndarray, name: str) -> Part:
    """A split that lies in memory as an array.

    Args:
        path: where it is from, for messages.
        images: uint8 `[n, h, w]`, `[n, h, w, 1]` or `[n, h, w, 3]`.
        labels: whole numbers or text, `[n]` or `[n, 1]`.
        name: of the split in the file.
    """
    problem = None
    if images.dtype != np.uint8:
        problem = f"has {name} images of type {images.dtype}, not uint8"
    elif images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        problem = f"has {name} images of shape {images.shape}, not [n, h, w] or [n, h, w, 3]"
    elif 0 in images.shape:
        problem = f"has no {name} images: their shape is {images.shape}"
    elif max(images.shape[1:3]) > LONGEST_SIDE:
        problem = f"has {name} images of shape {images.shape}, more than {LONGEST_SIDE:,} a side"
    elif labels.shape not in ((len(images),), (len(images), 1)):
        problem = f"has {name} labels of shape {labels.shape} for {len(images)} images"
    elif labels.dtype.kind not in "iuU":
        problem = f"has {name} labels of type {labels.dtype}, not whole numbers"
    if problem is not None:
        raise wrong(path, problem, "write one uint8 picture and one label for each row")
    return Part(
        names=_Rows(name, len(images)),
        labels=[str(label) for label in labels.reshape(-1).tolist()],
        chunks=lambda: (images[i : i + 1024] for i in range(0, len(images), 1024)),
    )


class _Rows(Sequence[str]):
    """Names of rows, made when asked for: `train 17`."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.size = name, count

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < self.size:
            raise IndexError(index)
        return f"{self.name} {index}"


def in_chunks(items: Sequence, size: int) -> Iterable:
    """Yields `items`, `size` at a time."""
    return (items[i : i + size] for i in range(0, len(items), size))
