"""Weights from elsewhere, to a verdict: the same answers, or one line that says what is wrong."""

import shutil

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from tritonclient.http import InferenceServerClient, InferInput

from mnist_jax import data, reexport
from mnist_jax.card import model_card
from mnist_jax.files import read_json, sha256
from mnist_jax.release import compare
from mnist_jax.repository import publish
from mnist_jax.run import folder as run_folder
from mnist_jax.studies import import_weights
from tests.serve.conftest import Server

EASY = ["--min-test-accuracy=0.1", "--min-per-class-accuracy=0", "--max-inference-time-ms=1000"]


def flags(released, run_dir):
    places = [f"--data-dir={released / 'data'}", f"--output-dir={run_dir}"]
    network = ["--model-id=mnist_cnn_v1", "--dataset-id=digits_v1", "--licence=MIT"]
    return [*network, *places, *EASY, "-q", "--skip-visualizations"]


def num_right(run_dir, released):
    """Counts by ONNX Runtime alone."""
    dataset = data.prepare("digits_v1", released / "data", None)
    test = data.read(dataset, "test")
    session = onnxruntime.InferenceSession(run_dir / "models" / "mnist_model.onnx")
    (scores,) = session.run(None, {"image": test.images[:, None].astype(np.float32) / 255})
    return int((scores.argmax(1) == test.labels).sum())


@pytest.fixture(scope="module")
def of_torch(released, tmp_path_factory):
    """The released weights as PyTorch would have them, and the normalisation of the images."""
    ours = load_file(released / "run" / "models" / "mnist_model.safetensors")
    arrays = {}
    for name, theirs in {"conv1": "conv1", "conv2": "conv2"}.items():
        kernel = ours[f"params/{name}/kernel"].transpose(3, 2, 0, 1)
        arrays[f"{theirs}.weight"] = np.ascontiguousarray(kernel)
        arrays[f"{theirs}.bias"] = ours[f"params/{name}/bias"]
    for name, theirs in {"dense1": "fc1", "dense2": "fc2"}.items():
        arrays[f"{theirs}.weight"] = np.ascontiguousarray(ours[f"params/{name}/kernel"].T)
        arrays[f"{theirs}.bias"] = ours[f"params/{name}/bias"]
    path = tmp_path_factory.mktemp("torch") / "cnn.safetensors"
    save_file(arrays, path)
    mean, std = (float(ours[f"model_state/image_{name}"]) for name in ("mean", "std"))
    return path, [f"--input-mean={mean!r}", f"--input-std={std!r}"]


def test_the_same_weights_from_elsewhere_are_the_same_model(released, of_torch, tmp_path):
    path, normalisation = of_torch
    run_dir = tmp_path / "run"
    arguments = [str(path), *flags(released, run_dir), *normalisation, "--source=a friend"]
    assert import_weights.main(arguments) == 0
    assert num_right(run_dir, released) == num_right(released / "run", released)
    imported = read_json(run_dir / "logs" / "config.json")["imported"]
    assert imported["sha256"] == sha256(path)
    assert (imported["licence"], imported["source"]) == ("MIT", "a friend")
    card = (run_dir / "model_card" / "mnist_model_card.md").read_text()
    assert "training | not known" in card
    assert "nor whether the" in card and "license: mit" in card and imported["sha256"] in card
    # What follows a training follows an import.
    assert reexport.main([str(run_dir)]) == 0
    repository = tmp_path / "repository"
    assert publish.main([str(run_dir), f"--repository={repository}"]) == 0
    dataset = data.prepare("digits_v1", released / "data", None)
    images = data.read(dataset, "test").images[:100, None].astype(np.float32) / 255
    expected = compare.score(
        released / "run" / "models" / "mnist_model.onnx", images[:, 0, ..., None]
    )
    for path in (run_dir, repository):
        with Server(path) as server, InferenceServerClient(server.http) as client:
            image = InferInput("image", list(images.shape), "FP32")
            image.set_data_from_numpy(images)
            scores = client.infer("digits_v1", [image]).as_numpy("scores")
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_an_import_without_its_card_is_not_finished(released, tmp_path, monkeypatch):
    write = model_card.write

    def write_a_killed_run_s(run_dir):
        shutil.copytree(run_dir, tmp_path / "killed")  # what kill -9 would leave
        write(run_dir)

    weights = str(released / "run" / "models" / "mnist_model.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr(model_card, "write", write_a_killed_run_s)
        arguments = [*flags(released, tmp_path / "run"), "--export_format=safetensors"]
        assert import_weights.main([weights, *arguments]) == 1  # there is no ONNX file to judge
    assert run_folder.is_finished(tmp_path / "run")
    assert not run_folder.is_finished(tmp_path / "killed")
    arguments = [*flags(released, tmp_path / "killed"), "--export_format=safetensors"]
    assert import_weights.main([weights, *arguments]) == 1
    assert run_folder.is_finished(tmp_path / "killed")
    assert (tmp_path / "killed" / "model_card" / "mnist_model_card.md").is_file()


def test_safetensors_of_this_project_come_back(released, tmp_path):
    weights = released / "run" / "models" / "mnist_model.safetensors"
    assert import_weights.main([str(weights), *flags(released, tmp_path / "run")]) == 0
    assert num_right(tmp_path / "run", released) == num_right(released / "run", released)


def test_a_network_trained_in_pytorch_answers_alike(released, tmp_path):
    torch = pytest.importorskip("torch", reason="the extra `bench` is not installed")
    nn = torch.nn
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
            self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

        def forward(self, x):
            x = nn.functional.max_pool2d(self.conv2(self.conv1(x).relu()).relu(), 2)
            return self.fc2(self.fc1(x.flatten(1)).relu())

    dataset = data.prepare("digits_v1", released / "data", None)

    def split(name):
        images, labels = data.read(dataset, name)
        pixels = torch.from_numpy(images[:, None].astype(np.float32) / 255)
        return (pixels - 0.1307) / 0.3081, torch.from_numpy(labels.astype(np.int64))

    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    images, labels = split("train")
    for batch in torch.arange(len(labels) // 64 * 64).reshape(-1, 64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
    images, labels = split("test")
    with torch.inference_mode():
        num_right_there = int((net(images).argmax(1) == labels).sum())
    torch.save(net.state_dict(keep_vars=True), tmp_path / "net.pth")
    normalisation = ["--input-mean=0.1307", "--input-std=0.3081"]
    arguments = [str(tmp_path / "net.pth"), *flags(released, tmp_path / "run"), *normalisation]
    assert import_weights.main(arguments) == 0
    assert num_right(tmp_path / "run", released) == num_right_there > 180


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda given: [one for one in given if "licence" not in one], "--licence"),
        (lambda given: [one for one in given if "input-mean" not in one], "give --input-mean"),
        (lambda given: [*given, "--epochs=3"], "nothing is trained here"),
        (lambda given: [*given, "--config.patience=3"], "patience is 3, but nothing is trained"),
        (lambda given: [*given, "--config.mesh=0"], "mesh is 0, but nothing is trained here"),
        (lambda given: ["missing.pth", *given[1:]], "missing.pth"),
        (lambda given: given[1:], "comes first"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changed, told, released, of_torch, tmp_path, capsys):
    path, normalisation = of_torch
    arguments = changed([str(path), *flags(released, tmp_path / "run"), *normalisation])
    assert import_weights.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "run").exists()
