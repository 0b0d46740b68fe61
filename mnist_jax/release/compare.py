"""Two ONNX files on the same test images and in the same minute, and which is to be served."""

import os
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float

from mnist_jax.data import Split
from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME, as_input
from mnist_jax.export.session import open_session
from mnist_jax.models.predict import in_batches
from mnist_jax.release.intervals import paired_interval
from mnist_jax.release.latency import LatencyRatio, measure_ratio

MARGIN = 0.005  # of accuracy: what a model may be worse by and still pass for as good
FASTER, SLOWER = 0.8, 1.25  # ratios of latency that somebody would notice
BATCH_SIZE = 256  # images; a matter of memory and speed, not of results


class Comparison(TypedDict):
    """Two files on the same test images."""

    num_examples: int
    accuracy: float  # the candidate's
    champion_accuracy: float
    difference: float  # candidate less champion
    interval_95: list[float]  # of the difference, paired
    num_gained: int  # images that only the candidate gets right
    num_lost: int  # images that only the champion gets right
    num_other_class: int  # images that get different classes
    latency: LatencyRatio
    champion: NotRequired[int]  # its version, in a repository


def compare(candidate: Path, champion: Path, test: Split) -> Comparison:
    """Measures two files side by side."""
    classes = [score(path, test.images).argmax(axis=1) for path in (candidate, champion)]
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


def score(model: Path, images: np.ndarray) -> Float[np.ndarray, "n classes"]:
    """Returns a file's scores of images, uint8 or levels 0 to 1 with an axis of channels."""
    session = open_session(model, "all", num_threads=os.cpu_count() or 1)

    def run(images):
        return session.run([OUTPUT_NAME], {INPUT_NAME: as_input(images)})[0]

    return in_batches(run, images, BATCH_SIZE)


def judge(comparison: Comparison) -> tuple[bool, str]:
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
