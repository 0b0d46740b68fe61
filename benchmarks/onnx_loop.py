"""The bare loops that `scripts/predict` is compared with: Pillow and ONNX Runtime, nothing else."""

import numpy as np
import onnxruntime
from PIL import Image

_sessions: list[onnxruntime.InferenceSession] = []  # of this process


def open_model(path: str) -> None:
    """Opens the model to score with, on one thread: there is a process for each core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    _sessions.append(onnxruntime.InferenceSession(path, options, providers=providers))


def one_by_one(paths: list[str]) -> list[object]:
    """Scores each picture by itself, as `scripts/predict` does."""
    return [_sessions[0].run(None, {"image": _image(path)[None]})[0] for path in paths]


def together(paths: list[str]) -> object:
    """Scores pictures in one batch, which ONNX Runtime rounds otherwise."""
    return _sessions[0].run(None, {"image": np.stack([_image(path) for path in paths])})[0]


def _image(path: str) -> np.ndarray:
    levels = np.asarray(Image.open(path).convert("RGB"))
    return levels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
