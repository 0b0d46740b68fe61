"""A real run into a real repository, through the command."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from mnist_jax.files import read_json, write_json
from mnist_jax.release import compare
from mnist_jax.repository import layout, publish


@pytest.fixture(autouse=True)
def equally_fast(monkeypatch):
    """Files that differ in a number or two; `test_latency.py` has the real measurement."""
    fixed = {"ratio": 1.0, "ratio_10_90": [0.9, 1.1], "num_rounds": 30, "p50_ms": 0.4}
    monkeypatch.setattr(compare, "measure_ratio", lambda *_: fixed)


@pytest.fixture
def go(released, tmp_path, capfd):
    """Publishes; returns the status, and what was said on the terminal."""

    def go(*arguments, run=released / "run", repository=tmp_path / "repository"):
        places = [f"--repository={repository}", f"--data-dir={released / 'data'}"]
        status = publish.main([*([str(run)] if run else []), *places, *arguments])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return status, said.err if status else said.out

    return go


def other_run(run, folder, change=None, **of_release):
    """Copies a run; `change` alters its ONNX file, and the copy says that this was verified."""
    copy = folder / f"run_{len(list(folder.iterdir()))}"
    shutil.copytree(run, copy)
    release = read_json(copy / "logs" / "release.json")
    if change is not None:
        path = copy / "models" / "mnist_model.onnx"
        model = onnx.load(path)
        change({tuple(x.dims): x for x in model.graph.initializer})
        onnx.save(model, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        release["verification"]["files"]["onnx"]["sha256"] = digest
    write_json(copy / "logs" / "release.json", {**release, **of_release})
    return copy


def set_tensor(tensor, array):
    tensor.CopyFrom(numpy_helper.from_array(np.float32(array), tensor.name))


def never_say_one(tensors):
    bias = tensors[(10,)]
    set_tensor(bias, numpy_helper.to_array(bias) - 1000 * np.eye(10)[1])


def nudge(tensors):
    bias = tensors[(10,)]
    set_tensor(bias, numpy_helper.to_array(bias) + 1e-6 * np.eye(10)[2])


def test_a_run_becomes_what_triton_and_our_server_read(released, go, tmp_path):
    run, repository = released / "run", tmp_path / "repository"
    status, said = go()
    assert status == 0
    assert "published version 1 of digits_v1" in said and "it is the champion" in said
    model = repository / "digits_v1"
    assert layout.champion(repository, "digits_v1") == 1
    version = layout.load_version(repository, "digits_v1", 1)
    assert version.labels == tuple("0123456789")
    assert version.model_path.read_bytes() == (run / "models" / "mnist_model.onnx").read_bytes()
    assert version.manifest["verdict"] == "released"
    assert version.manifest["run"]["dataset"] == read_json(run / "logs/config.json")["dataset"]
    config = version.manifest["run"]["config"]
    assert config["epochs"] == 2 and "output_dir" not in config and "data_dir" not in config
    assert (model / "card" / "mnist_model_card.md").is_file()
    assert (model / "card" / "plots" / "confusion_matrix.png").is_file()
    triton = text_format.Parse((model / "config.pbtxt").read_text(), ModelConfig())
    assert triton.name == "digits_v1" and list(triton.version_policy.specific.versions) == [1]
    labels = (model / triton.output[0].label_filename).read_text()
    assert labels == "".join(f"{digit}\n" for digit in range(10))
    # The warm-up sample is a real image: raw float32 in the very shape the configuration says.
    (warm_up,) = triton.model_warmup
    sample = warm_up.inputs["image"]
    raw = (model / "warmup" / sample.input_data_file).read_bytes()
    image = np.frombuffer(raw, np.float32).reshape(1, *sample.dims)
    test = np.load(released / "data/digits_v1/1.0.0/arrays/test_images.npy")
    np.testing.assert_array_equal(image[0, 0] * np.float32(255), test[0])
    session = onnxruntime.InferenceSession(version.model_path)
    assert session.run(None, {"image": image})[0].shape == (1, 10)
    done = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=model / "1")
    assert done.returncode == 0
    for path in model.rglob("*"):
        if path.suffix in (".json", ".pbtxt", ".md"):
            assert str(released.parent) not in path.read_text(), path


def test_a_version_that_is_no_better_waits_and_can_be_promoted_and_taken_back(
    released, go, tmp_path
):
    repository = tmp_path / "repository"
    assert go()[0] == 0
    status, said = go(run=other_run(released / "run", tmp_path, nudge))
    assert status == 0
    assert "against the champion, version 1, on 360 test images:" in said
    assert re.search(
        r"accuracy 0\.\d{4}, \+0\.0000 \(95 % interval -0\.\d{4} to \+0\.\d{4}\)", said
    )
    assert "latency 0.400 ms, 1.00 times the champion's (0.90 to 1.10 over 30 rounds" in said
    assert "published version 2" in said and "the champion is still version 1" in said
    command = re.search(r"scripts/publish (--promote digits_v1 2) --repository", said)
    manifest = layout.load_version(repository, "digits_v1", 2).manifest
    assert manifest["comparison"]["champion"] == 1 and not manifest["promotion"]["promoted"]
    for arguments, number in ((command[1].split(), 2), (["--promote", "digits_v1", "1"], 1)):
        assert go(*arguments, run=None)[0] == 0
        assert layout.champion(repository, "digits_v1") == number
        triton = text_format.Parse(
            (repository / "digits_v1" / "config.pbtxt").read_text(), ModelConfig()
        )
        assert max(triton.version_policy.specific.versions) == number


def test_a_better_version_takes_over_and_a_worse_one_does_not(released, go, tmp_path):
    repository = tmp_path / "repository"
    worse = other_run(released / "run", tmp_path, never_say_one)
    assert go(run=worse)[0] == 0
    status, said = go()
    assert status == 0 and "it is the champion: it is more accurate beyond chance" in said
    assert layout.champion(repository, "digits_v1") == 2
    also_worse = other_run(worse, tmp_path, nudge)
    status, said = go(run=also_worse)
    assert status == 0 and "it is less accurate by more than 0.005" in said
    assert layout.champion(repository, "digits_v1") == 2
    comparison = layout.load_version(repository, "digits_v1", 3).manifest["comparison"]
    ones = read_json(released / "run/logs/metrics.json")["per_class"][1]["num_correct"]
    assert comparison["num_lost"] >= ones and comparison["interval_95"][1] < 0


def test_a_refused_run_needs_a_reason_and_never_takes_over_by_itself(released, go, tmp_path):
    repository = tmp_path / "repository"
    refused = other_run(
        released / "run", tmp_path, nudge, verdict="refused", reasons=["test_accuracy is low"]
    )
    assert go(run=refused) == (
        2,
        f"error: {refused} is refused (test_accuracy is low); publish another run, or this one "
        'with --force "REASON"\n',
    )
    assert go("--force= ", run=refused)[0] == 2
    assert not repository.exists()
    worse = other_run(released / "run", tmp_path, never_say_one)
    assert go(run=worse)[0] == 0
    status, said = go("--force=for the demo", run=refused)
    assert status == 0 and "still version 1: its release was refused" in said
    manifest = layout.load_version(repository, "digits_v1", 2).manifest
    assert (manifest["forced_because"], manifest["verdict"]) == ("for the demo", "refused")
    status, said = go("--force=to be sure")
    assert status == 2 and "is released, there is nothing to force" in said


def unfinished(run):
    (run / "models" / "training").mkdir()


def changed(run):
    with open(run / "models" / "mnist_model.onnx", "ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unfinished, "holds no finished run; name the folder of one"),
        (changed, "is not the file that was verified; run scripts/export"),
        (lambda run: (run / "models/mnist_model.onnx").unlink(), "has no mnist_model.onnx; run"),
        (lambda run: (run / "logs/release.json").unlink(), "holds no finished run"),
    ],
)
def test_a_run_that_is_not_whole_is_refused(released, go, tmp_path, damage, message):
    run = other_run(released / "run", tmp_path)
    damage(run)
    status, said = go(run=run)
    assert status == 2 and message in said and said.count("\n") == 1
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("name", ["a.b", "../a", "", "-a", "a b", "a" * 101])
def test_a_name_that_is_none_is_refused(go, tmp_path, name):
    status, said = go(f"--name={name}")
    assert status == 2 and "is not made of letters, digits, _ and -; give another --name" in said
    assert not (tmp_path / "repository").exists()


def test_what_cannot_be_a_version_of_the_same_model_is_refused(released, go, tmp_path):
    assert go("--name=mine")[0] == 0
    status, said = go("--name=mine")
    assert status == 2 and "this model is version 1 of mine already; nothing to publish" in said
    release = read_json(released / "run" / "logs" / "release.json")
    metrics = {**release["metrics"], "class_names": list("abcdefghij")}
    renamed = other_run(released / "run", tmp_path, nudge, metrics=metrics)
    status, said = go("--name=mine", run=renamed)
    assert status == 2 and "are not those of version 1 of mine" in said
    assert layout.list_versions(tmp_path / "repository", "mine") == (1,)
    assert go("--name=other", run=renamed)[0] == 0


def test_a_damaged_champion_stops_the_publishing(released, go, tmp_path):
    assert go()[0] == 0
    (tmp_path / "repository/digits_v1/1/model.onnx").write_bytes(b"")
    status, said = go(run=other_run(released / "run", tmp_path, nudge))
    assert status == 2 and "model.onnx is not what was published" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--promote", "digits_v1", "2"], "has no version 2 of 'digits_v1'; it has 1"),
        (["--promote", "digits_v1", "two"], "version 'two' is not a number"),
        (["--promote", "../digits_v1", "1"], "has no version 1 of '../digits_v1'"),
        (["--promote", "nothing", "1"], "has no version 1 of 'nothing'; it has none"),
        ([], "give one of: the folder of a run, --promote NAME VERSION"),
        (["--version", "digits_v1", "1"], "--version is for a version to sign"),
    ],
)
def test_a_promotion_that_makes_no_sense_is_refused(go, tmp_path, arguments, message):
    assert go()[0] == 0
    status, said = go(*arguments, run=None)
    assert status == 2 and message in said
    assert layout.champion(tmp_path / "repository", "digits_v1") == 1


def test_a_repository_that_is_a_file_is_refused(go, tmp_path):
    (tmp_path / "file").touch()
    status, said = go(repository=tmp_path / "file")
    assert status == 2 and "cannot be a repository" in said
    status, said = go("--promote", "a", "1", run=None, repository=tmp_path / "file")
    assert status == 2 and "is not a folder; name the repository" in said


def test_other_data_is_refused(released, go, tmp_path):
    run = other_run(released / "run", tmp_path)
    config = read_json(run / "logs" / "config.json")
    config["dataset"]["data_hash"] = "0" * 64
    write_json(run / "logs" / "config.json", config)
    status, said = go(run=run)
    assert status == 2 and "is not what the run was trained on" in said


def test_the_command_itself_runs(released, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mnist_jax.repository.publish", str(released / "run")),
            *("--repository", str(tmp_path / "r"), "--data-dir", str(released / "data")),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r/digits_v1/1/manifest.json").read_text())["version"] == 1
