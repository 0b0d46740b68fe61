"""What a finished run was trained on and what it exported, for the commands after it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as ProgressBar

from mnist_jax import data
from mnist_jax.data import Dataset, Split
from mnist_jax.data.own import Progress, Settings
from mnist_jax.data.report import DataReport
from mnist_jax.errors import UserError
from mnist_jax.files import sha256
from mnist_jax.release.records import FileFacts, read_files
from mnist_jax.run.paths import EXPORTED


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what says where the run's data is, if not where it was."""
    for flag, meaning in (
        ("data", "where prepared data is kept; as in the run, unless given"),
        ("manual", "folder with the raw published files; as in the run, unless given"),
    ):
        parser.add_argument(f"--{flag}-dir", f"--{flag}_dir", type=Path, help=meaning)


def prepare_data(run: Mapping[str, Any], options: argparse.Namespace) -> Dataset:
    """Finds, or prepares again, the very data of a run.

    Args:
        run: its `config.json`.
        options: what `add_flags` added; None where the run's own places hold.

    Raises:
        UserError: the data cannot be had, or is not what the run was trained and tested on.
    """
    config = run["config"]
    data_dir = Path(config["data_dir"] if options.data_dir is None else options.data_dir)
    manual_dir = config["manual_dir"] if options.manual_dir is None else options.manual_dir
    is_prepared = (data_dir / config["dataset_id"]).is_dir()
    if is_prepared and options.manual_dir is None:
        manual_dir = ""  # what it was prepared from may be gone, and is not needed
    places = {"data_dir": str(data_dir), "manual_dir": str(manual_dir)}
    dataset, _ = of_config({**config, **places})
    if dataset.data_hash != run["dataset"]["data_hash"]:
        if config["data"]:
            raise UserError(
                f"the pictures in {config['data']} are not those that the run was trained on; put "
                "those back"
            )
        raise UserError(
            f"the data in {data_dir} is not what the run was trained on; "
            "give the --data-dir of then"
        )
    return dataset


def of_config(
    config: Mapping[str, Any], progress: Progress | None = None
) -> tuple[Dataset, DataReport | None]:
    """Makes sure that the configured data lies prepared on disk; of own pictures, with the report.

    Raises:
        UserError: the data cannot be had.
    """
    data_dir = Path(config["data_dir"])
    if not config["data"]:
        manual_dir = Path(config["manual_dir"]) if config["manual_dir"] else None
        side = config["image_side"]
        return data.prepare(config["dataset_id"], data_dir, manual_dir, side), None
    settings = Settings(
        image_side=config["image_side"] or None,
        channels=config["channels"] or None,
        fit=config["fit"],
        validation_share=config["validation_share"],
        test_share=config["test_share"],
        transposed=config["transposed"],
        drop_duplicates=config["drop_duplicates"],
    )
    return data.prepare_own(Path(config["data"]), data_dir, settings, progress)


def read_data(
    config: Mapping[str, Any], console: Console
) -> tuple[Dataset, DataReport | None, Split, Split]:
    """Returns the data set with its train and validation splits, prepared if need be.

    Own pictures come with a report on them; while they are decoded, a bar shows how far it is.

    Raises:
        UserError: the data is at fault, or a batch does not suit it or the devices.
    """
    from mnist_jax.training.devices import make_mesh  # JAX: not for commands that only look

    make_mesh(config["mesh"], config["batch_size"])
    has_bar = console.is_terminal and not console.quiet
    with ProgressBar(console=console, transient=True, disable=not has_bar) as bar:
        task = bar.add_task("reading the pictures", total=None)
        dataset, report = of_config(
            config, lambda done, total: bar.update(task, completed=done, total=total)
        )
    train, validation = (data.read(dataset, split) for split in ("train", "validation"))
    check_batch_size(config["batch_size"], len(train.labels))
    return dataset, report, train, validation


def check_batch_size(batch_size: int, num_train: int) -> None:
    """Refuses a batch that an epoch cannot fill.

    Raises:
        UserError: `batch_size` is above `num_train`.
    """
    if batch_size > num_train:
        raise UserError(
            f"batch_size is {batch_size}, but the train split has {num_train} images; give a "
            "--batch-size of at most that"
        )


def find_onnx(run_dir: Path) -> Path:
    """Returns where a run's ONNX file is, which is the file that was verified.

    Raises:
        UserError: it is missing, or has changed since.
    """
    path = run_dir / EXPORTED["onnx"]
    check_exported(run_dir, path, read_files(run_dir).get("onnx"))
    return path


def check_exported(run_dir: Path, path: Path, described: FileFacts | None) -> None:
    """Checks that an exported file is the one that was verified.

    Raises:
        UserError: it is missing, or has changed since.
    """
    if described is None or not path.is_file():
        raise UserError(f"{run_dir} has no {path.name}; run scripts/export {run_dir} first")
    if sha256(path) != described["sha256"]:
        raise UserError(
            f"{path} is not the file that was verified; run scripts/export {run_dir} again"
        )
