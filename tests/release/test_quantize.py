"""The int8 variant of a real run."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from sklearn.metrics import accuracy_score

from mnist_jax.files import read_json
from mnist_jax.release import compare, quantize
from mnist_jax.repository import layout, publish
from mnist_jax.run import paths


@pytest.fixture(scope="module")
def run(released, tmp_path_factory):
    copy = tmp_path_factory.mktemp("quantized") / "run"
    shutil.copytree(released / "run", copy)
    return copy


@pytest.fixture
def equally_fast(monkeypatch):
    """How fast it is differs from CPU to CPU; `test_latency.py` has the real measurement."""
    fixed = {"ratio": 1.0, "ratio_10_90": [0.9, 1.1], "num_rounds": 30, "p50_ms": 0.4}
    monkeypatch.setattr(compare, "measure_ratio", lambda *_: fixed)


@pytest.fixture
def go(released, run, capfd, equally_fast):
    def go():
        status = quantize.main([str(run), f"--data-dir={released / 'data'}"])
        said = capfd.readouterr()
        return status, said.out, said.err

    return go


def test_it_is_smaller_of_the_same_interface_and_as_good(released, run, go):
    status, out, err = go()
    assert (status, err) == (0, "")
    assert out.count("pass") == 4 and "released: " in out
    path, source = run / paths.QUANTIZED, run / "models" / "mnist_model.onnx"
    assert path.stat().st_size < 0.3 * source.stat().st_size
    model, before = onnx.load(path), onnx.load(source)
    assert list(model.graph.input) == list(before.graph.input)
    assert list(model.graph.output) == list(before.graph.output)
    assert (model.ir_version, [(x.domain, x.version) for x in model.opset_import]) == (
        8,
        [("", 17)],
    )
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    weights = [x for x in model.graph.initializer if len(x.dims) > 1]
    assert {x.data_type for x in weights} == {TensorProto.INT8}
    # Seven bits: see where it is decided.
    assert all(np.abs(onnx.numpy_helper.to_array(x)).max() <= 64 for x in weights)
    assert {x.key for x in model.metadata_props} == {x.key for x in before.metadata_props} | {
        "variant"
    }
    # Accuracy, once more, by a stranger.
    arrays = released / "data" / "digits_v1" / "1.0.0" / "arrays"
    images, labels = (np.load(arrays / f"test_{kind}.npy") for kind in ("images", "labels"))
    pixels = images[:, None].astype(np.float32) / 255
    (scores,) = onnxruntime.InferenceSession(path).run(["scores"], {"image": pixels})
    report = read_json(run / paths.QUANTIZATION)
    assert accuracy_score(labels, scores.argmax(axis=1)) == report["comparison"]["accuracy"]


def test_the_images_of_the_calibration_are_counted(run, go, monkeypatch):
    monkeypatch.setattr(quantize, "NUM_CALIBRATION_IMAGES", 10**6)
    monkeypatch.setattr(quantize, "quantize", lambda source, calibration: source.read_bytes())
    go()
    num_train = read_json(run / paths.CONFIG)["dataset"]["num_train"]
    assert read_json(run / paths.QUANTIZATION)["num_calibration_images"] == num_train


@pytest.fixture
def few(monkeypatch):
    """Enough to calibrate with, where nobody asks how well."""
    monkeypatch.setattr(quantize, "NUM_CALIBRATION_IMAGES", 32)


def test_the_same_run_gives_the_same_bytes(run, go, few):
    go()
    before = (run / paths.QUANTIZED).read_bytes()
    go()
    assert (run / paths.QUANTIZED).read_bytes() == before


def test_the_test_split_takes_no_part_in_calibration(run, go, few, monkeypatch):
    """Another test split, and the file is the same."""
    go()
    before = (run / paths.QUANTIZED).read_bytes()
    read = quantize.data.read
    seen = []

    def read_other(dataset, split):
        seen.append(split)
        found = read(dataset, split)
        return found if split == "train" else found._replace(images=255 - found.images)

    monkeypatch.setattr(quantize.data, "read", read_other)
    go()
    assert seen == ["train", "test"]
    assert (run / paths.QUANTIZED).read_bytes() == before


def test_a_variant_that_answers_otherwise_is_refused_and_not_published(
    released, run, go, monkeypatch, tmp_path, capfd
):
    original = quantize.quantize

    def spoil(source, calibration):
        model = onnx.load_model_from_string(original(source, calibration))
        scale = next(x for x in model.graph.initializer if "scale" in x.name and len(x.dims) == 1)
        array = onnx.numpy_helper.to_array(scale) * np.float32(30)
        scale.CopyFrom(onnx.numpy_helper.from_array(array, scale.name))
        return model.SerializeToString()

    monkeypatch.setattr(quantize, "quantize", spoil)
    status, out, _ = go()
    assert status == 1 and "FAIL accuracy_difference" in out and "refused: " in out
    report = read_json(run / paths.QUANTIZATION)
    assert any("accuracy_difference" in reason for reason in report["reasons"])
    flags = [f"--repository={tmp_path / 'r'}", f"--data-dir={released / 'data'}"]
    assert publish.main([str(run), "--variant=int8", *flags]) == 2
    assert "is refused (accuracy_difference" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()


def test_what_passes_is_published_as_a_model_of_its_own(released, run, go, tmp_path, capfd):
    assert go()[0] == 0
    flags = [f"--repository={tmp_path}", f"--data-dir={released / 'data'}"]
    assert publish.main([str(run), "--variant=int8", *flags]) == 0
    version = layout.load_version(tmp_path, "digits_v1_int8", 1)
    assert version.model_path.read_bytes() == (run / paths.QUANTIZED).read_bytes()
    assert version.manifest["variant"] == "int8"
    assert version.manifest["quantization"]["verdict"] == "released"


def test_each_criterion_can_refuse(run, go, monkeypatch):
    fine = {
        "difference": -0.005,
        "num_other_class": 0,
        "num_examples": 100,
        "latency": {"ratio": 1.0},
    }
    path, source = run / paths.QUANTIZED, run / "models" / "mnist_model.onnx"
    empty = quantize.Split(np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8))
    go()

    def verdict(paths, **changed):
        monkeypatch.setattr(compare, "compare", lambda *_: {**fine, **changed})
        report = quantize.judge(*paths, empty)
        return report["verdict"], [reason.split()[0] for reason in report["reasons"]]

    assert verdict((source, path)) == ("released", [])
    assert verdict((source, source)) == ("refused", ["size_ratio"])
    assert verdict((source, path), num_other_class=2) == ("refused", ["same_class"])
    assert verdict((source, path), latency={"ratio": 1.3}) == ("refused", ["latency_ratio"])
    assert verdict((source, path), difference=-0.0051) == ("refused", ["accuracy_difference"])


def test_a_run_without_an_onnx_file_is_a_mistake(released, tmp_path, capfd):
    copy = tmp_path / "run"
    shutil.copytree(released / "run", copy)
    (copy / "models" / "mnist_model.onnx").unlink()
    assert quantize.main([str(copy), f"--data-dir={released / 'data'}"]) == 2
    assert "has no mnist_model.onnx; run scripts/export" in capfd.readouterr().err
