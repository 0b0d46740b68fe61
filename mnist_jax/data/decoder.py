"""A child process of `decoding`: decodes what it is told to, and imports little to start fast."""

from __future__ import annotations

import importlib
import json
import mmap
import os
import struct
import sys
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from mnist_jax.data import pictures

if TYPE_CHECKING:
    from jaxtyping import UInt8

_LENGTH = struct.Struct(">Q")


class Seen(NamedTuple):
    """What one picture turned out to be."""

    reason: str | None  # why it is unreadable; None: it was read
    size: tuple[int, int] = (0, 0)  # width and height in the file
    mode: str = ""


def prepare_one(
    picture: str | bytes, side: int, fit: str
) -> tuple[Seen, UInt8[np.ndarray, "side side 3"] | None]:
    """Reads, decodes and prepares one picture; whatever is wrong with it is in `Seen.reason`.

    Args:
        picture: a path, or the contents of a picture file.
        side: of the result, in pixels.
        fit: see `pictures.prepare`.
    """
    try:
        contents = pictures.read_file(picture) if isinstance(picture, str) else picture
        decoded = pictures.decode(contents)
        prepared = pictures.prepare(decoded.pixels, side, fit)
    except (pictures.Unreadable, MemoryError) as error:
        return Seen(str(error) or "too little memory"), None
    return Seen(None, decoded.size, decoded.mode), prepared


def serve(side: int, rule: str, prepare: str, shared: int) -> None:
    """Does jobs from standard input until it ends.

    A job is a line of JSON, `[first row, whether paths follow, bytes of each]`, and paths or
    contents of pictures. The pixels of those that can be read go one after another into the
    rows of `shared`, and one `Seen` for each picture goes to standard output as JSON.

    Args:
        side: of the results, in pixels.
        rule: what `prepare` takes.
        prepare: `package.module:function`, which does what `prepare_one` does.
        shared: descriptor of the memory for results, uint8 `[rows, side, side, 3]`.
    """
    module, name = prepare.split(":")
    prepare_picture = getattr(importlib.import_module(module), name)
    rows = np.frombuffer(mmap.mmap(shared, 0), np.uint8).reshape(-1, side, side, 3)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            row, is_paths, sizes = json.loads(receive(stdin))
        except EOFError:
            return
        answers = []
        for item in [_exactly(stdin, size) for size in sizes]:
            seen, image = prepare_picture(os.fsdecode(item) if is_paths else item, side, rule)
            answers.append(seen)
            if image is not None:
                rows[row] = image
                row += 1
        send(stdout, json.dumps(answers).encode())
        stdout.flush()


def send(pipe: IO[bytes], contents: bytes) -> None:
    """Writes a message, its length first."""
    pipe.write(_LENGTH.pack(len(contents)))
    pipe.write(contents)


def receive(pipe: IO[bytes]) -> bytes:
    """Reads what `send` wrote.

    Raises:
        EOFError: the other side has ended.
    """
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    contents = pipe.read(length)
    if len(contents) < length:
        raise EOFError
    return contents
