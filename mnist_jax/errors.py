"""The exceptions that are meant for the person at the terminal."""


class UserError(Exception):
    """A mistake that the user can fix; the program prints it on one line and exits with status 2.

    The message names the value, the rule it breaks and the remedy, in that order.
    """

    def __str__(self) -> str:
        """Returns the message on one line, whatever a path or a file has put into it."""
        return printable(super().__str__())


class Terminated(KeyboardInterrupt):
    """SIGTERM, in the form in which Ctrl-C comes."""


class StoppedError(Exception):
    """The run was stopped from outside (Ctrl-C, SIGTERM); the message says how to resume."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status  # 130 for Ctrl-C, 143 for SIGTERM, as shells have it


def printable(text: str) -> str:
    """Writes what does not print (line ends, terminal codes, bytes that are not text) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """Returns a library's error as one line, its kind first."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
