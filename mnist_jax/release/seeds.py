"""What the seeds of a run reach on the test split, the released one and the others.

`logs/seeds.json`, of a run whose `num_seeds` is above 1:

    num_seeds       how many were trained
    released_seed   the one with the most correct validation images at its selected epoch; of equals
                    the one with the smaller validation loss, then the smaller number
    seeds           a row for each: seed, seconds (of its training), images_per_s (median over the
                    epochs), and `selected` and `last`, each with its epoch and the counts
                    num_correct of num_examples on `validation` and on `test`, there with
                    balanced_accuracy, macro_f1 and auc
    test_error_percent
                    `selected` and `last`, each with mean, std (of a sample, so n - 1) and
                    interval_95 (Student's t, of the mean) over the n seeds
    test_means      the same of balanced_accuracy, macro_f1 and auc, 0 to 1; nothing where a class
                    has no test image

`last` is what a training without a validation split would give; `selected` is what is released.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mnist_jax.data import Split
from mnist_jax.release import each_class
from mnist_jax.release.intervals import MeanOverSeeds, mean_and_interval
from mnist_jax.run.history import EpochRow
from mnist_jax.training.evaluate import summarise
from mnist_jax.training.fit import Fitted
from mnist_jax.training.reached import Weights
from mnist_jax.training.seeds import best_on_validation


def measure(
    first_seed: int,
    fitted: Sequence[Fitted],
    score: Callable[..., tuple[np.ndarray, np.ndarray]],
    num_validation: int,
    test: Split,
) -> dict[str, Any]:
    """Counts what every seed gets right on the test split; returns `seeds.json`.

    Args:
        first_seed: the smallest.
        fitted: the seeds, in the order of their numbers.
        score: from `evaluate.make_score`.
        num_validation: images of the validation split.
        test: read after all training and after the released seed was chosen.
    """

    def counts(weights: Weights, row: EpochRow) -> dict[str, Any]:
        scores, losses = score(*weights, test)
        on_test = summarise(scores, losses, test.labels)
        means = {**each_class.measure(scores, test.labels)}
        return {
            "epoch": row["epoch"],
            "validation": {
                "num_correct": round(row["validation_accuracy"] * num_validation),
                "num_examples": num_validation,
            },
            "test": {
                **{key: on_test[key] for key in ("num_correct", "num_examples")},
                **{name: means[name] for name in each_class.NAMES},
            },
        }

    rows = []
    for seed, one in enumerate(fitted, start=first_seed):
        epochs = one.history["epochs"]
        rows.append(
            {
                "seed": seed,
                "seconds": sum(row["seconds"] for row in epochs),
                "images_per_s": statistics.median(row["images_per_s"] for row in epochs),
                "selected": counts(one.best, epochs[one.history["best_epoch"] - 1]),
                "last": counts(one.last, epochs[-1]),
            }
        )
    return {
        "num_seeds": len(rows),
        "released_seed": rows[best_on_validation([one.history for one in fitted])]["seed"],
        "seeds": rows,
        "test_error_percent": {
            which: mean_and_interval([_error_percent(row[which]["test"]) for row in rows])
            for which in ("selected", "last")
        },
        "test_means": {
            which: _means([row[which]["test"] for row in rows]) for which in ("selected", "last")
        },
    }


def _means(tests: Sequence[Mapping[str, Any]]) -> dict[str, MeanOverSeeds]:
    """Returns mean, deviation and interval of each mean over the classes, where all have it."""
    values = {name: [test[name] for test in tests] for name in each_class.NAMES}
    return {name: mean_and_interval(of) for name, of in values.items() if None not in of}


def show(measured: Mapping[str, Any], *, has_means: bool) -> list[str]:
    """Says what the seeds reach, a line for each way of choosing the epoch.

    Args:
        measured: from `measure`.
        has_means: says the means over the classes too.
    """
    means = measured["test_means"] if has_means else {}
    return [
        f"test {name} over {measured['num_seeds']} seeds, {which} epoch: {figures['mean']:.4f} ± "
        f"{figures['std']:.4f}, 95 % interval of the mean {figures['interval_95'][0]:.4f} to "
        f"{figures['interval_95'][1]:.4f}"
        for which, of in means.items()
        for name, figures in of.items()
    ] + [
        f"test error over {measured['num_seeds']} seeds, {which} epoch: "
        f"{figures['mean']:.3f} ± {figures['std']:.3f} %, 95 % interval of the mean "
        f"{figures['interval_95'][0]:.3f} to {figures['interval_95'][1]:.3f} %"
        for which, figures in measured["test_error_percent"].items()
    ]


def _error_percent(counts: Mapping[str, int]) -> float:
    return 100 * (1 - counts["num_correct"] / counts["num_examples"])
