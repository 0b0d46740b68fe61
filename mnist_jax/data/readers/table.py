"""A folder with `metadata.csv` or `metadata.jsonl`: file_name, label, perhaps split and group."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from mnist_jax.data.readers.folder import LINK_OUT, picture_part, refuse_linked_splits, why_refused
from mnist_jax.data.readers.listing import SPLIT_NAMES, Listing, Part, classes_of, wrong

NAMES = ("metadata.csv", "metadata.jsonl")
_REMEDY = "write the columns file_name, label and, if you like, split and group"


def tables(root: Path) -> list[Path]:
    """Returns the tables in `root`, or in the folders of its splits."""
    places = [root, *(root / name for name in SPLIT_NAMES)]
    return [place / name for place in places for name in NAMES if (place / name).is_file()]


def read(root: Path) -> Listing:
    """Lists the pictures that the tables name; opens none of them.

    Raises:
        UserError: a table is not UTF-8, not CSV or JSON, lacks a column, names a file twice or one
            outside the folder, or has labels or groups for some pictures alone; or a split is a
            link out of the folder.
    """
    is_inside = _inside_of(root)
    refuse_linked_splits(root, is_inside)
    rows: dict[str, list[tuple[str, str, str | None]]] = {}
    refused: list[tuple[str, str]] = []
    seen: set[str] = set()
    has_split = set()
    for table in tables(root):
        folder_split = SPLIT_NAMES.get(table.parent.name) if table.parent != root else None
        for line, row in _rows(table):
            name, split = _name(root, table, line, row), _split(table, line, row) or folder_split
            if name in seen:
                raise wrong(table, f"names {name!r} a second time in row {line}", "name it once")
            seen.add(name)
            has_split.add(split is not None)
            label, group = _label(table, line, row), row.get("group")
            path = root / name
            reason = why_refused(root, path) if is_inside(path.parent) else LINK_OUT
            if reason is not None:
                refused.append((name, _missing(path, reason)))
                continue
            rows.setdefault(split or "train", []).append(
                (name, label, None if group in (None, "") else str(group))
            )
    if len(has_split) > 1:
        raise wrong(root, "has a table with a split for some rows alone", "give all rows one")
    parts = {split: _part(root, found) for split, found in rows.items()}
    if "train" not in parts:
        raise wrong(root, "has a table without any picture to train on", _REMEDY)
    return Listing("a folder with a table", parts, classes_of(parts), tuple(refused))


def _inside_of(root: Path) -> Callable[[Path], bool]:
    """Returns whether a folder is in `root` once links are followed; each is looked up once."""
    top = os.path.realpath(root)
    return cache(lambda folder: Path(os.path.realpath(folder)).is_relative_to(top))


def _missing(path: Path, reason: str) -> str:
    return reason if path.is_symlink() or path.exists() else "named in the table, and not there"


def _part(root: Path, found: list[tuple[str, str, str | None]]) -> Part:
    names, labels = [name for name, _, _ in found], [label for _, label, _ in found]
    groups = [group for _, _, group in found]
    if all(group is None for group in groups):
        return picture_part(root, names, labels)
    # Without a group a picture stands for itself.
    filled = [
        group if group is not None else f"\0{n}" for n, group in zip(names, groups, strict=True)
    ]
    return picture_part(root, names, labels, filled)


def _rows(table: Path) -> Iterator[tuple[int, dict]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            if table.suffix == ".csv":
                reader = csv.DictReader(file, strict=True)
                yield from ((number, row) for number, row in enumerate(reader, 2))
                return
            for number, text in enumerate(file, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise ValueError(f"row {number} is not an object")
                    yield number, row
    except UnicodeDecodeError as error:
        raise wrong(table, "is not UTF-8", "save it as UTF-8") from error
    except (csv.Error, ValueError, RecursionError) as error:
        kind = "CSV" if table.suffix == ".csv" else "JSON lines"
        raise wrong(table, f"is not valid {kind} ({error})", _REMEDY) from error
    except OSError as error:
        raise wrong(table, f"cannot be read ({error.strerror})", "make it readable") from error


def _name(root: Path, table: Path, line: int, row: dict) -> str:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise wrong(table, f"has no file_name in row {line}", _REMEDY)
    inside = Path(*[part for part in Path(name).parts if part != "."])
    if inside.is_absolute() or ".." in inside.parts or "\0" in name:
        raise wrong(table, f"names {name!r} in row {line}, outside the folder", "name files in it")
    return str((table.parent / inside).relative_to(root))


def _label(table: Path, line: int, row: dict) -> str:
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
        raise wrong(table, f"has no label (text or a whole number) in row {line}", _REMEDY)
    return str(label)


def _split(table: Path, line: int, row: dict) -> str | None:
    split = row.get("split")
    if split in (None, ""):
        return None
    if not isinstance(split, str) or split.lower() not in SPLIT_NAMES:
        known = "train, validation or test"
        raise wrong(table, f"has the split {split!r} in row {line}, not {known}", f"write {known}")
    return SPLIT_NAMES[split.lower()]
