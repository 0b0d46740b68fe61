"""A child process of `decoding`: decodes what it is told to, and imports little to start fast."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnist_jax.data import pictures

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # else a third of the time that it starts in
    from jaxtyping import UInt8

_LENGTH = struct.Struct(">Q")


class Seen(NamedTuple):
    """What one picture turned out to be."""

    reason: str | None  # why it is unreadable; None: it was read
    size: tuple[int, int] = (0, 0)  # width and height in the file
    mode: str = ""


class Job(NamedTuple):
    """What to do with the pictures that follow."""

    side: int  # of the results, in pixels
    rule: str  # what `prepare` takes
    row: int  # of the memory for results: the first


_Prepared = tuple[Seen, "UInt8[np.ndarray, 'side side 3'] | None"]


def prepare_one(picture: str | bytes, side: int, fit: str) -> _Prepared:
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


def start(prepare: str, shared: int, ends: list[int]) -> None:
    """Imports what decoding needs and forks workers; ends this process when all have ended.

    Args:
        prepare: `package.module:function`, which does what `prepare_one` does.
        shared: descriptor of the memory for results, see `rows`.
        ends: descriptors of sockets, one for each worker.
    """
    module, name = prepare.split(":")
    prepare_picture = getattr(importlib.import_module(module), name)
    gc.freeze()  # nothing made so far is garbage: no worker has to look through it, and copy it
    for place, end in enumerate(ends):
        if os.fork() == 0:
            for other in ends[place + 1 :]:  # its own worker alone may keep it open
                os.close(other)
            with contextlib.suppress(OSError):  # nobody waits for the answer any more
                _serve(end, shared, prepare_picture)
            os._exit(0)
        os.close(end)
    for _ in ends:
        os.wait()
    os._exit(0)  # the interpreter would tidy up for 20 ms first


def _serve(end: int, shared: int, prepare: Callable[[str | bytes, int, str], _Prepared]) -> None:
    """Does jobs from a socket until it ends.

    A message is JSON, `[job, whether paths follow, sizes in bytes]`, then all paths with zeros
    between them, or the contents of each picture. The pixels of those that can be read go into rows
    one after another, and the answer is one `Seen` for each picture, as JSON.
    """
    side, images = 0, np.zeros(0, np.uint8)
    with open(end, "rb") as jobs, open(end, "wb", closefd=False) as answers:
        while True:
            try:
                job, is_paths, sizes = json.loads(receive(jobs))
                items = [_exactly(jobs, size) for size in sizes]
                if is_paths:
                    items = os.fsdecode(items[0]).split("\0")
            except EOFError:
                return
            if side != job[0]:
                images = rows(shared, job[0])
            side, rule, row = job
            answer = []
            for item in items:
                seen, image = prepare(item, side, rule)
                answer.append(seen)
                if image is not None:
                    images[row] = image
                    row += 1
            send(answers, json.dumps(answer).encode())
            answers.flush()


def rows(shared: int, side: int) -> UInt8[np.ndarray, "num_rows side side 3"]:
    """Maps the memory for results."""
    return np.frombuffer(mmap.mmap(shared, 0), np.uint8).reshape(-1, side, side, 3)


def send(pipe: io.BufferedIOBase, contents: bytes) -> None:
    """Writes a message, its length first."""
    pipe.write(_LENGTH.pack(len(contents)))
    pipe.write(contents)


def receive(pipe: io.BufferedIOBase) -> bytes:
    """Reads what `send` wrote.

    Raises:
        EOFError: the other side has ended.
    """
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: io.BufferedIOBase, length: int) -> bytes:
    contents = pipe.read(length)
    if len(contents) < length:
        raise EOFError
    return contents
