"""What a training says while it goes: the progress bar, the log, TensorBoard."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as ProgressBar,
)

from mnist_jax.run.history import EpochRow
from mnist_jax.run.stopwatch import FIRST_STEP, Phases
from mnist_jax.training.step import Progress

# tensorboardX imports PyTorch where that is installed, for the name of a type: three seconds of
# processor time, half of this program's start.
_TORCH = sys.modules.setdefault("torch", None)  # pyright: ignore[reportArgumentType]
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2, summary_pb2
finally:
    if _TORCH is None:
        del sys.modules["torch"]

Event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
Summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
LOGGER = logging.getLogger("mnist_jax")
SECONDS_BETWEEN_LINES = 60.0  # in the log, where no progress bar is drawn


class Reporter:
    """A context manager; where there is no terminal, it logs a line a minute in place of a bar."""

    def __init__(
        self, console: Console, phases: Phases, *, label: str = "", tensorboard: Path | None = None
    ) -> None:
        """Opens what the training is told to.

        Args:
            console: where the progress bar goes, if it is a terminal.
            phases: the stopwatch.
            label: names the seed in the log and the bar, with a space after it; or empty.
            tensorboard: the folder for scalars and pictures; None: they go nowhere.
        """
        self._label, self._phases = label, phases
        self._pictures: Callable[[], dict[str, bytes]] = dict
        self._epochs = self._num_batches = 0
        self._last_line = time.monotonic()
        self._writer = None if tensorboard is None else _open_events(tensorboard)
        self._bar = ProgressBar(
            TextColumn(label + "epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f} %"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", epoch=1, epochs=0, figures="compiling")

    def __enter__(self) -> "Reporter":
        """Shows the bar."""
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bar away and closes the files."""
        self._bar.__exit__(kind, error, trace)
        if self._writer is not None:
            self._writer.close()

    def begin(self, num_steps: int, epochs: int, num_batches: int) -> None:
        """Says where a training resumes, after `num_steps`."""
        self._epochs, self._num_batches = epochs, num_batches
        self._bar.update(self._task, total=epochs * num_batches, completed=num_steps, epochs=epochs)
        if num_steps:
            LOGGER.info("%sresuming after %s", self._label, self._place(num_steps))

    def steps(self, epoch: int, num_done: int, seen: Progress, seconds: float) -> None:
        """Shows where the run is: `num_done` batches, `seen` and `seconds` are of this epoch."""
        if FIRST_STEP not in self._phases.seconds:
            self._phases.end(FIRST_STEP)
        completed = (epoch - 1) * self._num_batches + num_done
        loss, accuracy = seen.loss_sum / seen.num_seen, seen.num_correct / seen.num_seen
        images_per_s = f"{seen.num_seen / seconds:,.0f}"
        figures = f"loss {loss:.3f} accuracy {accuracy:.3f} {images_per_s}/s"
        self._bar.update(self._task, completed=completed, epoch=epoch, figures=figures)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            num_left = self._epochs * self._num_batches - completed
            LOGGER.info(
                "%sepoch %d/%d, %.0f %% of it: loss %.3f, accuracy %.3f; %s images/s, %s left",
                self._label,
                epoch,
                self._epochs,
                100 * num_done / self._num_batches,
                loss,
                accuracy,
                images_per_s,
                timedelta(seconds=round(num_left * seconds / num_done)),
            )

    def stopping(self, num_steps: int) -> None:
        """Says that a signal ends the training after `num_steps`."""
        LOGGER.info("%sstopping after %s", self._label, self._place(num_steps))

    def giving_up(self, epoch: int, patience: int) -> None:
        """Says that the training ends after `epoch`, since none of the last was the best."""
        LOGGER.info(
            "%sstopping after epoch %d: none of the last %d was better on validation",
            self._label,
            epoch,
            patience,
        )

    def answered(self, pictures: Callable[[], dict[str, bytes]]) -> None:
        """Takes pictures of the answers on validation, PNG by name, drawn if the epoch is shown."""
        self._pictures = pictures

    def epoch(self, row: EpochRow) -> None:
        """Logs the epoch that has just ended, and writes what TensorBoard shows of it."""
        if self._writer is not None:
            names = sorted(set(row) - {"epoch"})
            values = [Summary.Value(tag=name, simple_value=row[name]) for name in names]
            for name, png in self._pictures().items():
                shown = Summary.Image(encoded_image_string=png, colorspace=3)
                values.append(Summary.Value(tag=name, image=shown))
            summary = Summary(value=values)
            event = Event(wall_time=time.time(), step=row["epoch"], summary=summary)
            self._writer.write_event(event)
            self._writer.flush()
        self._last_line = time.monotonic()
        LOGGER.info(
            "%sepoch %d/%d: loss %.4f, accuracy %.4f; validation %.4f; %.0f s, %s images/s",
            self._label,
            row["epoch"],
            self._epochs,
            row["train_loss"],
            row["train_accuracy"],
            row["validation_accuracy"],
            row["seconds"],
            f"{row['images_per_s']:,.0f}",
        )

    def _place(self, num_steps: int) -> str:
        """Says where a training is after so many steps."""
        epochs, batches = divmod(num_steps, self._num_batches)
        return f"step {batches} of epoch {epochs + 1}" if batches else f"epoch {epochs}"


def _open_events(folder: Path) -> EventsWriter:
    """Returns a writer of TensorBoard's events.

    SummaryWriter's queue between processes needs /dev/shm, which some containers do not give.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return EventsWriter(str(folder / "events"))
