"""A run's folder: where things are, and who may use it."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mnist_jax.config import PLACES, default, validate
from mnist_jax.errors import StoppedError, Terminated, UserError, first_line
from mnist_jax.files import UNFINISHED, locked, read_json
from mnist_jax.run import own_code
from mnist_jax.run.paths import CONFIG, FOLDERS, HISTORY, LOG, RELEASE, RELEASED, SPENT, TRAINING

# What the system says of a disk, and of limits that it sets a process.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@contextmanager
def claim(run_dir: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Makes the folder, or resumes an unfinished run of the same configuration in it.

    Whatever ends the run before its first checkpoint leaves the disk as it was. What a killed
    run has left half-written is removed.

    Raises:
        UserError: the folder cannot be made or written, is in use, vanishes, holds a finished run,
            a run of another configuration, or something that is not a run.
        StoppedError: in place of KeyboardInterrupt.
    """
    made = _make(run_dir)
    with lock(run_dir) as handle:
        is_new = _check_free(run_dir, config)
        try:
            yield
        except BaseException as error:
            _check_present(run_dir, handle)
            is_kept = not is_new or _has_results(run_dir)
            if not is_kept:
                with suppress(OSError):  # what cannot be removed stays; the error tells the rest
                    _empty(run_dir)
                    for folder in made:
                        folder.rmdir()
            if isinstance(error, KeyboardInterrupt):
                raise _interrupted(run_dir, error, is_kept) from None
            raise
        _check_present(run_dir, handle)


@contextmanager
def lent(run_dir: Path) -> Iterator[None]:
    """Makes a folder for a proof without a training, or takes one that holds an earlier proof.

    Raises:
        UserError: the folder cannot be made or written, is in use, or holds anything else.
    """
    _make(run_dir)
    with lock(run_dir):
        if (run_dir / CONFIG).exists() or (
            any(run_dir.iterdir()) and not any((run_dir / name).exists() for name in (LOG, RELEASE))
        ):
            raise UserError(f"{run_dir} is not empty and holds no proof; give another folder")
        remove_leftovers(run_dir)
        yield


@contextmanager
def lock(run_dir: Path) -> Iterator[int]:
    """Keeps other processes out of a run's folder for as long as this one works in it.

    Lends the folder's handle.

    Raises:
        UserError: another process works in it, it cannot be locked, or the system refuses to read
            or write there meanwhile.
    """
    with locked(run_dir, partial(_cannot_lock, run_dir)) as handle:
        _check_present(run_dir, handle)
        try:
            yield handle
        except OSError as error:
            if mistake := _explained(run_dir, error):
                raise mistake from error
            raise


def _cannot_lock(run_dir: Path, error: OSError) -> UserError:
    if isinstance(error, BlockingIOError):
        return UserError(
            f"{run_dir} is in use by another process; wait for it, or give another --output-dir"
        )
    if error.filename is not None:
        return UserError(
            f"cannot open the folder {run_dir}: {error.strerror}; give another --output-dir"
        )
    return UserError(
        f"{run_dir} cannot be locked ({error.strerror}), so that two runs could mix in it; "
        "give an --output-dir on a disk of this machine"
    )


def _check_present(run_dir: Path, handle: int) -> None:
    """Makes sure that the folder that was locked is still the one of this name.

    Raises:
        UserError: it was removed or replaced.
    """
    if not (run_dir.is_dir() and os.path.samestat(run_dir.stat(), os.fstat(handle))):
        raise UserError(
            f"{run_dir} was removed or replaced while a run worked in it; what is there now is not "
            "a whole run: remove it and give the same command again"
        )


def is_finished(run_dir: Path) -> bool:
    """Returns whether a run has come to its end, the card included."""
    return (run_dir / RELEASE).is_file() and not (run_dir / TRAINING).exists()


def finish(run_dir: Path) -> None:
    """Removes what only an unfinished run needs; the run is finished from the renaming on."""
    (run_dir / TRAINING).rename(run_dir / SPENT)
    shutil.rmtree(run_dir / SPENT)


def remove_leftovers(run_dir: Path) -> None:
    """Removes what a killed run has left half-written or half-removed in a locked folder."""
    for folder in FOLDERS:
        for path in (run_dir / folder).glob(f".*{UNFINISHED}"):
            path.unlink()
    for path in ((run_dir / SPENT), *run_dir.glob(f"{RELEASED}.*tmp*")):
        shutil.rmtree(path, ignore_errors=True)


def _make(run_dir: Path) -> list[Path]:
    """Makes a folder and those above it; returns the ones made, the innermost first."""
    pattern = [character for character in "[]*?" if character in str(run_dir.absolute())]
    if pattern:
        raise UserError(
            f"{run_dir.absolute()} holds {pattern[0]!r}, which the checkpoint library takes for a "
            "pattern; give another --output-dir"
        )
    if not str(run_dir.absolute()).isprintable():
        raise UserError(
            f"{run_dir.absolute()} holds a character that does not print; give another --output-dir"
        )
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{run_dir} is a file, not a folder; give another --output-dir") from error
    except OSError as error:
        raise UserError(
            f"cannot make the folder {run_dir}: {error.strerror}; give another --output-dir"
        ) from error
    return made


def _has_results(run_dir: Path) -> bool:
    """Returns whether anything is there that took training to make."""
    epochs = (run_dir / TRAINING).rglob("[0-9]*")  # of several seeds, in a folder each
    return (run_dir / HISTORY).exists() or any(epochs)


def _empty(run_dir: Path) -> None:
    for entry in run_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def _explained(run_dir: Path, error: OSError) -> UserError | None:
    """Says what the system refused, if it told: only what names the folder is the folder's.

    Writing to an open file names no path, but what is full then is where the run writes.
    """
    reason, path = error.strerror or str(error), error.filename
    if error.errno in EXHAUSTED:
        return UserError(
            f"{reason}, while working in {run_dir}: the system sets this process a limit; raise it "
            "(ulimit -a shows them), then give the same command again"
        )
    is_named = isinstance(path, str | bytes)
    place = Path(os.fsdecode(path)).resolve() if is_named else None
    if error.errno in FULL if place is None else place.is_relative_to(run_dir.resolve()):
        return UserError(
            f"cannot work in {run_dir}: {reason}; make room and see that the folder can be "
            "written, then give the same command again"
        )
    if place is None:
        return None
    return UserError(
        f"cannot use {place}: {reason}; make that possible, then give the same command again"
    )


def _interrupted(run_dir: Path, error: KeyboardInterrupt, is_kept: bool) -> StoppedError:
    status = 143 if isinstance(error, Terminated) else 130
    if not is_kept:
        return StoppedError("interrupted before the first step was saved; nothing is left", status)
    return StoppedError(f"interrupted; the same flags and --output-dir {run_dir} resume it", status)


def _check_free(run_dir: Path, config: Mapping[str, Any]) -> bool:
    """Returns whether the run is a new one."""
    if not (run_dir / CONFIG).is_file():
        ours = {run_dir / LOG, run_dir / "logs", *run_dir.glob(f"logs/.*{UNFINISHED}")}
        if not ours.issuperset([*run_dir.iterdir(), *run_dir.glob("logs/*")]):
            raise UserError(f"{run_dir} is not empty and holds no run; give another --output-dir")
        remove_leftovers(run_dir)
        return True  # empty, or cut off before anything was known
    remove_leftovers(run_dir)
    if is_finished(run_dir):
        raise UserError(f"{run_dir} holds a finished run; give another --output-dir")
    run = read_config(run_dir)
    own_code.check_unchanged(run.get("own_code", {}))
    before = run["config"]
    changed = [
        key
        for key in sorted(config)
        if key not in PLACES and before.get(key) != jsonable(config[key])
    ]
    if changed:
        key = changed[0]
        raise UserError(
            f"{run_dir} holds an unfinished run with {key} {before.get(key)!r}, not "
            f"{jsonable(config[key])!r}; give another --output-dir, or the same flags to resume it"
        )
    return False


def check_same_data(run_dir: Path, data_hash: str) -> None:
    """Refuses to resume a run on other data: what it has trained on could be in another split now.

    Raises:
        UserError: the folder holds a run on data with another SHA-256.
    """
    if not (run_dir / CONFIG).is_file():
        return
    run = read_config(run_dir)
    if run.get("dataset", {}).get("data_hash") != data_hash:
        raise UserError(
            f"{run_dir} holds an unfinished run on data that has changed since; give another "
            "--output-dir, or the data of then to resume it"
        )


def read_config(run_dir: Path) -> dict[str, Any]:
    """Reads `config.json`.

    Raises:
        UserError: it is missing, or not what a run writes.
    """
    run = read_json(run_dir / CONFIG)
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict):
        raise UserError(f"{run_dir / CONFIG} is not what a run writes; it is damaged, run again")
    return run


def read_run(run_dir: Path) -> dict[str, Any]:
    """Reads `config.json` of a finished run, to begin again from it.

    A key that the configuration did not have yet gets its default, which does what was done then.

    Raises:
        UserError: there is no finished run, its `config.json` holds what no run writes, or the
            user's own code that it names has changed.
    """
    if not is_finished(run_dir):
        raise UserError(f"{run_dir} holds no finished run; name the folder of one")
    run = read_config(run_dir)
    config = {**default().to_dict(), **run["config"]}
    if isinstance(config["export_format"], list):
        config["export_format"] = tuple(config["export_format"])
    try:
        validate(config)
        if not isinstance(run["dataset"]["data_hash"], str):
            raise TypeError("data_hash is not a text")
    except (UserError, LookupError, TypeError) as error:
        raise UserError(
            f"{run_dir / CONFIG} is not what a run writes ({first_line(error)}); it is damaged"
        ) from error
    own_code.check_unchanged(run.get("own_code", {}))
    return run | {"config": config}


def jsonable(value: Any) -> Any:
    """Returns a configuration value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
