"""A real run, a repository made of it, and the real server in a process of its own."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from mnist_jax.data import digits
from tests.waiting import HANG_S

# Runs a module as `python -m` would, in an environment that might as well have no JAX.
WITHOUT_JAX = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"jax", "jaxlib", "flax", "optax", "orbax", "jax2onnx",
                                      "ml_collections", "tensorflow_datasets", "sklearn"}:
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
sys.argv[0] = "serve"
runpy.run_module("mnist_jax.serve", run_name="__main__", alter_sys=True)
"""


class Server:
    """The server process; leaving the context stops it, and it must stop well."""

    def __init__(
        self, path, *flags, without_jax=False, python=sys.executable, cwd=None, num_files=None
    ):
        how = ["-c", WITHOUT_JAX] if without_jax else ["-m", "mnist_jax.serve"]
        limits = ["prlimit", f"--nofile={num_files}:"] if num_files else []  # the soft one
        self.process = subprocess.Popen(
            [*limits, python, *how, str(path), "--port=0", "--grpc-port=0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Elsewhere than here, it is the installed package that is to be found.
            env={k: v for k, v in os.environ.items() if cwd is None or k != "PYTHONPATH"},
            cwd=cwd,
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reader.start()
        match = self.wait_for(r"at http://(\S+:\d+), gRPC at (\S+:\d+)")
        self.http, self.grpc = match.groups()

    def wait_for(self, pattern, num_seconds=HANG_S):
        """Returns the first match in what the server has said, once it is there."""
        end = time.monotonic() + num_seconds
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if match := re.search(pattern, "".join(self.lines)):
                return match
            assert not ended, f"the server ended: {''.join(self.lines)}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in {''.join(self.lines)}")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(HANG_S)
        self._reader.join()
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self.process.poll() is None:
            status = self.stop()
            if kind is None:
                assert status == 0, "".join(self.lines)
        self._reader.join()
        self.process.stdout.close()
        if kind is None:
            assert "Traceback" not in "".join(self.lines), "".join(self.lines)


@pytest.fixture(scope="session")
def images():
    """All 1,797 embedded digits, `[batch, 1, 28, 28]`, 0 to 1."""
    pixels = digits.upscale(load_digits().images.astype(np.uint8))
    return pixels[:, None].astype(np.float32) / np.float32(255)


@pytest.fixture(scope="session")
def run(released):
    """The folder of a released run on the digits."""
    return released / "run"


PHOTOGRAPHS = {
    "\u4e2d\u56fd": "china.jpg",
    "\u0446\u0432\u0435\u0442\u043e\u043a <b>": "flower.jpg",
}


@pytest.fixture(scope="session")
def photographs(made_once):
    """Pieces of two photographs in many sizes, in `train` and `test`, a class each."""

    def make(folder):
        random = np.random.default_rng(0)
        for name, photograph in PHOTOGRAPHS.items():
            whole = Image.fromarray(load_sample_image(photograph))
            for split, count in (("train", 40), ("test", 12)):
                (folder / split / name).mkdir(parents=True)
                for index in range(count):
                    width, height = (int(size) for size in random.integers(20, 90, 2))
                    left, top = random.integers(0, 640 - width), random.integers(0, 427 - height)
                    piece = whole.crop((left, top, left + width, top + height))
                    piece.save(folder / split / name / f"{index}.jpg")

    return made_once("photographs", make)


@pytest.fixture(scope="session")
def own_run(trained_once, photographs, linear_network):
    """The folder of a released run on the photographs, in colour, 24 pixels a side, cropped."""
    flags = [f"--data={photographs}", f"--model-id={linear_network}", "--image-side=24"]
    flags += ["--config.fit=crop", "--epochs=2", "--batch-size=8", "--skip-visualizations"]
    flags += ["--min-per-class-accuracy=0", "--export_format=onnx", "--max-inference-time-ms=1000"]
    return trained_once("own", *flags) / "run"


@pytest.fixture(scope="session")
def models(run):
    """The content of two ONNX files of the same interface with different scores."""
    first = (run / "models" / "mnist_model.onnx").read_bytes()
    model = onnx.load_from_string(first)
    for array in model.graph.initializer:
        if array.dims[-1:] == [10]:  # each class gets the score of the one before
            changed = np.roll(numpy_helper.to_array(array), 1, axis=-1)
            array.CopyFrom(numpy_helper.from_array(changed, array.name))
    return first, model.SerializeToString()


@pytest.fixture(scope="session")
def make_model():
    """Writes a model: `make_model(path, shape, classes, **metadata)` returns the path."""
    return write_model


def write_model(path, shape, classes, **metadata):
    """Writes a linear network with random weights."""
    size = int(np.prod(shape))
    weights = np.random.default_rng(0).normal(size=(size, classes)).astype(np.float32) / size
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])],
        [helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def serve():
    """Starts a server: `with serve(path, *flags) as server`."""
    return Server


@pytest.fixture(scope="session")
def expected(models, images):
    """The scores of all images by version, from ONNX Runtime itself."""
    scores = {}
    for number, model in enumerate(models, 1):
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        scores[str(number)] = session.run(["scores"], {"image": images})[0]
    assert np.abs(scores["1"] - scores["2"]).max(axis=1).min() > 1e-3
    return scores


@pytest.fixture(scope="session")
def publish():
    return publish_version


@pytest.fixture(scope="session")
def promote():
    return promote_version


def publish_version(
    repository: Path, name: str, number: int, model: bytes, damage=b"", labels="0123456789"
) -> Path:
    """Puts a version where Triton and the server look for it, whole, by one rename."""
    files = {
        "model.onnx": model,
        "labels.txt": "".join(f"{label}\n" for label in labels).encode(),
        "version": b"%d\n" % number,
    }
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    entries = {path: {"sha256": digest} for path, digest in sums.items()}
    manifest = {"name": name, "version": number, "files": entries}
    files["manifest.json"] = json.dumps(manifest).encode()
    sums["manifest.json"] = hashlib.sha256(files["manifest.json"]).hexdigest()
    files["SHA256SUMS"] = "".join(f"{sum_}  {path}\n" for path, sum_ in sums.items()).encode()
    hidden, folder = repository / name / f".{number}", repository / name / str(number)
    hidden.mkdir(parents=True)
    for path, content in files.items():
        (hidden / path).write_bytes(content + (damage if path == "model.onnx" else b""))
    return hidden.rename(folder)


def promote_version(repository: Path, name: str, number: int) -> None:
    """Makes a version the champion, by one rename."""
    hidden = repository / name / ".serving"
    hidden.symlink_to(str(number))
    hidden.rename(repository / name / "serving")
    if not (repository / name / "champion").exists():
        (repository / name / "champion").symlink_to("serving/version")


@pytest.fixture
def repository(tmp_path, models):
    """`digits` in two versions, of which the first is the champion."""
    for number, model in enumerate(models, 1):
        publish_version(tmp_path / "repository", "digits", number, model)
    promote_version(tmp_path / "repository", "digits", 1)
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    """A server of `digits`, as `repository` has it, which a module's tests share."""
    folder = tmp_path_factory.mktemp("shared")
    for number, model in enumerate(models, 1):
        publish_version(folder, "digits", number, model)
    promote_version(folder, "digits", 1)
    with Server(folder, without_jax=True) as server:
        yield server
