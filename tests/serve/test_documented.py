"""docs/deploy.md against the server: each path and method of its tables, each of its numbers."""

import re
from pathlib import Path

import grpc
import pytest

from mnist_jax.serve import batching, connections, protocol, reading, rpc
from mnist_jax.serve import server as program
from tests.serve.raw import BODY
from tests.serve.test_agreement import over_rest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


def table(heading):
    """The rows of the first table below a heading, as lists of cells."""
    lines = DOCUMENT.partition(f"### {heading}\n")[2].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("| "))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("| "):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


PROTOCOL = table("The Open Inference Protocol, point by point")
METHODS = sorted(
    {name for _, _, cell, _ in PROTOCOL for name in re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", cell)}
)


def spelt_out(path):
    """A path with and without what stands in brackets, for a model that is there."""
    if inner := re.search(r"\[([^\[\]]*)\]", path):
        before, after = path[: inner.start()], path[inner.end() :]
        return spelt_out(before + after) + spelt_out(before + inner[1] + after)
    return [path.replace("/M", "/digits").replace("/V", "/1")]


REST = sorted(
    {
        (verb, path)
        for _, cell, _, _ in PROTOCOL
        for verb, form in re.findall(r"`(GET|POST) ([^` ]+)`", cell)
        for path in spelt_out(form)
    }
)


def test_the_table_names_what_the_protocol_has():
    assert len(REST) >= 12 and ("POST", "/v2/models/digits/versions/1/infer") in REST
    assert {"ServerLive", "ServerReady", "ServerMetadata", "ModelReady"} < set(METHODS)
    assert {"ModelMetadata", "ModelInfer", "RepositoryIndex", "ModelStatistics"} < set(METHODS)


@pytest.mark.parametrize(("verb", "path"), REST)
def test_every_path_of_the_table_is_answered(server, verb, path):
    body = {"GET": None, "POST": BODY if path.endswith("/infer") else b""}[verb]
    assert over_rest(server, path, body)[0] == 200


def call(server, name):
    """The status of a call with an empty message, as gRPC names it."""
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            channel.unary_unary(f"/{rpc.SERVICE}/{name}")(b"", timeout=20)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_table_is_answered(server, name):
    found = call(server, name)
    if name in ("ModelMetadata", "ModelInfer"):
        assert found == grpc.StatusCode.NOT_FOUND  # they name no model
    else:
        assert found == grpc.StatusCode.OK


def test_what_the_table_leaves_out_is_not_there(server):
    model = "/v2/models/digits"
    for path in (
        f"{model}/trace/setting",
        f"{model}/generate",
        f"{model}/config",
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/status",
    ):
        assert over_rest(server, path)[0] == 404
    for verb in ("load", "unload"):
        assert over_rest(server, f"/v2/repository/models/digits/{verb}", b"{}")[0] == 404
    for name in (
        "ModelStreamInfer",
        "ModelConfig",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryStatus",
        "TraceSetting",
        "LogSettings",
    ):
        assert call(server, name) == grpc.StatusCode.UNIMPLEMENTED


KIB, MIB = 1 << 10, 1 << 20
LIMITS = {
    "HTTP connections": [connections.MAX_CONNECTIONS],
    "a connection without a request": [connections.MAX_HEAD_S, program.KEEP_ALIVE_S],
    "request line and headers": [
        connections.MAX_HEAD_BYTES / KIB,
        connections.MAX_HEADERS,
        connections.MAX_HEAD_S,
    ],
    "trailers, chunk extensions, empty lines": [connections.MAX_HEAD_BYTES / KIB],
    "requests on a connection that wait for the answer to another": [connections.MAX_PIPELINED],
    "an offer to upgrade to HTTP/2 or WebSocket": [],
    "a body": [protocol.MAX_BODY_BYTES / MIB, connections.MAX_BODY_S],
    "bodies over 64 KiB that are read at a time": [reading.MAX_LARGE, reading.MAX_WAIT_S],
    "images in a request": [protocol.MAX_IMAGES],
    "values in JSON": [protocol.MAX_IMAGES, protocol.MAX_OTHER_VALUES],
    "parameters of a tensor": [protocol.MAX_PARAMETERS],
    "images that wait, of one version": [batching.MAX_WAITING_BYTES / MIB, batching.MAX_WAIT_S],
    "an answer that the client does not read": [connections.MAX_UNREAD_S],
    "a gRPC message": [rpc.MAX_MESSAGE_BYTES / MIB],
    "gRPC calls at a time": [rpc.MAX_CALLS],
}


def test_the_limits_are_the_code_s():
    rows = table("Limits")
    assert [row[0] for row in rows] == list(LIMITS)
    for name, limit, _ in rows:
        found = [float(number) for number in re.findall(r"\d+", limit)]
        if name == "bodies over 64 KiB that are read at a time":
            assert reading.MAX_QUICK_BYTES == 64 * KIB
        assert found == LIMITS[name], name
