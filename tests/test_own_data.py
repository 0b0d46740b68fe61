"""A folder of the user's own pictures goes the whole way, by one command."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mnist_jax import reexport, rerun, train
from mnist_jax.data.idx import read_idx
from mnist_jax.errors import UserError
from mnist_jax.release import verify
from mnist_jax.studies import robustness

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


@pytest.fixture
def run(linear_network):
    """Trains on `pictures`, in `folder`: `run(folder, pictures, *flags)` returns the status."""

    def run(folder, pictures, *flags):
        places = [f"--data-dir={folder / 'data'}", f"--output-dir={folder / 'run'}"]
        shape = [f"--model-id={linear_network}", "--epochs=3", "--batch-size=8"]
        easy = ["--min-per-class-accuracy=0.5", "--min-test-accuracy=0.5"]
        easy += ["--max-inference-time-ms=1000", "--skip-visualizations", "-q"]
        return train.main([f"--data={pictures}", *shape, *easy, *places, *flags])

    return run


def test_a_folder_of_colour_pictures_is_released_and_exported_again(run, tmp_path, pictures, capfd):
    # A perfect score on a small set is not refused: n is below 1,000.
    assert run(tmp_path, pictures, "--export_format=onnx") == 0
    logs = tmp_path / "run" / "logs"
    release = json.loads((logs / "release.json").read_text())
    assert release["metrics"]["image_shape"] == [24, 24, 3]
    assert release["metrics"]["class_names"] == ["blue", "green", "red"]
    assert "no_leakage" in [row["name"] for row in release["criteria"]]
    report = json.loads((logs / "data_report.json").read_text())
    assert [name for name, _ in report["unreadable"]["named"]] == ["red/broken.png"]
    assert sum(report["counts"]["test"].values()) == 18
    assert {"balanced_accuracy", "macro_f1", "auc"} == {*release["metrics"]["intervals_95"]}
    card = (tmp_path / "run" / "model_card" / "mnist_model_card.md").read_text()
    assert "red/broken.png" in card and "mean over the classes" in card
    assert robustness.main([str(tmp_path / "run")]) == 2
    assert "has images in colour; name a run of grey ones" in capfd.readouterr().err
    assert reexport.main([str(tmp_path / "run"), "--export_format=safetensors"]) == 0
    assert rerun.main([str(tmp_path / "run")]) == 0  # in both formats
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}  # and no second copy


def test_a_run_is_not_resumed_on_pictures_that_have_changed(run, tmp_path, pictures, capfd):
    changing = shutil.copytree(pictures, tmp_path / "pictures")
    assert run(tmp_path, changing, "--skip-export") == 1
    release = tmp_path / "run" / "logs" / "release.json"
    release.unlink()  # as a run that was cut off before its verdict
    removed = (changing / "red" / "00.png").rename(tmp_path / "00.png")
    assert run(tmp_path, changing, "--skip-export") == 2
    assert "unfinished run on data that has changed since" in capfd.readouterr().err
    removed.rename(changing / "red" / "00.png")
    assert run(tmp_path, changing, "--skip-export") == 1
    assert release.is_file()
    removed = (changing / "red" / "00.png").rename(tmp_path / "00.png")
    assert reexport.main([str(tmp_path / "run")]) == 2
    assert "not those that the run was trained on; put those back" in capfd.readouterr().err


def test_a_run_that_was_killed_before_its_training_is_begun_again(
    run, tmp_path, pictures, monkeypatch
):
    def stop(*_):
        shutil.copytree(tmp_path / "run", tmp_path / "killed")  # what kill -9 would leave
        raise UserError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(verify, "check_parity_before_training", stop)
        assert run(tmp_path, pictures) == 2
    (tmp_path / "killed").rename(tmp_path / "run")
    assert run(tmp_path, pictures, "--skip-export") == 1
    assert (tmp_path / "run" / "logs" / "data_report.json").is_file()


def test_a_copy_of_a_test_picture_in_train_refuses_the_release(run, tmp_path, pictures, capsys):
    with np.load(make_archive(tmp_path)) as archive:
        assert (archive["train_images"][0] == archive["test_images"][0]).all()
    assert run(tmp_path, tmp_path / "leaky.npz", "--skip-export") == 1
    reasons = json.loads((tmp_path / "run" / "logs" / "release.json").read_text())["reasons"]
    assert any(line.startswith("no_leakage") for line in reasons)


def test_every_mistake_is_named_and_a_class_may_lack_a_test_picture(run, tmp_path):
    random = np.random.default_rng(2)
    arrays = {}
    for split, labels in (("train", [0, 1, 2] * 20), ("val", [0, 1, 2]), ("test", [0, 1] * 10)):
        images = random.integers(0, 255, (len(labels), 20, 20), dtype=np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": np.array(labels)}
    np.savez(tmp_path / "noise.npz", **arrays)
    weights = tmp_path / "weights.json"
    weights.write_text('{"0": 1, "1": 5, "2": 0.5}')
    flags = ["--skip-export", f"--class-weights={weights}", "--config.min_auc=0.9"]
    assert run(tmp_path, tmp_path / "noise.npz", *flags) == 1
    release = json.loads((tmp_path / "run" / "logs" / "release.json").read_text())
    reasons = "\n".join(release["reasons"])
    assert "auc was not measured: a class has no test image" in reasons
    assert "worst_class_accuracy was not measured: worst class: 2" in reasons
    assert release["run"]["config"]["class_weights"] == '{"0": 1.0, "1": 5.0, "2": 0.5}'
    with (tmp_path / "run" / "model_card" / "mistakes.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = release["metrics"]
    assert len(rows) == metrics["num_examples"] - metrics["num_correct"] > 0
    for row in rows:
        split, index = row["picture"].split()
        assert (split, row["label"]) == ("test", str(int(index) % 2))


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
        (["--config.augment_cutout_px=25"], "augment_cutout_px is 25, but images have 24x24"),
        (['--class-weights={"red": 1, "blue": 2}'], "class_weights lacks class 'green'; name"),
        (['--class-weights={"red": 0}'], "gives 'red' the weight 0, but must give a number"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, tmp_path, pictures, capfd, flags, message):
    assert run(tmp_path, pictures, *flags) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def as_files(root, images, labels):
    """Writes one split's pictures as PNG files, in folders of classes, in their order."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / str(label) / f"{index}.png")


@pytest.mark.parametrize(
    ("num_train", "num_test"), [(600, 200), pytest.param(60_000, 10_000, marks=pytest.mark.slow)]
)
def test_mnist_as_png_files_gives_the_bytes_of_its_idx_files(
    num_train, num_test, tmp_path, run, real_data, idx_bytes
):
    """Wherever the two lie: only the name of the data belongs to the model."""
    splits = {"train": ("train", num_train), "test": ("t10k", num_test)}
    for split, (name, number) in splits.items():
        images, labels = (
            read_idx(real_data / "mnist" / f"{name}-{kind}.gz", shape, most, None)[:number]
            for kind, shape, most in (
                ("images-idx3-ubyte", ((60_000, 10_000)[split == "test"], 28, 28), 255),
                ("labels-idx1-ubyte", ((60_000, 10_000)[split == "test"],), 9),
            )
        )
        as_files(tmp_path / "png" / "mnist" / split, images, labels)
        (tmp_path / "idx" / "mnist").mkdir(parents=True, exist_ok=True)
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            (tmp_path / "idx" / "mnist" / f"{name}-{kind}").write_bytes(idx_bytes(array))
    found = {}
    for kind in ("png", "idx"):
        places = [
            f"--data-dir={tmp_path / kind / 'data'}",
            f"--output-dir={tmp_path / kind / 'run'}",
        ]
        status = run(tmp_path, tmp_path / kind / "mnist", *places, "--min-per-class-accuracy=0")
        assert status == 0
        config = json.loads((tmp_path / kind / "run" / "logs" / "config.json").read_text())
        model = (tmp_path / kind / "run" / "models" / "mnist_model.onnx").read_bytes()
        found[kind] = (config["dataset"]["data_hash"], config["config_hash"], model)
    assert found["png"] == found["idx"]
