"""The Open Inference Protocol v2 for models that take images: requests read.

REST bodies and gRPC messages both become a `Request`, and `read_images` alone decides whether its
tensors are what a model takes: what one way in refuses, the other refuses in the same words.
"""

import itertools
import math
import reprlib
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from jaxtyping import Float
from tritonclient.grpc import service_pb2

from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME

messages: Any = service_pb2  # made when it is imported: no type checker sees what it holds

DATATYPE, STORED = "FP32", np.dtype("<f4")

MAX_IMAGES = 128  # in one request, as Triton takes them from a published model
MAX_BODY_BYTES = 4 << 20  # 128 images take 0.4 MB as bytes, about 2 MB as JSON
ROUNDING = 1e-6  # that a value may lie outside 0 to 1: x * 0.00392157 gives 1.0000002 for 255

MAX_OTHER_VALUES = 1024  # in JSON, beside images
MAX_PARAMETERS = 100  # of one tensor

HEADER_LENGTH = "inference-header-content-length"  # of the JSON that stands before binary tensors


Shape = tuple[int, int, int]  # of a model's images: channels, height, width


class RefusedError(Exception):
    """A request that gets no scores; the message tells the client what was expected instead."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  # as HTTP has it: 400, 404, 408, 413, 415 or 429


@dataclass(frozen=True)
class Tensor:
    """An input as the client sent it, not looked at yet."""

    name: Any
    datatype: Any
    shape: Any
    data: Any  # bytes, or numbers in rows or flat


@dataclass(frozen=True)
class Request:
    """What a client asks for, whichever way it came."""

    id: str
    inputs: Sequence[Tensor]
    is_output_binary: bool


def parse_rest(body: bytes, header_length: str | None, image_shape: Shape) -> Request:
    """Takes a request's body apart: JSON, and the binary tensors behind it.

    Args:
        body: the whole body.
        header_length: the header `Inference-Header-Content-Length`, where there was one.
        image_shape: of the model's images: JSON with many more values than they have is not parsed.

    Raises:
        RefusedError: it is not a request of the protocol.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()):
            raise _bad(f"{HEADER_LENGTH} is {header_length[:20]!r}", "a number of bytes")
        if len(header_length) > 9 or int(header_length) > length:
            raise _bad(f"{HEADER_LENGTH} is {header_length[:20]}", f"at most the body's {length}")
        length = int(header_length)
    head = body[:length]
    _check_values(head, image_shape)
    try:
        message = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise _bad(f"the body is not JSON ({error})", "a JSON object, without NaN") from error
    if not isinstance(message, dict):
        raise _bad("the body is not a JSON object", '{"inputs": [...]}')
    request_id = _get(message, "id", "")
    if not isinstance(request_id, str):
        raise _bad("id is not a string", "a string, or none")
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise _bad("inputs is not a list of objects", "a list of one tensor")
    _check_count(inputs)
    return Request(request_id, _parse_tensors(inputs, body[length:]), _parse_output(message))


def _check_values(head: bytes, image_shape: Shape) -> None:
    """Refuses JSON that would be slow to parse: a million empty lists take half a second.

    Nothing else runs meanwhile, in whatever thread. Each value stands behind a comma or is the
    first in its list or object.
    """
    num_values = head.count(b",") + head.count(b"[") + head.count(b"{")
    channels, side, _ = image_shape
    # Pixels, rows, channels and images, each in a list, and what else stands in a request.
    limit = MAX_IMAGES * (channels * (side * side + 2 * side + 2) + 2) + MAX_OTHER_VALUES
    if num_values > limit:
        raise _bad(
            f"the JSON has about {num_values} values",
            f"at most {limit}, for {MAX_IMAGES} images of {side} x {side}",
        )


def _parse_tensors(entries: list[dict[str, Any]], binary: bytes) -> list[Tensor]:
    """Gives each input its data: from the JSON, or its part of the bytes that follow."""
    tensors, used = [], 0
    for entry in entries:
        parameters = _parameters(entry, "an input")
        _check_parameters(parameters, "an input")
        num_bytes = parameters.get("binary_data_size")
        if num_bytes is None:
            data = entry.get("data")
            if data is None:
                raise _bad("an input has no data", "data or binary_data_size")
        elif type(num_bytes) is not int or not 0 <= num_bytes <= len(binary) - used:
            raise _bad(
                f"binary_data_size is {_show(num_bytes)}",
                f"a number of bytes, at most the {len(binary) - used} that are left in the body",
            )
        elif entry.get("data") is not None:
            raise _bad("an input has data and binary_data_size", "one of the two")
        else:
            data = binary[used : used + num_bytes]
            used += num_bytes
        tensors.append(Tensor(entry.get("name"), entry.get("datatype"), entry.get("shape"), data))
    if used != len(binary):
        raise _bad(
            f"{len(binary) - used} bytes at the body's end belong to no input",
            "the sum of all binary_data_size",
        )
    return tensors


def _parse_output(message: dict[str, Any]) -> bool:
    """Returns whether the scores are wanted as bytes."""
    is_binary = _get(_parameters(message, "the request"), "binary_data_output", False)
    outputs = _get(message, "outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(entry, dict) for entry in outputs):
        raise _bad("outputs is not a list of objects", "a list, or none")
    _check_outputs([(entry.get("name"), _parameters(entry, "an output")) for entry in outputs[:2]])
    for entry in outputs:
        is_binary = _get(_parameters(entry, "an output"), "binary_data", is_binary)
    if not isinstance(is_binary, bool):
        raise _bad(f"the output's kind is {_show(is_binary)}", "true for binary, false for JSON")
    return is_binary


def _get(entry: dict[str, Any], key: str, absent: Any) -> Any:
    """Returns what is there; null is as good as absent: clients write it for what they omit."""
    value = entry.get(key)
    return absent if value is None else value


def _parameters(entry: dict[str, Any], owner: str) -> dict[str, Any]:
    parameters = _get(entry, "parameters", {})
    if not isinstance(parameters, dict):
        raise _bad(f"parameters of {owner} is not an object", "an object, or none")
    return parameters


def parse_grpc(message: Any) -> Request:
    """Takes a `ModelInferRequest` apart.

    Raises:
        RefusedError: its tensors' data is in no place, in two, or missing.
    """
    _check_count(message.inputs)
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise _bad(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs",
            "one for each, or none",
        )
    _check_outputs([(output.name, output.parameters) for output in message.outputs[:2]])
    tensors = []
    for index, tensor in enumerate(message.inputs):
        _check_parameters(tensor.parameters, "an input")
        contents = tensor.contents.ListFields()
        if raw and contents:
            raise _bad("an input has contents and raw_input_contents", "one of the two")
        if contents and contents[0][0].name != "fp32_contents":
            raise _bad(f"an input has {contents[0][0].name}", "fp32_contents")
        data = raw[index] if raw else list(tensor.contents.fp32_contents)
        tensors.append(Tensor(tensor.name, tensor.datatype, list(tensor.shape), data))
    return Request(message.id, tensors, is_output_binary=True)


def _check_count(inputs: Sized) -> None:
    """Is first: a look at each of half a million inputs takes a second."""
    if len(inputs) != 1:
        raise _bad(f"inputs has {len(inputs)} tensors", f"one, {INPUT_NAME!r}")


def _check_outputs(outputs: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """Makes sure that each output, a name and its parameters, is one that is given here."""
    for name, parameters in outputs:
        if name != OUTPUT_NAME:
            raise _bad(f"the output {_show(name)} is not known", repr(OUTPUT_NAME))
        _check_parameters(parameters, "an output")
    if len(outputs) > 1:
        raise _bad("outputs has several entries", "one, or none")


def _check_parameters(parameters: Mapping[str, Any], owner: str) -> None:
    """Refuses extensions that change what is read or answered; others are hints, and ignored."""
    if len(parameters) > MAX_PARAMETERS:
        raise _bad(f"{owner} has {len(parameters)} parameters", f"at most {MAX_PARAMETERS}")
    for name in sorted(parameters):
        if (name == "classification" or name.startswith("shared_memory")) and (
            parameters[name] is not None
        ):
            raise _bad(f"a parameter of {owner} is {name}", "tensors as data; no such extension")


def read_images(
    request: Request, image_shape: Shape
) -> Float[np.ndarray, "batch channels side side"]:
    """Returns the request's images, float32 in 0 to 1.

    Raises:
        RefusedError: a wrong count, name, type, shape or value; says which, and what was expected.
    """
    (tensor,) = request.inputs
    if tensor.name != INPUT_NAME:
        raise _bad(f"the input {_show(tensor.name)} is not known", repr(INPUT_NAME))
    if tensor.datatype != DATATYPE:
        raise _bad(f"datatype is {_show(tensor.datatype)}", DATATYPE)
    shape = tensor.shape
    if (
        not isinstance(shape, list)
        or len(shape) != 4
        or not all(type(size) is int for size in shape)
        or shape[1:] != list(image_shape)
        or not 1 <= shape[0] <= MAX_IMAGES
    ):
        sizes = ", ".join(map(str, image_shape))
        raise _bad(f"shape is {_show(shape)}", f"[n, {sizes}] with n from 1 to {MAX_IMAGES}")
    values = _read_values(tensor.data, shape)
    low, high = values.min(), values.max()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # so put, NaN is refused as well
        raise _bad(f"values are from {low:.9g} to {high:.9g}", "levels from 0 to 1")
    if low < 0 or high > 1:
        values = values.clip(0, 1)
    return values.astype(np.float32).reshape(shape)


def _read_values(data: Any, shape: list[int]) -> np.ndarray:
    """Returns a tensor's values as one row of numbers, as many as its shape says."""
    num_values = math.prod(shape)
    if isinstance(data, bytes):
        if len(data) != num_values * STORED.itemsize:
            raise _bad(
                f"the data has {len(data)} bytes",
                f"{num_values * STORED.itemsize}: {num_values} values of 4 bytes, as in the shape",
            )
        return np.frombuffer(data, STORED)
    numbers = _flatten(data, shape)
    if len(numbers) != num_values:
        raise _bad(f"data has {len(numbers)} values", f"{num_values}, as in the shape")
    # Looked at one by one: NumPy would take strings for numbers, and one long one for a huge array.
    if not {int, float}.issuperset(map(type, numbers)):
        raise _bad("data holds something else than numbers", "numbers from 0 to 1")
    return np.array(numbers, np.float64)


def _flatten(data: Any, shape: list[int]) -> list[Any]:
    """Returns a JSON tensor as one row; it may come so, or nested as its shape says."""
    if not isinstance(data, list):
        raise _bad("data is not a list", "numbers in one row, or nested as the shape")
    if not (data and isinstance(data[0], list)):
        return data
    rows = [data]
    for size in shape:
        if not all(type(row) is list and len(row) == size for row in rows):
            raise _bad("data is not nested as the shape", f"lists in the shape {shape}")
        rows = list(itertools.chain.from_iterable(rows))
    return rows


def _bad(found: str, expected: str) -> RefusedError:
    return RefusedError(400, f"{found}; expected {expected}")


def _show(value: Any) -> str:
    """Returns a client's value, short enough for one line."""
    return reprlib.repr(value)[:160]
