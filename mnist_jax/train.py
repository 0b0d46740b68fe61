"""The way in: command line to exit status. The stages themselves are in `pipeline.py`."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NoReturn

from dotenv import dotenv_values
from rich.console import Console

from mnist_jax import config as config_module
from mnist_jax import log
from mnist_jax.errors import StoppedError, Terminated, UserError
from mnist_jax.phases import Phases


def main(arguments: Sequence[str]) -> int:
    """Runs the pipeline; returns 0 where the model is released, 1 where refused, 2 on a mistake."""
    phases = Phases()
    try:
        environment = {**env_file(), **os.environ}
        config = config_module.parse(arguments, environment, datetime.now())
        if config is None:
            print(config_module.help_text())
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


if __name__ == "__main__":
    run_as_program(main)
