"""A training's epochs: train, validate, keep the best, be ready to resume."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.run.history import EpochRow, History
from mnist_jax.training.checkpoint import TrainingCheckpoints
from mnist_jax.training.reached import Reached, Weights, beginning, restored, save
from mnist_jax.training.reporter import Reporter
from mnist_jax.training.signals import Stop
from mnist_jax.training.state import TrainState
from mnist_jax.training.step import Progress, TrainSteps, no_progress

SECONDS_BETWEEN_LOOKS = 0.5


class Functions(NamedTuple):
    """What a training computes with."""

    train_steps: TrainSteps  # from `step.make_train_steps`, with the streams of the seed
    order: Callable[[int], jax.Array]  # of the examples in an epoch
    validate: Callable[[Weights], tuple[float, float]]  # accuracy and mean loss
    schedule: optax.Schedule  # the learning rate by step


class Outputs(NamedTuple):
    """Where a training saves and says how it goes."""

    checkpoints: TrainingCheckpoints | None  # None in a process that writes nothing
    reporter: Reporter
    stop: Stop


class Fitted(NamedTuple):
    """The best epoch's weights, how the training came to them, and the last epoch's."""

    best: Weights
    history: History
    last: Weights


def fit(
    state: TrainState,
    train: Split,
    functions: Functions,
    outputs: Outputs,
    *,
    epochs: int,
    batch_size: int,
    patience: int = 0,
) -> Fitted:
    """Trains for `epochs`, resuming after the last step that was saved.

    Each epoch is saved, and so is the step that SIGTERM or Ctrl-C finds under way. An epoch is a
    pass over a new permutation of the train split; what does not fill a batch is left out. The best
    epoch has the most correct validation images, then the smallest validation loss, then the
    smallest number.

    Args:
        state: the state before the first step; donated.
        train: what to train on, on the device.
        functions: what to compute with.
        outputs: where to save and report.
        epochs: at least 1.
        batch_size: at most the size of `train`.
        patience: epochs without a better one after which the rest is left out; 0: never.

    Raises:
        UserError: a loss or a gradient is not finite; the message names the step.
        KeyboardInterrupt: a signal asked to stop; all that was trained is saved.
    """
    num_batches = len(train.labels) // batch_size
    reached = restored(outputs.checkpoints, beginning(state))
    outputs.reporter.begin(reached.num_steps, epochs, num_batches)
    while (epoch := reached.num_steps // num_batches + 1) <= epochs:
        if patience and epoch - 1 - reached.history["best_epoch"] >= patience:
            outputs.reporter.giving_up(epoch - 1, patience)
            break
        reached = _train_epoch(reached, train, epoch, num_batches, functions, outputs)
        if reached.num_steps < epoch * num_batches:  # the run is to stop
            save(outputs.checkpoints, reached)
            outputs.reporter.stopping(reached.num_steps)
            outputs.stop.now()
        reached = _with_epoch(reached, epoch, functions)
        save(outputs.checkpoints, reached)
        outputs.reporter.epoch(reached.history["epochs"][-1])
        outputs.stop.now()
    return Fitted(reached.best, reached.history, reached.weights)


def _train_epoch(
    reached: Reached,
    train: Split,
    epoch: int,
    num_batches: int,
    functions: Functions,
    outputs: Outputs,
) -> Reached:
    """Takes the steps of an epoch that are not done; ends early where the run is to stop."""
    order = functions.order(epoch)
    num_done = reached.num_steps - (epoch - 1) * num_batches
    # On a CPU the host looks in after the first step, and now and then; elsewhere an epoch is one
    # dispatch.
    num_next = 1 if jax.default_backend() == "cpu" else num_batches
    while num_done < num_batches:
        start, num_next = time.perf_counter(), min(num_next, num_batches - num_done)
        state, progress = functions.train_steps(
            reached.state, reached.progress, train, order, num_done, num_next
        )
        seen = jax.device_get(progress)
        num_done += num_next
        if num_done > 1 or num_done == num_batches:
            _check_finite(seen)  # what one step breaks, the next one's loss will name
        took = time.perf_counter() - start
        reached = reached._replace(state=state, progress=progress, seconds=reached.seconds + took)
        num_next = max(1, round(num_next * SECONDS_BETWEEN_LOOKS / took))
        outputs.reporter.steps(epoch, num_done, seen, reached.seconds)
        if outputs.stop.is_asked:
            break
    return reached


def _with_epoch(reached: Reached, epoch: int, functions: Functions) -> Reached:
    """Validates, adds the epoch to the history, and keeps its weights if they are the best."""
    weights, seen = reached.weights, jax.device_get(reached.progress)
    accuracy, loss = functions.validate(weights)
    row = EpochRow(
        epoch=epoch,
        learning_rate=float(np.asarray(functions.schedule(reached.num_steps - 1))),
        train_loss=float(seen.loss_sum) / int(seen.num_seen),
        train_accuracy=int(seen.num_correct) / int(seen.num_seen),
        validation_loss=loss,
        validation_accuracy=accuracy,
        grad_norm=float(seen.grad_norm),
        param_norm=float(seen.param_norm),
        update_norm=float(seen.update_norm),
        seconds=reached.seconds,
        images_per_s=int(seen.num_seen) / reached.seconds,
    )
    epochs = [*reached.history["epochs"], row]
    best_epoch = max(epochs, key=quality)["epoch"]
    best = reached.best
    if best_epoch == epoch:  # a copy: the state is donated to the next step
        best = jax.tree.map(lambda leaf: leaf.copy(), weights)
    history = History(best_epoch=best_epoch, epochs=epochs)
    return Reached(reached.state, best, history, no_progress(), 0.0)


def quality(row: EpochRow) -> tuple[float | int, float | int, int]:
    """Returns what the best epoch has the most of."""
    return row["validation_accuracy"], -row["validation_loss"], -row["epoch"]


def _check_finite(seen: Progress) -> None:
    for metric, step in (
        ("loss", int(seen.first_bad_loss)),
        ("gradient", int(seen.first_bad_gradient)),
    ):
        if step:
            raise UserError(
                f"the {metric} of step {step} is not finite, and training cannot continue from "
                "there; use a smaller --learning-rate"
            )
    if not np.isfinite(seen.param_norm):
        raise UserError("the parameters are no longer finite; use a smaller --learning-rate")
