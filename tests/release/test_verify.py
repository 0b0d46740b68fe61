import json
import re

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import nnx
from onnx import helper, numpy_helper

from mnist_jax import models
from mnist_jax.config import MODELS
from mnist_jax.data import Split
from mnist_jax.export import onnx as onnx_export
from mnist_jax.export import safetensors, stablehlo
from mnist_jax.export.onnx import ExportError
from mnist_jax.models.network import scores, take_apart
from mnist_jax.models.predict import Predictor, Trained
from mnist_jax.release import parity, verify
from mnist_jax.run.paths import EXPORTED

NUM_IMAGES = 100
# `test_capsule_networks.py` exports the like of these by default, and looks at their operators.
SLOW_TO_COMPILE = (
    *("mnist_capsule_v1", "mnist_hvc_capsule_v1", "mnist_sabour_cnn_v1"),
    *("mnist_efficient_capsule_v1", "small_resnet_v1"),
)


def network(seed=0, num_classes=10):
    return models.build(
        "mnist_cnn_v1",
        num_classes=num_classes,
        image_mean=0.1307,
        image_std=0.3081,
        rngs=nnx.Rngs(seed),
    )


@pytest.fixture(scope="module")
def run():
    """What a run has in hand when it verifies: the network, the test set, the files' contents."""
    model = network()
    structure, params, model_state = take_apart(model)
    trained = Trained(Predictor(structure), params, model_state)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (NUM_IMAGES, 28, 28), np.uint8)
    labels = generator.integers(0, 10, NUM_IMAGES, np.uint8)
    metadata = {"model_id": "mnist_cnn_v1"}
    files = {
        "onnx": onnx_export.to_bytes(model, (28, 28, 1), metadata),
        "safetensors": safetensors.to_bytes(params, model_state, metadata),
        "stablehlo": stablehlo.to_bytes(model, (28, 28, 1)),
    }
    return files, {
        "test": Split(images, labels),
        "jax_scores": trained.scores(images),
        "trained": trained,
        "metadata": metadata,
    }


def verified(folder, run, changed=(), formats=tuple(EXPORTED), **changed_facts):
    """Writes the files into a run's folder, some of them changed, and verifies them."""
    files, facts = run
    for name, data in {**files, **dict(changed)}.items():
        (folder / EXPORTED[name]).parent.mkdir(exist_ok=True)
        (folder / EXPORTED[name]).write_bytes(data)
    found = verify.verify_files(folder, formats, **{**facts, **changed_facts})
    json.dumps(found, allow_nan=False)
    assert found["passed"] == (not found["failures"])
    assert found["passed"] == all(check["passed"] for check in found["checks"])
    return found


CHECKS = [
    ("jax: scores", "finite"),
    ("safetensors: file", "models/mnist_model.safetensors"),
    ("safetensors: parity", ""),
    ("onnx: file", "models/mnist_model.onnx"),
    ("onnx: checker", "full"),
    ("onnx: shape inference", "strict"),
    ("onnx: interface", "%image[FLOAT, batchx1x28x28] to %scores[FLOAT, batchx10]"),
    ("onnx: versions", "opset 17, IR version 8"),
    ("onnx: operators", "Conv, Div, Flatten, Gemm, MaxPool, Relu, Softmax, Sub"),
    ("onnx: weights", "in the file, finite"),
    ("onnx: metadata", "model_id"),
    ("onnx: parity, optimisation disabled", ""),
    ("onnx: parity, optimisation basic", ""),
    ("onnx: parity, optimisation all", ""),
    ("onnx: latency", ""),
    ("stablehlo: file", "models/mnist_model.stablehlo"),
    ("stablehlo: parity", ""),
]


def test_files_that_are_right_pass(tmp_path, run):
    found = verified(tmp_path, run)
    assert found["failures"] == []
    assert {(row["format"], row["optimization"]) for row in found["parity"]} == {
        *(("onnx", level) for level in ("disabled", "basic", "all")),
        *(("safetensors", None), ("stablehlo", None)),
    }
    for row in found["parity"]:
        assert row["max_abs_difference"] < 1e-6 and row["num_class_disagreements"] == 0
        whole = {"test set": NUM_IMAGES, "sample": parity.SAMPLE_SIZE, "probes": 64}
        assert row["num_examples"] == whole[row["inputs"]]
    onnx_batches = {row["batch_size"] for row in found["parity"] if row["format"] == "onnx"}
    assert onnx_batches == {1, 2, 7, 64, 256}
    _, facts = run
    num_correct = int((facts["jax_scores"].argmax(axis=1) == facts["test"].labels).sum())
    assert found["accuracy"] == {
        "jax": num_correct / NUM_IMAGES,
        "onnx": num_correct / NUM_IMAGES,
        "num_correct_jax": num_correct,
        "num_correct_onnx": num_correct,
        "num_examples": NUM_IMAGES,
    }
    described = found["files"]["onnx"]
    assert (described["opset"], described["ir_version"]) == (17, 8)
    assert described["operators"]["Conv"] == 2 and sum(described["operators"].values()) == 12
    assert described["metadata"] == {"model_id": "mnist_cnn_v1"}
    for name in ("onnx", "safetensors", "stablehlo"):
        assert found["files"][name]["path"] == EXPORTED[name]
        assert found["files"][name]["size_bytes"] == (tmp_path / EXPORTED[name]).stat().st_size
    assert [(check["name"], check["detail"]) for check in found["checks"]] == CHECKS
    assert found["tolerance"] == 1e-5
    on_test_set, on_probes = (row.keys() for row in found["parity"][:2])
    assert on_test_set - on_probes == {"num_correct", "num_correct_jax"}
    assert on_probes == {
        *("format", "optimization", "inputs", "batch_size", "num_examples"),
        *("max_abs_difference", "num_class_disagreements", "num_ties", "disagreements"),
    }
    latency = found["latency"]
    assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]


def test_only_the_formats_asked_for_are_looked_at(tmp_path, run):
    found = verified(tmp_path, run, formats=("orbax", "safetensors"))
    assert found["passed"] and set(found["files"]) == {"safetensors"}
    assert found["latency"] is None and found["accuracy"]["onnx"] is None


# ---- A sabotaged ONNX file: what changes in the graph, and what must be said about it


def initializer(proto, *dims):
    return next(tensor for tensor in proto.graph.initializer if tuple(tensor.dims) == dims)


def change(proto, dims, function):
    tensor = initializer(proto, *dims)
    array = np.ascontiguousarray(function(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def transpose_a_weight(proto):
    change(proto, (64, 32, 3, 3), lambda kernel: kernel.swapaxes(2, 3))


def permute_classes(proto):
    change(proto, (128, 10), lambda kernel: np.roll(kernel, 1, axis=1))


def nudge_a_weight(proto):
    change(proto, (128, 10), lambda kernel: kernel + np.float32(1e-3) * np.eye(128, 10, dtype="f"))


def break_weights(proto):
    change(proto, (128, 10), lambda kernel: kernel * np.float32("nan"))


def insert(proto, before, node):
    """Puts a node between the graph's node number `before` and its first input."""
    target = proto.graph.node[before]
    node.input[0], target.input[0] = target.input[0], node.output[0]
    proto.graph.node.insert(before, node)


def leave_dropout_on(proto):
    constants = {"ratio": np.float32(0.5), "on": np.bool_(True)}
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    insert(proto, -1, helper.make_node("Dropout", ["", "ratio", "on"], ["dropped"]))


def transpose_at_run_time(proto):
    insert(proto, 0, helper.make_node("Transpose", [""], ["turned"], perm=[0, 1, 3, 2]))


def use_a_microsoft_operator(proto):
    insert(proto, -1, helper.make_node("Gelu", [""], ["g"], domain="com.microsoft"))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def leave_normalisation_out(proto):
    proto.graph.node[2].input[0] = "image"
    del proto.graph.node[:2]


def store_weights_outside(proto):
    tensor = initializer(proto, 9216, 128)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")


def rename_the_input(proto):
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "input"


def fix_the_batch(proto):
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def contradict_the_shapes(proto):
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11


def declare_newer_versions(proto):
    proto.ir_version, proto.opset_import[0].version = 10, 18


@pytest.mark.parametrize(
    ("sabotage", "reasons"),
    [
        (transpose_a_weight, ["optimisation all: test set.* a score differs"]),
        (permute_classes, ["get another class; image 0 gets", "are right, not"]),
        (
            nudge_a_weight,
            ["test set, batch 64: a score differs", "sample, batch 1: a score differs"],
        ),
        (break_weights, ["onnx: weights: .* is not finite", "test set.* scores are not finite"]),
        (leave_dropout_on, ["onnx: operators: Dropout is not allowed", "a score differs"]),
        (transpose_at_run_time, ["a score differs"]),
        (use_a_microsoft_operator, ["com.microsoft Gelu is not allowed", "onnx: versions"]),
        (leave_normalisation_out, ["optimisation disabled: probes.* a score differs"]),
        (store_weights_outside, ["is stored outside the file"]),
        (rename_the_input, ["onnx: interface: %input.* is not %image", "parity.*image"]),
        (fix_the_batch, ["onnx: interface: .*1x1x28x28.* is not .*batchx1x28x28"]),
        (contradict_the_shapes, ["onnx: shape inference: "]),
        (declare_newer_versions, ["onnx: versions: .*18.*10 are not opset 17, IR version 8"]),
    ],
)
def test_a_sabotaged_onnx_file_fails_for_the_right_reason(tmp_path, run, sabotage, reasons, capfd):
    proto = onnx.load_model_from_string(run[0]["onnx"])
    sabotage(proto)
    found = verified(tmp_path, run, {"onnx": proto.SerializeToString()}, formats=("onnx",))
    assert not found["passed"]
    for reason in reasons:
        assert any(re.search(reason, line) for line in found["failures"]), found["failures"]
    assert capfd.readouterr() == ("", "")  # all of it is in the report, nothing on the terminal


def test_an_onnx_file_that_says_it_is_another_fails(tmp_path, run):
    expected = {"model_id": "mnist_cnn_v2", "class_names": '["a", "b"]'}
    found = verified(tmp_path, run, formats=("onnx",), metadata=expected)
    assert found["failures"] == [
        "onnx: metadata: model_id is mnist_cnn_v1, not mnist_cnn_v2",
        'onnx: metadata: class_names is None, not ["a", "b"]',
    ]


def other_weights():
    return onnx_export.to_bytes(network(seed=1), (28, 28, 1), {})


def other_classes():
    return onnx_export.to_bytes(network(num_classes=7), (28, 28, 1), {})


@pytest.mark.parametrize(
    ("make_data", "reason"),
    [
        (lambda data: b"", "onnx: checker: "),
        (lambda data: b"not a model", "onnx: shape inference: DecodeError"),
        (lambda data: data[: len(data) // 2], "onnx: parity, optimisation all: "),
        (lambda data: data[:-1], "onnx: checker: "),
        (lambda data: other_weights(), "test set, batch 64: a score differs"),
        (lambda data: other_classes(), r"test set: scores \(100, 7\) are not \(100, 10\)"),
    ],
    ids=["empty", "text", "half", "short of a byte", "other weights", "other classes"],
)
def test_another_or_a_damaged_onnx_file_fails(tmp_path, run, make_data, reason, capfd):
    data = make_data(run[0]["onnx"])
    found = verified(tmp_path, run, {"onnx": data}, formats=("onnx",))
    assert any(re.search(reason, line) for line in found["failures"]), found["failures"]
    assert found["files"]["onnx"]["size_bytes"] == len(data)
    assert capfd.readouterr() == ("", "")


def next_float(data):
    """The same tensors, but for the last bit of one number."""
    changed = bytearray(data)
    changed[-4] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "make_data", "reason"),
    [
        ("safetensors", lambda data: data[:-1], "safetensors: parity: SafetensorError"),
        ("safetensors", lambda data: b"", "safetensors: parity: "),
        ("safetensors", next_float, "bit for bit"),
        ("stablehlo", lambda data: data[: len(data) // 2], "stablehlo: parity: "),
        ("stablehlo", lambda data: b"not a program", "stablehlo: parity: "),
        (
            "stablehlo",
            lambda data: stablehlo.to_bytes(network(seed=1), (28, 28, 1)),
            "a score differs",
        ),
    ],
    ids=["short of a byte", "empty", "one bit", "half", "text", "other weights"],
)
def test_another_or_a_damaged_file_of_weights_fails(tmp_path, run, name, make_data, reason):
    found = verified(tmp_path, run, {name: make_data(run[0][name])}, formats=(name,))
    assert any(re.search(reason, line) for line in found["failures"]), found["failures"]


def test_all_missing_files_are_named(tmp_path, run):
    found = verify.verify_files(tmp_path, tuple(EXPORTED), **run[1])
    for line in found["failures"]:
        assert re.match(r"\w+: file: FileNotFoundError: .* No such file", line)
    assert len(found["failures"]) == 3 and found["files"] == {}


def test_scores_of_another_network_do_not_pass(tmp_path, run):
    images = jnp.float32(run[1]["test"].images[..., None]) / 255
    found = verified(tmp_path, run, jax_scores=np.asarray(scores(network(seed=1), images)))
    assert {line.split(":")[0] for line in found["failures"]} == {
        "onnx",
        "safetensors",
        "stablehlo",
    }


def test_a_network_without_finite_scores_does_not_pass(tmp_path, run):
    scores = np.full_like(run[1]["jax_scores"], np.nan)
    found = verified(tmp_path, run, formats=("onnx",), jax_scores=scores)
    assert "jax: scores: the network itself gives scores that are not finite" in found["failures"]


def test_only_an_exact_tie_excuses_another_class():
    jax_scores = np.float32([[0.5, 0.5, 0], [0.4, 0.3, 0.3], [0.6, 0.3, 0.1]])
    scores = np.float32([[0.499999, 0.5, 0], [0.3, 0.4, 0.4], [0.3, 0.6, 0.1]])
    assert parity._difference(scores, jax_scores) == {
        "num_examples": 3,
        "max_abs_difference": pytest.approx(0.3),
        "num_class_disagreements": 1,
        "num_ties": 2,  # the first in JAX, the second in the file; not the equal two that lose
        "disagreements": [
            {"index": 2, "jax_class": 0, "file_class": 1, "margin": pytest.approx(0.3)}
        ],
    }


def test_of_images_that_get_another_class_the_first_is_named():
    jax_scores = np.eye(3, dtype=np.float32)
    row = parity._difference(np.roll(jax_scores, 1, axis=1), jax_scores)
    assert list(parity._faults(row)) == [
        f"a score differs by 1, more than {parity.TOLERANCE}",
        "3 of 3 images get another class; image 0 gets 1, not 0",
    ]


# ---- Before training


class Pooled(nnx.Module):
    def __init__(self, pool):
        self.pool = pool

    def __call__(self, images):
        x = self.pool(images).transpose(0, 3, 1, 2)
        return x.reshape(images.shape[0], -1)[:, :10]


def padded_as_same_is(images):
    """What check_exportable cannot see: an explicit padding that equals that of "SAME"."""
    return nnx.avg_pool(images, window_shape=(3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))


def convolution_in_bfloat16():
    """What opset 17 has no convolution for."""
    conv = nnx.Conv(1, 4, (3, 3), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    return nnx.Sequential(conv, lambda x: x.astype(jnp.float32))


@pytest.mark.parametrize(
    "model_id",
    [
        pytest.param(model_id, marks=pytest.mark.slow) if model_id in SLOW_TO_COMPILE else model_id
        for model_id in MODELS
    ],
)
def test_every_untrained_network_survives_its_export_and_may_train(model_id):
    model = models.build(
        model_id, num_classes=10, image_mean=0.1307, image_std=0.3081, rngs=nnx.Rngs(0)
    )
    verify.check_parity_before_training(model, (28, 28, 1))


REMEDY = "; change the layer that causes it: a model that cannot be released is not worth training$"


@pytest.mark.parametrize(
    ("make_pool", "message"),
    [
        (
            lambda: padded_as_same_is,
            "^the exported Pooled is at fault, onnx: parity, optimisation disabled: probes, batch "
            f"64: a score differs by .*{REMEDY}",
        ),
        (convolution_in_bfloat16, r"Conv_\d+\): X .* unsupported type: tensor\(bfloat16\)"),
    ],
)
def test_a_network_that_does_not_survive_is_refused_before_training(make_pool, message, capfd):
    with pytest.raises(ExportError, match=message) as caught:
        verify.check_parity_before_training(Pooled(make_pool()), (28, 28, 1))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
