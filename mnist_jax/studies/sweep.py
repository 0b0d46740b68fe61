"""`scripts/sweep --over KEY=V1,V2 ...`: trains for each value and compares on validation alone.

--over is given once, or twice for every pair of values. The flags of scripts/train work too;
--output-dir is where sweep.md (the table, best first), sweep.png and sweep.json go. The test split
is not read: give the best value to scripts/train, which reads it once. What was trained already is
not trained again by the same command.
"""

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from rich.console import Console

from mnist_jax import command
from mnist_jax.config import Changes, config_hash, flags, keys_that_change
from mnist_jax.data import Dataset, Split
from mnist_jax.errors import UserError
from mnist_jax.files import read_json, write_json, write_text
from mnist_jax.release.intervals import wilson
from mnist_jax.run import log
from mnist_jax.run.stopwatch import Phases

FIGURES, TABLE, PLOT = "sweep.json", "sweep.md", "sweep.png"


class Row(TypedDict):
    """What one combination reaches on the validation split, with the epoch that is the best."""

    values: dict[str, str]  # by key, as given
    config_hash: str
    data_hash: str
    own_code: dict[str, dict[str, str]]  # by key that names the user's own code, its SHA-256
    accuracy: float  # mean over the seeds
    std: float | None  # over the seeds; None of one
    interval_95: list[float]  # Wilson's, of the mean
    epochs: list[int]  # the best of each seed
    num_examples: int


def main(arguments: Sequence[str]) -> int:
    """Returns 0 once every combination is trained, 2 on a mistake."""
    return command.status_of(lambda: _parse_and_run(arguments))


def _parse_and_run(arguments: Sequence[str]) -> int:
    parser = command.Parser("scripts/sweep", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--over", action="append", required=True, metavar="KEY=V1,V2", help="a key and its values"
    )
    options, rest = parser.parse_known_args(arguments)
    swept = combinations(options.over)
    _refuse_flags_of(list(swept[0]), rest)
    configs = []
    for values in swept:  # all are checked before the first is trained
        given = [f"--config.{key}={value}" for key, value in values.items()]
        config = flags.parse_here([*rest, *given])
        assert config is not None  # --help has been answered
        configs.append((values, config))
    console = Console(quiet=configs[0][1]["quiet"])
    with log.to_terminal(console):
        return run(configs, console)


def combinations(over: Sequence[str]) -> list[dict[str, str]]:
    """Returns every combination of values by key, in the order in which they are given.

    Raises:
        UserError: a key has no values, is there twice, does not change what is trained, or there
            are more than two.
    """
    pairs = [text.partition("=")[::2] for text in over]
    keys = [key.replace("-", "_") for key, _ in pairs]
    if len(keys) > 2 or len(set(keys)) < len(keys):
        raise UserError(f"--over is given for {', '.join(keys)}; give one key, or two that differ")
    values = [[value for value in text.split(",") if value] for _, text in pairs]
    for key, of_key in zip(keys, values, strict=True):
        if key not in keys_that_change(Changes.MODEL):
            raise UserError(f"{key} is not a key that changes a model; see scripts/train --help")
        if not of_key:
            raise UserError(f"--over {key} has no values; give --over {key}=V1,V2")
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*values)]


def _refuse_flags_of(keys: Sequence[str], arguments: Sequence[str]) -> None:
    """A flag of a swept key is a mistake: it would take the place of every value."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        key = flag.lstrip("-").replace("-", "_").removeprefix("config.").partition(".")[0]
        if flag.startswith("-") and key in keys:
            raise UserError(f"{flag} and --over {key} are both given; leave one of them out")


def run(configs: Sequence[tuple[dict[str, str], Mapping[str, Any]]], console: Console) -> int:
    """Trains what is not trained yet, and writes table and plot; returns the exit status."""
    # Imported here, so that --help and a mistaken flag answer without loading JAX.
    with command.loading():
        from mnist_jax.card import plots
        from mnist_jax.release import inputs
        from mnist_jax.run import compilation_cache, environment, own_code

    folder = Path(configs[0][1]["output_dir"])
    found: list[Row] = read_json(folder / FIGURES)["rows"] if (folder / FIGURES).exists() else []
    if not found and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no sweep; give another --output-dir")
    environment.start_jax(os.environ)
    compilation_cache.use(os.environ)
    rows = []
    for values, config in configs:
        dataset, _, train_split, validation = inputs.read_data(config, console)
        trained = {
            "config_hash": config_hash(config),
            "data_hash": dataset.data_hash,
            "own_code": own_code.describe(config),
        }
        known = [row for row in found if all(row.get(key) == trained[key] for key in trained)]
        if known:
            measured = known[0]
        else:
            told = ", ".join(f"{key} {value}" for key, value in values.items())
            console.print(told, style="bold")
            measured = train(config, dataset, train_split, validation, folder, console)
        rows.append(cast(Row, {**measured, **trained, "values": values}))
        found = [row for row in found if row not in known]
        write_json(folder / FIGURES, {"rows": [*rows, *found]})
    write_text(folder / TABLE, table(rows))
    plots.draw_sweep(rows, folder / PLOT)
    console.print(table(rows), markup=False, highlight=False)
    return 0


def train(
    config: Mapping[str, Any],
    dataset: Dataset,
    images: Split,
    validation: Split,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Trains one combination, every seed of it; what it saved on the way is removed.

    Returns:
        What a `Row` says of the validation split.
    """
    from mnist_jax.training.stage import build_model, splits_of, train_and_save

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        model, splits = build_model(config, dataset), splits_of(config, dataset, images, validation)
        fitted, _ = train_and_save(config, dataset, model, splits, Path(scratch), console, Phases())
    best = [one.history["epochs"][one.history["best_epoch"] - 1] for one in fitted]
    accuracies = [row["validation_accuracy"] for row in best]
    mean, n = statistics.fmean(accuracies), len(validation.labels)
    return {
        "accuracy": mean,
        "std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "interval_95": wilson(round(mean * n), n),
        "epochs": [row["epoch"] for row in best],
        "num_examples": n,
    }


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as Markdown, the best first."""
    keys = list(rows[0]["values"])
    head = [*keys, "validation accuracy", "95 % interval", "n", "best epoch"]
    lines = [head, ["---"] * len(head)]
    for row in sorted(rows, key=lambda row: -row["accuracy"]):
        low, high = row["interval_95"]
        spread = "" if row["std"] is None else f" ± {row['std']:.4f} ({len(row['epochs'])} seeds)"
        lines.append(
            [
                *(row["values"][key] for key in keys),
                f"{row['accuracy']:.4f}{spread}",
                f"{low:.4f} to {high:.4f}",
                f"{row['num_examples']:,}",
                ", ".join(map(str, row["epochs"])),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    command.run_as_program(main)
