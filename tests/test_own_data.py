"""A folder of the user's own pictures goes the whole way, by one command."""

import json

import numpy as np
import pytest
from PIL import Image

from mnist_jax import reexport, train

NETWORK = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, image_side, num_channels, rngs):
        self.dense = nnx.Linear(image_side**2 * num_channels, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(images.shape[0], -1))
"""
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Sixty noisy squares of three colours, a folder for each, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for index in range(60):
            noise = random.integers(-25, 26, (24, 24, 3))
            levels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(levels).save(folder / name / f"{index:02d}.png")
    (folder / "red" / "broken.png").write_bytes(b"not a picture")
    return folder


def run(folder, pictures, *flags):
    network = folder / "net.py"
    network.write_text(NETWORK)
    return train.main(
        [
            "-q",
            f"--data={pictures}",
            f"--model-id={network}:Net",
            "--epochs=3",
            "--batch-size=8",
            "--skip-visualizations",
            "--max-inference-time-ms=1000",
            "--min-per-class-accuracy=0.5",
            "--min-test-accuracy=0.5",
            f"--data-dir={folder / 'data'}",
            f"--output-dir={folder / 'run'}",
            *flags,
        ]
    )


def test_a_folder_of_colour_pictures_is_released_and_exported_again(tmp_path, pictures):
    # A perfect score on a small set is not refused: n is below 1,000.
    assert run(tmp_path, pictures) == 0
    logs = tmp_path / "run" / "logs"
    release = json.loads((logs / "release.json").read_text())
    assert release["metrics"]["image_shape"] == [24, 24, 3]
    assert release["metrics"]["class_names"] == ["blue", "green", "red"]
    assert "no_leakage" in [row["name"] for row in release["criteria"]]
    report = json.loads((logs / "data_report.json").read_text())
    assert [name for name, _ in report["unreadable"]["named"]] == ["red/broken.png"]
    assert sum(report["counts"]["test"].values()) == 18
    assert reexport.main([str(tmp_path / "run"), "--export_format=onnx"]) == 0


def test_a_copy_of_a_test_picture_in_train_refuses_the_release(tmp_path, pictures, capsys):
    with np.load(make_archive(tmp_path)) as archive:
        assert (archive["train_images"][0] == archive["test_images"][0]).all()
    assert run(tmp_path, tmp_path / "leaky.npz", "--skip-export") == 1
    reasons = json.loads((tmp_path / "run" / "logs" / "release.json").read_text())["reasons"]
    assert any(line.startswith("no_leakage") for line in reasons)


def make_archive(folder):
    """Grey pictures as MedMNIST's archives have them; one of train is in test too."""
    random = np.random.default_rng(1)
    arrays = {}
    for split, n in (("train", 60), ("val", 20), ("test", 20)):
        labels = np.arange(n) % 2
        images = random.integers(0, 90, (n, 28, 28), dtype=np.uint8)
        images[labels == 1, 8:20] += 120
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
    arrays["train_images"][0] = arrays["test_images"][0]
    np.savez(folder / "leaky.npz", **arrays)
    return folder / "leaky.npz"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=/nowhere/at/all"], "is not there"),
        (["--image-side=15"], "image_side is 15, but must be from 16 to 128, or 0"),
        (["--config.fit=zoom"], "'zoom', but must be one of pad, crop, stretch"),
        (["--config.augment_id=byerly"], "made for grey images"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, pictures, capfd, flags, message):
    assert run(tmp_path, pictures, *flags) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()
