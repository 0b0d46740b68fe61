import os
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

from mnist_jax import models
from mnist_jax.export import onnx as onnx_export
from mnist_jax.export.session import OPTIMIZATIONS, open_session


@pytest.fixture(scope="module")
def content():
    model = models.build(
        "mnist_cnn_v1", num_classes=10, image_mean=0.13, image_std=0.31, rngs=nnx.Rngs(0)
    )
    return onnx_export.to_bytes(model, (28, 28, 1), {})


@pytest.mark.parametrize("optimization", OPTIMIZATIONS)
def test_a_file_and_its_content_are_the_same_session(content, optimization, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    image = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    first, second = (
        open_session(model, optimization, 1).run(None, {"image": image})[0]
        for model in (content, tmp_path / "model.onnx")
    )
    np.testing.assert_array_equal(first, second)


def test_the_runtime_reports_nothing_to_its_makers(content, tmp_path):
    """Where it may, ONNX Runtime leaves the id that it gives the machine in the home folder."""
    (tmp_path / "model.onnx").write_bytes(content)
    code = "from mnist_jax.export.session import open_session as o; from pathlib import Path\n"
    code += "o(Path('model.onnx'), 'all', 1)"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
