"""Triton's configuration of a model: made from the ONNX graph, compared with the loaded file."""

from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf import json_format, text_format
from onnx import TensorProto

from mnist_jax.errors import UserError
from mnist_jax.export.session import open_session
from mnist_jax.repository.layout import LABELS, MODEL

MAX_BATCH_SIZE = 128  # images
MAX_QUEUE_DELAY_US = 500  # about the time that one image takes
WARM_UP_FILE = "image"  # in the folder `warmup`: one real image, raw float32

TYPES: dict[int, str] = {TensorProto.FLOAT: "TYPE_FP32"}  # what the exported model may have
RUNTIME_TYPES = {"tensor(float)": "TYPE_FP32"}  # the same in ONNX Runtime's words


def make_config(name: str, model: bytes, versions: Sequence[int]) -> str:
    """Returns the content of `config.pbtxt`.

    Args:
        name: the model's.
        model: the ONNX file.
        versions: those that Triton is to serve. It answers with the highest of them where a client
            names none, so the highest must be the champion.

    Raises:
        UserError: the graph is not of the form that every model here has, or disagrees with what
            ONNX Runtime loads.
    """
    graph = onnx.load_model_from_string(model).graph
    inputs, outputs = (
        [_tensor(value) for value in values] for values in (graph.input, graph.output)
    )
    outputs[0]["label_filename"] = LABELS
    warm_up = {
        "data_type": inputs[0]["data_type"],
        "dims": inputs[0]["dims"],
        "input_data_file": WARM_UP_FILE,
    }
    config = {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": MODEL,
        "max_batch_size": MAX_BATCH_SIZE,
        "version_policy": {"specific": {"versions": list(versions)}},
        "input": inputs,
        "output": outputs,
        "dynamic_batching": {"max_queue_delay_microseconds": MAX_QUEUE_DELAY_US},
        # More threads make a network this small slower and its latency uneven.
        "parameters": {"intra_op_thread_count": {"string_value": "1"}},
        "model_warmup": [
            {
                "name": "one_test_image",
                "batch_size": 1,
                "inputs": {inputs[0]["name"]: warm_up},
            }
        ],
    }
    text = text_format.MessageToString(json_format.ParseDict(config, _schema()()))
    if problems := find_contradictions(text, model):
        raise UserError(f"config.pbtxt of {name} does not fit its model: {problems[0]}")
    return text


def find_contradictions(text: str, model: bytes) -> list[str]:
    """Holds a `config.pbtxt` against what ONNX Runtime finds in a file, one line a difference.

    Raises:
        text_format.ParseError: the text is not of Triton's schema.
    """
    config = text_format.Parse(text, _schema()())
    types: Any = _schema().DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
    session = open_session(model, "disabled", num_threads=1)
    problems = [] if config.max_batch_size > 0 else ["the file takes batches, max_batch_size is 0"]
    for kind, declared, loaded in (
        ("input", config.input, session.get_inputs()),
        ("output", config.output, session.get_outputs()),
    ):
        says = {(x.name, types[x.data_type].name, *x.dims) for x in declared}
        is_so = {(x.name, RUNTIME_TYPES.get(x.type, x.type), *x.shape[1:]) for x in loaded}
        problems += [f"{kind} {tensor} is not in the file" for tensor in sorted(says - is_so)]
        problems += [f"{kind} {tensor} is not in config.pbtxt" for tensor in sorted(is_so - says)]
        problems += [
            f"{kind} {x.name} has the fixed batch size {x.shape[0]}"
            for x in loaded
            if not isinstance(x.shape[0], str)
        ]
    return problems


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Describes an input or output as Triton does: without the batch."""
    tensor = value.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if tensor.elem_type not in TYPES or not sizes or sizes[0] != 0 or 0 in sizes[1:]:
        raise UserError(
            f"{onnx.helper.printable_value_info(value)} is not float32 with a batch in front and "
            "known sizes after it; publish a model that this program has exported"
        )
    return {"name": value.name, "data_type": TYPES[tensor.elem_type], "dims": sizes[1:]}


def _schema() -> Any:
    """Triton's own schema of `config.pbtxt`; imported late, for it brings gRPC along."""
    try:
        from tritonclient.grpc.model_config_pb2 import ModelConfig  # pyright: ignore
    except ImportError as error:
        raise UserError(
            f"Triton's schema is not installed ({error}); run scripts/install publish"
        ) from error
    return ModelConfig
