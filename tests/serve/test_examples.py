"""Each example, run as its first line says, against the real server."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.waiting import HANG_S

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENTS = {
    "http_client.py": ([sys.executable], "http", "images.npy"),
    "grpc_client.py": ([sys.executable], "grpc", "images.npy"),
    "client.mjs": (["node"], "http", "request.json"),
    "client.sh": ([], "http", "request.json"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    subprocess.run([sys.executable, EXAMPLES / "images.py", folder], check=True)
    return folder


def answer(server, files, name):
    program, way, file = CLIENTS[name]
    command = [*program, EXAMPLES / name, getattr(server, way), "digits", files / file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run():
    # tests/models/test_own_networks.py and tests/release/test_prove.py run the last two.
    run = {*CLIENTS, "images.py", "own_network.py", "prove_own_training.py"}
    assert {path.name for path in EXAMPLES.iterdir()} - {"__pycache__"} == run


@pytest.mark.parametrize("name", [name for name in CLIENTS if name != "client.sh"])
def test_an_example_prints_each_image_s_class_and_score(server, files, expected, name):
    scores = expected["1"][:100]
    lines = [line.split() for line in answer(server, files, name).splitlines()]
    assert [int(label) for label, _ in lines] == scores.argmax(axis=1).tolist()
    printed = [float(score) for _, score in lines]
    np.testing.assert_allclose(printed, scores.max(axis=1), atol=6e-5)


def test_curl_prints_all_scores(server, files, expected):
    (output,) = json.loads(answer(server, files, "client.sh"))["outputs"]
    scores = np.array(output["data"]).reshape(output["shape"])
    np.testing.assert_allclose(scores, expected["1"][:100], atol=1e-6)
