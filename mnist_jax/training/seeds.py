"""Several seeds in one run, one after another: which there are, and which is released."""

from collections.abc import Mapping, Sequence
from typing import Any

from mnist_jax.run.history import History


def of_run(config: Mapping[str, Any]) -> range:
    """Returns the seeds that a run trains, one after another."""
    return range(config["seed"], config["seed"] + config["num_seeds"])


def best_on_validation(histories: Sequence[History]) -> int:
    """Returns the index of the seed that is released."""
    selected = [history["epochs"][history["best_epoch"] - 1] for history in histories]

    def key(index: int) -> tuple[float | int, float | int]:
        return selected[index]["validation_accuracy"], -selected[index]["validation_loss"]

    return max(range(len(selected)), key=key)  # of equals the first, the smaller number
