"""Decoded pictures on their way to the arrays of three splits, a block at a time."""

import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from mnist_jax.data import arrays, pictures, report

_BLOCK = 1024  # pictures


class Store:
    """Takes pictures in any order of splits, then writes the arrays as `arrays.read` reads them.

    Args:
        folder: for what is kept meanwhile: three bytes a pixel.
        side: of the pictures.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.side = side
        self.has_colour = False
        self._paths = {split: folder / f"{split}.raw" for split in arrays.SPLITS}
        self._labels: dict[str, list[np.ndarray]] = {split: [] for split in arrays.SPLITS}
        self._names: dict[str, list[str]] = {split: [] for split in arrays.SPLITS}
        self._prints: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {s: [] for s in self._paths}
        for path in self._paths.values():
            path.touch()

    def add(
        self,
        images: UInt8[np.ndarray, "n side side 3"],
        labels: Int64[np.ndarray, " n"],
        names: list[str],
        destinations: Int64[np.ndarray, " n"],
    ) -> None:
        """Adds pictures, each to the split that its number says, as an index of `SPLITS`."""
        self.has_colour = self.has_colour or bool((images != images[..., :1]).any())
        for number, split in enumerate(arrays.SPLITS):
            here = np.flatnonzero(destinations == number)
            if len(here):
                block = images[here]
                with self._paths[split].open("ab") as file:
                    file.write(block.data)
                self._labels[split].append(labels[here])
                self._names[split] += [names[i] for i in here]
                self._prints[split].append(report.fingerprints(block))

    def facts(
        self, keep: dict[str, Bool[np.ndarray, " n"]] | None = None
    ) -> dict[str, report.Facts]:
        """Returns what the report needs, of all pictures or of those to keep."""
        result = {}
        for split in arrays.SPLITS:
            labels = np.concatenate([np.zeros(0, np.int64), *self._labels[split]])
            kept = np.ones(len(labels), bool) if keep is None else keep[split]
            digests, edges = (
                np.concatenate([np.zeros(0, "V16"), *(pair[i] for pair in self._prints[split])])
                for i in (0, 1)
            )
            names = [self._names[split][i] for i in np.flatnonzero(kept)]
            result[split] = report.Facts(names, labels[kept], digests[kept], edges[kept])
        return result

    def finish(
        self,
        folder: Path,
        channels: int,
        num_classes: int,
        keep: dict[str, Bool[np.ndarray, " n"]] | None,
    ) -> tuple[float, float]:
        """Writes the arrays; returns mean and standard deviation of train's levels / 255."""
        folder.mkdir(parents=True)
        index: dict[str, Any] = {}
        dtype = np.uint8 if num_classes <= 256 else np.uint16
        moments = (0, 0, 0)
        for split, facts in self.facts(keep).items():
            shape = (len(facts.labels), self.side, self.side) + ((3,) if channels == 3 else ())
            with (folder / f"{split}_images.npy").open("wb") as file:
                writer = _Writer(file)
                writer.write(_npy_header(shape))
                kept = None if keep is None else keep[split]
                for block in self._blocks(split, kept):
                    block = block if channels == 3 else _grey(block, self.has_colour)
                    writer.write(np.ascontiguousarray(block).data)
                    if split == "train":
                        moments = _add(moments, block)
            index[f"{split}_images.npy"] = writer.entry()
            buffer = io.BytesIO()
            np.save(buffer, facts.labels.astype(dtype))
            with (folder / f"{split}_labels.npy").open("wb") as file:
                writer = _Writer(file)
                writer.write(buffer.getbuffer())
            index[f"{split}_labels.npy"] = writer.entry()
            self._paths[split].unlink()
        arrays.write_index(folder, index)
        count, total, squares = moments
        variance = (count * squares - total**2) / count**2
        return total / count / 255, math.sqrt(variance) / 255

    def _blocks(
        self, split: str, keep: Bool[np.ndarray, " n"] | None
    ) -> Iterator[UInt8[np.ndarray, "n side side 3"]]:
        size, at = self.side**2 * 3, 0
        with self._paths[split].open("rb") as file:
            while contents := file.read(_BLOCK * size):
                block = np.frombuffer(contents, np.uint8).reshape(-1, self.side, self.side, 3)
                yield block if keep is None else block[keep[at : at + len(block)]]
                at += len(block)


class _Writer:
    """Writes to a file and hashes on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, contents: bytes | memoryview) -> None:
        self.file.write(contents)
        self.digest.update(contents)
        self.size += memoryview(contents).nbytes

    def entry(self) -> dict[str, Any]:
        return {"size_bytes": self.size, "sha256": self.digest.hexdigest()}


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _grey(block: UInt8[np.ndarray, "n side side 3"], has_colour: bool) -> np.ndarray:
    return pictures.to_grey(block)[..., 0] if has_colour else block[..., 0]


def _add(moments: tuple[int, int, int], block: np.ndarray) -> tuple[int, int, int]:
    """Counts, sums and sums of squares; from a histogram, since widening 240 MB takes seconds."""
    flat = np.ascontiguousarray(block).reshape(1, -1)
    counts = Image.fromarray(flat).histogram()
    total = sum(level * count for level, count in enumerate(counts))
    squares = sum(level**2 * count for level, count in enumerate(counts))
    return (moments[0] + flat.size, moments[1] + total, moments[2] + squares)
