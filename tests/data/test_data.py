"""The package's public face: prepare and read."""

import gzip
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mnist_jax import data
from mnist_jax.data.digits import upscale
from mnist_jax.errors import UserError
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.prepare("digits_v1", tmp_path_factory.mktemp("data"), None)


def test_dataset_ids():
    assert data.DATASET_IDS == ("digits_v1", "mnist_v1", "fashion_mnist_v1", "kmnist_v1")


def test_digits_is_the_same_everywhere(digits):
    assert (digits.num_train, digits.num_validation, digits.num_test) == (1257, 180, 360)
    assert digits.data_hash == "d6a20f680b9c2907dac4786fa7504b6a5d7220a934c80cf00a425bb32064a857"
    assert digits.class_names == tuple("0123456789")


def test_splits_fit_their_description(digits):
    splits = {name: data.read(digits, name) for name in ("train", "validation", "test")}
    for name, split in splits.items():
        count = getattr(digits, f"num_{name}")
        assert split.images.shape == (count, 28, 28)
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert set(split.labels) == set(range(10))
    everything = [image.tobytes() for split in splits.values() for image in split.images]
    assert len(set(everything)) == len(everything) == 1797
    pixels = splits["train"].images.astype(np.float64) / 255
    assert digits.image_mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert digits.image_std == pytest.approx(pixels.std(), rel=1e-12)


def assert_each_in_one_split(dataset, published):
    """Each published image, known by its pixels, lies in one split; returns the places of each."""
    place_of = {image.tobytes(): place for place, image in enumerate(published)}
    assert len(place_of) == len(published)  # no image is published twice, so pixels tell
    places = {
        split: [place_of.pop(image.tobytes()) for image in data.read(dataset, split).images]
        for split in ("train", "validation", "test")
    }
    assert place_of == {}
    return places


def test_no_digit_is_in_two_splits(digits):
    published = upscale(load_digits().images.astype(np.uint8))
    assert_each_in_one_split(digits, published)


def test_second_start_gives_the_same_and_writes_nothing(digits):
    before = {path: path.stat().st_mtime_ns for path in digits.folder.rglob("*")}
    assert data.prepare("digits_v1", digits.folder.parents[2], None) == digits
    assert {path: path.stat().st_mtime_ns for path in digits.folder.rglob("*")} == before


def test_unknown_id(tmp_path):
    with pytest.raises(
        UserError, match=r"dataset_id 'cifar' is not known; choose one of digits_v1,"
    ):
        data.prepare("cifar", tmp_path, None)


@pytest.mark.parametrize("dataset_id", ["digits_v1", "mnist_v1"])
def test_manual_dir_that_is_not_there(tmp_path, dataset_id):
    with pytest.raises(UserError, match=r"manual_dir .*absent is not a folder; name one"):
        data.prepare(dataset_id, tmp_path / "data", tmp_path / "absent")
    assert not (tmp_path / "data").exists()


def test_manual_dir_without_the_data_set(tmp_path):
    with pytest.raises(UserError, match=r"mnist/t10k-images-idx3-ubyte.gz is missing"):
        data.prepare("mnist_v1", tmp_path / "data", tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("dataset_id", ["digits_v1", "mnist_v1"])
def test_data_dir_that_cannot_be_made(tmp_path, dataset_id):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write the data to .*file/data: Not a directory"):
        data.prepare(dataset_id, tmp_path / "file" / "data", tmp_path)


def test_damage_is_found_before_training_starts(tmp_path):
    dataset = data.prepare("digits_v1", tmp_path, None)
    path = dataset.folder / "test_labels.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"test_labels.npy is missing, truncated or changed"):
        data.prepare("digits_v1", tmp_path, None)


def test_many_processes_prepare_one_folder(tmp_path, digits):
    script = (
        "import sys; from pathlib import Path; from mnist_jax import data; "
        "print(data.prepare('digits_v1', Path(sys.argv[1]), None).data_hash)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=HANG_S)[0].strip() for process in started] == (
        [digits.data_hash] * 3
    )
    assert [path.name for path in tmp_path.iterdir()] == ["digits_v1"]
    assert [path.name for path in (tmp_path / "digits_v1" / "1.0.0").iterdir()] == ["arrays"]


def test_import_is_cheap():
    script = "import sys, mnist_jax.data; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"jax", "sklearn", "scipy", "tensorflow_datasets", "tensorflow", "requests"}
    assert heavy.isdisjoint(done.stdout.split())


# ---- The real thing


@pytest.fixture(
    scope="module", params=["mnist", pytest.param("fashion_mnist", marks=pytest.mark.slow)]
)
def real(request, real_data, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    dataset = data.prepare(f"{request.param}_v1", data_dir, real_data)
    return dataset, real_data / request.param


def test_real_test_split_is_the_published_one(real):
    dataset, raw = real
    images, labels = data.read(dataset, "test")
    published = gzip.decompress((raw / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert images.tobytes() == published[16:]
    published = gzip.decompress((raw / "t10k-labels-idx1-ubyte.gz").read_bytes())
    assert labels.tobytes() == published[8:]


def test_real_train_and_validation_are_the_published_train_files(real):
    dataset, raw = real
    train, validation = data.read(dataset, "train"), data.read(dataset, "validation")
    assert (len(train.labels), len(validation.labels)) == (55_000, 5_000)
    images = np.concatenate([train.images, validation.images]).reshape(-1, 784)
    labels = np.concatenate([train.labels, validation.labels])
    published = np.frombuffer(
        gzip.decompress((raw / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8
    )[16:].reshape(-1, 784)
    published_labels = np.frombuffer(
        gzip.decompress((raw / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8
    )[8:]
    found = sorted(
        bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)
    )
    expected = sorted(
        bytes([label]) + image.tobytes()
        for image, label in zip(published, published_labels, strict=True)
    )
    assert found == expected
    share = np.bincount(published_labels) / 12
    assert (np.abs(np.bincount(validation.labels) - share) < 1).all()


def test_no_real_image_is_in_two_splits(real):
    dataset, raw = real
    published = np.concatenate(
        [
            np.frombuffer(gzip.decompress((raw / name).read_bytes()), np.uint8, offset=16)
            for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
        ]
    ).reshape(-1, 28, 28)
    places = assert_each_in_one_split(dataset, published)
    assert max(places["train"] + places["validation"]) < 60_000
    assert places["test"] == list(range(60_000, 70_000))


def test_real_data_has_one_hash(real):
    dataset, _ = real
    assert (
        dataset.data_hash
        == {
            "mnist_v1": "9fee02c6758a262d2fb1ad4f020a923a64cea84ec9d368765c4c9761cf1ad0a1",
            "fashion_mnist_v1": "5073f113dd3c28b9535e9ea9f571bb94123ed7704f19b8e44075aadb53c2bca2",
        }[dataset.dataset_id]
    )


def test_real_warm_start_takes_well_under_a_second(real):
    dataset, _ = real
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        again = data.prepare(dataset.dataset_id, dataset.folder.parents[2], None)
        for split in ("train", "validation", "test"):
            data.read(again, split)
        seconds.append(time.perf_counter() - start)
    assert again == dataset
    assert min(seconds) < 1.0
