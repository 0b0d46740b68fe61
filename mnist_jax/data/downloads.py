"""Watches a download: says how far it is, and gives up on a server that has fallen silent."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORT_S = 10.0  # between two words on how far it is
SILENCE_S = 60.0  # without another byte
LOOK_S = 0.2

_logger = logging.getLogger("mnist_jax")


def watched(download: Callable[[], Any], folder: Path, num_bytes: int) -> Any:
    """Returns what `download` returns, which has no limit on time of its own.

    Args:
        download: writes into `folder`; is left behind in a thread of its own if it falls silent.
        folder: nothing else is written there meanwhile.
        num_bytes: that are to come.

    Raises:
        TimeoutError: nothing came for `SILENCE_S` seconds.
        Exception: what `download` raises.
    """
    results: list[Any] = []
    errors: list[BaseException] = []

    def act() -> None:
        try:
            results.append(download())
        except BaseException as error:  # raised again below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    before = size = _size(folder)
    heard = said = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_S)
        now, size_now = time.monotonic(), _size(folder)
        if size_now != size:
            size, heard = size_now, now
        elif now - heard > SILENCE_S and thread.is_alive():
            raise TimeoutError(f"nothing came for {SILENCE_S:g} s")
        if now - said > REPORT_S:
            said = now
            _logger.info("%.1f of %.1f MB", (size - before) / 1e6, num_bytes / 1e6)
    if errors:
        raise errors[0]
    return results[0]


def _size(folder: Path) -> int:
    """Returns the bytes of all files below a folder, some of which may vanish meanwhile."""
    size = 0
    for root, _, names in os.walk(folder):  # unlike `rglob`, it passes over a folder that vanishes
        for name in names:
            with suppress(FileNotFoundError):  # renamed
                size += os.stat(os.path.join(root, name)).st_size
    return size
