"""A run's epochs: train, validate, keep the best, be ready to go on after an interruption."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from tensorboardX import SummaryWriter

from mnist_jax.checkpoint import TrainingCheckpoints
from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.evaluate import summarise
from mnist_jax.phases import FIRST_STEP, Phases
from mnist_jax.state import TrainState
from mnist_jax.step import Progress, no_progress, shuffled

LOGGER = logging.getLogger("mnist_jax")
CPU_STEPS_BETWEEN_REPORTS = 20


class Fitted(NamedTuple):
    """The best epoch's weights and how the run came to them."""

    params: Any
    model_state: Any
    history: dict[str, Any]


def fit(
    state: TrainState,
    train_steps: Callable[..., tuple[TrainState, Progress]],
    predict: Callable[..., Any],
    schedule: optax.Schedule,
    shuffle_key: jax.Array,
    train: Split,
    validation: Split,
    *,
    epochs: int,
    batch_size: int,
    checkpoints: TrainingCheckpoints,
    tensorboard_dir: Path,
    console: Console,
    phases: Phases,
) -> Fitted:
    """Trains for `epochs`, going on after the last epoch that `checkpoints` holds.

    An epoch is a pass over a new permutation of the train split; what does not fill a batch is left
    out of it. The best epoch has the most correct validation images, then the smallest validation
    loss, then the smallest number.

    Args:
        state: the state before the first step; donated.
        train_steps: from `step.make_train_steps`.
        predict: from `evaluate.make_predict`.
        schedule: the learning rate by step, for the history.
        shuffle_key: root of the epochs' permutations.
        train: what to train on; it lives on the device from here on.
        validation: what to choose the epoch by.
        epochs: at least 1.
        batch_size: at most the size of `train`.
        checkpoints: where each epoch is saved.
        tensorboard_dir: where the scalars go.
        console: where the progress bar goes, if it is a terminal.
        phases: the stopwatch.

    Raises:
        UserError: a loss or a gradient is not finite; the message names the step.
    """
    history: dict[str, Any] = {"best_epoch": 0, "epochs": []}
    best: tuple[Any, Any] = (state.weights, state.model_state)
    restored = checkpoints.restore_latest({"state": state, "best": best})
    if restored is not None:
        arrays, history = restored
        state, best = arrays["state"], arrays["best"]
        LOGGER.info("going on after epoch %d", len(history["epochs"]))
    on_device = jax.device_put((train.images, train.labels))
    validation_on_device = jax.device_put((validation.images, validation.labels))
    bar = _EpochBar(console, epochs, len(train.labels) // batch_size)
    with SummaryWriter(str(tensorboard_dir)) as writer, bar:
        for epoch in range(len(history["epochs"]) + 1, epochs + 1):
            order = shuffled(shuffle_key, epoch, len(train.labels))
            state, seen, seconds = _train_epoch(
                state, train_steps, on_device, order, epoch, bar, phases
            )
            scores, losses = predict(state.weights, state.model_state, *validation_on_device)
            validated = summarise(scores, losses, validation.labels)
            row = {
                "epoch": epoch,
                "learning_rate": float(np.asarray(schedule(int(state.step) - 1))),
                "train_loss": float(seen.loss_sum) / int(seen.num_seen),
                "train_accuracy": int(seen.num_correct) / int(seen.num_seen),
                "validation_loss": validated["loss"],
                "validation_accuracy": validated["accuracy"],
                "grad_norm": float(seen.grad_norm),
                "param_norm": float(seen.param_norm),
                "update_norm": float(seen.update_norm),
                "seconds": seconds,
                "images_per_s": int(seen.num_seen) / seconds,
            }
            history["epochs"].append(row)
            if _best_epoch(history) == epoch:
                history["best_epoch"] = epoch
                best = jax.tree.map(lambda leaf: leaf.copy(), (state.weights, state.model_state))
            checkpoints.save(epoch, {"state": state, "best": best}, history)
            for name in sorted(set(row) - {"epoch"}):
                writer.add_scalar(name, row[name], epoch)
            LOGGER.info(
                "epoch %d/%d: loss %.4f, accuracy %.4f; validation %.4f; %.0f s, %s images/s",
                *(epoch, epochs, row["train_loss"], row["train_accuracy"]),
                *(row["validation_accuracy"], seconds, f"{row['images_per_s']:,.0f}"),
            )
    return Fitted(best[0], best[1], history)


def _train_epoch(
    state: TrainState,
    train_steps: Callable[..., tuple[TrainState, Progress]],
    on_device: tuple[jax.Array, jax.Array],
    order: jax.Array,
    epoch: int,
    bar: "_EpochBar",
    phases: Phases,
) -> tuple[TrainState, Progress, float]:
    """Takes an epoch's steps; returns the state, what was seen, and the seconds it took."""
    progress, start = no_progress(), time.perf_counter()
    # On a CPU the host looks in after the first step, and now and then, for the bar; elsewhere an
    # epoch is one dispatch.
    stops = {0, bar.num_batches}
    if jax.default_backend() == "cpu":
        stops |= {1, *range(0, bar.num_batches, CPU_STEPS_BETWEEN_REPORTS)}
    for first, end in itertools.pairwise(sorted(stops)):
        state, progress = train_steps(state, progress, *on_device, order, first, end - first)
        seen = jax.device_get(progress)
        if end > 1 or end == bar.num_batches:  # what one step breaks, the next one's loss will name
            _check_finite(seen)
        seconds = time.perf_counter() - start
        bar.show(epoch, end, seen, seconds)
        if FIRST_STEP not in phases.seconds:
            phases.end(FIRST_STEP)
    return state, seen, seconds


class _EpochBar(ProgressBar):
    """The progress bar of a whole run; draws nothing where there is no terminal."""

    def __init__(self, console: Console, epochs: int, num_batches: int) -> None:
        super().__init__(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self.num_batches = num_batches
        self._task = self.add_task(
            "",
            total=epochs * num_batches,
            epoch=1,
            epochs=epochs,
            figures="compiling",
        )

    def show(self, epoch: int, num_batches_done: int, seen: Progress, seconds: float) -> None:
        """Draws where the run is: `seen` and `seconds` are of this epoch so far."""
        self.update(
            self._task,
            completed=(epoch - 1) * self.num_batches + num_batches_done,
            epoch=epoch,
            figures=f"loss {seen.loss_sum / seen.num_seen:.3f}"
            f" accuracy {seen.num_correct / seen.num_seen:.3f}"
            f" {seen.num_seen / seconds:,.0f} images/s",
        )


def _best_epoch(history: dict[str, Any]) -> int:
    """Returns the number of the best epoch so far."""
    best = max(
        history["epochs"],
        key=lambda row: (row["validation_accuracy"], -row["validation_loss"], -row["epoch"]),
    )
    return best["epoch"]


def _check_finite(seen: Progress) -> None:
    for metric, step in (
        ("loss", int(seen.first_bad_loss)),
        ("gradient", int(seen.first_bad_gradient)),
    ):
        if step:
            raise UserError(
                f"the {metric} of step {step} is not finite, and training cannot go on from there; "
                "give a smaller --learning-rate"
            )
    if not math.isfinite(seen.param_norm):
        raise UserError("the parameters are no longer finite; give a smaller --learning-rate")
