"""What else runs ONNX files: OpenVINO, tract, OpenCV, onnx's reference; each as its users call it.

A runtime works in a process of its own: what it leaves behind, or how it ends, is not another's.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mnist_jax.errors import UserError, first_line
from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME

MAX_S = 300  # for all images

Predict = Callable[[np.ndarray], Any]  # images [batch, channels, side, side], 0 to 1, to scores


class Runtime(NamedTuple):
    """Something that runs ONNX files."""

    name: str
    module: str  # as it is imported; packages of several names can hold it
    load: Callable[[Path], Predict]

    def version(self) -> str:
        """Returns which version is installed; empty where none is."""
        packages = _packages().get(self.module)
        return version(packages[0]) if packages else ""


@cache
def _packages() -> Mapping[str, list[str]]:
    return packages_distributions()


def _onnxruntime(model: Path) -> Predict:
    from mnist_jax.export.session import open_session

    session = open_session(model, "all", num_threads=os.cpu_count() or 1)
    return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


def _openvino(model: Path) -> Predict:
    # Its import would tell its makers of this start; without that package it has nothing to send.
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]
    import openvino  # pyright: ignore[reportMissingImports]

    # Left to choose, it computes in bfloat16 where the processor has that.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    return lambda images: compiled({INPUT_NAME: images})[OUTPUT_NAME]


def _tract(model: Path) -> Predict:
    import tract  # pyright: ignore[reportMissingImports]

    runnable = tract.onnx().load(str(model)).into_model().into_runnable()

    def predict(images):
        (scores,) = runnable.run([images])
        return scores.to_numpy()

    return predict


def _opencv(model: Path) -> Predict:
    import cv2  # pyright: ignore[reportMissingImports]

    network = cv2.dnn.readNetFromONNX(str(model))

    def predict(images):
        network.setInput(images, INPUT_NAME)
        return network.forward(OUTPUT_NAME)

    return predict


def _reference(model: Path) -> Predict:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(model))

    def predict(images):
        (scores,) = evaluator.run([OUTPUT_NAME], {INPUT_NAME: images})
        return scores

    return predict


RUNTIMES = (
    Runtime("ONNX Runtime", "onnxruntime", _onnxruntime),
    Runtime("OpenVINO", "openvino", _openvino),
    Runtime("tract", "tract", _tract),
    Runtime("OpenCV", "cv2", _opencv),
    Runtime("ONNX reference", "onnx", _reference),
)


def run_apart(
    name: str, model: Path, images: Float[np.ndarray, "n c side side"], batch_size: int
) -> tuple[np.ndarray, float]:
    """Has another process compute scores with one of `RUNTIMES`, by its name, batch by batch.

    Returns:
        The scores, `[n, classes]` if the runtime is right, and the milliseconds that a batch took:
        the median without the first.

    Raises:
        UserError: the runtime refuses the file, ends its process or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), images)
        arguments = [name, str(batch_size), str(model.absolute()), folder]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "mnist_jax.export.runtimes", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                timeout=MAX_S,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"it takes more than {MAX_S} s") from error
        if done.returncode < 0:
            raise UserError(f"it ends its process by signal {-done.returncode}")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise UserError(lines[-1])
        with np.load(Path(folder, "result.npz"), allow_pickle=False) as result:
            return result["scores"], float(result["ms"])


def _work(name: str, batch_size: int, model: Path, folder: Path) -> None:
    """Is what the other process does."""
    (load,) = [runtime.load for runtime in RUNTIMES if runtime.name == name]
    images, scores, seconds = np.load(folder / "images.npy", allow_pickle=False), [], []
    predict = load(model)
    for first in range(0, len(images), batch_size):
        start = time.perf_counter()
        scores.append(np.array(predict(images[first : first + batch_size])))
        seconds.append(time.perf_counter() - start)
    ms = np.median(seconds[1:] or seconds) * 1000
    np.savez(folder / "result.npz", scores=np.concatenate(scores), ms=ms)


if __name__ == "__main__":
    try:
        _work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    except Exception as problem:  # whatever a runtime raises is what it says of the file
        sys.exit(first_line(problem))
