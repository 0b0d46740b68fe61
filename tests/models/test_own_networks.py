"""Networks of the user's own, in a file elsewhere, go the whole way by one command."""

import json
from pathlib import Path

import pytest

from mnist_jax import train

TUTORIAL = """
from functools import partial
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.second = nnx.Conv(8, 16, (3, 3), rngs=rngs)
        self.pool = partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
        self.hidden = nnx.Linear(7 * 7 * 16, 32, rngs=rngs)
        self.dropout = nnx.Dropout(0.025)
        self.out = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x, rngs: nnx.Rngs | None = None):
        x = self.pool(nnx.relu(self.norm(self.first(x))))
        x = self.pool(nnx.relu(self.second(x))).reshape(x.shape[0], -1)
        return self.out(self.dropout(nnx.relu(self.hidden(x)), rngs=rngs))
"""
NORMALISED = """
import jax.numpy as jnp
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, image_side, image_mean, image_std, rngs):
        self.mean, self.std = (nnx.Variable(jnp.float32(x)) for x in (image_mean, image_std))
        num_pixels = int(jnp.square(image_side))
        self.dense = nnx.Linear(num_pixels, num_classes, rngs=rngs)

    def __call__(self, images):
        x = (images - self.mean[...]) / self.std[...]
        return self.dense(x.reshape(x.shape[0], -1))
"""
LEARNED = """
import jax.numpy as jnp
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, image_side, rngs):
        self.temperature = nnx.Param(jnp.full((1, 1), 2.0))
        self.dense = nnx.Linear(image_side**2, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.temperature[...] * self.dense(images.reshape(images.shape[0], -1))

def weighted(logits, labels):
    weights = jnp.linspace(0.5, 1.5, 10)  # of ten classes
    return -weights[labels] * nnx.log_softmax(logits)[jnp.arange(labels.size), labels]
"""


EXAMPLE = (Path(__file__).parents[2] / "examples" / "own_network.py").read_text()
EXAMPLE = EXAMPLE.replace("class Network(", "class Net(")


@pytest.mark.parametrize(
    "text",
    # What the first has of its own `test_network.py` has too: statistics, numbers drawn in a call.
    [pytest.param(TUTORIAL, marks=pytest.mark.slow), NORMALISED, LEARNED, EXAMPLE],
    ids=["tutorial", "normalised", "learned", "example"],
)
def test_it_is_trained_exported_verified_and_released(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text)
    flags = [f"--model-id={path}:Net", "--dataset-id=digits_v1", "--epochs=2", "--batch-size=32"]
    flags += ["--min-test-accuracy=0.5", "--min-per-class-accuracy=0", "--skip-visualizations"]
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}"]
    for loss in ("focal", "weighted"):
        if f"def {loss}(" in text:
            flags.append(f"--criterion-id={path}:{loss}")
    assert train.main(["-q", *flags, *places, "--max-inference-time-ms=1000"]) == 0
    release = json.loads((tmp_path / "run" / "logs" / "release.json").read_text())
    assert release["verdict"] == "released"
    assert set(release["verification"]["files"]) >= {"onnx", "safetensors", "stablehlo"}
    assert release["metrics"]["accuracy"] > 0.5
