"""Requests both ways in, against what they were made from; whatever is wrong is a refusal."""

import functools
import json

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mnist_jax.repository import triton
from mnist_jax.serve import answers, protocol
from mnist_jax.serve.protocol import RefusedError, messages

SIDE = 4  # the protocol takes any; small images make small examples
SHAPE = (1, SIDE, SIDE)
IMAGES = npst.arrays(
    np.float32,
    st.integers(1, 5).map(lambda batch: (batch, 1, SIDE, SIDE)),
    elements=st.floats(0, 1, width=32),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def describe(images):
    return {"name": "image", "datatype": "FP32", "shape": list(images.shape)}


def as_json(images, data):
    return orjson.dumps({"inputs": [describe(images) | {"data": data}]}), None


def as_bytes(images):
    data = images.tobytes()
    image = describe(images) | {"parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [image]}).encode()
    return head + data, str(len(head))


def as_message(images, raw):
    message = messages.ModelInferRequest(model_name="digits", id="7")
    image = message.inputs.add(**describe(images))
    if raw:
        message.raw_input_contents.append(images.tobytes())
    else:
        image.contents.fp32_contents.extend(images.ravel())
    return message


@given(IMAGES)
def test_every_form_gives_the_images_it_was_made_from(images):
    requests = [
        protocol.parse_rest(*as_json(images, images.tolist()), SHAPE),
        protocol.parse_rest(*as_json(images, images.ravel().tolist()), SHAPE),
        protocol.parse_rest(*as_bytes(images), SHAPE),
        protocol.parse_grpc(as_message(images, raw=True)),
        protocol.parse_grpc(as_message(images, raw=False)),
    ]
    for request in requests:
        found = protocol.read_images(request, SHAPE)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, images)


@given(ANY_JSON)
@example(functools.reduce(lambda inner, _: dict.fromkeys("abcd", inner), range(4), None))
def test_any_json_is_read_or_refused(message):
    bodies = [message, {"inputs": message}, {"inputs": [{"name": "image", "data": message}]}]
    image = describe(np.zeros((1, 1, SIDE, SIDE))) | {"data": [0] * 16}
    for key in (*image, "parameters"):
        bodies.append({"inputs": [image | {key: message}]})
    for key in ("id", "outputs", "parameters"):
        bodies.append({"inputs": [image], key: message})
    for body in bodies:
        try:
            request = protocol.parse_rest(json.dumps(body).encode(), None, SHAPE)
            protocol.read_images(request, SHAPE)
        except RefusedError as refusal:
            assert refusal.status == 400 and "expected" in str(refusal)
            assert len(str(refusal)) < 500


@given(IMAGES, st.integers(0, 3000), st.text(max_size=6))
def test_a_binary_body_of_another_length_is_refused(images, length, header):
    body, right = as_bytes(images)
    for wrong in (str(length), header):
        if wrong != right:
            with pytest.raises(RefusedError):
                protocol.read_images(protocol.parse_rest(body, wrong, SHAPE), SHAPE)
    for cut in (body[:-1], body + b"\0"):
        with pytest.raises(RefusedError, match="bytes"):
            protocol.read_images(protocol.parse_rest(cut, right, SHAPE), SHAPE)


@given(npst.arrays(np.float32, st.integers(1, 5).map(lambda batch: (batch, 10))))
def test_answers_hold_the_scores(scores):
    image = describe(np.zeros((1, 1, SIDE, SIDE))) | {"data": [0] * 16}
    for is_binary in (False, True):
        asked = {"id": "7", "inputs": [image], "parameters": {"binary_data_output": is_binary}}
        request = protocol.parse_rest(json.dumps(asked).encode(), None, SHAPE)
        body, headers = answers.write_rest(request, "digits", "3", scores)
        length = int(headers.get(protocol.HEADER_LENGTH, len(body)))
        answer = json.loads(body[:length])
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "3", "7")
        (output,) = answer["outputs"]
        assert (output["name"], output["shape"]) == ("scores", list(scores.shape))
        if is_binary:
            found = np.frombuffer(body[length:], "<f4").reshape(scores.shape)
            np.testing.assert_array_equal(found, scores)
        elif np.isfinite(scores).all():
            np.testing.assert_array_equal(np.array(output["data"], np.float32), scores.ravel())
    answer = answers.write_grpc(request, "digits", "3", scores)
    found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(scores.shape)
    np.testing.assert_array_equal(found, scores)
    assert (answer.id, list(answer.outputs[0].shape)) == ("7", list(scores.shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.raw_input_contents.append(b""), "2 entries for 1 inputs"),
        (lambda m: m.inputs[0].contents.fp32_contents.append(0), "contents and raw_input_contents"),
        (lambda m: m.outputs.add(name="loss"), "output 'loss' is not known"),
        (lambda m: m.raw_input_contents.pop(), "data has 0 values"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(change, message):
    asked = as_message(np.zeros((1, 1, SIDE, SIDE), np.float32), raw=True)
    change(asked)
    with pytest.raises(RefusedError, match=message):
        protocol.read_images(protocol.parse_grpc(asked), SHAPE)


def test_numbers_of_another_kind_are_refused_not_converted():
    asked = as_message(np.zeros((1, 1, SIDE, SIDE), np.float32), raw=False)
    del asked.inputs[0].contents.fp32_contents[:]
    asked.inputs[0].contents.fp64_contents.extend([0.0] * 16)
    with pytest.raises(RefusedError, match="fp64_contents; expected fp32_contents"):
        protocol.parse_grpc(asked)


def test_as_many_images_as_triton_takes():
    assert protocol.MAX_IMAGES == triton.MAX_BATCH_SIZE


def test_what_is_not_supported_is_refused_not_ignored():
    image = describe(np.zeros((1, 1, SIDE, SIDE))) | {"data": [0] * 16}
    for name in ("classification", "shared_memory_region"):
        body = {"inputs": [image], "outputs": [{"name": "scores", "parameters": {name: 3}}]}
        with pytest.raises(RefusedError, match=name):
            protocol.parse_rest(json.dumps(body).encode(), None, SHAPE)
