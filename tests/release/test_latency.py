import itertools

import numpy as np
import onnx
import pytest
from flax import nnx
from onnx import TensorProto, helper

from mnist_jax import models
from mnist_jax.export import onnx as onnx_export
from mnist_jax.release import latency
from mnist_jax.release.latency import measure_latency

LENGTHS = {name: getattr(latency, name) for name in ("WARM_UP_S", "WINDOW_S", "MAX_MEASURING_S")}


@pytest.fixture(scope="module")
def content():
    model = models.build(
        "mnist_cnn_v1", num_classes=10, image_mean=0.13, image_std=0.31, rngs=nnx.Rngs(0)
    )
    return onnx_export.to_bytes(model, (28, 28, 1), {})


def test_latency_counts_runs_and_names_the_machine(content, monkeypatch):
    for name, seconds in LENGTHS.items():  # as they are outside of the tests
        monkeypatch.setattr(latency, name, seconds)
    image = np.zeros((1, 1, 28, 28), np.float32)
    measured = measure_latency(content, image)
    assert measured["num_runs"] >= measured["num_windows"] >= 3
    assert (measured["batch_size"], measured["threads"]) == (1, 1)
    assert measured["load_ms"] > 0 and measured["first_call_ms"] > 0
    assert measured["cpu"] and measured["onnxruntime"]
    assert measured["p50_ms"] <= measured["p90_ms"] <= measured["p99_ms"]


def test_files_timed_in_turn_give_the_ratio_of_their_work(tmp_path, monkeypatch):
    """One file computes what the other does eight times over."""
    monkeypatch.setattr(latency, "NUM_ROUNDS", 10)
    monkeypatch.setattr(latency, "ROUND_S", 0.01)
    paths = []
    for name, repetitions in (("short", 4), ("long", 32)):
        names = ["image", *(f"x{i}" for i in range(repetitions - 1)), "scores"]
        nodes = [
            helper.make_node("Conv", [before, "kernel"], [after], pads=[2, 2, 2, 2])
            for before, after in itertools.pairwise(names)
        ]
        shape = ["batch", 1, 28, 28]
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
            [helper.make_tensor("kernel", TensorProto.FLOAT, [1, 1, 5, 5], [0.1] * 25)],
        )
        opsets = [helper.make_opsetid("", 17)]
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), paths[-1])
    image = np.ones((1, 1, 28, 28), np.float32)
    slower = latency.measure_ratio(paths[1], paths[0], image)
    assert 2 < slower["ratio"] < 20
    assert slower["p50_ms"] > slower["champion_p50_ms"] > 0
    low, high = slower["ratio_10_90"]
    assert low <= slower["ratio"] <= high
    assert latency.measure_ratio(paths[0], paths[1], image)["ratio"] < 0.5
