"""The scores of exported files against the network's."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float, Integer

from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME
from mnist_jax.export.session import OPTIMIZATIONS, open_session
from mnist_jax.models.predict import in_batches
from mnist_jax.release.records import Disagreement, ParityRow
from mnist_jax.release.report import Report

TOLERANCE = 1e-5  # the largest |difference| of a score
BATCH_SIZE = 64  # images
SAMPLE_SIZE, SAMPLE_BATCH_SIZES = 256, (1, 2, 7, 256)  # images
MAX_LISTED = 20  # class disagreements described one by one

Predict = Callable[[Any], Any]  # images [batch, channels, side, side], 0 to 1, to scores


class Difference(TypedDict):
    """How two arrays of scores differ."""

    num_examples: int
    max_abs_difference: float | None
    num_class_disagreements: int
    num_ties: int
    disagreements: list[Disagreement]


class Reference(NamedTuple):
    """Images, and what JAX says about them."""

    inputs: str
    images: Float[np.ndarray, "n c side side"]
    scores: Float[np.ndarray, "n classes"]
    batch_size: int
    labels: Integer[np.ndarray, " n"] | None = None


def channels_last(images: Float[np.ndarray, "n c side side"]) -> Float[np.ndarray, "n side side c"]:
    """Lays images out as networks take them."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def make_probes(predict: Predict, image_shape: tuple[int, int, int]) -> Reference:
    """Images that no data set has: black, white, and noise."""
    height, width, channels = image_shape
    shape = (BATCH_SIZE, channels, height, width)
    images = np.random.default_rng(0).random(shape, np.float32)
    images[0], images[1] = 0, 1
    return Reference("probes", images, predict(channels_last(images)), BATCH_SIZE)


def check_onnx_parity(report: Report, data: bytes, references: list[Reference]) -> None:
    """Runs an ONNX file at each optimisation level, the first images at other batch sizes too."""
    images, scores = (array[:SAMPLE_SIZE] for array in references[0][1:3])
    samples = [Reference("sample", images, scores, size) for size in SAMPLE_BATCH_SIZES]
    for level in OPTIMIZATIONS:
        with report.check(f"onnx: parity, optimisation {level}") as problems:
            session = open_session(data, level, num_threads=os.cpu_count() or 1)

            def predict(images, session=session):
                return session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]

            problems += compare(report, "onnx", level, predict, [*references, *samples])


def compare(
    report: Report, name: str, level: str | None, predict: Predict, references: list[Reference]
) -> list[str]:
    """Adds one row of parity for each reference; returns what is wrong."""
    problems = []
    for inputs, images, jax_scores, batch_size, labels in references:
        scores = in_batches(predict, images, batch_size)
        if scores.shape != jax_scores.shape:
            problems.append(f"{inputs}: scores {scores.shape} are not {jax_scores.shape}")
            continue
        row: ParityRow = {
            "format": name,
            "optimization": level,
            "inputs": inputs,
            "batch_size": batch_size,
            **_difference(scores, jax_scores),
        }
        if labels is not None:
            row["num_correct"] = num_correct(scores, labels)
            row["num_correct_jax"] = num_correct(jax_scores, labels)
        report.parity.append(row)
        problems += [f"{inputs}, batch {batch_size}: {fault}" for fault in _faults(row)]
    return problems


def _difference(
    scores: Float[np.ndarray, "n classes"], jax_scores: Float[np.ndarray, "n classes"]
) -> Difference:
    """Compares scores; a tie is an image whose two largest scores are equal, in either."""
    ties = _is_tie(scores) | _is_tie(jax_scores)
    classes, jax_classes = scores.argmax(axis=1), jax_scores.argmax(axis=1)
    others = np.flatnonzero((classes != jax_classes) & ~ties)
    return {
        "num_examples": len(scores),
        "max_abs_difference": _finite(np.abs(scores - jax_scores).max()),
        "num_class_disagreements": len(others),
        "num_ties": int(ties.sum()),
        "disagreements": [
            {
                "index": int(index),
                "jax_class": int(jax_classes[index]),
                "file_class": int(classes[index]),
                "margin": _finite(jax_scores[index].max() - jax_scores[index, classes[index]]),
            }
            for index in others[:MAX_LISTED]
        ],
    }


def _faults(row: ParityRow) -> Iterator[str]:
    """Says what in a row of parity is not as it must be."""
    if row["max_abs_difference"] is None:
        yield "scores are not finite"
    elif row["max_abs_difference"] > TOLERANCE:
        yield f"a score differs by {row['max_abs_difference']:.3g}, more than {TOLERANCE}"
    for first in row["disagreements"][:1]:
        yield (
            f"{row['num_class_disagreements']} of {row['num_examples']} images get another class; "
            f"image {first['index']} gets {first['file_class']}, not {first['jax_class']}"
        )
    num_right, num_right_in_jax = row.get("num_correct"), row.get("num_correct_jax")
    if num_right != num_right_in_jax:
        yield f"{num_right} are right, not {num_right_in_jax} as in JAX"


def _is_tie(scores: Float[np.ndarray, "n classes"]) -> np.ndarray:
    largest = np.partition(scores, -2, axis=1)[:, -2:]
    return largest[:, 0] == largest[:, 1]


def _finite(value: Any) -> float | None:
    """Returns a number for JSON, which knows neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def num_correct(scores: np.ndarray, labels: np.ndarray) -> int:
    """Counts the images whose largest score is their label's."""
    return int((scores.argmax(axis=1) == labels).sum())
