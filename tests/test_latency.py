import numpy as np
import pytest
from flax import nnx

from mnist_jax.export import onnx as onnx_export
from mnist_jax.latency import measure_latency
from mnist_jax.models import MODELS


@pytest.fixture(scope="module")
def content():
    model = MODELS["mnist_cnn_v1"](
        num_classes=10, image_mean=0.13, image_std=0.31, rngs=nnx.Rngs(0)
    )
    return onnx_export.to_bytes(model, {})


def test_latency_counts_runs_and_names_the_machine(content):
    image = np.zeros((1, 1, 28, 28), np.float32)
    latency = measure_latency(content, image)
    assert latency["num_runs"] >= latency["num_windows"] >= 3
    assert (latency["batch_size"], latency["threads"]) == (1, 1)
    assert latency["load_ms"] > 0 and latency["first_call_ms"] > 0
    assert latency["cpu"] and latency["onnxruntime"]
    assert latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
