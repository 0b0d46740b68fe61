"""Checkpoints; nothing else imports orbax.

While a run trains, `models/training/` holds its last two checkpoints, each with everything needed
to resume, by the number of steps taken. A finished run keeps `models/checkpoint/` alone: the
weights that are released. Each carries a SHA-256 over all it holds: orbax itself does not notice a
bit that has flipped in an array.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mnist_jax.errors import UserError, first_line
from mnist_jax.run.paths import RELEASED

LOGGER = logging.getLogger("mnist_jax")


class TrainingCheckpoints:
    """The checkpoints of a run that is not finished; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Opens (or makes) `folder`; removes what a run that was cut off has half-written there."""
        _silence()
        self._folder = folder.absolute()
        with _writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=2,
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=True,
                    create=False,
                    multiprocessing_options=_alone(),
                ),
                item_names=("arrays", "history"),
            )

    def __enter__(self) -> "TrainingCheckpoints":
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for the writing to end.

        Raises:
            UserError: what was saved could not be written; not if another error is on its way, but
                in place of a signal, after which the run would not resume where it says.
        """
        is_error = kind is not None and not issubclass(kind, KeyboardInterrupt)
        with suppress(UserError) if is_error else nullcontext(), _writing(self._folder):
            self._manager.close()

    def save(self, step: int, arrays: Any, history: dict[str, Any]) -> None:
        """Saves a pytree of arrays and the history so far, in the background.

        Raises:
            UserError: this checkpoint or the one before could not be written.
        """
        arrays = _to_write(arrays)
        with _writing(self._folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), history=ocp.args.JsonSave(history)
                ),
                custom_metadata={"sha256": _sha256(arrays, history)},
            )

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns arrays and history of the last checkpoint that is whole; None: there is none.

        Those after it are damaged; they are deleted, and a warning says so.

        Args:
            like: a pytree of arrays with the structure, shapes and dtypes that were saved.

        Raises:
            UserError: every checkpoint is damaged.
        """
        like = _to_write(like)
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, like)
            except Exception as error:  # orbax raises whatever its storage does
                damaged[step] = (
                    f"{self._folder / str(step)} cannot be restored ({first_line(error)})"
                )
                continue
            for later, problem in damaged.items():
                LOGGER.warning("%s; the one before is taken instead", problem)
                self._manager.delete(later)
            return restored
        for problem in damaged.values():
            raise UserError(f"{problem}; delete {self._folder} to train from the beginning")
        return None

    def _restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like), history=ocp.args.JsonRestore()
            ),
        )
        arrays, history = restored["arrays"], restored["history"]
        _check(self._manager.metadata(step), arrays, history)
        return arrays, history


def save_released(run_dir: Path, params: Any, model_state: Any) -> None:
    """Writes the weights that are released; replaces what an earlier, cut-off try left.

    Raises:
        UserError: they could not be written.
    """
    _silence()
    params, model_state = _to_write((params, model_state))
    folder, weights = (run_dir / RELEASED).absolute(), (params, model_state)
    with _writing(folder), _checkpointer() as checkpointer:
        checkpointer.save(
            folder,
            {"params": params, "model_state": model_state},
            force=True,
            custom_metadata={"sha256": _sha256(*weights)},
        )


def load_released(run_dir: Path, params: Any, model_state: Any) -> tuple[Any, Any]:
    """Reads the released weights.

    Args:
        run_dir: a finished run.
        params: arrays of the shapes to expect.
        model_state: likewise.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it does not fit the model.
    """
    _silence()
    folder = (run_dir / RELEASED).absolute()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; name the folder of a finished run")
    try:
        with _checkpointer() as checkpointer:
            like = _to_write({"params": params, "model_state": model_state})
            restored = checkpointer.restore(folder, like)
            weights = restored["params"], restored["model_state"]
            _check(checkpointer.metadata(folder), *weights)
    except Exception as error:  # orbax raises whatever its storage does
        raise UserError(
            f"{folder} cannot be restored ({first_line(error)}); it is damaged or of another "
            "model, train again"
        ) from error
    return weights


def released_sha256(run_dir: Path) -> str | None:
    """Returns the checksum that was written with the released weights; None where there is none."""
    _silence()
    try:
        with _checkpointer() as checkpointer:
            metadata = checkpointer.metadata((run_dir / RELEASED).absolute())
        return (metadata.custom_metadata or {}).get("sha256")
    except Exception:  # orbax raises whatever its storage does
        return None


def _alone() -> ocp.options.MultiprocessingOptions:
    """In a run of several processes one has the files, and waits for no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(
        active_processes={jax.process_index()},
        primary_host=jax.process_index(),
        barrier_sync_key_prefix="alone",
    )


def _checkpointer() -> ocp.StandardCheckpointer:
    return ocp.StandardCheckpointer(multiprocessing_options=_alone())


def _to_write(arrays: Any) -> Any:
    """Returns arrays as orbax takes them: from a run of several processes, on the host."""
    return arrays if jax.process_count() == 1 else jax.device_get(arrays)


def _silence() -> None:
    """Keeps orbax's reports and asyncio's tracebacks off the terminal: what fails is raised."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns whatever orbax raises into one line that names the folder."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # orbax raises whatever its storage does
        told = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(told[1])) if told else first_line(error)
        raise UserError(
            f"cannot write {folder}: {reason}; make room and see that the folder can be written, "
            "then give the same command again"
        ) from error


def _sha256(arrays: Any, rest: Any) -> str:
    """Returns the SHA-256, in hex, over the leaves of two pytrees of arrays, numbers and texts."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(jax.device_get((arrays, rest))):
        digest.update(jax.tree_util.keystr(path).encode())
        if isinstance(leaf, np.ndarray):
            digest.update(f"{leaf.dtype}{leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf).data)
        else:
            digest.update(json.dumps(leaf).encode())
    return digest.hexdigest()


def _check(metadata: Any, arrays: Any, rest: Any) -> None:
    """Raises ValueError where what was read is not what was written."""
    if (metadata.custom_metadata or {}).get("sha256") != _sha256(arrays, rest):
        raise ValueError("its contents do not have the SHA-256 that was written with them")
