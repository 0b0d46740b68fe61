"""What commands share: one line for a mistake, and the exit status."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from mnist_jax.errors import Terminated, UserError


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, and takes no abbreviations."""

    def __init__(self, program: str, description: str | None) -> None:
        super().__init__(program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong as a mistake of the user's, in place of leaving the program."""
        raise UserError(f"{message}; see {self.prog} --help")


def run(parser: Parser, arguments: Sequence[str], act: Callable[[argparse.Namespace], int]) -> int:
    """Parses and acts; returns what `act` returns, or 2 on a mistake."""
    try:
        return act(parser.parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command begins again", file=sys.stderr)
        return 130


def _terminate(*_: object) -> None:
    raise Terminated


def run_as_program(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs `main` on the command line and ends the process with its status.

    What nobody foresaw ends with status 3: 1 is for releases that are refused.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        status = 3
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: an orderly exit waits for XLA's compiler threads, or crashes in them.
    os._exit(status)
