"""Scores of many images, by a network in JAX and by its ONNX file, from the very same numbers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME
from mnist_jax.export.session import open_session
from mnist_jax.training import state as state_module

BATCH_SIZE = 250  # images; a matter of memory and speed, not of results
NEAR_TIE = 2e-5  # two scores that may each be off by 1e-5 can change places when so close

Score = Callable[[UInt8[np.ndarray, "n side side"]], Float[np.ndarray, "n classes"]]


def with_jax(graphdef: Any, params: Any, model_state: Any) -> Score:
    """Returns the function from images (uint8) to scores, computed by the network."""

    @jax.jit
    def predict(params, model_state, pixels):
        network: Any = state_module.rebuild(graphdef, params, model_state)
        # In full float32: left to choose, a GPU multiplies with 10 bits of mantissa.
        with jax.default_matmul_precision("highest"):
            return network.scores_of(network(pixels[..., None]))

    return lambda images: _in_batches(lambda x: predict(params, model_state, x), images)


def with_file(path: Path) -> Score:
    """Returns the function from images (uint8) to scores, computed by an ONNX file."""
    session = open_session(path, "all", num_threads=os.cpu_count() or 1)
    return lambda images: _in_batches(
        lambda pixels: session.run([OUTPUT_NAME], {INPUT_NAME: pixels[:, None]})[0], images
    )


def _in_batches(
    predict: Callable[[Any], Any], images: UInt8[np.ndarray, "n side side"]
) -> Float[np.ndarray, "n classes"]:
    """Predicts in batches of one size, for which JAX compiles once; zeros fill up the last."""
    filling = np.zeros((-len(images) % BATCH_SIZE, *images.shape[1:]), images.dtype)
    filled = np.concatenate([images, filling])
    scores = [
        np.asarray(predict(filled[start : start + BATCH_SIZE].astype(np.float32) / 255))
        for start in range(0, len(filled), BATCH_SIZE)
    ]
    return np.concatenate(scores)[: len(images)]


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
        The counts, and how many answers differ although the scores are further apart than both
        sides' errors can explain: none, or something is wrong.
    """
    num_labels = labels.shape[1]
    of_file, of_jax = (answers(scores, num_labels) for scores in (scores_of_file, scores_of_jax))
    truth = np.sort(labels, axis=1)
    in_order = -np.sort(-scores_of_jax, axis=1)
    is_near_tie = in_order[:, num_labels - 1] - in_order[:, num_labels] <= NEAR_TIE
    differs = (of_file != of_jax).any(axis=1)
    return {
        "num_examples": len(labels),
        "num_correct": int((of_file == truth).all(axis=1).sum()),
        "num_correct_jax": int((of_jax == truth).all(axis=1).sum()),
        "num_near_ties": int(is_near_tie.sum()),
        "num_disagreements": int((differs & ~is_near_tie).sum()),
    }
