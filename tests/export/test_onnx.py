import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from onnx import helper

from mnist_jax.export import onnx as onnx_export
from mnist_jax.export import safetensors, stablehlo
from mnist_jax.export.onnx import ExportError, check_exportable, to_bytes
from mnist_jax.models import network as network_module

METADATA = {"model_id": "mnist_cnn_v1", "classes": "0 1 2", "b": "2", "a": "1"}

# Exports in a process of its own; the last file the way that jax2onnx itself loads its converters.
# That compiles 74 programs, which need not be fast ones; so the weights come by standard input.
EXPORT_ALL_FORMATS = """
import contextlib, hashlib, json, logging, sys
import jax
from flax import nnx
from mnist_jax.models import network as network_module
from mnist_jax.export import onnx, safetensors, stablehlo
from mnist_jax import models

model = models.build(
    "mnist_cnn_v1", num_classes=10, image_mean=0.1307, image_std=0.3081, rngs=nnx.Rngs(0)
)
structure, *_ = network_module.take_apart(model)
params, model_state = jax.device_put(safetensors.from_bytes(sys.stdin.buffer.read()))
model = network_module.rebuild(structure, params, model_state)
metadata = json.loads(sys.argv[1])
files = [
    onnx.to_bytes(model, (28, 28, 1), metadata),
    safetensors.to_bytes(params, model_state, metadata),
    stablehlo.to_bytes(model, (28, 28, 1)),
]
from jax2onnx.plugins import plugin_system
before = {
    "has_equinox": "jax2onnx.plugins.equinox" in sys.modules,
    "is_done": plugin_system._already_imported_plugins,
    "num_handlers": len(logging.root.handlers),
}
onnx._converters_of_jax_and_flax_only = contextlib.nullcontext
files.append(onnx.to_bytes(model, (28, 28, 1), metadata))
print(json.dumps({
    "hashes": [hashlib.sha256(data).hexdigest() for data in files],
    "before": before,
    "has_equinox": "jax2onnx.plugins.equinox" in sys.modules,
}))
"""


class Network(nnx.Module):
    """A network with one layer of the test's choice in front of the mean of each row."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, images):
        return self.layer(images).mean(axis=(2, 3))


class Pool:
    def __init__(self, pool, padding):
        self.pool, self.padding = pool, padding

    def __call__(self, images):
        return self.pool(images, window_shape=(3, 3), strides=(2, 2), padding=self.padding)


class Capsules(nnx.Module):
    """What capsule networks are made of: vectors, votes by matmul, lengths."""

    outputs = "capsules"

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 16, (9, 9), strides=4, padding="VALID", rngs=rngs)
        self.votes = nnx.Param(0.1 * jax.random.normal(rngs(), (50, 8, 40)))

    def __call__(self, images):
        x = self.conv(images).transpose(0, 3, 1, 2)
        capsules = x.reshape(x.shape[0], 50, 1, 8)
        votes = jnp.matmul(capsules, self.votes[...]).reshape(x.shape[0], 50, 10, 4)
        return votes.mean(axis=1)


def run_onnx(data, images):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"image": np.asarray(images).transpose(0, 3, 1, 2)})[0]


def test_the_graph_is_what_one_would_write_by_hand(cnn):
    proto = onnx.load_model_from_string(to_bytes(cnn, (28, 28, 1), METADATA))
    assert [node.op_type for node in proto.graph.node] == [
        *("Sub", "Div", "Conv", "Relu", "Conv", "Relu", "MaxPool", "Flatten"),
        *("Gemm", "Relu", "Gemm", "Softmax"),
    ]
    interface = [
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 1, 28, 28]),
        helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 10]),
    ]
    assert [*proto.graph.input, *proto.graph.output] == interface
    assert (proto.ir_version, proto.producer_name) == (8, "mnist_jax")
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
    assert [(entry.key, entry.value) for entry in proto.metadata_props] == sorted(METADATA.items())
    sizes = {tuple(tensor.dims) for tensor in proto.graph.initializer}
    assert len(proto.graph.initializer) == 10 and (9216, 128) in sizes  # and no shape constants
    inner = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.value_info}
    assert set(inner) == {node.output[0] for node in proto.graph.node[:-1]}
    assert all(sizes[0].dim_param == "batch" for sizes in inner.values())


@pytest.fixture(scope="module")
def exported(cnn):
    return to_bytes(cnn, (28, 28, 1), {})


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_onnx_runtime_computes_what_jax_does(cnn, exported, batch_size):
    images = jax.random.uniform(jax.random.key(batch_size), (batch_size, 28, 28, 1))
    scores = run_onnx(exported, images)
    np.testing.assert_allclose(scores, network_module.scores(cnn, images), rtol=0, atol=1e-6)


def test_reshapes_of_capsules_have_constant_shapes():
    capsules = Capsules(nnx.Rngs(0))
    data = to_bytes(capsules, (28, 28, 1), {})
    operators = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    assert "Reshape" in operators and not operators & {"Shape", "Gather", "Concat", "Transpose"}
    images = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))
    np.testing.assert_allclose(
        run_onnx(data, images), network_module.scores(capsules, images), rtol=0, atol=1e-6
    )


def test_the_bytes_depend_on_weights_and_metadata_alone(cnn):
    """Not on the process, on the order of hashing, or on the short way through jax2onnx."""
    _, params, model_state = network_module.take_apart(cnn)
    ours = [
        to_bytes(cnn, (28, 28, 1), METADATA),
        safetensors.to_bytes(params, model_state, METADATA),
        stablehlo.to_bytes(cnn, (28, 28, 1)),
    ]
    hashes = [hashlib.sha256(data).hexdigest() for data in ours]
    backwards = json.dumps(dict(reversed(METADATA.items())))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXPORT_ALL_FORMATS, backwards],
        env={
            **os.environ,
            "PYTHONHASHSEED": "2",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
        input=ours[1],
        capture_output=True,
    )
    assert (done.stderr, done.returncode) == (b"", 0), "nothing may be said on the terminal"
    assert json.loads(done.stdout) == {
        "hashes": [*hashes, hashes[0]],
        "before": {
            "has_equinox": False,
            "is_done": False,  # who uses jax2onnx for something else still gets all of it
            "num_handlers": 0,
        },
        "has_equinox": True,
    }


def test_a_jax2onnx_without_the_flag_is_left_to_itself(cnn, monkeypatch):
    from jax2onnx.plugins import plugin_system

    monkeypatch.delattr(plugin_system, "_already_imported_plugins")
    with onnx_export._converters_of_jax_and_flax_only():
        assert not hasattr(plugin_system, "_already_imported_plugins")


def test_converters_that_fail_to_import_are_left_to_jax2onnx(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", fail)
    assert onnx_export._import_converters() is None


def test_strictness_elsewhere_does_not_reach_into_jax2onnx(cnn):
    with jax.numpy_rank_promotion("raise"):
        assert to_bytes(cnn, (28, 28, 1), {})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Network(nnx.Dropout(0.5, rngs=nnx.Rngs(0))), r"random numbers.*in evaluation"),
        (
            Network(nnx.BatchNorm(1, rngs=nnx.Rngs(0))),
            r"changes the network's state.*in evaluation",
        ),
        (Network(nnx.Dropout(0.5)), "Network fails on images"),
        (Network(Pool(nnx.max_pool, ((1, 1), (1, 1)))), "explicit padding"),
        (Network(jax.jit(Pool(nnx.avg_pool, ((1, 0), (0, 1))))), "explicit padding"),
    ],
)
def test_what_would_be_exported_wrongly_is_refused(network, message):
    with pytest.raises(ExportError, match=message):
        check_exportable(network, (28, 28, 1))
    with pytest.raises(ExportError, match=message):
        to_bytes(network, (28, 28, 1), {})


@pytest.mark.parametrize(
    "layer",
    [
        nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(1, use_running_average=True, rngs=nnx.Rngs(0)),
        Pool(nnx.max_pool, "SAME"),
        Pool(nnx.avg_pool, "VALID"),
    ],
)
def test_the_same_layers_in_evaluation_mode_are_accepted(layer):
    check_exportable(Network(layer), (28, 28, 1))


def test_what_jax2onnx_cannot_convert_is_one_clear_line():
    class Positional(nnx.Module):
        def __call__(self, images):
            return nnx.max_pool(images, (2, 2), (2, 2)).mean(axis=(2, 3))

    with pytest.raises(
        ExportError, match=r"Positional cannot be exported.*TypeError.*; give its arguments by name"
    ) as e:
        to_bytes(Positional(), (28, 28, 1), {})
    assert "\n" not in str(e.value)


def conv(size, strides, dilation=1):
    return nnx.Conv(
        1, 2, size, strides=strides, kernel_dilation=dilation, padding="SAME", rngs=nnx.Rngs(0)
    )


@pytest.mark.parametrize("side", [27, 28])
@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: conv((3, 3), 2),
        lambda: conv((5, 2), (3, 1)),
        lambda: conv((3, 3), 1, dilation=3),
        lambda: conv((1, 1), 2),
        lambda: Pool(nnx.max_pool, "SAME"),
        lambda: Pool(nnx.avg_pool, "SAME"),
    ],
    ids=["stride", "oblong", "dilated", "point", "max", "mean"],
)
def test_the_padding_same_is_written_in_pixels(make_layer, side):
    """By name, OpenCV 5 pads wrongly under strides."""
    network = Network(make_layer())
    exported = to_bytes(network, (side, side, 1), {})
    graph = onnx.load_from_string(exported).graph
    (node,) = [node for node in graph.node if node.op_type in onnx_export.PADDED]
    assert {entry.name for entry in node.attribute} & {"auto_pad", "pads"} == {"pads"}
    images = np.random.default_rng(0).random((3, side, side, 1), np.float32)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": images.transpose(0, 3, 1, 2)})
    expected = network_module.scores(network, jnp.asarray(images))
    np.testing.assert_allclose(found, expected, atol=1e-6)
