import re
import sys

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from mnist_jax.errors import UserError
from mnist_jax.repository import triton


@pytest.fixture(scope="module")
def model(released):
    return (released / "run" / "models" / "mnist_model.onnx").read_bytes()


@pytest.fixture(scope="module")
def text(model):
    return triton.make_config("digits", model, [1, 3])


def test_the_text_is_of_tritons_schema_and_says_what_the_graph_says(text, model):
    config = text_format.Parse(text, ModelConfig())
    assert (config.name, config.backend) == ("digits", "onnxruntime")
    assert config.default_model_filename == "model.onnx"
    graph = onnx.load_model_from_string(model).graph
    for declared, values in ((config.input, graph.input), (config.output, graph.output)):
        (tensor,), (value,) = declared, values
        assert tensor.name == value.name
        assert tensor.data_type == DataType.Value("TYPE_FP32")
        assert list(tensor.dims) == [x.dim_value for x in value.type.tensor_type.shape.dim[1:]]
    assert config.output[0].label_filename == "labels.txt"
    assert list(config.version_policy.specific.versions) == [1, 3]
    assert config.max_batch_size == 128
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    (warm_up,) = config.model_warmup
    assert warm_up.inputs["image"].input_data_file == "image"
    assert list(warm_up.inputs["image"].dims) == [1, 28, 28]
    assert triton.find_contradictions(text, model) == []


@pytest.mark.parametrize(
    ("before", "after", "problems"),
    [
        ('name: "image"', 'name: "picture"', ["'picture', .* is not in the file", "'image'"]),
        ("dims: 10\n", "dims: 11\n", ["'scores', 'TYPE_FP32', 11\\) is not in the file", "10\\)"]),
        ("TYPE_FP32\n  dims: 10", "TYPE_FP16\n  dims: 10", ["'TYPE_FP16', 10\\) is not in the"]),
        ("max_batch_size: 128", "max_batch_size: 0", ["the file takes batches"]),
        ("dims: 1\n  dims: 28", "dims: 28", ["is not in the file", "is not in config.pbtxt"]),
    ],
)
def test_a_configuration_that_does_not_fit_is_seen(text, model, before, after, problems):
    assert before in text
    found = "\n".join(triton.find_contradictions(text.replace(before, after, 1), model))
    for problem in problems:
        assert re.search(problem, found), found


def test_what_is_not_of_the_schema_is_refused(text, model):
    with pytest.raises(text_format.ParseError):
        triton.find_contradictions(text.replace("max_batch_size", "max_batch"), model)


@pytest.mark.parametrize("sizes", [[1, 1, 28, 28], ["batch", 1, "side", 28], []])
def test_a_graph_of_another_form_is_refused(model, sizes):
    proto = onnx.load_model_from_string(model)
    proto.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("image", 1, sizes))
    with pytest.raises(UserError, match="is not float32 with a batch in front"):
        triton.make_config("digits", proto.SerializeToString(), [1])


def test_without_the_schema_the_remedy_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc.model_config_pb2", None)
    with pytest.raises(UserError, match=r"schema is not installed .*; run scripts/install publish"):
        triton.make_config("digits", model, [1])
