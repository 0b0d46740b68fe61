"""Requests that nobody thought of: none fails the server, stops it or hangs it."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from tritonclient.grpc import service_pb2 as messages

INFER = "/v2/models/digits/infer"
FAILURES = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


def fuzz_with_schemathesis(server, num_examples, tmp_path):
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("run", f"http://{server.http}/openapi.json", "--checks=all", "--seed=1"),
            *(f"--max-examples={num_examples}", "--no-color"),
            # The schema cannot say that there must be as many values as the shape says.
            "--exclude-checks=positive_data_acceptance",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_schemathesis_finds_nothing(server, tmp_path):
    fuzz_with_schemathesis(server, 5, tmp_path)


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_many(server, tmp_path):
    fuzz_with_schemathesis(server, 100, tmp_path)


def damage(content, draw):
    """Returns bytes with something wrong: other bytes, some missing, some twice, or all random."""
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(draw.randrange(200))
    content = bytearray(content)
    start = draw.randrange(len(content) + 1)
    if kind == 1:
        return bytes(content[:start])
    if kind == 2:
        return bytes(content[:start] + content[draw.randrange(start, len(content) + 1) :])
    if kind == 3:
        return bytes(content[:start] + draw.randbytes(draw.randrange(20)) + content[start:])
    for _ in range(draw.randrange(1, 8)):
        content[draw.randrange(min(len(content), draw.choice((150, 1 << 20))))] = draw.randrange(
            256
        )
    return bytes(content)


def make_rest_body(draw):
    pixels = np.random.default_rng(draw.randrange(1 << 30)).random((1, 784), np.float32).tobytes()
    header = (
        b'{"id":"a","parameters":{"binary_data_output":true},"inputs":[{"name":"image",'
        b'"datatype":"FP32","shape":[1,1,28,28],"parameters":{"binary_data_size":3136}}]}'
    )
    length = draw.choice((len(header), draw.randrange(400), draw.randrange(1 << 40), "-1", "x"))
    headers = {"Inference-Header-Content-Length": str(length)} if draw.random() < 0.9 else {}
    return headers, damage(header, draw) + damage(pixels, draw) if length else header + pixels


def make_grpc_message(draw):
    message = messages.ModelInferRequest(model_name="digits", model_version=draw.choice(("", "1")))
    shape = [draw.choice((-1, 1, 2, 1 << 62)), 1, 28, draw.choice((28, 28, 0))]
    image = message.inputs.add(name="image", datatype=draw.choice(("FP32", "INT8")), shape=shape)
    if draw.random() < 0.3:
        image.contents.fp32_contents.extend([draw.choice((0.0, 2.0, float("nan")))] * 784)
    if draw.random() < 0.8:
        message.raw_input_contents.append(draw.randbytes(draw.choice((0, 3, 3136))))
    content = message.SerializeToString()
    return content if draw.random() < 0.3 else damage(content, draw)


def ask_rest(server, number, draw, seen):
    with urllib3.HTTPConnectionPool(server.http, retries=False, timeout=20) as pool:
        for _ in range(number):
            headers, body = make_rest_body(draw)
            answer = pool.request("POST", INFER, body=body, headers=headers)
            seen.append(answer.status)


def ask_grpc(server, number, draw, seen):
    with grpc.insecure_channel(server.grpc) as channel:
        calls = [
            channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            for name in ("ModelInfer", "ModelInfer", "ModelMetadata", "RepositoryIndex")
        ]
        for _ in range(number):
            try:
                draw.choice(calls)(make_grpc_message(draw), timeout=20)
                seen.append(200)
            except grpc.RpcError as error:
                seen.append(error.code())


def send_damaged(server, ask, number):
    """Sends bodies from four threads, and returns the statuses of all answers."""
    seen = []
    threads = [
        threading.Thread(target=ask, args=(server, number // 4, random.Random(seed), seen))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == number // 4 * 4
    return set(seen)


def check_damaged(server, number):
    assert send_damaged(server, ask_rest, number) <= {200, 400, 404}
    statuses = send_damaged(server, ask_grpc, number)
    assert grpc.StatusCode.INVALID_ARGUMENT in statuses and not statuses & FAILURES
    assert statuses <= {200, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_damaged_bodies_fail_nothing(server):
    check_damaged(server, 400)


@pytest.mark.slow
def test_ten_thousand_damaged_bodies_fail_nothing(server):
    check_damaged(server, 10_000)
