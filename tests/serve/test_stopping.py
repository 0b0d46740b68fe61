"""SIGTERM and Ctrl-C at any moment: both ways in end together, and soon."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.serve.raw import connect, exchange, post, read_all
from tests.test_terminals import TAKE_TERMINAL
from tests.waiting import HANG_S

SOON_S = 10


def test_a_signal_just_after_it_serves_ends_it(repository):
    for attempt in range(4):
        command = [sys.executable, "-m", "mnist_jax.serve", str(repository)]
        with subprocess.Popen(
            [*command, "--port=0", "--grpc-port=0"], stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout:
                if "serving" in line:
                    break
            time.sleep(attempt * 0.02)
            process.send_signal(signal.SIGTERM if attempt % 2 else signal.SIGINT)
            try:
                assert process.wait(SOON_S) == 0
            finally:
                process.kill()


def test_a_terminal_that_goes_away_ends_nothing(repository):
    """SIGHUP comes, and what the access log writes goes nowhere."""
    leader, terminal = pty.openpty()
    command = [sys.executable, "-m", "mnist_jax.serve", str(repository), "--access-log"]
    with subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command, "--port=0", "--grpc-port=0"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
    ) as process:
        try:
            os.close(terminal)
            said = b""
            while not (found := re.search(rb"at http://(\S+:\d+), gRPC at \S+:\d+; ", said)):
                said += os.read(leader, 1 << 16)
            os.close(leader)
            server = SimpleNamespace(http=found[1].decode())
            for _ in range(3):
                assert exchange(server, post("Connection: close")) == [200]
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON_S) == 0
        finally:
            process.kill()


def test_half_sent_and_unread_requests_do_not_hold_up_the_end(serve, repository):
    with serve(repository) as server, contextlib.ExitStack() as stack:
        half_sent = [post()[:400], post()[:10], b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", b""]
        connections = [stack.enter_context(connect(server)) for _ in half_sent]
        for connection, content in zip(connections, half_sent, strict=True):
            connection.sendall(content)
        time.sleep(0.5)
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < SOON_S
    assert "Traceback" not in "".join(server.lines)


def test_both_ways_in_say_at_once_that_they_are_not_ready(serve, repository):
    with (
        serve(repository) as server,
        connect(server) as held,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        held.sendall(post()[:400])  # keeps the server from ending at once
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert time.monotonic() - start < 1
        time.sleep(max(0, 1 - (time.monotonic() - start)))
        with pytest.raises(OSError):
            exchange(server, b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        held.sendall(post()[400:])
        assert read_all(held).startswith(b"HTTP/1.1 200 ")
        server.process.wait(SOON_S)


@pytest.mark.parametrize("name", ["model.onnx", "SHA256SUMS", "labels.txt", "more"])
def test_a_pipe_in_a_version_s_folder_stops_neither_reload_nor_the_end(serve, repository, name):
    with serve(repository) as server:
        path = repository / "digits" / "2" / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        if name == "SHA256SUMS":  # without it, it is no version
            server.wait_for("version|digits")
        else:
            server.wait_for(f"{name}.* is not a regular file|{name} is not among the files")
        (repository / "digits" / "champion").unlink()
        (repository / "digits" / "champion").symlink_to("/dev/zero")
        server.wait_for(r"champion cannot be read")
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < SOON_S


def test_a_host_that_is_none_is_named(repository):
    for host in ("nosuch.invalid", "192.0.2.1"):
        done = subprocess.run(
            [sys.executable, "-m", "mnist_jax.serve", repository, f"--host={host}"],
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert done.returncode == 2
        assert re.search(f"--host {host} is not an address of this machine", done.stderr), (
            done.stderr
        )
