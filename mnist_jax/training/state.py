"""What training changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mnist_jax.training.optimizers import moving_average


class TrainState(NamedTuple):
    """Everything that a training step reads and writes; a pytree."""

    step: Int[Array, ""]
    params: Any
    average: Any  # of the params over the steps, exponentially weighted; None where none is kept
    model_state: Any  # what a network keeps besides: normalisation, running statistics
    opt_state: Any

    @property
    def weights(self) -> Any:
        """What is evaluated and released: the average where one is kept, else the params."""
        return self.params if self.average is None else self.average


def first_state(
    params: Any,
    model_state: Any,
    optimizer: optax.GradientTransformation,
    *,
    keeps_average: bool = False,
) -> TrainState:
    """Returns the state before the first step."""
    average = jax.tree.map(jnp.zeros_like, params) if keeps_average else None
    return TrainState(jnp.int32(0), params, average, model_state, optimizer.init(params))


def next_state(
    state: TrainState,
    gradients: Any,
    model_state: Any,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
) -> TrainState:
    """Returns the state after a step.

    Args:
        state: before it.
        gradients: of the mean loss by the params.
        model_state: what the network keeps after the step.
        optimizer: as in `first_state`.
        ema_decay: of the average of the params, if the state keeps one.
    """
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step, average = state.step + 1, state.average
    if average is not None:
        average = moving_average(average, params, step, ema_decay)
    return TrainState(step, params, average, model_state, opt_state)
