"""The user's own pictures: decoded once, kept as arrays, found again in a moment."""

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mnist_jax import files
from mnist_jax.data import arrays, pictures, readers, report, splits, storing
from mnist_jax.data.decoder import Seen
from mnist_jax.data.decoding import Decoded, Decoders
from mnist_jax.data.readers.listing import Listing, Part, label_indices
from mnist_jax.errors import UserError, printable

VERSION = 2  # of what is made of pictures; a change of any rule raises it
MIN_SIDE, MAX_SIDE = 16, 128
_SAMPLE = 256  # pictures that the usual size is taken from
Progress = Callable[[int, int], None]  # pictures done, pictures in all


class Settings(NamedTuple):
    """How pictures become arrays."""

    image_side: int | None = None  # pixels, 16 to 128; None: the usual longer side
    channels: int | None = None  # 1 or 3; None: 3 where any picture has colour
    fit: str = "pad"  # see pictures.FITS
    validation_share: float = 0.1  # of what the source has to train on, where it has none
    test_share: float = 0.1
    transposed: bool = False  # IDX and CSV
    drop_duplicates: bool = False  # see report.drop_duplicates


class OwnData(NamedTuple):
    """Pictures of the user's own that lie prepared on disk."""

    source: str  # one line: what it was read as, splits, pictures, classes, sizes, modes
    class_names: tuple[str, ...]
    folder: Path  # where the arrays are, as `arrays.read` reads them
    data_hash: str  # SHA-256, in hex, over all arrays
    num_train: int
    num_validation: int
    num_test: int
    image_mean: float  # of the train split's levels, all channels, 0 to 1
    image_std: float
    image_side: int
    channels: int
    ignored: tuple[str, ...]  # one line each: what was left out


def prepare(
    path: Path, data_dir: Path, settings: Settings, progress: Progress | None = None
) -> tuple[OwnData, report.DataReport]:
    """Makes sure that the pictures lie decoded on disk, and says what they are.

    They are found again by the place, the names, sizes and times of change of all files, and the
    settings.

    Args:
        path: a folder or file in one of `readers.FORMATS`.
        data_dir: where prepared data is kept.
        settings: how.
        progress: called now and then while pictures are decoded.

    Raises:
        UserError: a wrong setting or source, a folder that cannot be written, or prepared data
            that is damaged. Nothing half-prepared stays behind.
    """
    _check(settings)
    folder = Path("own", _key(path, settings))
    if not os.path.isdir(data_dir / folder):
        with Decoders() as decoders:  # they get ready while files are listed
            listing = readers.read(path, settings.transposed)
            with arrays.alone_in(data_dir):
                if not os.path.isdir(data_dir / folder):
                    _make(path, listing, settings, data_dir, folder, decoders, progress)
    saved = _read(data_dir / folder / "data.json")
    own = OwnData(
        **{**saved, "class_names": tuple(saved["class_names"]), "ignored": tuple(saved["ignored"])},
        folder=data_dir / folder,
        data_hash=arrays.data_hash(data_dir / folder),
    )
    return own, _read(data_dir / folder / "report.json")


def names(folder: Path) -> dict[str, list[str]]:
    """Returns the name of each picture, by split, in the order of the arrays in a folder.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _read(folder / "names.json")


def _read(path: Path) -> Any:
    try:
        return files.read_json(path)
    except UserError as error:  # running again, its remedy, would find the same file
        raise arrays.changed(path) from error


def _check(settings: Settings) -> None:
    side = settings.image_side
    if side is not None and not MIN_SIDE <= side <= MAX_SIDE:
        raise UserError(f"image_side is {side}; it must be {MIN_SIDE} to {MAX_SIDE} pixels")
    if settings.channels not in (None, 1, 3):
        raise UserError(f"channels is {settings.channels}; it must be 1 (grey) or 3 (colour)")
    if settings.fit not in pictures.FITS:
        raise UserError(f"fit is {settings.fit!r}; choose one of {', '.join(pictures.FITS)}")


def _key(path: Path, settings: Settings) -> str:
    """SHA-256 over settings, the place, and name, size and time of change of each file.

    The place belongs to it: archives give all files one time, and the files of two data sets often
    have the same names and sizes.
    """
    digest = hashlib.sha256(
        repr((VERSION, settings)).encode() + os.fsencode(os.path.realpath(path))
    )
    waiting = [os.fspath(path)]
    try:
        if not os.path.isdir(path):
            status = os.stat(path)
            digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
        while waiting and os.path.isdir(path):
            place = waiting.pop()
            lines = []
            with os.scandir(place) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        lines.append(os.fsencode(entry.name))
                        continue
                    is_broken = entry.is_symlink() and not os.path.exists(entry.path)
                    status = entry.stat(follow_symlinks=not is_broken)
                    facts = f"\0{status.st_size} {status.st_mtime_ns}\0"
                    lines.append(os.fsencode(entry.name) + facts.encode())
            waiting.sort()
            lines.sort()
            digest.update(os.fsencode(os.path.relpath(place, path)) + b"\0" + b"\0".join(lines))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; name a folder or file of pictures") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); make it readable") from error
    return digest.hexdigest()[:32]


def _make(
    path: Path,
    listing: Listing,
    settings: Settings,
    data_dir: Path,
    folder: Path,
    decoders: Decoders,
    progress: Progress | None,
) -> None:
    class_names = tuple(printable(name) for name in listing.class_names)
    if not 2 <= len(class_names) <= 2**16 or len(set(class_names)) < len(class_names):
        problem = f"{path} has {len(set(class_names))} class(es)"
        raise UserError(f"{problem}; a classifier needs 2 to 65,536 with names that differ")
    destinations = splits.assign(listing, settings.validation_share, settings.test_share)
    side = settings.image_side or _usual_side(path, listing.parts["train"])
    with arrays.appears_whole(data_dir, folder) as staging:
        decode = functools.partial(_decode, decoders, side=side, fit=settings.fit)
        store = storing.Store(staging / folder, side, splits.counts(destinations))
        with contextlib.closing(store):
            seen, unreadable = _fill(store, listing, destinations, decode, progress)
        facts = store.facts()
        for split, part in facts.items():
            if not len(part.labels):
                first = (
                    f" ({printable(unreadable[0][0])}: {unreadable[0][1]})" if unreadable else ""
                )
                raise UserError(
                    f"{path} has no readable picture for {split}{first}; add pictures to it"
                )
        keep = None
        if settings.drop_duplicates:
            keep = report.drop_duplicates(facts)
            if not all(kept.any() for kept in keep.values()):
                raise UserError(f"{path} has only pictures that are in a later split; add others")
        channels = settings.channels or (3 if store.has_colour else 1)
        mean, std = store.finish(channels, len(class_names), keep)
        kept = store.facts(keep)
        dropped = {s: len(facts[s].labels) - len(kept[s].labels) for s in kept if keep}
        found = report.data_report(kept, class_names, seen, unreadable, dropped)
        counts = {f"num_{split}": len(part.labels) for split, part in kept.items()}
        record = {
            "source": _describe(listing, found, counts),
            "class_names": list(class_names),
            "image_mean": mean,
            "image_std": std,
            "image_side": side,
            "channels": channels,
            "ignored": list(listing.ignored),
        }
        files.write_json(staging / folder / "data.json", {**record, **counts})
        files.write_json(staging / folder / "report.json", found)
        by_split: dict[str, Any] = {s: list(map(printable, part.names)) for s, part in kept.items()}
        files.write_json(staging / folder / "names.json", by_split)


def _fill(
    store: storing.Store,
    listing: Listing,
    destinations: splits.Destinations,
    decode: Callable[[Part], Iterator[Decoded]],
    progress: Progress | None,
) -> tuple[dict[str, tuple[tuple[int, int], str]], list[tuple[str, str]]]:
    """Decodes everything; returns size and mode by name, and what is unreadable with the reason."""
    total = sum(len(part.labels) for part in listing.parts.values())
    unreadable, seen, done = list(listing.refused), {}, 0
    for split, part in listing.parts.items():
        labels, at = label_indices(part, listing.class_names), 0
        for decoded in decode(part):
            rows = range(at, at + len(decoded.seen))
            good = [i for i, s in zip(rows, decoded.seen, strict=True) if s.reason is None]
            for i, (reason, size, mode) in zip(rows, decoded.seen, strict=True):
                if reason is None:
                    seen[part.names[i]] = (size, mode)
                else:
                    unreadable.append((part.names[i], reason))
            names = [part.names[i] for i in good]
            store.add(decoded.images, labels[good], names, destinations[split][good])
            at, done = rows.stop, done + len(rows)
            if progress is not None:
                progress(done, total)
    return seen, unreadable


def _decode(decoders: Decoders, part: Part, side: int, fit: str) -> Iterator[Decoded]:
    chunks = part.chunks()
    first = next(chunks, [])  # a Parquet file without a row has none
    together = itertools.chain([first], chunks)
    if isinstance(first, list):
        yield from decoders.decode(together, side, fit)  # pyright: ignore[reportArgumentType]
        return
    for block in together:
        assert isinstance(block, np.ndarray)
        images = _in_colour(block)
        height, width = images.shape[1:3]
        if (height, width) != (side, side):
            images = np.stack([pictures.prepare(image, side, fit) for image in images])
        mode = "L" if block.shape[3:] in ((), (1,)) else "RGB"
        yield Decoded([Seen(None, (width, height), mode)] * len(block), images)


def _in_colour(block: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "n height width 3"]:
    block = block[..., None] if block.ndim == 3 else block
    return block if block.shape[3] == 3 else np.repeat(block, 3, axis=3)


def _usual_side(path: Path, part: Part) -> int:
    """The median of the longer sides of the first pictures, brought to what is allowed."""
    sides: list[int] = []
    for chunk in part.chunks():
        if not isinstance(chunk, list):
            sides.append(max(chunk.shape[1:3]))
            break
        for item in chunk:
            try:
                contents = pictures.read_file(item) if isinstance(item, str) else item
                sides.append(max(pictures.header(contents)))
            except pictures.Unreadable:
                continue  # decoding will say so
        if len(sides) >= _SAMPLE:
            break
    if not sides:
        raise UserError(f"{path} has no readable picture to train on; add pictures to it")
    return min(max(sorted(sides)[len(sides) // 2], MIN_SIDE), MAX_SIDE)


def _describe(listing: Listing, found: report.DataReport, counts: dict[str, int]) -> str:
    missing = " and ".join(split for split in arrays.SPLITS if split not in listing.parts)
    sizes, modes = list(found["sizes"]), sorted(found["modes"])
    shown = ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
    parts = [
        f"{listing.format}; {sum(counts.values()):,} pictures",
        ", ".join(f"{n:,} {name.removeprefix('num_')}" for name, n in counts.items())
        + (f" ({missing} taken from train)" if missing else ""),
        f"{len(listing.class_names)} classes",
        f"sizes {shown}",
        f"modes {', '.join(modes)}",
    ]
    if found["unreadable"]["count"]:
        parts.append(f"{found['unreadable']['count']:,} unreadable")
    return "; ".join(parts)
