"""Decodes many pictures on all cores, in order, with bounded memory.

Workers are plain child processes that get jobs through pipes and leave pixels in memory that they
share with the caller: no semaphores, nothing in /dev/shm, nothing of the caller's `__main__` is
imported again, and one that dies takes only its pictures with it.
"""

import contextlib
import itertools
import json
import mmap
import os
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mnist_jax.data import decoder
from mnist_jax.data.decoder import Seen

CHUNK = 64  # pictures a job: more than a pipe's turn-round costs, little enough to keep in memory
PREPARE = f"{decoder.__name__}:{decoder.prepare_one.__name__}"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Decoded(NamedTuple):
    """A chunk: what each picture was, and the pixels of those that could be read, in order."""

    seen: list[Seen]
    images: UInt8[np.ndarray, "num_readable side side 3"]


def decode_all(
    chunks: Iterable[list[str] | list[bytes]],
    side: int,
    rule: str,
    workers: int | None = None,
    prepare: str = PREPARE,
) -> Generator[Decoded, None, None]:
    """Yields one `Decoded` for each chunk, in order; its pixels last until the next is asked for.

    Args:
        chunks: paths, or the contents of picture files, at most `CHUNK` of them; at most a few
            chunks for each worker are held.
        side: of the results, in pixels.
        rule: `pictures.prepare`'s `fit`, or what else `prepare` takes.
        workers: child processes; None: one for each core that this process may use.
        prepare: `package.module:function`, which does what `decoder.prepare_one` does.
    """
    chunks = iter(chunks)
    first = list(itertools.islice(chunks, workers or len(os.sched_getaffinity(0))))
    workers = len(first)  # no more than have work
    if not first:
        return
    places = deque(range(2 * workers + 1))  # of chunks in the memory for results
    waiting: deque[tuple[int, Future[list[Seen]]]] = deque()  # place and answer, in order
    shared = os.memfd_create("decoded")
    threads, started = ThreadPoolExecutor(workers), []
    try:
        os.ftruncate(shared, len(places) * CHUNK * side * side * 3)
        rows = np.frombuffer(mmap.mmap(shared, 0), np.uint8).reshape(-1, side, side, 3)
        started += [_Worker(side, rule, prepare, shared) for _ in range(workers)]
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in started:
            idle.put(worker)

        def job(chunk: list[str] | list[bytes], place: int) -> list[Seen]:
            worker = idle.get()
            try:
                return worker.decode(chunk, place * CHUNK)
            finally:
                idle.put(worker)

        def oldest() -> Generator[Decoded, None, None]:
            place, future = waiting.popleft()
            seen = future.result()
            yield Decoded(seen, rows[place * CHUNK :][: _num_readable(seen)])
            places.append(place)

        for chunk in itertools.chain(first, chunks):
            if not places:
                yield from oldest()
            place = places.popleft()
            waiting.append((place, threads.submit(job, chunk, place)))
        while waiting:
            yield from oldest()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in started:
            worker.stop()
        os.close(shared)


def _num_readable(seen: list[Seen]) -> int:
    return sum(one.reason is None for one in seen)


class _Worker:
    """A child process, started again if it dies."""

    def __init__(self, side: int, rule: str, prepare: str, shared: int) -> None:
        self.arguments, self.shared = f"{side}, {rule!r}, {prepare!r}, {shared}", shared
        self.stopped = False
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"from {decoder.__name__} import serve; serve({self.arguments})"
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
            pass_fds=(self.shared,),
            process_group=0,
        )

    def decode(self, chunk: list[str] | list[bytes], row: int) -> list[Seen]:
        """Has a chunk decoded to the rows from `row` on."""
        try:
            return self._ask(chunk, row)
        except (OSError, EOFError):
            if self.stopped:
                raise
        # It died: one at a time, so that only the picture that kills a worker is lost.
        self._restart()
        seen: list[Seen] = []
        for picture in chunk:
            seen.append(self._ask_alone(picture, row + _num_readable(seen)))
        return seen

    def _ask_alone(self, picture: str | bytes, row: int) -> Seen:
        try:
            return self._ask([picture], row)[0]  # pyright: ignore[reportArgumentType]
        except (OSError, EOFError):
            if self.stopped:
                raise
            self._restart()
            return Seen("its decoder crashed")

    def _ask(self, chunk: list[str] | list[bytes], row: int) -> list[Seen]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        is_paths = isinstance(chunk[0], str)
        items = [os.fsencode(item) if isinstance(item, str) else item for item in chunk]
        decoder.send(stdin, json.dumps([row, is_paths, [len(item) for item in items]]).encode())
        stdin.write(b"".join(items))
        stdin.flush()
        return [Seen(r, (w, h), m) for r, (w, h), m in json.loads(decoder.receive(stdout))]

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
