"""Where a run speaks: the terminal and `pipeline.log`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from mnist_jax.errors import printable

LOGGER = logging.getLogger("mnist_jax")


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Appends everything logged, from debug level up, to `path`.

    The root's handlers, of a program that calls this one, hear what its levels let through.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers = [handler, *([_ToTheCaller(LOGGER.getEffectiveLevel())] if LOGGER.propagate else [])]
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    for each in handlers:
        LOGGER.addHandler(each)
    try:
        yield
    finally:
        for each in handlers:
            LOGGER.removeHandler(each)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
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


class _FileHandler(logging.FileHandler):
    """Stops the run where the log cannot be written, on a full disk say, instead of printing."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Raises what `emit` has caught."""
        raise


class _ToTheCaller(logging.Handler):
    """Passes records on to the handlers of the program around."""

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one on, where there are any."""
        if logging.root.handlers:
            logging.root.callHandlers(record)


class _Formatter(logging.Formatter):
    """A record stays one line, so that a name with a line end in it cannot forge another."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        return printable(super().format(record))


class _ConsoleHandler(logging.Handler):
    """Prints through rich, so that lines and a progress bar keep out of each other's way."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record; markup in it is not interpreted."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        self._console.print(
            printable(record.getMessage()),
            style=style,
            markup=False,
            highlight=False,
            # A terminal would break a long line within a word; a file or a pipe keeps it whole.
            soft_wrap=not self._console.is_terminal,
        )
