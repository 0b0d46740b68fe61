"""What a finished run was trained on and what it exported, for the commands after it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_jax import data
from mnist_jax.data import Dataset
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
    dataset = data.prepare(config["dataset_id"], data_dir, Path(manual_dir) if manual_dir else None)
    if dataset.data_hash != run["dataset"]["data_hash"]:
        raise UserError(
            f"the data in {data_dir} is not what the run was trained on; "
            "give the --data-dir of then"
        )
    return dataset


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
