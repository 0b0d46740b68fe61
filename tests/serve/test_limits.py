"""What takes its time: slow clients, a hundred thousand requests, a clean environment."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from benchmarks import serving_load

ROOT = Path(__file__).parents[2]


def test_a_connection_without_a_request_is_closed(serve, repository):
    with serve(repository) as server:
        host, port = server.http.split(":")
        start = time.monotonic()
        with (
            socket.create_connection((host, int(port)), 30) as silent,
            socket.create_connection((host, int(port)), 30) as slow,
        ):
            slow.sendall(b"GET /v2 HTTP/1.1\r\nHost:")
            assert silent.recv(10) == slow.recv(10) == b""
        assert 8 < time.monotonic() - start < 25


def resident_mb(process_id):
    text = Path(f"/proc/{process_id}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_memory_is_flat_over_100_000_requests(serve, run):
    questions = serving_load.make_questions(
        run / "models" / "mnist_model.onnx", "digits_v1", (1, 1, 1, 4, 16)
    )
    with serve(run) as server:
        port = int(server.http.split(":")[1])

        def ask(num_requests):
            done = 0
            while done < num_requests:
                done += asyncio.run(
                    serving_load.load((server.process.pid, port), questions, 16, 5)
                )["requests"]
            return resident_mb(server.process.pid)

        after = [ask(10_000) for _ in range(10)]
    # The first ten thousand fill pools and caches.
    assert max(after[1:]) - after[0] < 10, after


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("with_base", [True, False], ids=["extra", "image"])
def test_a_clean_environment_serves_without_importing_jax(tmp_path, serve, run, with_base):
    """Once by `pip install .[serve]`, once as Dockerfile.serve does, where there is no JAX."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)

    def install(*arguments):
        # The interpreter behind this environment has pip; this environment need not.
        pip = [sys.base_prefix + "/bin/python3", "-m", "pip", "--python", python, "install", "-q"]
        constraints = ["--constraint", ROOT / "constraints.txt"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([*pip, *constraints, *arguments], check=True, env=environment)

    if with_base:
        install(f"{ROOT}[serve]")
    else:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        install(*project["optional-dependencies"]["serve"])
        install("--no-deps", str(ROOT))
    with serve(run, without_jax=True, python=python, cwd=tmp_path) as server:
        with urllib.request.urlopen(f"http://{server.http}/v2/models/digits_v1") as answer:
            assert json.loads(answer.read())["versions"] == ["1"]
        with urllib.request.urlopen(f"http://{server.http}/") as answer:
            assert b"<canvas" in answer.read()
    found = subprocess.run([python, "-c", "import jax"], capture_output=True)
    assert (found.returncode == 0) == with_base
