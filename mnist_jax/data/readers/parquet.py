"""Parquet as Hugging Face writes it: columns `image` ({bytes, path}) and `label`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq

from mnist_jax.data.decoding import CHUNK
from mnist_jax.data.readers.listing import Listing, Part, classes_of, natural, split_of_file, wrong

_REMEDY = "write columns image (bytes, or {bytes, path}) and label, as Hugging Face's datasets does"
_IMAGE, _LABEL = ("image", "img"), ("label", "labels", "fine_label")


def files(path: Path) -> list[Path]:
    """Returns the Parquet files of a folder (or of its folder `data`), or the file itself."""
    if path.is_file():
        return [path]
    for place in (path, path / "data"):
        found = sorted((f for f in place.glob("*.parquet") if f.is_file()), key=_order)
        if found:
            return found
    return []


def read(path: Path) -> Listing:
    """Reads the labels; the pictures are streamed.

    Raises:
        UserError: a file is damaged, lacks a column, has pictures or labels of another type, or
            other class names than the others.
    """
    by_split: dict[str, list[Path]] = {}
    for file in files(path):
        by_split.setdefault(split_of_file(file), []).append(file)
    if "train" not in by_split:
        raise wrong(
            path, f"holds {', '.join(by_split)} and no train", "name a file train-*.parquet"
        )
    by_file: dict[Path, tuple[str, ...] | None] = {}  # class names
    parts = {}
    for split, split_files in by_split.items():
        labels: list[str] = []
        columns = []
        for file in split_files:
            image, found, by_file[file] = _labels(file)
            columns.append(image)
            labels += found
        places = list(zip(split_files, columns, strict=True))
        rows = [f"{split} {row}" for row in range(len(labels))]
        parts[split] = Part(rows, labels, lambda places=places: _pictures(places))
    return Listing("Parquet", parts, _common(by_file) or classes_of(parts))


def _common(by_file: dict[Path, tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Returns the class names that all files have; None: they have only labels."""
    (first, names), *others = by_file.items()
    for file, own in others:
        if own != names:
            remedy = "write the same features to all files"
            raise wrong(file, f"has other class names than {first}", remedy)
    return names


def _order(path: Path) -> list[str | int]:
    return natural(path.name)


def _labels(file: Path) -> tuple[str, list[str], tuple[str, ...] | None]:
    """Returns the image column, the label of each row, and the class names if they are known."""
    try:
        schema = pq.read_schema(file, memory_map=False)
        image = next((name for name in _IMAGE if name in schema.names), None)
        label = next((name for name in _LABEL if name in schema.names), None)
        if image is None or label is None:
            raise wrong(file, f"has the columns {', '.join(schema.names)}", _REMEDY)
        kind = schema.field(image).type
        if not _holds_bytes(kind):
            raise wrong(file, f"has images of type {kind}", _REMEDY)
        names = _class_names(schema, label)
        values = pq.read_table(file, columns=[label]).column(label).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        problem = f"is not Parquet, or damaged ({str(error).splitlines()[0]})"
        raise wrong(file, problem, "write it again") from error
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise wrong(file, f"has the label {value!r} in row {row}", _REMEDY)
        if names and (not isinstance(value, int) or not 0 <= value < len(names)):
            raise wrong(file, f"has the label {value} in row {row}, of {len(names)} names", _REMEDY)
    return image, [names[v] if names else str(v) for v in values], names


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    """Returns whether a column has contents of files: text would be taken for paths."""
    if pyarrow.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else kind
    return kind in (pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary_view())


def _class_names(schema: pyarrow.Schema, label: str) -> tuple[str, ...] | None:
    """Returns the names of a `ClassLabel`, which Hugging Face keeps as JSON in the schema."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
        return tuple(str(name) for name in names) if isinstance(names, list) and names else None
    except (KeyError, ValueError, TypeError):
        return None


def _pictures(places: list[tuple[Path, str]]) -> Iterator[list[bytes]]:
    for file, column in places:
        try:
            with pq.ParquetFile(file) as source:
                for batch in source.iter_batches(batch_size=CHUNK, columns=[column]):
                    yield [_contents(value) for value in batch.column(0).to_pylist()]
        except (OSError, pyarrow.ArrowException) as error:
            problem = f"is damaged ({str(error).splitlines()[0]})"
            raise wrong(file, problem, "write it again") from error


def _contents(value: dict[str, bytes] | bytes | None) -> bytes:
    return (value.get("bytes") if isinstance(value, dict) else value) or b""
