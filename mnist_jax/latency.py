"""How long one image takes in ONNX Runtime."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float

from mnist_jax.environment import cpu_name
from mnist_jax.export.onnx import INPUT_NAME
from mnist_jax.session import open_session

WARM_UP_S, WINDOW_S, MAX_MEASURING_S = 0.2, 0.2, 3.0
NUM_STABLE_WINDOWS, STABLE_RATIO = 3, 1.05  # the medians of so many in a row lie so close


def measure_latency(
    model: bytes | Path, image: Float[np.ndarray, "1 1 side side"]
) -> dict[str, Any]:
    """Times single images on one thread that does not spin, as a server would run it.

    Args:
        model: an ONNX file, or its content.
        image: one image, grey levels 0 to 1.

    Returns:
        Milliseconds of loading, of the first call, and percentiles over the last three windows of
        0.2 s; `stable` tells whether their medians agree within 5 %.
    """
    start = time.perf_counter()
    session = open_session(model, "all", num_threads=1)
    loaded = time.perf_counter()
    session.run(None, {INPUT_NAME: image})
    called = time.perf_counter()

    def run_for(seconds):
        runs_ms, end = [], time.perf_counter() + seconds
        while (before := time.perf_counter()) < end:
            session.run(None, {INPUT_NAME: image})
            runs_ms.append((time.perf_counter() - before) * 1000)
        return runs_ms

    run_for(WARM_UP_S)
    windows, stable, deadline = [], False, time.perf_counter() + MAX_MEASURING_S
    while not stable and time.perf_counter() < deadline:
        windows.append(run_for(WINDOW_S))
        medians = [np.median(runs_ms) for runs_ms in windows[-NUM_STABLE_WINDOWS:]]
        stable = len(medians) == NUM_STABLE_WINDOWS and max(medians) <= STABLE_RATIO * min(medians)
    runs_ms = np.concatenate(windows[-NUM_STABLE_WINDOWS:])
    return {
        "batch_size": 1,
        "threads": 1,
        **{f"p{percent}_ms": float(np.percentile(runs_ms, percent)) for percent in (50, 90, 99)},
        "num_runs": len(runs_ms),
        "num_windows": len(windows),
        "stable": bool(stable),
        "load_ms": (loaded - start) * 1000,
        "first_call_ms": (called - loaded) * 1000,
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
    }
