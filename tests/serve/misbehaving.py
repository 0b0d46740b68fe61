"""Eight clients of one kind, in a process of their own: what they cost is not the others' time.

    python -m tests.serve.misbehaving KIND HTTP_ADDRESS GRPC_ADDRESS

Says "ready", waits for a line with the seconds to run, and ends with a line of JSON: what `behave`
got, as pairs of seconds and status.
"""

import contextlib
import http.client
import json
import sys
import threading
import time
from types import SimpleNamespace

import grpc

from tests.serve.raw import BODY, INFER, connect, post

NUM_CLIENTS = 8
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
GRPC_KINDS = {
    "no model": b"",
    "a model": b"\x0a\x06digits",
}
SLOW = {"slow chunks", "half-sent body"}
GOOD = "behaves"


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


def misbehave_over_grpc(server, kind, end):
    message = GRPC_KINDS[kind] + b"\x2a\x00" * (500 << 10)  # a megabyte of empty inputs
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        while time.monotonic() < end:
            with contextlib.suppress(grpc.RpcError):
                infer(message, timeout=10)
            time.sleep(0.1)


def behave(server, end, answers):
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(server.http, timeout=20)
        try:
            for method, path, body in (
                ("POST", INFER, BODY),
                ("GET", "/v2/health/live", None),
                ("GET", "/v2/health/ready", None),
            ):
                start = time.monotonic()
                connection.request(method, path, body)
                answer = connection.getresponse()
                answers.append((time.monotonic() - start, answer.status))
                answer.read()
        finally:
            connection.close()
        time.sleep(0.05)


def main(kind, http_address, grpc_address):
    server, answers = SimpleNamespace(http=http_address, grpc=grpc_address), []
    print("ready", flush=True)
    end = time.monotonic() + float(sys.stdin.readline())
    if kind == GOOD:
        target, arguments = behave, (server, end, answers)
    elif kind in KINDS:
        target, arguments = misbehave, (server, kind, end)
    else:
        target, arguments = misbehave_over_grpc, (server, kind, end)
    threads = [threading.Thread(target=target, args=arguments) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
