"""Decodes many pictures on all cores, in order, with bounded memory.

Workers are plain child processes that talk through pipes: no semaphores, no shared memory, nothing
of the caller's `__main__` is imported again, and one that dies takes only its pictures with it.
"""

import contextlib
import importlib
import itertools
import json
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mnist_jax.data import pictures

CHUNK = 64  # pictures a job: more than a pipe's turn-round costs, little enough to keep in memory
PREPARE = f"{__name__}:prepare_one"
_LENGTH = struct.Struct(">Q")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Seen(NamedTuple):
    """What one picture turned out to be."""

    reason: str | None  # why it is unreadable; None: it was read
    size: tuple[int, int] = (0, 0)  # width and height in the file
    mode: str = ""


class Decoded(NamedTuple):
    """A chunk: what each picture was, and the pixels of those that could be read, in order."""

    seen: list[Seen]
    images: UInt8[np.ndarray, "num_readable side side 3"]


def decode_all(
    chunks: Iterable[list[Path] | list[bytes]],
    side: int,
    rule: str,
    workers: int | None = None,
    prepare: str = PREPARE,
) -> Generator[Decoded, None, None]:
    """Yields one `Decoded` for each chunk, in order.

    Args:
        chunks: paths, or the contents of picture files; at most a few for each worker are held.
        side: of the results, in pixels.
        rule: `pictures.prepare`'s `fit`, or what else `prepare` takes.
        workers: child processes; None: one for each core that this process may use.
        prepare: `package.module:function`, which does what `prepare_one` does.
    """
    chunks = iter(chunks)
    first = list(itertools.islice(chunks, workers or len(os.sched_getaffinity(0))))
    workers = len(first)  # no more than have work
    if not first:
        return
    idle: SimpleQueue[_Worker] = SimpleQueue()
    started = [_Worker(side, rule, prepare) for _ in range(workers)]
    for worker in started:
        idle.put(worker)

    def job(chunk: list[Path] | list[bytes]) -> Decoded:
        worker = idle.get()
        try:
            return worker.decode(chunk)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[Decoded]] = deque()
        for chunk in itertools.chain(first, chunks):
            waiting.append(threads.submit(job, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in started:
            worker.stop()


class _Worker:
    """A child process, started again if it dies."""

    def __init__(self, side: int, rule: str, prepare: str) -> None:
        self.side, self.arguments = side, f"{side}, {rule!r}, {prepare!r}"
        self.stopped = False
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"from {__name__} import serve; serve({self.arguments})"
        command = [sys.executable, "-P", "-c", code]
        package = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": paths}
        # A process group of its own: Ctrl-C is the parent's to handle.
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            process_group=0,
        )

    def decode(self, chunk: list[Path] | list[bytes]) -> Decoded:
        try:
            return self._ask(chunk)
        except (OSError, EOFError):
            if self.stopped:
                raise
        # It died: one at a time, so that only the picture that kills a worker is lost.
        self._restart()
        parts = [self._ask_alone(picture) for picture in chunk]
        seen = [part.seen[0] for part in parts]
        return Decoded(seen, np.concatenate([part.images for part in parts]))

    def _ask_alone(self, picture: Path | bytes) -> Decoded:
        try:
            return self._ask([picture])  # pyright: ignore[reportArgumentType]
        except (OSError, EOFError):
            if self.stopped:
                raise
            self._restart()
            nothing = np.zeros((0, self.side, self.side, 3), np.uint8)
            return Decoded([Seen("its decoder crashed")], nothing)

    def _ask(self, chunk: list[Path] | list[bytes]) -> Decoded:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        is_paths = isinstance(chunk[0], Path)
        items = [os.fsencode(item) if isinstance(item, Path) else item for item in chunk]
        _send(stdin, json.dumps([is_paths, [len(item) for item in items]]).encode())
        stdin.write(b"".join(items))
        stdin.flush()
        seen = [Seen(r, (w, h), m) for r, (w, h), m in json.loads(_receive(stdout))]
        images = np.frombuffer(_receive(stdout), np.uint8)
        return Decoded(seen, images.reshape(-1, self.side, self.side, 3))

    def _restart(self) -> None:
        self._end()
        self.process = self._start()

    def stop(self) -> None:
        self.stopped = True
        self._end()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was still to be written has no reader now
                pipe.close()


def prepare_one(
    picture: Path | bytes, side: int, fit: str
) -> tuple[Seen, UInt8[np.ndarray, "side side 3"] | None]:
    """Reads, decodes and prepares one picture; whatever is wrong with it is in `Seen.reason`."""
    try:
        contents = pictures.read_file(picture) if isinstance(picture, Path) else picture
        decoded = pictures.decode(contents)
        prepared = pictures.prepare(decoded.pixels, side, fit)
    except (pictures.Unreadable, MemoryError) as error:
        return Seen(str(error) or "too little memory"), None
    return Seen(None, decoded.size, decoded.mode), prepared


def _send(pipe: IO[bytes], contents: bytes) -> None:
    pipe.write(_LENGTH.pack(len(contents)))
    pipe.write(contents)


def _receive(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    contents = pipe.read(length)
    if len(contents) < length:
        raise EOFError
    return contents


def serve(side: int, rule: str, prepare: str) -> None:
    """Answers jobs from standard input until it ends."""
    module, name = prepare.split(":")
    prepare_picture = getattr(importlib.import_module(module), name)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            is_paths, sizes = json.loads(_receive(stdin))
        except EOFError:
            return
        items = [_exactly(stdin, size) for size in sizes]
        answers = [
            prepare_picture(Path(os.fsdecode(item)) if is_paths else item, side, rule)
            for item in items
        ]
        _send(stdout, json.dumps([seen for seen, _ in answers]).encode())
        _send(stdout, b"".join(np.ascontiguousarray(i).data for _, i in answers if i is not None))
        stdout.flush()
