"""Exact measurements over whole splits."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.models.predict import Predictor, to_scores
from mnist_jax.training.losses import Criterion

CALIBRATION_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks"


def make_score(
    predictor: Predictor, criterion: Criterion
) -> Callable[[Any, Any, Split], tuple[np.ndarray, np.ndarray]]:
    """Builds `score(params, model_state, split) -> (scores, losses)`, a row for each image.

    It raises UserError where a score or a loss is not finite.
    """
    losses_of = jax.jit(criterion)

    def score(params, model_state, split):
        outputs = predictor.outputs(params, model_state, split.images)
        losses = np.asarray(losses_of(outputs, split.labels))
        scores = to_scores(outputs, predictor.structure.outputs)
        _check_finite("scores", scores)
        _check_finite("losses", losses)
        return scores, losses

    return score


def _check_finite(name: str, values: np.ndarray) -> None:
    is_bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if is_bad.any():
        raise UserError(
            f"{name} of {is_bad.sum():,} of {len(values):,} images are not finite, and cannot be "
            "measured; guard divisions, roots and logarithms in the network and the loss, or give "
            "a smaller --learning-rate"
        )


def summarise(scores: np.ndarray, losses: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns counts, accuracy and mean loss of a split."""
    num_correct = int((scores.argmax(axis=1) == labels).sum())
    return {
        "num_examples": len(labels),
        "num_correct": num_correct,
        "accuracy": num_correct / len(labels),
        "loss": float(losses.mean(dtype=np.float64)),
    }


def measure(
    scores: Float[np.ndarray, "n classes"],
    losses: Float[np.ndarray, " n"],
    labels: UInt8[np.ndarray, " n"],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Returns every metric of a split: overall, by class, the confusions and the calibration.

    A class without an image has the accuracy 0, of 0 images; no criterion passes on it.
    """
    from sklearn.metrics import confusion_matrix  # 0.9 s, for which the first step need not wait

    predicted = scores.argmax(axis=1)
    confusions = confusion_matrix(labels, predicted, labels=np.arange(len(class_names)))
    return {
        **summarise(scores, losses, labels),
        "expected_calibration_error": calibration_error(scores, labels),
        "calibration_bins": CALIBRATION_BINS,
        "class_names": list(class_names),
        "per_class": [
            {
                "class_name": name,
                "num_examples": int(row.sum()),
                "num_correct": int(row[index]),
                "accuracy": float(row[index] / max(row.sum(), 1)),
            }
            for index, (name, row) in enumerate(zip(class_names, confusions, strict=True))
        ],
        "confusion_matrix": confusions.tolist(),
    }


def calibration_error(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"] | UInt8[np.ndarray, " n"]
) -> float:
    """Returns the expected calibration error over equal-width bins of the largest score, 0..1.

    Guo et al. 2017, equation 3: the distance between mean confidence and accuracy of a bin,
    weighted by the bin's share of the examples. Bins are closed above; 0 is in the first.
    """
    confidences = scores.max(axis=1).astype(np.float64)
    is_correct = scores.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidences * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidences - is_correct, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))
