"""The published MNIST files, from the raw bytes to a release: scripts/test -m slow"""

import gzip
import json

import numpy as np
import onnxruntime
import pytest

from mnist_jax import train


def read_idx(path, num_dimensions):
    """The published format, read without the package."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", num_dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)


@pytest.mark.slow
def test_a_stranger_gets_the_test_accuracy_from_the_published_files(real_data, tmp_path):
    status = train.main(
        [
            *("-q", "--model-id", "mnist_cnn_v1", "--epochs", "1", "--manual-dir", str(real_data)),
            *("--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")),
        ]
    )
    assert status == 0
    metrics = json.loads((tmp_path / "run" / "logs" / "metrics.json").read_text())
    images = read_idx(real_data / "mnist" / "t10k-images-idx3-ubyte.gz", 3)
    labels = read_idx(real_data / "mnist" / "t10k-labels-idx1-ubyte.gz", 1)
    session = onnxruntime.InferenceSession(tmp_path / "run" / "models" / "mnist_model.onnx")
    (scores,) = session.run(None, {"image": images[:, None].astype(np.float32) / 255})
    num_correct = int((scores.argmax(axis=1) == labels).sum())
    assert num_correct / len(labels) == metrics["accuracy"]
    assert metrics["num_correct"] == num_correct
    assert metrics["accuracy"] > 0.975
