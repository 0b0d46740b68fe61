"""Which picture files a command line means: files, folders, and a list on standard input."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mnist_jax import command
from mnist_jax.data.readers.folder import entries, why_refused
from mnist_jax.errors import UserError

STANDARD_INPUT = "-"
_LONGEST_NAME = 2**16  # bytes of a line: more than any system takes
Refuse = Callable[[str, str], None]  # takes a path and the reason


def list_files(paths: Iterable[str], end: bytes, refuse: Refuse, stdin: int = 0) -> Iterator[str]:
    """Yields files by the paths that lead to them, those of a folder in the order of their names.

    Args:
        paths: files, folders, or `-`: paths on standard input. What is not there is yielded too.
        end: of each path on standard input, one byte.
        refuse: is told of what in a folder must not be opened: links out of it, devices, FIFOs.
        stdin: the descriptor of standard input.
    """
    for path in paths:
        found = _lines(stdin, end) if path == STANDARD_INPUT else [command.expand(path)]
        for one in found:
            if os.path.isdir(one):
                yield from _files_below(one, refuse)
            else:
                yield one


def _files_below(root: str, refuse: Refuse) -> Iterator[str]:
    """Yields the files of a folder and of all folders in it; hidden ones are left out."""
    waiting = [(root, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if not is_folder:
            yield path
            continue
        try:
            found = entries(Path(path))
        except UserError as error:
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else None
            refuse(path, f"cannot be read ({reason})")
            continue
        for entry in sorted(found, key=lambda entry: entry.name, reverse=True):
            inner = os.path.join(path, entry.name)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((inner, True))
            elif entry.is_file(follow_symlinks=False):
                waiting.append((inner, False))
            elif (reason := why_refused(Path(root), Path(inner))) is not None:
                refuse(inner, reason)
            else:  # a link to a file in the folder
                waiting.append((inner, False))


def _lines(stdin: int, end: bytes) -> Iterator[str]:
    """Yields the paths on standard input as they come; bytes that are not text survive."""
    rest = b""
    while block := os.read(stdin, _LONGEST_NAME):
        if end == b"\n" and b"\0" in block:
            raise UserError("standard input has paths that end in NUL; give --null")
        *whole, rest = (rest + block).split(end)
        yield from (os.fsdecode(line) for line in whole if line)
        if len(rest) > _LONGEST_NAME:
            mark = "a line end (NUL with --null)" if end == b"\n" else "NUL"
            raise UserError(
                f"standard input has a path of more than {_LONGEST_NAME:,} bytes; "
                f"end each in {mark}"
            )
    if rest:
        yield os.fsdecode(rest)
