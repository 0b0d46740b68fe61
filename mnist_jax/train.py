"""The way in: command line to exit status. The stages themselves are in `pipeline.py`."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime

from dotenv import dotenv_values
from rich.console import Console

from mnist_jax import config as config_module
from mnist_jax import log
from mnist_jax.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Runs the pipeline; returns 0 where the model is released, 1 where refused, 2 on a mistake."""
    try:
        environment = {**dotenv_values(".env"), **os.environ}
        config = config_module.parse(arguments, environment, datetime.now())
        if config is None:
            print(config_module.help_text())
            return 0
        console = Console(quiet=config["quiet"])
        with log.to_terminal(console):
            # Imported here, so that --help and a mistaken flag answer without loading JAX.
            from mnist_jax import pipeline

            return pipeline.run(config, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; give the same flags and --output-dir to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
