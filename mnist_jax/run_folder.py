"""A run's folder: where things are, and who may use it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist_jax import checkpoint
from mnist_jax.config import PLACES
from mnist_jax.errors import UserError
from mnist_jax.files import read_json

LOG = "pipeline.log"
CONFIG = "logs/config.json"
METRICS = "logs/metrics.json"
HISTORY = "logs/history.json"
VERIFICATION = "logs/verification.json"
RELEASE = "logs/release.json"
TENSORBOARD = "logs/tensorboard"


@contextmanager
def claim(run_dir: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Makes the folder, or takes up an unfinished run of the same configuration in it.

    A failure before the first epoch is saved removes a folder that was made here.

    Raises:
        UserError: the folder cannot be made, holds a finished run, a run of another configuration,
            or something that is no run.
    """
    is_new = _check_free(run_dir, config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {run_dir}: {error.strerror}; give another --output-dir"
        ) from error
    try:
        yield
    except BaseException:
        if is_new and not any((run_dir / checkpoint.TRAINING).glob("[0-9]*")):
            shutil.rmtree(run_dir, ignore_errors=True)
        raise


def _check_free(run_dir: Path, config: Mapping[str, Any]) -> bool:
    """Returns whether the run is a new one."""
    if not run_dir.exists():
        return True
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file, not a folder; give another --output-dir")
    if all(entry.name == LOG for entry in run_dir.iterdir()):
        return True  # empty, or cut off before anything was known
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"{run_dir} is not empty and holds no run; give another --output-dir")
    if (run_dir / RELEASE).is_file():
        raise UserError(f"{run_dir} holds a finished run; give another --output-dir")
    before = read_json(run_dir / CONFIG)["config"]
    changed = [
        key
        for key in sorted(config)
        if key not in PLACES and before.get(key) != jsonable(config[key])
    ]
    if changed:
        key = changed[0]
        raise UserError(
            f"{run_dir} holds an unfinished run with {key} {before.get(key)!r}, not "
            f"{jsonable(config[key])!r}; give another --output-dir, or the same flags to go on"
        )
    return False


def jsonable(value: Any) -> Any:
    """Returns a configuration value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
