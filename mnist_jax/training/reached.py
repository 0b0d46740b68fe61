"""How far a training has come: what a checkpoint holds, and a run resumes from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mnist_jax.models.predict import one_copy
from mnist_jax.run.history import History
from mnist_jax.training.checkpoint import TrainingCheckpoints
from mnist_jax.training.processes import share, share_arrays
from mnist_jax.training.state import TrainState
from mnist_jax.training.step import Progress, no_progress


class Weights(NamedTuple):
    """What is evaluated and released."""

    params: Any
    model_state: Any


class Reached(NamedTuple):
    """How far a training has come."""

    state: TrainState
    best: Weights
    history: History  # of the epochs that are over
    progress: Progress  # in the epoch that is under way
    seconds: float  # that this epoch has taken

    @property
    def num_steps(self) -> int:
        """How many steps are done."""
        return int(jax.device_get(one_copy(self.state.step)))

    @property
    def weights(self) -> Weights:
        """The weights as they are now, on one device."""
        return Weights(*one_copy((self.state.weights, self.state.model_state)))


def beginning(state: TrainState) -> Reached:
    """Returns where a training begins."""
    weights = Weights(state.weights, state.model_state)
    best = jax.tree.map(jnp.copy, weights)  # the state is donated
    return Reached(state, best, History(best_epoch=0, epochs=[]), no_progress(), 0.0)


def save(checkpoints: TrainingCheckpoints | None, reached: Reached) -> None:
    """Saves it, in the background; nothing to do in a process that does not write."""
    if checkpoints is not None:
        arrays = {"state": reached.state, "best": reached.best, "progress": reached.progress}
        rest = {"history": reached.history, "seconds": reached.seconds}
        checkpoints.save(reached.num_steps, one_copy(arrays), rest)


def restored(checkpoints: TrainingCheckpoints | None, start: Reached) -> Reached:
    """Returns how far the run had come when last saved, or its start; the same to all processes."""
    arrays = {"state": start.state, "best": start.best, "progress": start.progress}
    found = None if checkpoints is None else checkpoints.restore_latest(arrays)
    arrays, rest = found or (arrays, None)
    rest = share(rest)
    if rest is None:
        return start
    return Reached(**share_arrays(arrays), **rest)
