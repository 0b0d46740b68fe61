"""A run's epochs: train, validate, keep the best, be ready to go on after an interruption."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.run.stopwatch import FIRST_STEP, Phases
from mnist_jax.training.checkpoint import TrainingCheckpoints
from mnist_jax.training.devices import one_copy, replicate
from mnist_jax.training.evaluate import summarise
from mnist_jax.training.processes import share, share_arrays
from mnist_jax.training.signals import Stop, deferred
from mnist_jax.training.state import TrainState, pick
from mnist_jax.training.step import Progress, no_progress, shuffled

LOGGER = logging.getLogger("mnist_jax")
SECONDS_BETWEEN_LOOKS = 0.5


class Fitted(NamedTuple):
    """The best epoch's weights of one seed and how its training came to them."""

    params: Any
    model_state: Any
    history: dict[str, Any]
    last: tuple[Any, Any]  # the last epoch's weights: params and model_state


class _Reached(NamedTuple):
    """How far a training has come: what a checkpoint holds."""

    state: TrainState
    best: tuple[Any, Any]
    histories: list[dict[str, Any]]  # of the epochs that are over, for each seed
    progress: Progress  # in the epoch that is under way
    seconds: float  # that this epoch has taken

    @property
    def num_steps(self) -> int:
        return int(np.max(jax.device_get(self.state.step)))  # of seeds side by side all are alike


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
    checkpoints: TrainingCheckpoints | None,
    tensorboard_dirs: Sequence[Path],
    label: str,
    console: Console,
    phases: Phases,
    mesh: Mesh | None = None,
) -> list[Fitted]:
    """Trains for `epochs`, going on after the last step that `checkpoints` holds.

    Each epoch is saved, and so is the step that SIGTERM or Ctrl-C finds under way. An epoch is a
    pass over a new permutation of the train split; what does not fill a batch is left out. The best
    epoch has the most correct validation images, then the smallest validation loss, then the
    smallest number. Of several seeds side by side, state and `shuffle_key` are stacked, and each
    seed keeps the best of its own epochs.

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
        checkpoints: where the run is saved; None in the processes that write nothing.
        tensorboard_dirs: where the scalars go, a folder for each seed; none: they go nowhere.
        label: names the seeds in the log and the bar, with a space after it; or empty.
        console: where the progress bar goes, if it is a terminal.
        phases: the stopwatch.
        mesh: the devices that share each batch; None: there is one.

    Returns:
        What became of each seed.

    Raises:
        UserError: a loss or a gradient is not finite; the message names the step.
        KeyboardInterrupt: a signal asked to stop; all that was trained is saved.
    """
    num_batches = len(train.labels) // batch_size
    reached = _restored(checkpoints, _beginning(state, shuffle_key.shape))
    state, best, histories, progress, seconds = reached
    first_epoch, first_batch = divmod(reached.num_steps, num_batches)
    if reached.num_steps:
        LOGGER.info("%sgoing on after %s", label, _place(first_epoch, first_batch))
    everywhere, progress, on_device = replicate((state, progress, tuple(train)), mesh)
    validation_on_device = jax.device_put(tuple(validation))
    with ExitStack() as stack, _EpochBar(console, label, epochs, num_batches) as bar:
        # Of several processes none stops by itself: the others would wait for its next step.
        stop = stack.enter_context(deferred(is_wanted=jax.process_count() == 1))
        writers = [stack.enter_context(closing(_open_events(path))) for path in tensorboard_dirs]
        for epoch in range(first_epoch + 1, epochs + 1):
            order = replicate(shuffled(shuffle_key, epoch, len(train.labels)), mesh)
            everywhere, progress, num_done, seconds = _train_epoch(
                *(everywhere, progress, first_batch, seconds, train_steps, on_device, order),
                *(epoch, bar, phases, stop),
            )
            state, so_far = one_copy((everywhere, progress), mesh)
            if num_done < num_batches:  # the run is to stop
                _save(checkpoints, _Reached(state, best, histories, so_far, seconds))
                LOGGER.info("%sstopping after %s", label, _place(epoch - 1, num_done))
                stop.now()
            weights_now = (state.weights, state.model_state)
            by_seed = _apart((weights_now, jax.device_get(so_far)), shuffle_key)
            learning_rate = float(np.asarray(schedule(epoch * num_batches - 1)))
            for history, (weights, seen) in zip(histories, by_seed, strict=True):
                scores, losses = predict(*weights, *validation_on_device)
                validated = summarise(scores, losses, validation.labels)
                history["epochs"].append(_row(epoch, learning_rate, seen, seconds, validated))
                history["best_epoch"] = _best_epoch(history)
            best = _kept([one["best_epoch"] == epoch for one in histories], weights_now, best)
            so_far, first_batch, seconds = no_progress(shuffle_key.shape), 0, 0.0
            progress = replicate(so_far, mesh)
            _save(checkpoints, _Reached(state, best, histories, so_far, seconds))
            _report(histories, writers, label, epochs)
            stop.now()
    last = (state.weights, state.model_state)
    by_seed = zip(_apart((*best, last), shuffle_key), histories, strict=True)
    return [Fitted(one[0], one[1], history, one[2]) for one, history in by_seed]


def _apart(tree: Any, shuffle_key: jax.Array) -> list[Any]:
    """Returns each seed's share of arrays, which are stacked where there are several."""
    is_stacked = shuffle_key.ndim == 1
    return [pick(tree, index) for index in range(shuffle_key.size)] if is_stacked else [tree]


def _beginning(state: TrainState, seeds: tuple[int, ...]) -> _Reached:
    """Returns where a training begins; `seeds` is the shape of what has a value for each."""
    weights = jax.tree.map(jnp.copy, (state.weights, state.model_state))  # the state is donated
    histories = [{"best_epoch": 0, "epochs": []} for _ in range(math.prod(seeds))]
    return _Reached(state, weights, histories, no_progress(seeds), 0.0)


def _place(num_epochs_done: int, num_batches_done: int) -> str:
    """Says where a training is."""
    if not num_batches_done:
        return f"epoch {num_epochs_done}"
    return f"step {num_batches_done} of epoch {num_epochs_done + 1}"


def _save(checkpoints: TrainingCheckpoints | None, reached: _Reached) -> None:
    if checkpoints is not None:
        arrays = {"state": reached.state, "best": reached.best, "progress": reached.progress}
        rest = {"histories": reached.histories, "seconds": reached.seconds}
        checkpoints.save(reached.num_steps, arrays, rest)


def _restored(checkpoints: TrainingCheckpoints | None, start: _Reached) -> _Reached:
    """Returns how far the run had come when last saved, or its start; the same to all processes."""
    arrays = {"state": start.state, "best": start.best, "progress": start.progress}
    found = None if checkpoints is None else checkpoints.restore_latest(arrays)
    arrays, rest = found or (arrays, None)
    rest = share(rest)
    if rest is None:
        return start
    return _Reached(**share_arrays(arrays), **rest)


def _train_epoch(
    state: TrainState,
    progress: Progress,
    num_done: int,
    seconds: float,
    train_steps: Callable[..., tuple[TrainState, Progress]],
    on_device: tuple[jax.Array, jax.Array],
    order: jax.Array,
    epoch: int,
    bar: "_EpochBar",
    phases: Phases,
    stop: Stop,
) -> tuple[TrainState, Progress, int, float]:
    """Takes the steps of an epoch that are not done; ends early where the run is to stop.

    Returns the state, what the epoch has seen, and how many steps and seconds it has taken.
    """
    # On a CPU the host looks in after the first step, and now and then; elsewhere an epoch is one
    # dispatch.
    num_next = 1 if jax.default_backend() == "cpu" else bar.num_batches
    while num_done < bar.num_batches:
        start, num_next = time.perf_counter(), min(num_next, bar.num_batches - num_done)
        state, progress = train_steps(state, progress, *on_device, order, num_done, num_next)
        seen = jax.device_get(progress)
        num_done += num_next
        if num_done > 1 or num_done == bar.num_batches:
            _check_finite(seen)  # what one step breaks, the next one's loss will name
        took = time.perf_counter() - start
        seconds += took
        num_next = max(1, round(num_next * SECONDS_BETWEEN_LOOKS / took))
        bar.show(epoch, num_done, seen, seconds)
        if FIRST_STEP not in phases.seconds:
            phases.end(FIRST_STEP)
        if stop.is_asked:
            break
    return state, progress, num_done, seconds


def _row(
    epoch: int,
    learning_rate: float,
    seen: Progress,
    seconds: float,
    validated: dict[str, Any],
) -> dict[str, Any]:
    """Returns what the history keeps of an epoch of one seed."""
    return {
        "epoch": epoch,
        "learning_rate": learning_rate,
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


def _open_events(folder: Path) -> EventsWriter:
    """Returns a writer of TensorBoard's events.

    SummaryWriter's queue between processes needs /dev/shm, which some containers do not give.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return EventsWriter(str(folder / "events"))


def _report(
    histories: list[dict[str, Any]], writers: list[EventsWriter], label: str, epochs: int
) -> None:
    """Logs the epoch that has just ended, and writes its scalars where there are writers."""
    rows = [history["epochs"][-1] for history in histories]
    for writer, row in zip(writers, rows, strict=bool(writers)):
        names = sorted(set(row) - {"epoch"})
        values = [Summary.Value(tag=name, simple_value=row[name]) for name in names]
        summary = Summary(value=values)
        writer.write_event(Event(wall_time=time.time(), step=row["epoch"], summary=summary))
        writer.flush()
    LOGGER.info("%sepoch %d/%d: %s", label, rows[0]["epoch"], epochs, _summary(rows))


def _kept(is_best: list[bool], current: Any, best: Any) -> Any:
    """Returns the current weights of the seeds that are at their best, else the best so far."""
    if all(is_best):  # a copy: the state is donated to the next step
        return jax.tree.map(lambda leaf: leaf.copy(), current)
    if not any(is_best):
        return best
    chosen = np.array(is_best)
    return jax.tree.map(
        lambda new, old: jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old),
        current,
        best,
    )


def _summary(rows: list[dict[str, Any]]) -> str:
    """Says in a line how an epoch went: means over the seeds, and the range on validation."""
    loss, accuracy = (
        statistics.fmean(row[key] for row in rows) for key in ("train_loss", "train_accuracy")
    )
    validation = [row["validation_accuracy"] for row in rows]
    shown = " to ".join(f"{value:.4f}" for value in sorted({min(validation), max(validation)}))
    images_per_s = sum(row["images_per_s"] for row in rows)
    return (
        f"loss {loss:.4f}, accuracy {accuracy:.4f}; validation {shown}; "
        f"{rows[0]['seconds']:.0f} s, {images_per_s:,.0f} images/s"
    )


class _EpochBar(ProgressBar):
    """The progress bar of a whole run; draws nothing where there is no terminal."""

    def __init__(self, console: Console, label: str, epochs: int, num_batches: int) -> None:
        super().__init__(
            TextColumn(label + "epoch {task.fields[epoch]}/{task.fields[epochs]}"),
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

    def __enter__(self) -> "_EpochBar":
        super().__enter__()
        return self

    def show(self, epoch: int, num_batches_done: int, seen: Progress, seconds: float) -> None:
        """Draws where the run is: `seen` and `seconds` are of this epoch so far."""
        self.update(
            self._task,
            completed=(epoch - 1) * self.num_batches + num_batches_done,
            epoch=epoch,
            figures=f"loss {np.sum(seen.loss_sum) / np.sum(seen.num_seen):.3f}"
            f" accuracy {np.sum(seen.num_correct) / np.sum(seen.num_seen):.3f}"
            f" {np.sum(seen.num_seen) / seconds:,.0f} images/s",
        )


def _best_epoch(history: dict[str, Any]) -> int:
    """Returns the number of the best epoch so far."""
    best = max(
        history["epochs"],
        key=lambda row: (row["validation_accuracy"], -row["validation_loss"], -row["epoch"]),
    )
    return best["epoch"]


def _check_finite(seen: Progress) -> None:
    for metric, steps in (
        ("loss", seen.first_bad_loss),
        ("gradient", seen.first_bad_gradient),
    ):
        if step := int(np.max(steps)):  # of seeds side by side, one is enough
            raise UserError(
                f"the {metric} of step {step} is not finite, and training cannot go on from there; "
                "give a smaller --learning-rate"
            )
    if not np.isfinite(seen.param_norm).all():
        raise UserError("the parameters are no longer finite; give a smaller --learning-rate")
