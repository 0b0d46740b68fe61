"""Scores for many requests at once: what waits while the model computes is computed together."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float

from mnist_jax.serve.protocol import RefusedError

MAX_WAITING_BYTES = (1 << 15) * 28 * 28 * 4  # 98 MiB of one version's images
MAX_WAIT_S = 30.0

Images = Float[np.ndarray, "_ channels side side"]
Scores = Float[np.ndarray, "_ classes"]


class Statistics:
    """What one version has done since it was loaded, in nanoseconds and counts."""

    def __init__(self) -> None:
        self._last_ms = self._num_images = self._num_batches = 0
        self._total = {"success": [0, 0], "fail": [0, 0], "queue": [0, 0], "compute_infer": [0, 0]}

    def count(self, kind: str, num: int, num_ns: int) -> None:
        """Counts requests and their time: success, fail, queue (the wait) or compute_infer."""
        total = self._total[kind]
        total[0] += num
        total[1] += num_ns

    def count_batch(self, num_images: int) -> None:
        """Counts one run of the model."""
        self._last_ms = time.time_ns() // 1_000_000
        self._num_images += num_images
        self._num_batches += 1

    def describe(self) -> dict[str, Any]:
        """Returns the counts under the names of Triton's statistics extension."""
        return {
            "last_inference": self._last_ms,
            "inference_count": self._num_images,
            "execution_count": self._num_batches,
            "inference_stats": {
                kind: {"count": count, "ns": num_ns}
                for kind, (count, num_ns) in self._total.items()
            },
        }


class Batcher:
    """Runs one model in the threads of `executor`; lives on one event loop.

    No request is held back for company: a free thread takes what waits, and what comes while all
    are busy makes the next batch. A Batcher that is dropped need not be closed: requests that wait
    are still answered.
    """

    def __init__(
        self,
        model: Callable[[Images], Scores],
        executor: ThreadPoolExecutor,
        num_threads: int,
        max_batch_size: int,
        report: Callable[[int, float], None],
    ) -> None:
        """Takes a loaded model.

        Args:
            model: may be called from several threads at once.
            executor: may be shared with others.
            num_threads: batches of this model that are computed at a time.
            max_batch_size: images in a batch of several requests; at 1 each request is alone.
            report: called with each batch's size in images and its seconds.
        """
        self._model, self._executor, self._report = model, executor, report
        self._free_threads, self._max_batch_size = num_threads, max_batch_size
        self._waiting: deque[tuple[Images, asyncio.Future[Scores], int]] = deque()
        self._num_waiting = self._num_bytes = 0  # images
        self.statistics = Statistics()

    async def score(self, images: Images) -> Scores:
        """Returns the scores of one request's images.

        Raises:
            RefusedError: too much waits already, or the wait took too long.
        """
        if self._num_bytes + images.nbytes > MAX_WAITING_BYTES:
            raise RefusedError(429, f"{self._num_waiting} images are waiting; try again later")
        loop = asyncio.get_running_loop()
        future, start = loop.create_future(), time.perf_counter_ns()
        give_up = loop.call_later(MAX_WAIT_S, _give_up, future)  # quicker than asyncio.timeout
        self._waiting.append((images, future, start))
        self._num_waiting += len(images)
        self._num_bytes += images.nbytes
        self._start()
        kind = "fail"
        try:
            scores = await future
            kind = "success"
            return scores
        finally:
            give_up.cancel()
            self.statistics.count(kind, 1, time.perf_counter_ns() - start)

    def _start(self) -> None:
        """Hands batches to threads for as long as there are both."""
        loop = asyncio.get_running_loop()
        while self._free_threads and (batch := self._take()):
            self._free_threads -= 1
            images = [images for images, _ in batch]
            futures = [future for _, future in batch]
            start = time.perf_counter_ns()
            running = loop.run_in_executor(self._executor, self._run, images)
            running.add_done_callback(
                lambda done, futures=futures, images=images, start=start: self._finish(
                    futures, done, sum(map(len, images)), start
                )
            )

    def _take(self) -> list[tuple[Images, asyncio.Future[Scores]]]:
        """Takes requests from the front, several only within `max_batch_size` images."""
        batch, size = [], 0
        while self._waiting:
            images, future, start = self._waiting[0]
            if batch and size + len(images) > self._max_batch_size:
                break
            self._waiting.popleft()
            self._num_waiting -= len(images)
            self._num_bytes -= images.nbytes
            if not future.done():  # its client may have given up
                batch.append((images, future))
                self.statistics.count("queue", 1, time.perf_counter_ns() - start)
                size += len(images)
        return batch

    def _run(self, images: list[Images]) -> list[Scores]:
        """Computes one batch, in a thread."""
        start = time.perf_counter()
        together = images[0] if len(images) == 1 else np.concatenate(images)
        scores = self._model(together)
        self._report(len(together), time.perf_counter() - start)
        ends = itertools.accumulate(map(len, images))
        return [scores[end - len(part) : end] for part, end in zip(images, ends, strict=True)]

    def _finish(
        self,
        futures: list[asyncio.Future[Scores]],
        done: asyncio.Future[list[Scores]],
        num_images: int,
        start: int,
    ) -> None:
        """Gives each request its part, and the thread the next batch."""
        self._free_threads += 1
        num_ns = time.perf_counter_ns() - start
        self.statistics.count("compute_infer", len(futures), num_ns * len(futures))
        self.statistics.count_batch(num_images)
        error = done.exception()
        for index, future in enumerate(futures):
            if future.done():
                continue
            if error is None:
                future.set_result(done.result()[index])
            else:
                future.set_exception(error)
        self._start()


def _give_up(future: asyncio.Future[Scores]) -> None:
    if not future.done():
        message = f"no scores within {MAX_WAIT_S:g} s; try again later"
        future.set_exception(RefusedError(429, message))
