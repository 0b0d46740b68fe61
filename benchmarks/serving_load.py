"""Loads the real server from another process, checks every answer, and times them.

    scripts/install serve
    .venv/bin/python -m benchmarks.serving_load RUN_DIR [--seconds 30] [--rounds 1] [--json FILE]

Connections that each ask again as soon as they are answered, over HTTP on loopback, binary tensors:
once single images, once requests of 1 to 64 images. Servers with micro-batching and without answer
side by side in turn, so that a machine whose speed drifts drifts for both; the client takes its
part of the processor. An answer that is missing, refused or off by more than 1e-6 ends it all.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import uvloop
from sklearn.datasets import load_digits

from mnist_jax.data.digits import upscale

CONNECTIONS = (8, 32, 128)
LOADS = {"1 image": (1,), "1 to 64 images": (1, 1, 1, 1, 4, 4, 16, 64)}
SERVERS = {"micro-batching": [], "each alone": ["--micro-batch=1"]}
NUM_REQUESTS = 200  # different ones, for each load
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Question:
    """A request as it goes over the wire, and the scores that must come back."""

    content: bytes
    scores: np.ndarray


def make_questions(model: Path, name: str, sizes: Sequence[int]) -> list[Question]:
    """Returns requests for the embedded digits, with the answers of ONNX Runtime itself."""
    images = upscale(load_digits().images.astype(np.uint8))[:, None].astype(np.float32) / 255
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = np.asarray(session.run(["scores"], {"image": images})[0])
    draw = np.random.default_rng(0)
    questions = []
    for _ in range(NUM_REQUESTS):
        size = int(draw.choice(sizes))
        start = int(draw.integers(len(images) - size))
        data = images[start : start + size].astype("<f4").tobytes()
        image = {"name": "image", "datatype": "FP32", "shape": [size, 1, 28, 28]}
        image["parameters"] = {"binary_data_size": len(data)}
        head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [image]}).encode()
        content = (
            f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: localhost\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n"
            f"Content-Length: {len(head) + len(data)}\r\n\r\n"
        ).encode()
        questions.append(Question(content + head + data, scores[start : start + size]))
    return questions


async def ask(port: int, questions: list[Question], end: float, seed: int) -> list[float]:
    """Asks on one connection until `end`; returns the milliseconds that each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    order = np.random.default_rng(seed).integers(len(questions), size=1 << 14).tolist()
    times_ms: list[float] = []
    while (start := time.perf_counter()) < end:
        question = questions[order[len(times_ms) % len(order)]]
        writer.write(question.content)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        assert head.startswith(b"HTTP/1.1 200 ") and length is not None, head
        body = await reader.readexactly(int(length[1]))
        times_ms.append((time.perf_counter() - start) * 1000)
        found = np.frombuffer(body[-question.scores.nbytes :], "<f4")
        difference = np.abs(found - question.scores.ravel()).max()
        assert difference <= TOLERANCE, f"scores are off by {difference}"
    writer.close()
    await writer.wait_closed()
    return times_ms


def processor_seconds(process_id: int) -> float:
    """Returns the processor time that a process has used in all its threads (Linux)."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(
    server: tuple[int, int], questions: list[Question], num_connections: int, seconds: float
) -> dict[str, float]:
    """Returns requests in a second, their milliseconds, and the processor time of each."""
    process_id, port = server
    start, used = time.perf_counter(), processor_seconds(process_id)
    clients = [ask(port, questions, start + seconds, seed) for seed in range(num_connections)]
    times_ms = np.concatenate(await asyncio.gather(*clients))
    return {
        "requests": len(times_ms),
        "requests_per_s": len(times_ms) / (time.perf_counter() - start),
        "cpu_ms_per_request": (processor_seconds(process_id) - used) * 1000 / len(times_ms),
        **{f"p{percent}_ms": float(np.percentile(times_ms, percent)) for percent in (50, 99)},
    }


@contextmanager
def serve(path: Path, flags: list[str]) -> Iterator[tuple[int, int]]:
    """Runs a server in a process of its own; gives its id and its port once it answers."""
    command = [sys.executable, "-m", "mnist_jax.serve", str(path), "--port=0", "--grpc-port=0"]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            ready = (re.search(r"at http://\S+:(\d+)", line) for line in server.stdout)
            yield server.pid, int(next(match for match in ready if match)[1])
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="the folder of a run on any data set")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    run_config = json.loads((options.run_dir / "logs" / "config.json").read_text())
    model = options.run_dir / "models" / "mnist_model.onnx"
    rows = []
    print("| load | connections | server | requests/s | p50 ms | p99 ms | CPU ms each |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serve(options.run_dir, flags))
            for name, flags in SERVERS.items()
        }
        for load_name, sizes in LOADS.items():
            questions = make_questions(model, run_config["dataset"]["dataset_id"], sizes)
            for num_connections, round_number, name in itertools.product(
                CONNECTIONS, range(options.rounds), SERVERS
            ):
                run = uvloop.run(load(servers[name], questions, num_connections, options.seconds))
                print(
                    f"| {load_name} | {num_connections} | {name} | {run['requests_per_s']:,.0f} | "
                    f"{run['p50_ms']:.1f} | {run['p99_ms']:.1f} | "
                    f"{run['cpu_ms_per_request']:.2f} |",
                    flush=True,
                )
                row = {"load": load_name, "connections": num_connections, "server": name}
                rows.append(row | {"round": round_number} | run)
    total = sum(row["requests"] for row in rows)
    print(f"\n{total:,} answers, every one right; {os.cpu_count()} cores, {platform.machine()}")
    if options.json:
        versions = {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__}
        options.json.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
