"""`model_card/mistakes.csv`: every test picture that the network gets wrong."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Integer

from mnist_jax.errors import printable
from mnist_jax.files import write_text
from mnist_jax.run import paths

HEADER = ("picture", "label", "predicted", "score")
FORMULA = ("=", "+", "-", "@")  # a spreadsheet computes what begins so


def find(
    scores: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """Returns the indices of the wrong answers, most confident first; of equals the first."""
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    return wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")]


def write(
    scores: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    names: Sequence[str] | None,
    run_dir: Path,
) -> None:
    """Writes one line a mistake, most confident first: picture, label, predicted, its score.

    Args:
        scores: of the test split; the largest is the answer.
        labels: its truth.
        class_names: by label.
        names: where each picture is from; None: its index in the split, from 0.
        run_dir: the run's folder.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for index in map(int, find(scores, labels)):
        label, answer = int(labels[index]), int(scores[index].argmax())
        cells = (str(index) if names is None else names[index], class_names[label])
        score = f"{scores[index, answer]:.6f}"
        writer.writerow([*map(as_text, cells), as_text(class_names[answer]), score])
    write_text(run_dir / paths.MISTAKES, text.getvalue())


def as_text(text: str) -> str:
    """Returns what a spreadsheet shows as it is, on one line, and never computes."""
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA) else text
