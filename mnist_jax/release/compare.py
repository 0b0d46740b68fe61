"""Two ONNX files on the same test images and in the same minute, and which is to be served."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from mnist_jax.data import Split
from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME
from mnist_jax.export.session import open_session
from mnist_jax.models.predict import in_batches
from mnist_jax.release.latency import measure_ratio

MARGIN = 0.005  # of accuracy: what a model may be worse by and still pass for as good
FASTER, SLOWER = 0.8, 1.25  # ratios of latency that somebody would notice
BATCH_SIZE = 256  # images; a matter of memory and speed, not of results


def compare(candidate: Path, champion: Path, test: Split) -> dict[str, Any]:
    """Measures two files side by side.

    Returns:
        Both accuracies; their difference (candidate less champion) with its paired 95 % interval;
        `num_gained` and `num_lost`, the images that only the one or only the other gets right;
        `num_other_class`, those that get different classes; `latency` as `measure_ratio` has it.
    """
    classes = [score(path, test).argmax(axis=1) for path in (candidate, champion)]
    is_right, was_right = (answers == test.labels for answers in classes)
    num_gained, num_lost = int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())
    n = len(test.labels)
    return {
        "num_examples": n,
        "accuracy": int(is_right.sum()) / n,
        "champion_accuracy": int(was_right.sum()) / n,
        "difference": (num_gained - num_lost) / n,
        "interval_95": paired_interval(num_gained, num_lost, n),
        "num_gained": num_gained,
        "num_lost": num_lost,
        "num_other_class": int((classes[0] != classes[1]).sum()),
        "latency": measure_ratio(candidate, champion, as_input(test.images[:1])),
    }


def score(model: Path, test: Split) -> Float[np.ndarray, "n classes"]:
    """Returns a file's scores of all images of a split."""
    session = open_session(model, "all", num_threads=os.cpu_count() or 1)

    def run(images):
        return session.run([OUTPUT_NAME], {INPUT_NAME: as_input(images)})[0]

    return in_batches(run, test.images, BATCH_SIZE)


def as_input(images: np.ndarray) -> Float[np.ndarray, "n 1 28 28"]:
    """Returns grey levels 0 to 255 as a file takes them: 0 to 1, with a channel."""
    return images[:, None].astype(np.float32) / 255


def paired_interval(num_gained: int, num_lost: int, n: int) -> list[float]:
    """The 95 % interval of a difference of two accuracies on the same `n` images.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data": one image is added to either kind of disagreement.

    Args:
        num_gained: images that only the first gets right.
        num_lost: images that only the second gets right.
        n: all images.

    Returns:
        [low, high], within -1 to 1.
    """
    gained, lost = (num_gained + 1) / (n + 2), (num_lost + 1) / (n + 2)
    difference = gained - lost
    width = norm.ppf(0.975) * math.sqrt((gained + lost - difference**2) / (n + 2))
    return [float(max(difference - width, -1)), float(min(difference + width, 1))]


def judge(comparison: dict[str, Any]) -> tuple[bool, str]:
    """Says whether the candidate is to take the champion's place, and why.

    It must be better in one of accuracy and speed and worse in neither. Better in accuracy is a
    difference beyond chance; not worse, one that beyond chance stays above -`MARGIN`.
    """
    low, high = comparison["interval_95"]
    ratio = comparison["latency"]["ratio"]
    merits = ["more accurate beyond chance"] * (low > 0) + ["faster"] * (ratio <= FASTER)
    faults = []
    if low < -MARGIN:
        doubt = f"{comparison['num_examples']:,} test images do not exclude that it is"
        faults = [f"{'it is' if high < -MARGIN else doubt} less accurate by more than {MARGIN}"]
    faults += [f"it takes {ratio:.2f} times as long"] * (ratio >= SLOWER)
    if faults:
        return False, " and ".join(faults)
    if not merits:
        return False, "it is neither more accurate beyond chance nor faster"
    return True, f"it is {' and '.join(merits)}"
