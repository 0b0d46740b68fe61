"""Optimizers and learning-rate schedules, by id."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

# The share of the steps in which the rate rises (Smith and Topin 2017; PyTorch's default).
ONE_CYCLE_RISE = 0.3


def make_schedule(
    schedule_id: str,
    learning_rate: float,
    *,
    num_steps: int,
    steps_per_epoch: int,
    decay: float,
    floor: float,
) -> optax.Schedule:
    """Returns the learning rate as a function of the step, 0 to `num_steps`.

    Args:
        schedule_id: `constant`; `cosine`, from `learning_rate` down to 0 (Loshchilov and Hutter
            2017, without restarts); `one_cycle`, up to `learning_rate` and down to nearly 0; or
            `exponential`, by `decay` over each epoch, a little at every step.
        learning_rate: the largest rate.
        num_steps: optimizer steps of the whole run.
        steps_per_epoch: of `exponential`.
        decay: of `exponential`. The capsule networks' authors have 0.96 over 2,000 steps (Sabour),
            0.97 an epoch (Mazzia) and 0.98 an epoch (Byerly).
        floor: below which `exponential` does not fall: 1e-6, 5e-5 and 1e-7 with these authors.
    """
    schedules = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, num_steps),
        "one_cycle": lambda: optax.cosine_onecycle_schedule(
            num_steps, learning_rate, pct_start=ONE_CYCLE_RISE
        ),
        "exponential": lambda: optax.exponential_decay(
            learning_rate,
            steps_per_epoch,
            decay,
            end_value=floor if decay < 1 else None,  # with 1, optax takes it for an upper bound
        ),
    }
    return schedules[schedule_id]()


def make_optimizer(
    optimizer_id: str, schedule: optax.Schedule, *, weight_decay: float, momentum: float
) -> optax.GradientTransformation:
    """Returns the optimizer; moments and epsilon are optax's defaults, which are the papers'."""
    optimizers = {
        "adam": lambda: optax.adam(schedule),
        "adamw": lambda: optax.adamw(schedule, weight_decay=weight_decay),
        "sgd": lambda: optax.sgd(schedule, momentum=momentum),
    }
    return optimizers[optimizer_id]()


def of_config(
    config: Mapping[str, Any], num_batches: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Returns the schedule and the optimizer of a configuration, for epochs of `num_batches`."""
    schedule = make_schedule(
        config["schedule_id"],
        config["learning_rate"],
        num_steps=config["epochs"] * num_batches,
        steps_per_epoch=num_batches,
        decay=config["learning_rate_decay"],
        floor=config["learning_rate_floor"],
    )
    optimizer = make_optimizer(
        config["optimizer_id"],
        schedule,
        weight_decay=config["weight_decay"],
        momentum=config["momentum"],
    )
    return schedule, optimizer


def moving_average(average: Any, params: Any, num_updates: Int[Array, ""], decay: float) -> Any:
    """Takes one more set of parameters into their exponential moving average.

    The weights of the past fall off by `decay` a step and add up to one from the first step on, so
    that the start leaves no trace (as with the zero-debiasing of Kingma and Ba 2015, section 3).

    Args:
        average: of the sets so far; zeros before the first.
        params: the next set.
        num_updates: how many sets the result averages, this one included: 1, 2, ...
        decay: between 0 and 1; 0.999 remembers about 1,000 steps.
    """
    share = (1 - decay) / -jnp.expm1(num_updates * math.log(decay))  # below: 1 - decay**num_updates
    return jax.tree.map(lambda old, new: (1 - share) * old + share * new, average, params)
