"""A network that was trained anywhere, to its verdict, by `mnist_jax.prove`."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from sklearn.metrics import accuracy_score

import mnist_jax
from mnist_jax.errors import UserError
from mnist_jax.files import read_json

ROOT = Path(__file__).parents[2]
EASY = mnist_jax.Criteria(min_test_accuracy=0, min_per_class_accuracy=0)


class Brightest(nnx.Module):
    """Logits of two classes from the mean of the first channel; knows nothing of this package."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(1, 2, rngs=rngs)
        self.dense.kernel[...] = jnp.array([[0.0, 8.0]])
        self.dense.bias[...] = jnp.array([0.0, -4.0])

    def __call__(self, images):
        return self.dense(images[..., :1].mean(axis=(1, 2)))


@pytest.fixture
def model():
    return Brightest(nnx.Rngs(0))


@pytest.fixture(scope="module")
def split():
    levels = np.linspace(0, 255, 60).astype(np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (60, 12, 12, 3)).copy()
    return images, (levels > 110).astype(int)


def test_own_colour_images_of_another_size_are_proven(model, split, tmp_path):
    images, labels = split
    release = mnist_jax.prove(
        model, images, labels, tmp_path, criteria=EASY, class_names=["dark", "light"]
    )
    assert (release["verdict"], release["reasons"]) == ("released", [])
    assert read_json(tmp_path / "logs" / "release.json") == release
    for name in ("metrics", "verification"):
        assert read_json(tmp_path / "logs" / f"{name}.json") == release[name]
    file = tmp_path / "models" / "mnist_model.onnx"
    stated = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert stated["model_id"] == "brightest" and stated["class_names"] == '["dark", "light"]'
    (scores,) = onnxruntime.InferenceSession(file).run(
        ["scores"], {"image": images.transpose(0, 3, 1, 2).astype(np.float32) / 255}
    )
    accuracy = accuracy_score(labels, scores.argmax(axis=1))
    assert 0 < accuracy < 1 and accuracy == release["metrics"]["accuracy"]
    card = (tmp_path / "model_card" / "mnist_model_card.md").read_text()
    assert "RELEASED" in card and "| licence | not known |" in card
    drawn = {path.stem for path in (tmp_path / "model_card" / "plots").iterdir()}
    assert drawn == {"confusion_matrix", "mistakes", "per_class_accuracy"}


def test_floats_give_the_verdict_that_pixels_give_and_the_defaults_can_refuse(
    model, split, tmp_path
):
    images, labels = split
    pixels = mnist_jax.prove(model, images[..., 0], labels, tmp_path)
    drawing = tmp_path / "model_card" / "plots" / "reconstructions.png"
    shutil.copy(drawing.with_name("mistakes.png"), drawing)  # as if it were a capsule network's
    floats = mnist_jax.prove(model, images[..., 0] / 255, labels, tmp_path)  # takes its place
    assert not drawing.exists()
    assert pixels["verdict"] == floats["verdict"] == "refused"
    assert any("test_accuracy" in reason for reason in floats["reasons"])
    assert pixels["metrics"]["confusion_matrix"] == floats["metrics"]["confusion_matrix"]
    assert pixels["metrics"]["loss"] == pytest.approx(floats["metrics"]["loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((60, 12, 11))}, "images have the shape"),
        ({"images": np.zeros((60, 12, 12), int)}, "images are int64; give uint8 0 to 255, or"),
        ({"images": np.full((60, 12, 12), 255.0)}, "images range from 255 to 255; give floats"),
        ({"labels": np.zeros(59, int)}, r"labels are int64 \(59,\); give one whole number"),
        ({"labels": np.zeros(60)}, "labels are float64"),
        ({"labels": -np.ones(60, int)}, "labels range from -1 to -1; give 0 to 255"),
        ({"labels": np.zeros(60, int)}, r"brightest returns \(2, 2\) for two images of 1 classes"),
        ({"class_names": ["dark"]}, "label 1 has no name"),
        ({"class_names": ["dark", "light", "no"]}, "class 'no' has no image"),
        ({"model": nnx.Linear}, "model is a .*; give a flax.nnx.Module"),
    ],
    ids=str,
)
def test_what_cannot_be_proven_is_refused_in_one_line(model, split, tmp_path, change, message):
    arguments = {"model": model, "images": split[0], "labels": split[1], **change}
    with pytest.raises(UserError, match=message) as caught:
        mnist_jax.prove(**arguments, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_things_is_left_alone(model, split, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no proof"):
        mnist_jax.prove(model, *split, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_class_names_are_texts(model, split, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(UserError, match="class_names holds 0, which is not a text; give texts"):
        mnist_jax.prove(model, *split, tmp_path / "run", class_names=range(2))


def test_a_second_proof_that_fails_leaves_the_first(model, split, tmp_path):
    class Transformed(Brightest):
        """Cannot be exported to ONNX, but to the formats that are made before."""

        def __call__(self, images):
            return super().__call__(
                jnp.fft.ifft2(jnp.fft.fft2(images, axes=(1, 2)), axes=(1, 2)).real
            )

    def contents():
        files = (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log")
        return {path: path.read_bytes() for path in files}

    mnist_jax.prove(model, *split, tmp_path, criteria=EASY)
    before = contents()
    with pytest.raises(UserError, match="cannot be exported to ONNX"):
        mnist_jax.prove(Transformed(nnx.Rngs(0)), *split, tmp_path, criteria=EASY)
    assert contents() == before


def test_the_package_is_imported_without_jax():
    code = "import sys, mnist_jax; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_example_ends_in_a_verdict(tmp_path, monkeypatch, capsys):
    lines = (ROOT / "examples" / "prove_own_training.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40
    monkeypatch.setattr(sys, "argv", ["prove_own_training.py", str(tmp_path / "run")])
    runpy.run_path(str(ROOT / "examples" / "prove_own_training.py"), run_name="__main__")
    release = read_json(tmp_path / "run" / "logs" / "release.json")
    assert capsys.readouterr().out.splitlines() == [release["verdict"], *release["reasons"]]
    assert release["metrics"]["accuracy"] > 0.9
