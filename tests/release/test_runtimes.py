"""A run's file in the runtimes that are here, and what is said of those that are not or fail."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mnist_jax.errors import UserError
from mnist_jax.export import runtimes as export_runtimes
from mnist_jax.export.runtimes import RUNTIMES, Runtime, run_apart
from mnist_jax.release import parity, runtimes
from mnist_jax.repository import audit

ONNXRUNTIME, REFERENCE = RUNTIMES[0], RUNTIMES[-1]


@pytest.fixture(scope="module")
def checked(released, tmp_path_factory):
    """A run whose file went through all runtimes that are installed, and what was said."""
    run = tmp_path_factory.mktemp("checked") / "run"
    shutil.copytree(released / "run", run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtimes, "NUM_IMAGES", 40)
        status = audit.main([str(run), "--runtimes", f"--data-dir={released / 'data'}"])
    return status, run, json.loads((run / "logs" / "runtimes.json").read_text())


def test_every_runtime_that_is_installed_gives_the_same_answers(checked):
    status, _, report = checked
    assert status == 0 and report["num_images"] == 40
    rows = {(row["runtime"], row["batch_size"]): row for row in report["rows"]}
    for runtime in RUNTIMES:
        for batch_size in (1, 20) if runtime.version() else (1,):
            row = rows.pop((runtime.name, batch_size))
            if runtime.version():
                assert row["problem"] == "" and row["num_other_class"] == 0
                assert row["max_abs_difference"] < 1e-5 and row["ms_per_batch"] > 0
            else:
                assert row["problem"] == "not installed; scripts/install runtimes adds it"
    assert not rows
    assert runtimes.TOLERANCE == parity.TOLERANCE


def test_the_scores_are_those_of_the_file_on_the_test_images(released, images_of_test):
    model = released / "run" / "models" / "mnist_model.onnx"
    scores, _ = run_apart(REFERENCE.name, model, images_of_test, 20)
    session = onnxruntime.InferenceSession(str(model))
    expected = session.run(["scores"], {"image": images_of_test})[0]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.fixture(scope="module")
def images_of_test():
    """45 images of noise: two batches of 20, and a short one."""
    return np.random.default_rng(0).random((45, 1, 28, 28), np.float32)


def test_a_runtime_that_is_not_installed_is_named_with_the_remedy(tmp_path):
    model = save(tmp_path / "model.onnx", helper.make_node("Flatten", ["image"], ["scores"]))
    absent = Runtime("Absent", "no_such_module", ONNXRUNTIME.load)
    images = np.zeros((3, 1, 2, 2), np.float32)
    *_, row = runtimes.measure(model, images, (ONNXRUNTIME, absent))
    assert runtimes.in_words(row) == "      Absent: not installed; scripts/install runtimes adds it"


def save(path, *nodes):
    """An ONNX file of our interface, of these nodes; any opset of Microsoft's is there."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 2, 2])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [image], [scores])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_what_a_runtime_cannot_run_is_a_line_and_the_others_go_on(tmp_path):
    gelu = helper.make_node("Gelu", ["image"], ["some"], domain="com.microsoft")
    flatten = helper.make_node("Flatten", ["some"], ["scores"])
    model = save(tmp_path / "model.onnx", gelu, flatten)
    images = np.zeros((3, 1, 2, 2), np.float32)
    rows = list(runtimes.measure(model, images, (ONNXRUNTIME, REFERENCE)))
    assert [row["problem"] for row in rows[:2]] == ["", ""]
    for row in rows[2:]:
        assert "Gelu" in row["problem"] and "\n" not in row["problem"]
        assert runtimes.in_words(row).startswith("FAIL  ONNX reference ")


def test_a_file_that_is_none_is_a_mistake(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no ONNX file")
    images = np.zeros((3, 1, 2, 2), np.float32)
    with pytest.raises(UserError, match=r"ONNX Runtime cannot run .*INVALID_PROTOBUF"):
        list(runtimes.measure(tmp_path / "model.onnx", images))


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("kill -SEGV $$", "ends its process by signal 11"),
        ("exec sleep 60", "takes more than 0.5 s"),
        ("exit 7", "status 7"),
    ],
)
def test_a_native_end_is_a_line_too(tmp_path, monkeypatch, script, told):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(export_runtimes, "MAX_S", 0.5)
    with pytest.raises(UserError, match=told):
        run_apart(ONNXRUNTIME.name, tmp_path / "model.onnx", np.zeros((1, 1, 2, 2)), 1)


EXPECTED = np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("scores", "num_other", "problem"),
    [
        (EXPECTED + 1e-6, 0, ""),
        (EXPECTED + np.array([[0, 0], [0, 1e-6]]), 0, ""),  # a tie: either is the answer
        (EXPECTED + 1e-4, 0, "its scores are others"),
        (EXPECTED[:, ::-1], 1, "its scores are others"),
        (EXPECTED[:1], None, r"shape \(1, 2\), not \(2, 2\)"),
        (EXPECTED * np.nan, None, "not finite"),
    ],
    ids=["equal", "tie", "off", "swapped", "shape", "NaN"],
)
def test_how_scores_differ(scores, num_other, problem):
    row = {}
    if num_other is None:
        with pytest.raises(UserError, match=problem):
            runtimes._compare(row, scores, EXPECTED)
    else:
        row["problem"] = ""
        runtimes._compare(row, scores, EXPECTED)
        assert (row["num_other_class"], row["problem"]) == (num_other, problem)
        assert row["max_abs_difference"] == pytest.approx(np.abs(scores - EXPECTED).max())


def test_only_a_run_has_test_images(tmp_path, capsys):
    assert audit.main([str(tmp_path), "--runtimes"]) == 2
    assert "is not a run, and --runtimes needs its test images" in capsys.readouterr().err


def test_a_changed_file_is_not_run(checked, capsys):
    _, run, _ = checked
    copy = run.with_name("changed")
    shutil.copytree(run, copy)
    with open(copy / "models" / "mnist_model.onnx", "ab") as file:
        file.write(b"\0")
    assert audit.main([str(copy), "--runtimes"]) == 1
    assert "mnist_model.onnx is not what was verified" in capsys.readouterr().err


def test_it_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; import mnist_jax.repository.audit"
    subprocess.run([sys.executable, "-c", code], check=True)
