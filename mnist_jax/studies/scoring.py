"""How the answers of an ONNX file compare with those of the network in JAX."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mnist_jax.release.intervals import wilson

NEAR_TIE = 2e-5  # two scores that may each be off by 1e-5 can change places when so close


def answers(scores: Float[np.ndarray, "n classes"], num_labels: int) -> np.ndarray:
    """Returns the classes of the largest scores, sorted: `[n, num_labels]`."""
    return np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :num_labels], axis=1)


def count_right(
    scores_of_file: Float[np.ndarray, "n classes"],
    scores_of_jax: Float[np.ndarray, "n classes"],
    labels: np.ndarray,
) -> dict[str, Any]:
    """Counts the images whose labels, all of them, have the largest scores, by file and by JAX.

    Args:
        scores_of_file: from the ONNX file.
        scores_of_jax: from the network.
        labels: `[n, num_labels]`; the order within a row does not matter.

    Returns:
        The counts, the file's accuracy with its 95 % interval, and how many answers differ although
        the scores are further apart than both sides' errors can explain: none, or something is
        wrong.
    """
    num_labels = labels.shape[1]
    of_file, of_jax = (answers(scores, num_labels) for scores in (scores_of_file, scores_of_jax))
    truth = np.sort(labels, axis=1)
    in_order = -np.sort(-scores_of_jax, axis=1)
    is_near_tie = in_order[:, num_labels - 1] - in_order[:, num_labels] <= NEAR_TIE
    differs = (of_file != of_jax).any(axis=1)
    num_correct = int((of_file == truth).all(axis=1).sum())
    return {
        "num_examples": len(labels),
        "num_correct": num_correct,
        "accuracy": num_correct / len(labels),
        "interval_95": wilson(num_correct, len(labels)),
        "num_correct_jax": int((of_jax == truth).all(axis=1).sum()),
        "num_near_ties": int(is_near_tie.sum()),
        "num_disagreements": int((differs & ~is_near_tie).sum()),
    }
