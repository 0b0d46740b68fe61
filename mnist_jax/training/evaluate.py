"""Exact measurements over whole splits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mnist_jax.training import state as state_module
from mnist_jax.training.step import images_to_float

CPU_BATCH, ACCELERATOR_BATCH = 250, 1_000  # images; for memory and speed, results are the same
CALIBRATION_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks"


def make_predict(
    graphdef: Any, criterion: Callable[[Array, Array], Array]
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Builds `predict(params, model_state, images, labels) -> (scores, losses)`.

    Images are uint8 `[n, side, side]`; scores come back as float32 `[n, classes]`, losses as `[n]`,
    one row for every image: the last batch is filled up, and the filling is cut off again.
    """

    @jax.jit
    def predict_batch(params, model_state, images, labels):
        model = state_module.rebuild(graphdef, params, model_state)
        # In full float32: left to choose, a GPU takes 10 bits of mantissa for products.
        with jax.default_matmul_precision("highest"):
            outputs = model(images_to_float(images))
        return model.scores_of(outputs), criterion(outputs, labels)

    def predict(params, model_state, images, labels):
        num_images = len(images)
        wanted = CPU_BATCH if jax.default_backend() == "cpu" else ACCELERATOR_BATCH
        size = min(wanted, num_images)
        scores, losses = [], []
        for start in range(0, num_images, size):
            batch = _filled(images[start : start + size], size)
            truth = _filled(labels[start : start + size], size)
            batch_scores, batch_losses = predict_batch(params, model_state, batch, truth)
            scores.append(batch_scores)
            losses.append(batch_losses)
        scores, losses = jax.device_get((scores, losses))
        return np.concatenate(scores)[:num_images], np.concatenate(losses)[:num_images]

    return predict


def _filled(rows: Array | np.ndarray, size: int) -> Array | np.ndarray:
    """Fills a short batch up with zeros, so that every batch has the one compiled shape."""
    missing = size - len(rows)
    return jnp.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows


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
    """Returns every metric of a split: overall, by class, the confusions and the calibration."""
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
                "accuracy": float(row[index] / row.sum()),
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
