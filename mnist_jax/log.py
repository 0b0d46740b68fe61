"""Where a run speaks: the terminal and `pipeline.log`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

LOGGER = logging.getLogger("mnist_jax")


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Appends everything logged, from debug level up, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


@contextmanager
def to_terminal(console: Console) -> Iterator[None]:
    """Prints everything logged from info level up; a quiet console prints nothing."""
    handler = _ConsoleHandler(console)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


class _ConsoleHandler(logging.Handler):
    """Prints through rich, so that lines and a progress bar keep out of each other's way."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record; markup in it is not interpreted."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        self._console.print(
            record.getMessage(), style=style, markup=False, highlight=False, soft_wrap=True
        )
