"""How long one image takes in ONNX Runtime."""

import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnxruntime
from jaxtyping import Float

from mnist_jax.export.interface import INPUT_NAME
from mnist_jax.export.session import open_session
from mnist_jax.release.records import Latency
from mnist_jax.run.environment import cpu_name

WARM_UP_S, WINDOW_S, MAX_MEASURING_S = 0.2, 0.2, 3.0
NUM_STABLE_WINDOWS, STABLE_RATIO = 3, 1.05  # the medians of so many in a row lie so close
NUM_ROUNDS, ROUND_S = 30, 0.05  # of two files in turn


class LatencyRatio(TypedDict):
    """Two files timed in turn; what has no unit is a ratio, the candidate's by the champion's."""

    ratio: float  # median over the rounds
    ratio_10_90: list[float]  # 10th and 90th percentile
    num_rounds: int
    p50_ms: float  # the candidate's
    champion_p50_ms: float
    cpu: str
    onnxruntime: str


def measure_latency(
    model: bytes | Path, image: Float[np.ndarray, "1 channels side side"]
) -> Latency:
    """Times single images on one thread that does not spin, as a server would run it.

    Args:
        model: an ONNX file, or its content.
        image: one image of the size that the file takes, levels 0 to 1.

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
        "p50_ms": float(np.percentile(runs_ms, 50)),
        "p90_ms": float(np.percentile(runs_ms, 90)),
        "p99_ms": float(np.percentile(runs_ms, 99)),
        "num_runs": len(runs_ms),
        "num_windows": len(windows),
        "stable": bool(stable),
        "load_ms": (loaded - start) * 1000,
        "first_call_ms": (called - loaded) * 1000,
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
    }


def measure_ratio(
    candidate: Path, champion: Path, image: Float[np.ndarray, "1 channels side side"]
) -> LatencyRatio:
    """Times two files in turn, so that what else the machine does affects both alike."""
    sessions = [open_session(path, "all", num_threads=1) for path in (candidate, champion)]

    def median_ms(session):
        runs_ms, end = [], time.perf_counter() + ROUND_S
        while not runs_ms or time.perf_counter() < end:
            before = time.perf_counter()
            session.run(None, {INPUT_NAME: image})
            runs_ms.append((time.perf_counter() - before) * 1000)
        return np.median(runs_ms)

    for session in sessions:
        median_ms(session)
    # Each goes first in every other round: the second finds the cache as the first left it.
    rounds = np.array(
        [
            [median_ms(session) for session in sessions[::turn]][::turn]
            for turn in (1, -1) * (NUM_ROUNDS // 2)
        ]
    )
    ratios = rounds[:, 0] / rounds[:, 1]
    return {
        "ratio": float(np.median(ratios)),
        "ratio_10_90": [float(np.percentile(ratios, percent)) for percent in (10, 90)],
        "num_rounds": NUM_ROUNDS,
        "p50_ms": float(np.median(rounds[:, 0])),
        "champion_p50_ms": float(np.median(rounds[:, 1])),
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
    }
