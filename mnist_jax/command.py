"""What the smaller commands share: one line for a mistake, and its exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from mnist_jax.errors import UserError


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
