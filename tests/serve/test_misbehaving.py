"""Eight misbehaving clients of each kind at once; eight others get every answer in time."""

import contextlib
import http.client
import threading
import time

import grpc
import pytest

from tests.serve.raw import BODY, INFER, connect, post, resident_mb

HEAD = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = b'{"inputs":[' + b"[]," * ((4 << 20) // 3 - 10) + b"1]}"
# What is sent first, and then again and again.
KINDS = {
    "upgrade with a hidden request": (
        b"",
        post("Connection: Upgrade", "Upgrade: h2c", body=HEAD + b"\r\n"),
    ),
    "trailers": (CHUNKED + b"0\r\n", b"x: " + b"y" * 1000 + b"\r\n"),
    "chunk extension": (CHUNKED + b"1;", b"y" * 4096),
    "headers": (HEAD, b"x: y\r\n" * 50),
    "slow chunks": (CHUNKED, b"1\r\na\r\n"),
    "large bodies": (b"", post(body=BIG)),
    "half-sent body": (post()[:400], b""),
    "reads nothing": (b"", (HEAD + b"\r\n") * 100),
}
SECONDS = 10
SLOW = {"slow chunks", "half-sent body"}


def misbehave(server, kind, end):
    start, more = KINDS[kind]
    while time.monotonic() < end:
        with contextlib.suppress(OSError), connect(server, 2) as connection:
            connection.sendall(start)
            while time.monotonic() < end:
                connection.sendall(more)
                if kind in SLOW:
                    time.sleep(0.2)
                elif kind == "large bodies":
                    connection.recv(1 << 16)
        time.sleep(0.1)  # these are eight clients, not a flood of connections


def misbehave_over_grpc(server, end):
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        while time.monotonic() < end:
            with contextlib.suppress(grpc.RpcError):
                infer(b"\x2a\x00" * (500 << 10), timeout=10)  # a megabyte of empty inputs
            time.sleep(0.1)


def behave(server, end, seconds):
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(server.http, timeout=20)
        try:
            for method, path, body in (("POST", INFER, BODY), ("GET", "/v2/health/live", None)):
                start = time.monotonic()
                connection.request(method, path, body)
                answer = connection.getresponse()
                seconds.append((time.monotonic() - start, answer.status))
                answer.read()
        finally:
            connection.close()
        time.sleep(0.05)


@pytest.mark.slow
def test_eight_of_each_kind_at_once_do_not_disturb_eight_others(server):
    before, end, seconds = resident_mb(server), time.monotonic() + SECONDS, []
    bad = [
        threading.Thread(target=misbehave, args=(server, kind, end))
        for kind in KINDS
        for _ in range(8)
    ]
    bad += [threading.Thread(target=misbehave_over_grpc, args=(server, end)) for _ in range(8)]
    good = [threading.Thread(target=behave, args=(server, end, seconds)) for _ in range(8)]
    peak = 0.0
    for thread in (*bad, *good):
        thread.start()
    while any(thread.is_alive() for thread in good):
        peak = max(peak, resident_mb(server))
        time.sleep(0.2)
    for thread in (*bad, *good):
        thread.join()
    slowest = max(taken for taken, _ in seconds)
    print(f"{len(seconds)} answers, slowest {slowest:.2f} s, {before:.0f} to {peak:.0f} MB")
    assert {status for _, status in seconds} == {200}
    assert len(seconds) > 8 * 4 and slowest < 5
    assert peak - before < 400, (before, peak)
