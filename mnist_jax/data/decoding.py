"""Decodes many pictures on all cores, in order, with bounded memory.

Workers are child processes that get jobs through sockets and leave pixels in memory that they share
with the caller: no semaphores, nothing in /dev/shm, nothing of the caller's `__main__` is imported
again, and one that dies takes only its pictures with it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mnist_jax.data import decoder
from mnist_jax.data.decoder import Job, Seen

CHUNK = 64  # pictures a job: more than a job's turn-round costs, little enough to keep in memory
PREPARE = f"{decoder.__name__}:{decoder.prepare_one.__name__}"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PATIENCE_S = 0.5  # with workers that are to end by themselves


class Decoded(NamedTuple):
    """A chunk: what each picture was, and the pixels of those that could be read, in order."""

    seen: list[Seen]
    images: UInt8[np.ndarray, "num_readable side side 3"]


class Decoders:
    """Child processes, which get ready while the caller finds out what there is to decode.

    Args:
        workers: at most; None: one for each core that this process may use.
        prepare: `package.module:function`, which does what `decoder.prepare_one` does.
    """

    def __init__(self, workers: int | None = None, prepare: str = PREPARE) -> None:
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._prepare, self._has_ended = prepare, False
        self._shared = os.memfd_create("decoded")
        self._sources: list[_Source] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for channel in self._start(self._num_workers):
            self._idle.put(_Worker(channel, lambda: self._start(1)[0]))

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended = True
        for source in self._sources:
            source.end()
        os.close(self._shared)

    def decode(
        self, chunks: Iterable[list[str] | list[bytes]], side: int, rule: str
    ) -> Generator[Decoded, None, None]:
        """Yields one `Decoded` for each chunk, in order; its pixels last until the next is due.

        Args:
            chunks: paths, or the contents of picture files, at most `CHUNK` of them; at most a few
                chunks for each worker are held.
            side: of the results, in pixels.
            rule: `pictures.prepare`'s `fit`, or what else `prepare` takes.
        """
        places = deque(range(2 * self._num_workers + 1))  # of chunks in the memory for results
        os.ftruncate(self._shared, len(places) * CHUNK * side * side * 3)
        rows = decoder.rows(self._shared, side)

        def job(chunk: list[str] | list[bytes], place: int) -> list[Seen]:
            worker = self._idle.get()
            try:
                return worker.decode(chunk, Job(side, rule, place * CHUNK))
            finally:
                self._idle.put(worker)

        def oldest() -> Generator[Decoded, None, None]:
            place, future = waiting.popleft()
            seen = future.result()
            yield Decoded(seen, rows[place * CHUNK :][: _num_readable(seen)])
            places.append(place)

        threads = ThreadPoolExecutor(self._num_workers)
        waiting: deque[tuple[int, Future[list[Seen]]]] = deque()  # place and answer, in order
        try:
            for chunk in chunks:
                if not places:
                    yield from oldest()
                place = places.popleft()
                waiting.append((place, threads.submit(job, chunk, place)))
            while waiting:
                yield from oldest()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, count: int) -> list[socket.socket]:
        if self._has_ended:
            raise EOFError
        self._sources.append(_Source(self._shared, self._prepare, count))
        return self._sources[-1].channels


class _Source:
    """A process that imports what workers need, and forks them."""

    def __init__(self, shared: int, prepare: str, count: int) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        self.channels = [ours for ours, _ in pairs]  # one to each worker
        ends = [theirs.fileno() for _, theirs in pairs]
        code = f"from {decoder.__name__} import start; start({prepare!r}, {shared}, {ends})"
        package = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        # A process group of its own: Ctrl-C is the parent's to handle.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": paths},
            pass_fds=(shared, *ends),
            process_group=0,
        )
        for _, theirs in pairs:
            theirs.close()

    def end(self) -> None:
        for channel in self.channels:
            with contextlib.suppress(OSError):  # its worker died
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class _Worker:
    """A child process, replaced if it dies."""

    def __init__(self, channel: socket.socket, replace: Callable[[], socket.socket]) -> None:
        self.pipe, self.replace = channel.makefile("rwb"), replace

    def decode(self, chunk: list[str] | list[bytes], job: Job) -> list[Seen]:
        """Has a chunk decoded."""
        try:
            return self._ask(chunk, job)
        except (OSError, EOFError):
            # It died: one at a time, so that only the picture that kills a worker is lost.
            self.pipe = self.replace().makefile("rwb")
        seen: list[Seen] = []
        for picture in chunk:
            seen.append(self._ask_alone(picture, job._replace(row=job.row + _num_readable(seen))))
        return seen

    def _ask_alone(self, picture: str | bytes, job: Job) -> Seen:
        try:
            return self._ask([picture], job)[0]  # pyright: ignore[reportArgumentType]
        except (OSError, EOFError):
            self.pipe = self.replace().makefile("rwb")
            return Seen("its decoder crashed")

    def _ask(self, chunk: list[str] | list[bytes], job: Job) -> list[Seen]:
        paths = [item for item in chunk if isinstance(item, str)]
        contents = [item for item in chunk if isinstance(item, bytes)]
        items = [os.fsencode("\0".join(paths))] if paths else contents
        decoder.send(self.pipe, json.dumps([job, bool(paths), [*map(len, items)]]).encode())
        self.pipe.write(b"".join(items))
        self.pipe.flush()
        return [Seen(r, (w, h), m) for r, (w, h), m in json.loads(decoder.receive(self.pipe))]


def _num_readable(seen: list[Seen]) -> int:
    return sum(one.reason is None for one in seen)
