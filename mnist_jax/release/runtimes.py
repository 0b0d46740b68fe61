"""`scripts/verify RUN_DIR --runtimes`: a run's ONNX file in every runtime that is installed.

Each computes the first test images one by one and in batches; ONNX Runtime, one by one, is what the
others are compared with. Nothing here imports JAX.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from mnist_jax import data
from mnist_jax.errors import UserError
from mnist_jax.export.interface import as_input
from mnist_jax.export.runtimes import RUNTIMES, Runtime, run_apart
from mnist_jax.files import sha256, write_json
from mnist_jax.release import inputs
from mnist_jax.run import folder as run_folder
from mnist_jax.run import paths

BATCH_SIZES = (1, 20)  # images
NUM_IMAGES = 200  # of the test split, from its start
TOLERANCE = 1e-5  # the largest |difference| of a score, as in the parity with JAX


class Row(TypedDict):
    """A runtime at one batch size; without figures where it is not there or fails."""

    runtime: str
    version: str  # empty: not installed
    batch_size: int  # images
    max_abs_difference: float | None
    num_other_class: int | None  # images that get another class
    ms_per_batch: float | None  # median
    problem: str  # empty: all is well


def check(run_dir: Path, options: argparse.Namespace) -> int:
    """Compares the runtimes on a run's test images; prints a line each, writes `runtimes.json`.

    Args:
        run_dir: the folder of a finished run.
        options: what `inputs.add_flags` added.

    Returns:
        0 where every runtime that is installed agrees with ONNX Runtime, 1 where one does not.

    Raises:
        UserError: the run has no ONNX file, its data is out of reach, or ONNX Runtime itself fails.
    """
    run = run_folder.read_run(run_dir)
    model = inputs.find_onnx(run_dir)
    test = data.read(inputs.prepare_data(run, options), "test")
    images = as_input(test.images[:NUM_IMAGES])
    rows = []
    with run_folder.lock(run_dir):
        for row in measure(model, images):
            print(in_words(row), flush=True)
            rows.append(row)
        facts = {"onnx_sha256": sha256(model), "num_images": len(images), "tolerance": TOLERANCE}
        write_json(run_dir / paths.RUNTIMES, {**facts, "rows": rows})
    print(f"{len(images)} test images; {run_dir / paths.RUNTIMES} has the table")
    return 1 if any(row["version"] and row["problem"] for row in rows) else 0


def measure(
    model: Path,
    images: Float[np.ndarray, "n c side side"],
    runtimes: Sequence[Runtime] = RUNTIMES,
) -> Iterator[Row]:
    """Yields a row for every runtime and batch size; one row where a runtime is not installed.

    Raises:
        UserError: the first runtime, which the others are compared with, fails.
    """
    expected = None
    for runtime in runtimes:
        found = runtime.version()
        for batch_size in BATCH_SIZES if found else BATCH_SIZES[:1]:
            row: Row = {
                "runtime": runtime.name,
                "version": found,
                "batch_size": batch_size,
                "max_abs_difference": None,
                "num_other_class": None,
                "ms_per_batch": None,
                "problem": "" if found else "not installed; scripts/install runtimes adds it",
            }
            try:
                if found:
                    scores, ms = run_apart(runtime.name, model, images, batch_size)
                    expected = scores if expected is None else expected
                    _compare(row, scores, expected)
                    row["ms_per_batch"] = ms
            except UserError as error:
                row["problem"] = str(error)
            if expected is None:
                raise UserError(f"{runtime.name} cannot run {model} ({row['problem']})")
            yield row


def _compare(row: Row, scores: np.ndarray, expected: Float[np.ndarray, "n classes"]) -> None:
    """Puts into a row how its scores differ; where two classes tie, either is the answer.

    Raises:
        UserError: they cannot be compared.
    """
    if scores.shape != expected.shape:
        raise UserError(f"its scores have the shape {scores.shape}, not {expected.shape}")
    if not np.isfinite(scores).all():
        raise UserError("its scores are not finite")
    of_answer = np.take_along_axis(expected, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    row["num_other_class"] = int((of_answer < expected.max(axis=1)).sum())
    row["max_abs_difference"] = float(np.abs(scores - expected).max())
    if row["num_other_class"] or row["max_abs_difference"] > TOLERANCE:
        row["problem"] = "its scores are others"


def in_words(row: Row) -> str:
    """Returns a row as a line for people."""
    if not row["version"]:
        return f"      {row['runtime']}: {row['problem']}"
    said = [row["problem"]] if row["problem"] else []
    if row["max_abs_difference"] is not None:
        said += [
            f"difference {row['max_abs_difference']:.1e}",
            f"{row['num_other_class']} other answers",
            f"{row['ms_per_batch']:.2f} ms",
        ]
    verdict = "FAIL" if row["problem"] else "ok"
    batches = f"{row['runtime']} {row['version']}, batches of {row['batch_size']}"
    return f"{verdict:<5} {batches}: {', '.join(said)}"
