"""A folder of classes: `CLASS/*`, or `train/CLASS/*` with `val` and `test` beside it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mnist_jax.data.decoding import CHUNK
from mnist_jax.data.readers.listing import (
    SPLIT_NAMES,
    Listing,
    Part,
    in_chunks,
    natural,
    wrong,
)
from mnist_jax.errors import UserError

LINK_OUT = "a link out of the folder"
_NOT_PICTURES = {"thumbs.db", "desktop.ini"}


def read(root: Path) -> Listing:
    """Lists the pictures; opens none of them.

    Pictures come in the natural order of their file names, whatever their class.

    Raises:
        UserError: there are no classes, a split is there twice or is a link, or there is no
            `train`.
    """
    refuse_linked_splits(root)
    folders = sorted((entry for entry in entries(root) if _is_folder(entry)), key=lambda e: e.name)
    splits = split_folders(root, [entry.name for entry in folders])
    if splits and "train" not in splits:
        raise wrong(root, f"holds {', '.join(splits)} and no train", "name the folder train")
    refused: list[tuple[str, str]] = []
    parts, class_names = {}, set()
    for split, place in splits.items() or [("train", root)]:
        found, here = _classes(root, place, refused)
        class_names |= here
        parts[split] = _part(root, found)
    empty = class_names - {label for part in parts.values() for label in part.labels}
    if not class_names:
        raise wrong(root, "holds no folders of pictures", "put each class into its own folder")
    if empty:
        name = min(empty)
        raise UserError(
            f"class {name!r} of {root} has no files; put pictures into its folder, or remove it"
        )
    names = tuple(sorted(class_names, key=natural))
    kind = "a folder of classes in splits" if splits else "a folder of classes"
    return Listing(kind, {s: p for s, p in parts.items() if p.names}, names, tuple(refused))


def refuse_linked_splits(root: Path, follows: Callable[[Path], bool] = lambda _: False) -> None:
    """Refuses a link with the name of a split: without it, another split would take its place.

    Args:
        root: the folder of the pictures.
        follows: whether the reader follows such a link.

    Raises:
        UserError: there is one.
    """
    for entry in entries(root):
        is_split = entry.name.lower() in SPLIT_NAMES and entry.is_symlink()
        if is_split and not os.path.isfile(entry.path) and not follows(Path(entry.path)):
            problem = f"has a link for {entry.name}, which is not followed"
            raise wrong(root, problem, "put the folder itself there")


def split_folders(root: Path, names: list[str]) -> dict[str, Path]:
    """Returns the folders that are splits, by our name of the split."""
    splits: dict[str, Path] = {}
    for name in names:
        split = SPLIT_NAMES.get(name.lower())
        if split in splits:
            raise wrong(root, f"holds {splits[split].name} and {name}", "keep one of the two")
        if split is not None:
            splits[split] = root / name
    return splits


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what lies in a folder, without what is hidden.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return [e for e in found if e.name[0] != "." and e.name.lower() not in _NOT_PICTURES]
    except OSError as error:
        raise wrong(folder, f"cannot be read ({error.strerror})", "make it readable") from error


def why_refused(root: Path, path: Path) -> str | None:
    """Returns why a file must not be opened: a link out of `root`, a device, a FIFO.

    Its folder is taken to be in `root`.
    """
    try:
        if path.is_symlink():
            target = path.resolve(strict=True)
            if not target.is_relative_to(root.resolve()):
                return LINK_OUT
            if target.is_dir():
                return "a link to a folder"
        return None if path.is_file() else "not a regular file"
    except (OSError, RuntimeError):
        return "a link that leads nowhere"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _classes(
    root: Path, place: Path, refused: list[tuple[str, str]]
) -> tuple[list[tuple[str, str]], set[str]]:
    """Returns (path in root, class) of each file below `place`, and all classes."""
    found, names = [], set()
    for entry in entries(place):
        if _is_folder(entry):
            names.add(entry.name)
            found += [(name, entry.name) for name in _files(root, Path(entry.path), refused)]
        elif entry.is_symlink() and os.path.isdir(entry.path):
            refused.append((os.path.relpath(entry.path, root), "a link to a folder"))
    return found, names


def _files(root: Path, folder: Path, refused: list[tuple[str, str]]) -> Iterator[str]:
    """Yields the regular files below a folder, as paths in root."""
    waiting, prefix = [folder], os.path.join(root, "")
    while waiting:
        for entry in entries(waiting.pop()):
            if _is_folder(entry):
                waiting.append(Path(entry.path))
                continue
            name = entry.path.removeprefix(prefix)  # os.path.relpath takes longer than scandir
            is_plain = entry.is_file(follow_symlinks=False)
            reason = None if is_plain else why_refused(root, Path(entry.path))
            if reason is None:
                yield name
            else:
                refused.append((name, reason))


def _part(root: Path, found: list[tuple[str, str]]) -> Part:
    found.sort(key=lambda item: (natural(item[0].rpartition("/")[2]), item[0]))
    return picture_part(root, [name for name, _ in found], [label for _, label in found])


def picture_part(
    root: Path, names: list[str], labels: list[str], groups: list[str] | None = None
) -> Part:
    """A split of picture files, by their paths in `root`."""
    prefix = os.path.join(root, "")  # `join` for each picture takes longer than finding it
    return Part(
        names=names,
        labels=labels,
        chunks=lambda: ([prefix + name for name in chunk] for chunk in in_chunks(names, CHUNK)),
        groups=groups,
    )
