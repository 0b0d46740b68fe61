"""SIGTERM and Ctrl-C while a network trains: what is under way is brought to an end first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Whether the run has been asked to stop, and by which signal."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked is not None

    def now(self) -> None:
        """Does what the signal would have done at once, if one has come: raises its exception."""
        number, self._asked = self._asked, None
        if number is not None:
            self._before[number](number, None)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """Remembers the first signal; who sends a second one will not wait."""
        if self._asked is not None:
            self._before[number](number, frame)
        self._asked = number


@contextmanager
def deferred(is_wanted: bool) -> Iterator[Stop]:
    """Lets `Stop.is_asked` tell of SIGTERM and Ctrl-C, in place of an exception at any point.

    A second signal acts at once, and one that nobody has acted on does at the end. Signals that
    Python does not handle stay as they are, and so do all where this is not a program's main
    thread, or where it `is_wanted` not.
    """
    stop = Stop()
    if is_wanted and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                stop._before[number] = handler
                signal.signal(number, stop._ask)
    try:
        yield stop
    finally:
        for number, handler in stop._before.items():
            signal.signal(number, handler)
    stop.now()
