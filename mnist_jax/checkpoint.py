"""Checkpoints; nothing else imports orbax.

While a run trains, `models/training/` holds its last two epochs, each with everything needed to go
on. A finished run keeps `models/checkpoint/` alone: the weights that are released.
"""

import logging
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from mnist_jax.errors import UserError, first_line
from mnist_jax.run_folder import RELEASED


class TrainingCheckpoints:
    """The checkpoints of a run that is not finished; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Opens (or makes) `folder`."""
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every step there
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True),
            item_names=("arrays", "history"),
        )

    def __enter__(self) -> "TrainingCheckpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the writing to end."""
        self._manager.close()

    def save(self, epoch: int, arrays: Any, history: dict[str, Any]) -> None:
        """Saves a pytree of arrays and the history so far, in the background."""
        self._manager.save(
            epoch,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), history=ocp.args.JsonSave(history)
            ),
        )

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns arrays and history of the last saved epoch, or None where there is none.

        Args:
            like: a pytree of arrays with the structure, shapes and dtypes that were saved.

        Raises:
            UserError: the epoch is damaged.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        try:
            restored = self._manager.restore(
                epoch,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardRestore(like), history=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # orbax raises whatever its storage does
            raise UserError(
                f"{self._manager.directory / str(epoch)} cannot be restored "
                f"({first_line(error)}); delete that folder to go on from the epoch before"
            ) from error
        return restored["arrays"], restored["history"]


def save_released(run_dir: Path, params: Any, model_state: Any) -> None:
    """Writes the weights that are released; replaces what an earlier, cut-off try left."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(
            (run_dir / RELEASED).absolute(),
            {"params": params, "model_state": model_state},
            force=True,
        )


def load_released(run_dir: Path, params: Any, model_state: Any) -> tuple[Any, Any]:
    """Reads the released weights.

    Args:
        run_dir: a finished run.
        params: arrays of the shapes to expect.
        model_state: likewise.

    Raises:
        UserError: there is no checkpoint, or it does not fit the model.
    """
    folder = (run_dir / RELEASED).absolute()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; name the folder of a finished run")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(folder, {"params": params, "model_state": model_state})
    except Exception as error:  # orbax raises whatever its storage does
        raise UserError(
            f"{folder} cannot be restored ({first_line(error)}); it is damaged or of another "
            "model, train again"
        ) from error
    return restored["params"], restored["model_state"]
