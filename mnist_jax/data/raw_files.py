"""Finds the published raw files by what is in them: their names and folders vary by mirror."""

import gzip
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MAX_FILES = 20_000  # that are looked at
MAX_BYTES = 100_000_000  # of contents: twice the largest published file
_CHUNK_BYTES = 1 << 20


class Sought(NamedTuple):
    """A published file; at least one of the two sums is known."""

    contents_sha256: str | None  # in hex, of what is in it once unpacked
    packed_sha256: str | None  # in hex, of the `.gz` file itself
    packed_size: int  # bytes


def find(folder: Path, sought: Mapping[str, Sought]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Looks through a folder and all in it, but through no links to folders.

    Args:
        folder: where to look.
        sought: what to look for, by published name without `.gz`.

    Returns:
        The files with the published contents, by published name; and those that a missing one may
        be meant by: of its name but for dots and the like, with other contents.
    """
    found: dict[str, Path] = {}
    similar: dict[str, Path] = {}
    names = {_letters(name): name for name in sought}
    for path in _files(folder):
        try:
            digest = _contents_sha256(path)
            packed = _packed_sha256(path, sought)
        except (OSError, EOFError, zlib.error):  # unreadable or damaged: known by its name alone
            digest = packed = None
        for name, one in sought.items():
            is_same = digest is not None and digest == one.contents_sha256
            if is_same or (packed is not None and packed == one.packed_sha256):
                found.setdefault(name, path)
        if name := names.get(_letters(path.name)):
            similar.setdefault(name, path)
    return found, {name: path for name, path in similar.items() if name not in found}


def _files(folder: Path) -> Iterator[Path]:
    """Yields regular files, in an order that does not depend on the disk."""
    num_seen = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            num_seen += 1
            if num_seen > MAX_FILES:
                return
            if path.exists() and stat.S_ISREG(path.stat().st_mode):
                yield path


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower()).removesuffix("gz")


def _contents_sha256(path: Path) -> str | None:
    """Returns the checksum of an IDX file's contents, gzipped or not; None for any other file."""
    with path.open("rb") as plain:
        is_packed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if is_packed else path.open("rb") as file:
        chunk, digest, num_bytes = file.read(4), hashlib.sha256(), 0
        if chunk not in (b"\0\0\x08\1", b"\0\0\x08\3"):  # bytes in one or in three dimensions
            return None
        while chunk:
            digest.update(chunk)
            num_bytes += len(chunk)
            if num_bytes > MAX_BYTES:
                return None
            chunk = file.read(_CHUNK_BYTES)
    return digest.hexdigest()


def _packed_sha256(path: Path, sought: Mapping[str, Sought]) -> str | None:
    """Returns the SHA-256 of a file, where one that is sought has its size."""
    if path.stat().st_size not in {one.packed_size for one in sought.values()}:
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()
