"""Requests that wait are scored together, each gets its own part, and none waits in vain."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mnist_jax.serve import batching
from mnist_jax.serve.batching import Batcher
from mnist_jax.serve.protocol import RefusedError


class Model:
    """Scores by hand: the sums of the rows; can be held up, to let requests gather."""

    def __init__(self):
        self.sizes, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, images):
        assert self.gate.wait(10)
        self.sizes.append(len(images))
        if images.min() < 0:
            raise ValueError("negative")
        return images.sum(axis=(1, 2))


def make_images(seed, batch):
    return np.random.default_rng(seed).random((batch, 1, 4, 4), np.float32)


def run(model, scenario, max_batch_size=16, num_threads=1):
    with ThreadPoolExecutor(num_threads) as executor:

        async def go():
            batcher = Batcher(model, executor, num_threads, max_batch_size, lambda *_: None)
            return await scenario(batcher)

        return asyncio.run(go())


@pytest.mark.parametrize("max_batch_size", [1, 4, 16])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_everyone_gets_the_scores_of_their_own_images(max_batch_size, num_threads):
    requests = [make_images(seed, 1 + seed % 5) for seed in range(200)]

    async def scenario(batcher):
        return await asyncio.gather(*map(batcher.score, requests))

    model = Model()
    answers = run(model, scenario, max_batch_size, num_threads)
    for images, scores in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(scores, images.sum(axis=(1, 2)))
    assert sum(model.sizes) == sum(map(len, requests))
    assert max(model.sizes) <= max(max_batch_size, 5)
    assert (len(model.sizes) < 200) == (max_batch_size > 1)


def test_one_alone_does_not_wait_and_those_who_come_meanwhile_go_together():
    model = Model()

    async def scenario(batcher):
        model.gate.clear()
        first = asyncio.create_task(batcher.score(make_images(0, 1)))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.score(make_images(1, 2))) for _ in range(3)]
        large = asyncio.create_task(batcher.score(make_images(2, 40)))
        await asyncio.sleep(0.05)
        model.gate.set()
        await asyncio.gather(first, *others, large)

    run(model, scenario)
    assert model.sizes == [1, 6, 40]  # more than the limit only where one request is


def test_too_much_waiting_is_refused_and_the_rest_is_answered(monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING_BYTES", make_images(0, 5).nbytes)
    model = Model()

    async def scenario(batcher):
        model.gate.clear()
        first = asyncio.create_task(batcher.score(make_images(0, 1)))
        await asyncio.sleep(0.05)
        waits = asyncio.create_task(batcher.score(make_images(0, 5)))
        await asyncio.sleep(0.05)
        with pytest.raises(RefusedError, match="5 images are waiting") as refusal:
            await batcher.score(make_images(0, 1))
        assert refusal.value.status == 429
        model.gate.set()
        await asyncio.gather(first, waits)
        return await batcher.score(make_images(0, 5))

    assert run(model, scenario).shape == (5, 4)


def test_a_wait_has_an_end_and_who_gave_up_is_not_scored(monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAIT_S", 0.1)
    model = Model()

    async def scenario(batcher):
        model.gate.clear()
        first = asyncio.create_task(batcher.score(make_images(0, 1)))
        await asyncio.sleep(0.01)
        waits = asyncio.create_task(batcher.score(make_images(0, 3)))
        for task in (first, waits):
            with pytest.raises(RefusedError, match=r"no scores within 0\.1 s"):
                await task
        model.gate.set()
        return await batcher.score(make_images(0, 2))

    run(model, scenario)
    assert model.sizes == [1, 2]


def test_a_failing_batch_fails_its_own_requests_only():
    model = Model()

    async def scenario(batcher):
        with pytest.raises(ValueError, match="negative"):
            await batcher.score(-make_images(0, 1))
        return await batcher.score(make_images(0, 1))

    assert run(model, scenario).shape == (1, 4)
