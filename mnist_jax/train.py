"""The way in: command line to exit status. The stages themselves are in `pipeline.py`."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime

from dotenv import dotenv_values
from rich.console import Console

from mnist_jax import flags
from mnist_jax.command import run_as_program
from mnist_jax.errors import StoppedError, UserError
from mnist_jax.run import log
from mnist_jax.run.stopwatch import Phases


def main(arguments: Sequence[str]) -> int:
    """Runs the pipeline; returns 0 where the model is released, 1 where refused, 2 on a mistake."""
    phases = Phases()
    try:
        environment = {**env_file(), **os.environ}
        config = flags.parse(arguments, environment, datetime.now())
        if config is None:
            print(flags.help_text())
            return 0
        console = Console(quiet=config["quiet"])
        with log.to_terminal(console):
            # Imported here, so that --help and a mistaken flag answer without loading JAX.
            from mnist_jax import pipeline

            return pipeline.run(config, console, phases)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StoppedError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


def env_file() -> dict[str, str | None]:
    """Reads `.env` in the current folder, if there is one."""
    try:
        return dotenv_values(".env")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f".env cannot be read ({error}); write it as .env.example is") from error


if __name__ == "__main__":
    run_as_program(main)
