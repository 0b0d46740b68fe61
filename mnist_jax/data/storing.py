"""Decoded pictures on their way to the arrays of three splits, a block at a time."""

import hashlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from mnist_jax.data import arrays, pictures, report

_BLOCK = 1024  # pictures


class Store:
    """Takes pictures in any order of splits and writes the arrays as `arrays.read` reads them.

    What comes goes into the files at once, in colour: they are written again only where they end
    up grey, or with fewer pictures.

    Args:
        folder: for the arrays; made here.
        side: of the pictures.
        counts: of the pictures to come, by split, should all be readable.
    """

    def __init__(self, folder: Path, side: int, counts: dict[str, int]) -> None:
        folder.mkdir(parents=True)
        self.folder, self.side = folder, side
        self.has_colour = False
        self._files = {
            split: _ImagesFile(
                folder / f"{split}_images.npy", (counts[split], side, side, 3), split == "train"
            )
            for split in arrays.SPLITS
        }
        self._labels: dict[str, list[np.ndarray]] = {split: [] for split in arrays.SPLITS}
        self._names: dict[str, list[str]] = {split: [] for split in arrays.SPLITS}
        self._prints: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {s: [] for s in self._files}
        self._digests: dict[str, np.ndarray] = {}

    def add(
        self,
        images: UInt8[np.ndarray, "n side side 3"],
        labels: Int64[np.ndarray, " n"],
        names: list[str],
        destinations: Int64[np.ndarray, " n"],
    ) -> None:
        """Adds pictures, each to the split that its number says, as an index of `SPLITS`."""
        self.has_colour = self.has_colour or bool((images != images[..., :1]).any())
        keys, edges = report.fingerprints(images)
        for number, split in enumerate(arrays.SPLITS):
            here = np.flatnonzero(destinations == number)
            if len(here):
                self._files[split].write(images if len(here) == len(images) else images[here])
                self._labels[split].append(labels[here])
                self._names[split] += [names[i] for i in here]
                self._prints[split].append((keys[here], edges[here]))

    def close(self) -> None:
        """Says that no more pictures come."""
        for file in self._files.values():
            file.close()

    def facts(
        self, keep: dict[str, Bool[np.ndarray, " n"]] | None = None
    ) -> dict[str, report.Facts]:
        """Returns what the report needs, of all pictures or of those to keep."""
        self._digests = self._digests or self._tell_apart()
        result = {}
        for split in arrays.SPLITS:
            labels = np.concatenate([np.zeros(0, np.int64), *self._labels[split]])
            kept = np.ones(len(labels), bool) if keep is None else keep[split]
            digests, edges = self._digests[split], self._joined(split, 1)
            names = [self._names[split][i] for i in np.flatnonzero(kept)]
            result[split] = report.Facts(names, labels[kept], digests[kept], edges[kept])
        return result

    def finish(
        self, channels: int, num_classes: int, keep: dict[str, Bool[np.ndarray, " n"]] | None
    ) -> tuple[float, float]:
        """Completes the arrays; returns mean and standard deviation of train's levels / 255."""
        index: dict[str, Any] = {}
        dtype = np.uint8 if num_classes <= 256 else np.uint16
        for split, facts in self.facts(keep).items():
            file = self._files[split]
            shape = (len(facts.labels), self.side, self.side) + ((3,) if channels == 3 else ())
            if file.shape != shape:
                file = self._write_again(file, shape, None if keep is None else keep[split])
                self._files[split] = file
            index[file.path.name] = file.entry()
            buffer = io.BytesIO()
            np.save(buffer, facts.labels.astype(dtype))
            contents = buffer.getvalue()
            path = self.folder / f"{split}_labels.npy"
            path.write_bytes(contents)
            index[path.name] = _entry(len(contents), hashlib.sha256(contents))
        arrays.write_index(self.folder, index)
        return self._files["train"].mean_and_std()

    def _tell_apart(self) -> dict[str, np.ndarray]:
        """Returns `Facts.digests`; only pictures whose keys are equal are looked at again."""
        keys = {split: self._joined(split, 0).tolist() for split in self._files}
        counts = Counter(itertools.chain.from_iterable(keys.values()))
        size = self.side**2 * 3
        for split, digests in keys.items():
            with self._files[split].path.open("rb") as file:
                for row in [row for row, key in enumerate(digests) if counts[key] > 1]:
                    file.seek(_ImagesFile.HEADER_BYTES + row * size)
                    digests[row] = report.digest(file.read(size))
        return {split: np.array(digests, "V16") for split, digests in keys.items()}

    def _joined(self, split: str, which: int) -> np.ndarray:
        return np.concatenate([np.zeros(0, "V16"), *(pair[which] for pair in self._prints[split])])

    def _write_again(
        self, old: "_ImagesFile", shape: tuple[int, ...], keep: Bool[np.ndarray, " n"] | None
    ) -> "_ImagesFile":
        beside = old.path.with_suffix(".colour")
        os.rename(old.path, beside)
        new = _ImagesFile(old.path, shape, old.is_measured)
        try:
            at = 0
            for block in self._blocks(beside):
                kept = block if keep is None else block[keep[at : at + len(block)]]
                new.write(kept if len(shape) == 4 else _grey(kept, self.has_colour))
                at += len(block)
        finally:
            new.close()
        beside.unlink()
        return new

    def _blocks(self, path: Path) -> Iterator[UInt8[np.ndarray, "n side side 3"]]:
        size = self.side**2 * 3
        with path.open("rb") as file:
            file.seek(_ImagesFile.HEADER_BYTES)
            while contents := file.read(_BLOCK * size):
                yield np.frombuffer(contents, np.uint8).reshape(-1, self.side, self.side, 3)


class _ImagesFile:
    """A `.npy` file of uint8, hashed and measured while it is written.

    Args:
        path: which it makes.
        shape: that the header names.
        is_measured: whether somebody will ask for `mean_and_std`.
    """

    HEADER_BYTES = 128  # of any shape that occurs here

    def __init__(self, path: Path, shape: tuple[int, ...], is_measured: bool) -> None:
        self.path, self.shape, self.is_measured = path, shape, is_measured
        header = io.BytesIO()
        facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, facts)
        assert header.tell() == self.HEADER_BYTES
        self._file = path.open("wb", buffering=0)
        self._size, self._digest = 0, hashlib.sha256()
        self._counts = np.zeros(256, np.int64)  # of each level
        self._write(header.getbuffer())

    def write(self, images: UInt8[np.ndarray, "..."]) -> None:
        """Writes images after those before."""
        flat = np.ascontiguousarray(images).reshape(1, -1)
        self._write(flat.data.cast("B"))
        if self.is_measured:
            # Of a picture: NumPy's bincount first makes eight bytes of each.
            self._counts += Image.fromarray(flat).histogram()

    def _write(self, contents: memoryview) -> None:
        self._digest.update(contents)
        self._size += len(contents)
        while contents:
            contents = contents[self._file.write(contents) :]

    def close(self) -> None:
        self._file.close()

    def entry(self) -> dict[str, Any]:
        """Returns what the index says of the file."""
        return _entry(self._size, self._digest)

    def mean_and_std(self) -> tuple[float, float]:
        """Returns both of all levels / 255, from sums of whole numbers."""
        counts = self._counts.tolist()
        total = sum(level * number for level, number in enumerate(counts))
        squares = sum(level**2 * number for level, number in enumerate(counts))
        return arrays.mean_and_std_of_sums(sum(counts), total, squares)


def _entry(size: int, digest: "hashlib._Hash") -> dict[str, Any]:
    return {"size_bytes": size, "sha256": digest.hexdigest()}


def _grey(block: UInt8[np.ndarray, "n side side 3"], has_colour: bool) -> np.ndarray:
    return pictures.to_grey(block)[..., 0] if has_colour else block[..., 0]
