"""`scripts/train [flags]`: trains a network and takes it to a verdict, as `pipeline.py` does it."""

from collections.abc import Sequence

from rich.console import Console

from mnist_jax import command
from mnist_jax.config import flags
from mnist_jax.run import log
from mnist_jax.run.stopwatch import Phases


def main(arguments: Sequence[str]) -> int:
    """Runs the pipeline; returns 0 where the model is released, 1 where refused, 2 on a mistake."""
    phases = Phases()
    return command.status_of(lambda: _run(arguments, phases))


def _run(arguments: Sequence[str], phases: Phases) -> int:
    config = flags.parse_here(arguments)
    if config is None:
        print(flags.help_text())
        return 0
    console = Console(quiet=config["quiet"])
    with log.to_terminal(console):
        # Imported here, so that --help and a mistaken flag answer without loading JAX.
        with command.loading():
            from mnist_jax import pipeline

        return pipeline.run(config, console, phases)


if __name__ == "__main__":
    command.run_as_program(main)
