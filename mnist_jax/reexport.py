"""`scripts/export RUN_DIR`: exports a finished run again, verifies and judges it again."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mnist_jax import command
from mnist_jax.config import EXPORT_FORMATS
from mnist_jax.release import inputs
from mnist_jax.run import folder as run_folder
from mnist_jax.run import log, paths
from mnist_jax.run.stopwatch import Phases


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the model is released, 1 where a criterion refused, 2 on a mistake."""
    parser = command.Parser("scripts/export", __doc__)
    parser.add_argument("run_dir", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "--export_format",
        "--export-format",
        action="append",
        choices=("all", *EXPORT_FORMATS),
        help="repeatable; as in the run, unless given",
    )
    inputs.add_flags(parser)
    return command.run(parser, arguments, _act)


def _act(options: argparse.Namespace) -> int:
    console, phases = Console(), Phases()
    with log.to_terminal(console):
        return export_again(options, console, phases)


def export_again(options: argparse.Namespace, console: Console, phases: Phases) -> int:
    """Runs the pipeline's last stages on the checkpoint of a finished run."""
    run = run_folder.read_run(options.run_dir)
    config = run["config"]
    config["skip_export"] = False
    if options.export_format is not None:
        config["export_format"] = options.export_format
    with command.loading():
        from mnist_jax import pipeline
        from mnist_jax.run import compilation_cache, environment

    environment.start_jax(os.environ)
    with run_folder.lock(options.run_dir), log.to_file(options.run_dir / paths.LOG):
        run_folder.remove_leftovers(options.run_dir)
        compilation_cache.use(os.environ)
        dataset = inputs.prepare_data(run, options)
        is_released = pipeline.deliver_again(config, dataset, options.run_dir, console, phases)
    return 0 if is_released else 1


if __name__ == "__main__":
    command.run_as_program(main)
