"""Large requests, which are read few at a time and parsed off the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TypeVar

from mnist_jax.serve.protocol import RefusedError

T = TypeVar("T")

MAX_QUICK_BYTES = 64 << 10  # longer ones are large
MAX_LARGE = 32  # that are in memory and not parsed yet: 128 MiB at 4 MiB each
MAX_WAIT_S = 4.0  # for a place among them


class Reader:
    """Keeps large requests from holding up the others, and from filling the memory.

    A client without a place is not refused at once: nothing more is read from its connection.
    """

    def __init__(self) -> None:
        # One thread: two would take turns at the interpreter with the event loop as the third.
        self._thread = ThreadPoolExecutor(1, "parses")
        self._places = asyncio.Semaphore(MAX_LARGE)

    def place(self, num_bytes: int | None) -> AbstractAsyncContextManager[None]:
        """Waits until a request may be read; the place is free again at the context's end.

        Args:
            num_bytes: the request's size; None where nobody knows.

        Raises:
            RefusedError: too many others are being read.
        """
        is_quick = num_bytes is not None and num_bytes <= MAX_QUICK_BYTES
        return nullcontext() if is_quick else self._place_of_large()

    @asynccontextmanager
    async def _place_of_large(self) -> AsyncIterator[None]:
        try:
            await asyncio.wait_for(self._places.acquire(), MAX_WAIT_S)
        except TimeoutError as error:
            raise RefusedError(
                429, f"{MAX_LARGE} large requests are being read; try again later"
            ) from error
        try:
            yield
        finally:
            self._places.release()

    async def parse(self, num_bytes: int, parse: Callable[[], T]) -> T:
        """Returns what `parse` returns, which holds the interpreter for long if there is much."""
        if num_bytes <= MAX_QUICK_BYTES:
            return parse()
        return await asyncio.get_running_loop().run_in_executor(self._thread, parse)
