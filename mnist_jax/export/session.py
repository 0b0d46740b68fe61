"""ONNX Runtime sessions, as verification, timing and the server open them."""

from pathlib import Path

import numpy  # noqa: F401  ONNX Runtime prints a traceback of its own where it cannot be loaded
import onnxruntime

Session = onnxruntime.InferenceSession
OPTIMIZATIONS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,  # what a server runs
}


def open_session(model: bytes | Path, optimization: str, num_threads: int) -> Session:
    """Loads an ONNX file, or its content, with one of `OPTIMIZATIONS`; idle threads do not spin."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = OPTIMIZATIONS[optimization]
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed as well
    return Session(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
    )
