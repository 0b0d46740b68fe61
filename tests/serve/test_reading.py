"""Large requests are few at a time and leave the event loop free; small ones need no place."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack

import pytest

from mnist_jax.serve import reading
from mnist_jax.serve.protocol import RefusedError
from mnist_jax.serve.reading import MAX_LARGE, MAX_QUICK_BYTES, Reader

LARGE = MAX_QUICK_BYTES + 1


async def take_all(stack, reader):
    for _ in range(MAX_LARGE):
        await stack.enter_async_context(reader.place(LARGE))


@pytest.mark.parametrize("num_bytes", [LARGE, None], ids=["large", "unknown"])
def test_who_finds_no_place_in_time_is_refused(monkeypatch, num_bytes):
    monkeypatch.setattr(reading, "MAX_WAIT_S", 0.05)

    async def ask():
        reader = Reader()
        async with AsyncExitStack() as stack:
            await take_all(stack, reader)
            with pytest.raises(RefusedError, match=f"{MAX_LARGE} large requests") as refused:
                async with reader.place(num_bytes):
                    pass
            assert refused.value.status == 429
            async with reader.place(MAX_QUICK_BYTES):  # a small one needs no place
                pass
        async with AsyncExitStack() as stack:  # all are free again, the refused one's too
            await take_all(stack, reader)

    asyncio.run(ask())


def test_a_place_goes_to_the_one_that_waits_also_after_a_mistake():
    async def ask():
        reader, order = Reader(), []

        async def read():
            async with reader.place(LARGE):
                order.append("read")

        async with AsyncExitStack() as stack:
            await take_all(stack, reader)
            waiting = asyncio.create_task(read())
            await asyncio.sleep(0)
            assert order == []
        with pytest.raises(RefusedError, match="broken"):
            async with reader.place(LARGE):
                raise RefusedError(400, "broken")
        await waiting
        assert order == ["read"]
        async with AsyncExitStack() as stack:
            await take_all(stack, reader)

    asyncio.run(ask())


def test_large_ones_are_parsed_one_by_one_beside_the_event_loop():
    here, running, most = threading.get_ident(), 0, 0

    def parse():
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1
        return threading.get_ident()

    async def ask():
        reader, ticks = Reader(), 0
        parsed = asyncio.gather(*(reader.parse(LARGE, parse) for _ in range(3)))
        while not parsed.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert here not in parsed.result() and most == 1 and ticks >= 5
        assert await reader.parse(MAX_QUICK_BYTES, threading.get_ident) == here

    asyncio.run(ask())


def test_what_parsing_raises_reaches_the_one_who_asked():
    def refuse():
        raise RefusedError(400, "not JSON")

    async def ask(num_bytes):
        with pytest.raises(RefusedError, match="not JSON"):
            await Reader().parse(num_bytes, refuse)

    for num_bytes in (LARGE, 1):
        asyncio.run(ask(num_bytes))
