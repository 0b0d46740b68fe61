"""Optimizers and learning-rate schedules, by id."""

import optax

# The share of the steps in which the rate rises (Smith and Topin 2017; PyTorch's default).
ONE_CYCLE_RISE = 0.3


def make_schedule(schedule_id: str, learning_rate: float, num_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, 0 to `num_steps`.

    Args:
        schedule_id: `constant`; `cosine`, from `learning_rate` down to 0 (Loshchilov and Hutter
            2017, without restarts); or `one_cycle`, up to `learning_rate` and down to nearly 0.
        learning_rate: the largest rate.
        num_steps: optimizer steps of the whole run.
    """
    schedules = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, num_steps),
        "one_cycle": lambda: optax.cosine_onecycle_schedule(
            num_steps, learning_rate, pct_start=ONE_CYCLE_RISE
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
