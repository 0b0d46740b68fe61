import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.data import arrays
from mnist_jax.data.arrays import Split
from mnist_jax.errors import UserError

FILES = [f"{split}_{kind}.npy" for split in arrays.SPLITS for kind in ("images", "labels")]


def _split(num_images: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num_images, 28, 28), np.uint8)
    return Split(images, rng.integers(0, 10, num_images, np.uint8))


@pytest.fixture
def folder(tmp_path):
    splits = {split: _split(5 + seed, seed) for seed, split in enumerate(arrays.SPLITS)}
    arrays.write(tmp_path / "arrays", splits)
    return tmp_path / "arrays"


def test_reads_what_was_written(folder):
    for seed, split in enumerate(arrays.SPLITS):
        found = arrays.read(folder, split)
        np.testing.assert_array_equal(found.images, _split(5 + seed, seed).images)
        np.testing.assert_array_equal(found.labels, _split(5 + seed, seed).labels)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "index.json"])


def test_data_hash_follows_every_array(tmp_path, folder):
    hashes = {arrays.data_hash(folder)}
    for number, (split, kind) in enumerate([("train", "labels"), ("test", "images")]):
        splits = {name: _split(5 + seed, seed) for seed, name in enumerate(arrays.SPLITS)}
        getattr(splits[split], kind)[0] ^= 1
        arrays.write(tmp_path / str(number), splits)
        hashes.add(arrays.data_hash(tmp_path / str(number)))
    assert len(hashes) == 3


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "empty", "longer"])
def test_damaged_file_is_named(folder, name, damage):
    path = folder / name
    contents = path.read_bytes()
    damaged = {
        "truncated": contents[:-1],
        "changed": contents[:-1] + bytes([contents[-1] ^ 1]),
        "empty": b"",
        "longer": contents.replace(b"(", b"(9", 1),
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    message = f"{path} is missing, truncated or changed since .* delete the folder {folder} "
    with pytest.raises(UserError, match=re.sub(r"[.]npy", "[.]npy", message)):
        for split in arrays.SPLITS:
            arrays.read(folder, split)


@pytest.mark.parametrize(
    "contents", [None, b"", b"{", b"[]", b"{}", b'{"files": 1}', b"\xff", b"7"]
)
def test_damaged_index_is_named(folder, contents):
    path = folder / "index.json"
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(UserError, match=f"{path} is missing, truncated or changed"):
        arrays.read(folder, "train")
    with pytest.raises(UserError, match=f"{path} is missing, truncated or changed"):
        arrays.data_hash(folder)


def test_index_that_was_edited_is_noticed(folder):
    index = json.loads((folder / "index.json").read_text())
    index["files"]["train_labels.npy"]["sha256"] = "0" * 64
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index.json is missing, truncated or changed"):
        arrays.read(folder, "test")


@given(st.integers(1, 200), st.data())
def test_split_off_takes_every_class_in_its_share(num_images, data):
    size = data.draw(st.integers(0, num_images))
    classes = st.lists(st.integers(0, 9), min_size=num_images, max_size=num_images)
    labels = np.array(data.draw(classes), np.uint8)
    # Each image carries its own number, so that none can be lost or taken twice unnoticed.
    numbers = np.arange(num_images).astype(np.uint8)
    images = np.broadcast_to(numbers[:, None, None], (num_images, 28, 28))
    rest, taken = arrays.split_off(Split(images, labels), size)
    assert len(taken.labels) == size
    assert sorted([*rest.images[:, 0, 0], *taken.images[:, 0, 0]]) == list(numbers)
    for part in (rest, taken):
        np.testing.assert_array_equal(part.labels, labels[part.images[:, 0, 0]])
        assert (np.diff(part.images[:, 0, 0].astype(int)) > 0).all()
    share = np.bincount(labels, minlength=10) * size / num_images
    assert (np.abs(np.bincount(taken.labels, minlength=10) - share) < 1).all()


def test_split_off_is_the_same_for_ever():
    labels = np.repeat(np.arange(4, dtype=np.uint8), 5)
    numbers = np.arange(20, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None], (20, 28, 28))
    _, taken = arrays.split_off(Split(images, labels), 8)
    assert taken.images[:, 0, 0].tolist() == [1, 3, 7, 8, 11, 14, 15, 19]


def test_mean_and_std_are_those_of_float64():
    images = _split(100, 1).images
    mean, std = arrays.mean_and_std(images)
    pixels = images.astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean(), rel=1e-13)
    assert std == pytest.approx(pixels.std(), rel=1e-13)
    assert arrays.mean_and_std(np.full((3, 28, 28), 255, np.uint8)) == (1.0, 0.0)


def test_appears_whole_leaves_nothing_of_a_failure(tmp_path):
    data_dir = tmp_path / "data"
    with pytest.raises(KeyError), arrays.appears_whole(data_dir, data_dir / "a" / "b") as staging:
        (staging / "a" / "b").mkdir(parents=True)
        raise KeyError
    assert list(data_dir.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path):
    target = arrays.Path("a", "b")
    with arrays.appears_whole(tmp_path, target) as slower:
        (slower / target).mkdir(parents=True)
        (slower / target / "slower").touch()
        with arrays.appears_whole(tmp_path, target) as faster:
            (faster / target).mkdir(parents=True)
            (faster / target / "faster").touch()
    assert [path.name for path in (tmp_path / target).iterdir()] == ["faster"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("data_dir", ["file", "file/below", "/proc/nobody/may"])
def test_folder_that_cannot_be_written(tmp_path, data_dir):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=f"cannot write the data to .*{data_dir}: .*--data-dir"),
        arrays.appears_whole(tmp_path / data_dir, arrays.Path("a")),
    ):
        pass
