"""`scripts/reproduce-release RUN_DIR`: runs a release again from its config.json, and compares."""

import argparse
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnist_jax import command
from mnist_jax.config import PLACES
from mnist_jax.errors import StoppedError, Terminated, UserError, printable
from mnist_jax.files import json_sha256, read_json, sha256
from mnist_jax.release import inputs
from mnist_jax.release.records import read_files
from mnist_jax.run import folder as run_folder
from mnist_jax.run import log, paths
from mnist_jax.run.stopwatch import Phases

LOGGER = logging.getLogger("mnist_jax")
# What a clock measures, by its key in the JSON files, and the criterion that is about time.
TIMES = ("seconds", "images_per_s", "latency")
TIME_CRITERION, TIME_FIELDS = "inference_time_ms", ("measured", "detail")
FILES = ("logs/*.json", "models/mnist_model.*", "model_card/plots/*.png", "model_card/*.csv")


class Row(NamedTuple):
    """One file of a run, by the SHA-256 of what must be the same; None where it is not there."""

    path: str
    then: str | None
    now: str | None


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where everything is the same, 1 where something differs, 2 on a mistake."""
    parser = command.Parser("scripts/reproduce-release", __doc__)
    parser.add_argument("run_dir", type=Path, help="the folder of a finished run")
    inputs.add_flags(parser)
    return command.run(parser, arguments, reproduce)


def reproduce(options: argparse.Namespace) -> int:
    """Trains, exports and judges in a temporary folder, as the run did; prints the comparison."""
    run = run_folder.read_run(options.run_dir)
    if "imported" in run:
        raise UserError(
            f"{options.run_dir} was imported, not trained; scripts/import makes it again"
        )
    console = Console()
    with command.loading():
        from mnist_jax import pipeline
        from mnist_jax.run import environment

    environment.start_jax(os.environ)
    with (
        log.to_terminal(console),
        tempfile.TemporaryDirectory(prefix="reproduced_") as folder,
    ):
        for line in differences(run["environment"], environment.describe()):
            LOGGER.warning("%s", line)
        dataset, made = inputs.prepare_data(run, options), Path(folder, "run")
        data_dir = options.data_dir or run["config"]["data_dir"]
        places = {"data_dir": str(data_dir), "manual_dir": "", "output_dir": str(made)}
        places |= {"coordinator": "", "num_processes": 1, "process_id": 0}  # by itself
        config = {**run["config"], **places}
        try:
            pipeline.run(config, console, Phases())
            formats = read_files(options.run_dir)
            if formats and formats.keys() != read_files(made).keys():  # by a later scripts/export
                config |= {"skip_export": False, "export_format": tuple(formats)}
                pipeline.deliver_again(config, dataset, made, console, Phases())
        except StoppedError as stopped:  # its folder goes, so it cannot resume
            raise (Terminated if stopped.status == 143 else KeyboardInterrupt) from stopped
        rows = compare(options.run_dir, made)
    console.print(table(rows))
    return 0 if all(row.then == row.now for row in rows) else 1


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says what in the environment is not as it was, and so may change bytes; one line each."""
    versions = {name: then["versions"].get(name) for name in now["versions"]}
    pairs = [(key, then.get(key), now[key]) for key in now if key not in ("versions", "git_clean")]
    pairs += [(name, versions[name], version) for name, version in now["versions"].items()]
    lines = [f"{name} was {old}, and is {new}" for name, old, new in pairs if old != new]
    for moment, record in (("then", then), ("now", now)):
        if record.get("git_clean") is False:
            lines.append(f"the source had changes {moment} that are not committed")
    return lines


def compare(then: Path, now: Path) -> list[Row]:
    """Compares two finished runs, file by file.

    Left out are the log, the curves for TensorBoard, the card, which is made of the JSON files, and
    what later commands have added; in the JSON files, what a clock has measured, where the run lay
    and what it ran on.

    Raises:
        UserError: a file is damaged.
    """
    from mnist_jax.training import checkpoint

    names = {
        str(path.relative_to(run_dir))
        for run_dir in (then, now)
        for pattern in FILES
        for path in run_dir.glob(pattern)
    }.difference(paths.LATER)
    rows = [Row(path, _sha256(then / path), _sha256(now / path)) for path in sorted(names)]
    weights = (checkpoint.released_sha256(run_dir) for run_dir in (then, now))
    return [Row(paths.RELEASED, *weights), *rows]


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    if path.suffix == ".json":
        return json_sha256(without_times(read_json(path)))
    return sha256(path)


def without_times(value: Any) -> Any:
    """Returns JSON without what may differ between two runs of one configuration."""
    if isinstance(value, list):
        return [without_times(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    left_out = {*TIMES, *PLACES, "environment"}
    if value.get("name") == TIME_CRITERION:
        left_out.update(TIME_FIELDS)
    kept = {key: without_times(value[key]) for key in value if key not in left_out}
    if isinstance(reasons := kept.get("reasons"), list):  # one says by how many ms it is too slow
        is_time = f"{TIME_CRITERION} "
        kept["reasons"] = [
            TIME_CRITERION if str(reason).startswith(is_time) else reason for reason in reasons
        ]
    return kept


def table(rows: Sequence[Row]) -> Table:
    """The comparison for a terminal: what differs first."""
    grid = Table("", "file", "then", "now", box=None, padding=(0, 1, 0, 0))
    for row in sorted(rows, key=lambda row: row.then == row.now):
        is_same = row.then == row.now
        checksums = ("not there" if digest is None else digest[:16] for digest in row[1:])
        cells = ("same" if is_same else "DIFFERS", Text(printable(row.path)), *checksums)
        grid.add_row(*cells, style="" if is_same else "red")
    return grid


if __name__ == "__main__":
    command.run_as_program(main)
