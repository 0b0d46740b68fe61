"""A network, a recipe and a loss, added to a copy of the package as CONTRIBUTING says, and run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.waiting import HANG_S

ROOT = Path(__file__).parents[1]
NETWORK = """
import jax
from flax import nnx


class Dense(nnx.Module):
    def __init__(self, *, num_classes: int, image_side: int, rngs: nnx.Rngs):
        self.dense = nnx.Linear(image_side**2, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.dense(images.reshape(images.shape[0], -1))
"""
LOSS = """
import optax


def smooth_v1(logits, labels):
    one_hot = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)
    return optax.losses.softmax_cross_entropy(logits, one_hot)
"""
RECIPE = """
from mnist_jax import config as base


def get_config():
    config = base.default()
    config.model_id = "dense_v1"
    config.criterion_id = "smooth_v1"
    config.dataset_id = "digits_v1"
    config.epochs = 1
    return config
"""


def test_each_touches_the_files_that_are_named_and_no_others(tmp_path):
    shutil.copytree(ROOT / "mnist_jax", tmp_path / "mnist_jax")
    package = tmp_path / "mnist_jax"
    (package / "models" / "dense.py").write_text(NETWORK)
    (package / "training" / "losses" / "smooth_v1.py").write_text("import jax" + LOSS)
    (tmp_path / "dense_v1.py").write_text(RECIPE)
    table = package / "config" / "__init__.py"
    line = '    "mnist_cnn_v1": "mnist_jax.models.cnn:CNN",\n'
    added = line + '    "dense_v1": "mnist_jax.models.dense:Dense",\n'
    assert line in table.read_text()
    table.write_text(table.read_text().replace(line, added))

    command = [sys.executable, "-m", "mnist_jax.train", "-q", "--config=dense_v1.py"]
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*command, *places, "--skip-export", "--skip-visualizations"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 1, done.stderr  # without export it is not a release
    metrics = json.loads((tmp_path / "run" / "logs" / "metrics.json").read_text())
    assert (metrics["model_id"], metrics["criterion_id"]) == ("dense_v1", "smooth_v1")
    shown = subprocess.run(
        [sys.executable, "-m", "mnist_jax.train", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "dense_v1" in shown.stdout and "smooth_v1" in shown.stdout
