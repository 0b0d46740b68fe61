"""The whole way, for real: the embedded digits, the real network, the real exporters."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.metrics import accuracy_score

from mnist_jax import data, reexport, train
from mnist_jax.files import read_json

ROOT = Path(__file__).parents[1]
FLAGS = ["--dataset-id=digits_v1", "--batch-size=32", "--epochs=2", "--config.augment_shift_px=1"]
EASY = ["--min-test-accuracy=0.1", "--min-per-class-accuracy=0", "--max-inference-time-ms=1000"]
EVERY_FILE = [
    "logs/config.json",
    "logs/history.json",
    "logs/metrics.json",
    "logs/release.json",
    "logs/verification.json",
    "model_card/mistakes.csv",
    "model_card/mnist_model_card.md",
    "model_card/model_card.html",
    "model_card/plots/confusion_matrix.png",
    "model_card/plots/mistakes.png",
    "model_card/plots/per_class_accuracy.png",
    "model_card/plots/training_accuracy.png",
    "model_card/plots/training_loss.png",
    "models/mnist_model.onnx",
    "models/mnist_model.safetensors",
    "models/mnist_model.stablehlo",
    "pipeline.log",
]


def go(folder, *flags):
    return train.main(
        [*FLAGS, *flags, f"--data-dir={folder / 'data'}", f"--output-dir={folder / 'run'}"]
    )


def load(run, name):
    return read_json(run / "logs" / f"{name}.json")


@pytest.fixture
def folder(released):
    return released


@pytest.fixture
def run(folder):
    return folder / "run"


def test_the_folder_holds_what_the_contract_says_and_no_more(run):
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    other = {n for n in found if not n.startswith(("models/checkpoint/", "logs/tensorboard/"))}
    assert other == set(EVERY_FILE)
    assert any(name.startswith("models/checkpoint/") for name in found)
    assert any(name.startswith("logs/tensorboard/events") for name in found)


def test_a_stranger_gets_the_same_accuracy_from_the_file(folder, run):
    """Knows the arrays and onnxruntime, nothing of the package's evaluation."""
    arrays = folder / "data" / "digits_v1" / "1.0.0" / "arrays"
    images, labels = (np.load(arrays / f"test_{kind}.npy") for kind in ("images", "labels"))
    session = onnxruntime.InferenceSession(run / "models" / "mnist_model.onnx")
    (scores,) = session.run(["scores"], {"image": images[:, None].astype(np.float32) / 255})
    assert accuracy_score(labels, scores.argmax(axis=1)) == load(run, "metrics")["accuracy"]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_file_has_the_contracts_interface(run):
    model = onnx.load(run / "models" / "mnist_model.onnx")
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    config = load(run, "config")
    assert metadata["config_hash"] == config["config_hash"]
    assert metadata["data_hash"] == config["dataset"]["data_hash"]
    assert json.loads(metadata["class_names"]) == [str(digit) for digit in range(10)]
    assert (metadata["model_id"], metadata["dataset_id"]) == ("mnist_cnn_v1", "digits_v1")
    operators = [node.op_type for node in model.graph.node]
    assert "Dropout" not in operators
    assert "Transpose" not in operators


def test_what_is_reported_is_of_the_files_on_disk(run):
    release, verification = load(run, "release"), load(run, "verification")
    assert release["verdict"] == "released"
    assert release["verification"] == verification
    for entry in verification["files"].values():
        content = (run / entry["path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size_bytes"] == len(content)


def test_the_log_is_whole_although_the_terminal_was_quiet(run):
    log = (run / "pipeline.log").read_text()
    for line in ("epoch 1/2", "epoch 2/2", "keeping epoch", "test accuracy", "released", "time: "):
        assert line in log


def test_no_file_names_this_machine_but_the_log(run):
    for name in EVERY_FILE:
        if name.startswith("models/") or name.endswith(".md"):
            content = (run / name).read_bytes()
            assert str(run.parent).encode() not in content, name
            assert os.uname().nodename.encode() not in content or len(os.uname().nodename) < 4, name


@pytest.mark.parametrize(
    "is_compiled_again",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["compiled once", "compiled again"],
)
def test_the_same_seed_gives_the_same_bytes_in_another_process(run, is_compiled_again, tmp_path):
    arguments = [*FLAGS, *EASY, f"--data-dir={tmp_path / 'd'}", f"--output-dir={tmp_path / 'r'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mnist_jax.train", *arguments, "--skip-visualizations"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONHASHSEED": "123",
            "JAX_ENABLE_COMPILATION_CACHE": str(not is_compiled_again).lower(),
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "RELEASED" in done.stdout
    # The hash of the configuration is in the files, and skip_visualizations is in that hash.
    config_hashes = [load(path, "config")["config_hash"].encode() for path in (run, tmp_path / "r")]
    for suffix in ("onnx", "safetensors", "stablehlo"):
        first, second = (
            (path / "models" / f"mnist_model.{suffix}").read_bytes()
            for path in (run, tmp_path / "r")
        )
        assert first.replace(config_hashes[0], b"") == second.replace(config_hashes[1], b""), suffix
    assert not (tmp_path / "r" / "model_card" / "plots").exists()


def test_exporting_again_gives_the_same_bytes_and_verdict(folder, run, tmp_path, capfd):
    run = shutil.copytree(run, tmp_path / "run")
    path = run / "models" / "mnist_model.onnx"
    before = path.read_bytes()
    path.unlink()
    other = run / "models" / "mnist_model.safetensors"  # not asked for, but it ships along
    whole = other.read_bytes()
    other.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status = reexport.main([str(run), "--export_format=onnx", f"--data-dir={folder / 'data'}"])
    assert status == 0
    assert path.read_bytes() == before
    assert other.read_bytes() == whole
    assert "RELEASED" in capfd.readouterr().out


def test_a_finished_run_is_not_trained_over(folder, capfd):
    assert go(folder, "-q", *EASY) == 2
    assert "holds a finished run" in capfd.readouterr().err


@pytest.fixture
def small(linear_network):
    """Flags of a network that trains at once."""
    return [f"--model-id={linear_network}", "--config.augment_shift_px=0"]


def test_a_criterion_that_refuses_is_named_with_its_distance(small, tmp_path, capfd):
    assert (
        go(
            tmp_path,
            *small,
            "--min-test-accuracy=0.9999",
            "--export_format=onnx",
            "--skip-visualizations",
        )
        == 1
    )
    out = capfd.readouterr().out
    release = load(tmp_path / "run", "release")
    assert release["verdict"] == "refused"
    accuracy = release["metrics"]["accuracy"]
    assert any(
        "test_accuracy" in reason
        and "0.9999" in reason
        and f"{0.9999 - accuracy:.4g}"[:5] in reason
        for reason in release["reasons"]
    ), release["reasons"]
    assert re.search(r"FAIL\s+test_accuracy", out)
    assert "REFUSED" in out


def test_without_export_nothing_is_ever_released(small, tmp_path, capfd):
    assert go(tmp_path, *small, "-q", *EASY, "--skip-export", "--skip-visualizations") == 1
    release = load(tmp_path / "run", "release")
    assert release["verdict"] == "refused"
    assert release["verification"] is None
    assert not (tmp_path / "run" / "models" / "mnist_model.onnx").exists()
    # Exported later, the same weights can be.
    arguments = [str(tmp_path / "run"), f"--data-dir={tmp_path / 'data'}"]
    assert reexport.main(arguments) == 0


def test_exporting_no_run_is_a_mistake(tmp_path, capfd):
    assert reexport.main([str(tmp_path)]) == 2
    assert "holds no finished run; name the folder of one" in capfd.readouterr().err


def test_exporting_with_other_data_is_a_mistake(run, tmp_path, capfd, monkeypatch):
    other = data.prepare("digits_v1", tmp_path, None)._replace(data_hash="0" * 64)
    monkeypatch.setattr(data, "prepare", lambda *_: other)
    assert reexport.main([str(run), f"--data-dir={tmp_path}"]) == 2
    assert "is not what the run was trained on" in capfd.readouterr().err


@pytest.mark.slow
def test_programs_from_the_cache_give_the_same_bytes(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    files = []
    for name in ("cold", "warm"):
        flags = [
            *FLAGS,
            *EASY,
            f"--data-dir={tmp_path / 'data'}",
            f"--output-dir={tmp_path / name}",
        ]
        command = [sys.executable, "-m", "mnist_jax.train", *flags]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        files.append((tmp_path / name / "models" / "mnist_model.onnx").read_bytes())
    assert files[0] == files[1]
    assert len(list((tmp_path / "cache" / "mnist_jax").rglob("jit_one_step*-cache"))) == 1
