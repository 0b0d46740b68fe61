"""Preparing from raw files, with the real builder and array_record, on a data set of 80 images."""

import functools
import gzip
import http.server
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from mnist_jax import data
from mnist_jax.data import downloads, published, records
from mnist_jax.errors import UserError
from tests.waiting import HANG_S

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def _expected(tiny_raw, images, labels):
    return (
        np.frombuffer(tiny_raw[images], np.uint8)[16:].reshape(-1, 28, 28),
        np.frombuffer(tiny_raw[labels], np.uint8)[8:],
    )


def test_prepares_from_raw_files_and_reads_records_back(tiny, data_dir, tiny_raw):
    splits = records.load("tiny_v1", published.PUBLISHED["tiny_v1"], data_dir, tiny)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        for found, expected in zip(splits[split], _expected(tiny_raw, *files), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.uint8
    made = sorted(path.name for path in (data_dir / "tiny_v1" / "1.0.0").iterdir())
    assert "tiny_v1-train.array_record-00000-of-00001" in made
    assert [path.name for path in data_dir.iterdir()] == ["tiny_v1"]


def test_records_that_are_there_need_no_raw_files(tiny, data_dir):
    first = data.prepare("tiny_v1", data_dir, tiny)
    for path in first.folder.iterdir():
        path.unlink()
    first.folder.rmdir()
    assert data.prepare("tiny_v1", data_dir, None) == first


def test_files_without_gz(tiny, data_dir, tiny_raw):
    expected = data.prepare("tiny_v1", data_dir, tiny).data_hash
    for name, contents in tiny_raw.items():
        (tiny / "tiny" / f"{name}.gz").unlink()
        (tiny / "tiny" / name).write_bytes(contents)
    assert data.prepare("tiny_v1", data_dir / "again", tiny).data_hash == expected


def _dotted(folder):
    """Names as in some mirrors: `train-images.idx3-ubyte`."""
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("-idx", ".idx"))


def _kaggle(folder):
    """As Kaggle unpacks: a plain file in a folder of its own name, with dots or without."""
    for path in list(folder.iterdir()):
        contents = gzip.decompress(path.read_bytes())
        path.unlink()
        (folder / path.stem).mkdir()
        (folder / path.stem / path.stem).write_bytes(contents)


def _torchvision(folder):
    (folder.parent / "MNIST").mkdir()
    folder.rename(folder.parent / "MNIST" / "raw")


def _directly(folder):
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
    folder.rmdir()


def _renamed(folder):
    """No name tells anything, and gzip is not told by `.gz`."""
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"download ({number})")


def _some_elsewhere(folder):
    (folder.parent / "more").mkdir()
    (folder / TEST_LABELS).rename(folder.parent / "more" / "t10k-labels.idx1-ubyte.gz")


LAYOUTS = [_dotted, _kaggle, _torchvision, _directly, _renamed, _some_elsewhere]


@pytest.mark.parametrize("spread", LAYOUTS, ids=lambda spread: spread.__name__)
def test_published_files_are_known_by_their_contents(tiny, data_dir, spread):
    expected = data.prepare("tiny_v1", data_dir, tiny).data_hash
    spread(tiny / "tiny")
    assert data.prepare("tiny_v1", data_dir / "again", tiny).data_hash == expected


def test_beside_files_of_other_data_and_of_no_data(tiny, data_dir):
    expected = data.prepare("tiny_v1", data_dir, tiny).data_hash
    _torchvision(tiny / "tiny")
    other = tiny / "FashionMNIST" / "raw"  # the same names, and sorted before
    other.mkdir(parents=True)
    for path in (tiny / "MNIST" / "raw").iterdir():
        contents = gzip.decompress(path.read_bytes())
        (other / path.name).write_bytes(gzip.compress(contents[:-1] + bytes([contents[-1] ^ 1])))
    (tiny / "MNIST" / "link").symlink_to(tiny)
    (tiny / "broken").symlink_to(tiny / "nowhere")
    (tiny / "cut.gz").write_bytes((other / TRAIN_IMAGES).read_bytes()[:500])
    (tiny / "empty").write_bytes(b"")
    os.mkfifo(tiny / "pipe")
    assert data.prepare("tiny_v1", data_dir / "again", tiny).data_hash == expected


@pytest.mark.parametrize("spread", [_dotted, _kaggle, _torchvision])
def test_a_file_that_is_not_the_published_one_is_named(tiny, data_dir, spread):
    path = tiny / "tiny" / TRAIN_LABELS
    contents = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(contents[:-1] + bytes([contents[-1] ^ 1])))
    spread(tiny / "tiny")
    (seen,) = [p for p in tiny.rglob("train-labels*") if p.is_file()]
    with pytest.raises(UserError, match=f"{TRAIN_LABELS} is missing") as error:
        data.prepare("tiny_v1", data_dir, tiny)
    assert f"{seen} has other contents" in str(error.value)
    assert list(data_dir.iterdir()) == []


def test_kmnist_is_known_by_the_gz_alone(tiny, data_dir, only_gz_sums):
    expected = data.prepare("tiny_v1", data_dir, tiny).data_hash
    _torchvision(tiny / "tiny")
    assert data.prepare("tiny_v1", data_dir / "again", tiny).data_hash == expected


def _swap(folder: Path, one: str, other: str) -> None:
    contents = (folder / one).read_bytes()
    (folder / one).write_bytes((folder / other).read_bytes())
    (folder / other).write_bytes(contents)


WRONG = {
    "missing": (
        lambda folder: (folder / TEST_LABELS).unlink(),
        f"{TEST_LABELS} is missing; put the published file there",
    ),
    "truncated": (
        lambda folder: (folder / TRAIN_IMAGES).write_bytes(
            (folder / TRAIN_IMAGES).read_bytes()[:1000]
        ),
        f"{TRAIN_IMAGES} is a damaged or truncated gzip file",
    ),
    "counts that do not match": (
        lambda folder: _swap(folder, TRAIN_LABELS, TEST_LABELS),
        f"{TRAIN_LABELS} declares 20 values, not 60",
    ),
    "images for labels": (
        lambda folder: _swap(folder, TRAIN_LABELS, TRAIN_IMAGES),
        f"{TRAIN_IMAGES} has magic number 0x00000801, not 0x00000803",
    ),
    "labels out of range": (
        lambda folder: (folder / TRAIN_LABELS).write_bytes(
            gzip.compress(b"\0\0\x08\1\0\0\0\x3c" + bytes(59) + b"\x0b")
        ),
        f"{TRAIN_LABELS} holds the value 11, above 9",
    ),
    "other contents": (
        lambda folder: (folder / TRAIN_LABELS).write_bytes(
            gzip.compress(b"\0\0\x08\1\0\0\0\x3c" + bytes(60))
        ),
        f"{TRAIN_LABELS} has contents of SHA-256 ",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_raw_file_is_named_and_nothing_stays(tiny, data_dir, fault):
    spoil, message = WRONG[fault]
    spoil(tiny / "tiny")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        data.prepare("tiny_v1", data_dir, tiny)
    assert "\n" not in str(error.value)
    assert str(tiny) in str(error.value)
    assert list(data_dir.iterdir()) == []


@pytest.fixture
def only_gz_sums(tiny, monkeypatch):
    """`tiny_v1` as KMNIST is: sums are published for the `.gz` files and not for the contents."""
    described = published.PUBLISHED["tiny_v1"]._replace(sha256=None)
    monkeypatch.setitem(published.PUBLISHED, "tiny_v1", described)


def test_where_only_the_gz_has_a_published_sum_that_is_checked(tiny, data_dir, only_gz_sums):
    assert data.prepare("tiny_v1", data_dir, tiny).num_train == 40
    path = tiny / "tiny" / TRAIN_LABELS
    contents = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(contents, mtime=1))
    with pytest.raises(UserError, match=f"{TRAIN_LABELS} has a wrong checksum; download it again"):
        data.prepare("tiny_v1", data_dir / "again", tiny)
    path.unlink()
    path.with_suffix("").write_bytes(contents)
    with pytest.raises(UserError, match=f"{TRAIN_LABELS} is missing"):
        data.prepare("tiny_v1", data_dir / "again", tiny)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no info"])
def test_damaged_records(tiny, data_dir, damage):
    records.load("tiny_v1", published.PUBLISHED["tiny_v1"], data_dir, tiny)
    folder = data_dir / "tiny_v1" / "1.0.0"
    path = folder / "tiny_v1-train.array_record-00000-of-00001"
    contents = path.read_bytes()
    if damage == "cut":
        path.write_bytes(contents[:-1000])
    elif damage == "changed":
        path.write_bytes(contents[:500] + b"!" + contents[501:])
    else:
        (path if damage == "gone" else folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=r"are damaged .* delete that folder") as error:
        data.prepare("tiny_v1", data_dir, tiny)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_records_of_other_data_are_refused(tiny, data_dir, monkeypatch):
    records.load("tiny_v1", published.PUBLISHED["tiny_v1"], data_dir, tiny)
    described = published.PUBLISHED["tiny_v1"]
    other = dict.fromkeys(described.sha256, "0" * 64)
    monkeypatch.setitem(published.PUBLISHED, "tiny_v1", described._replace(sha256=other))
    with pytest.raises(UserError, match=r"wrong checksum of the train split"):
        data.prepare("tiny_v1", data_dir, tiny)


def test_tfrecords_of_the_user_are_refused_and_left_alone(tiny, data_dir):
    theirs = data_dir / "tiny" / "3.0.1" / "tiny-train.tfrecord-00000-of-00001"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(UserError, match=r"3.0.1 holds TFRecords.*--data-dir.*--manual-dir"):
        data.prepare("tiny_v1", data_dir, None)
    assert [path.name for path in data_dir.iterdir()] == ["tiny"]
    # With the raw files named, the user's wish is plain, and nothing of theirs is in the way.
    assert data.prepare("tiny_v1", data_dir, tiny).num_test == 20
    assert theirs.read_bytes() == b"theirs"
    assert data.prepare("tiny_v1", data_dir, None).num_test == 20


# ---- Download, from a server on this machine


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tiny, monkeypatch):
    """Serves the raw files under the addresses that are published for them."""
    handler = functools.partial(_SilentHandler, directory=str(tiny / "tiny"))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        infos = {
            url.replace("http://tiny.invalid", f"http://127.0.0.1:{server.server_port}"): info
            for url, info in records.url_infos("tiny").items()
        }
        monkeypatch.setattr(records, "url_infos", lambda raw_name: infos)
        yield tiny / "tiny"
        server.shutdown()
        thread.join()


def test_download(tiny, served, data_dir):
    downloaded = data.prepare("tiny_v1", data_dir, None)
    assert downloaded.data_hash == data.prepare("tiny_v1", data_dir / "again", tiny).data_hash
    assert not (data_dir / "downloads").exists()


def test_a_download_says_what_comes_and_how_far_it_is(served, data_dir, caplog, monkeypatch):
    monkeypatch.setattr(downloads, "REPORT_S", -1.0)
    with caplog.at_level("INFO", "mnist_jax"):
        data.prepare("tiny_v1", data_dir, None)
    said = [record.getMessage() for record in caplog.records]
    begun = [line for line in said if line.startswith("downloading http://127.0.0.1:")]
    assert len(begun) == 4 and all(re.search(r" \([\d.]+ (KiB|bytes)\)$", line) for line in begun)
    assert any(re.fullmatch(r"\d+\.\d of \d+\.\d MB", line) for line in said)


def test_a_server_that_falls_silent_is_given_up(served, data_dir, monkeypatch):
    """tensorflow-datasets would wait for good."""
    over = threading.Event()

    def send_half_and_wait(handler, source, target):
        content = source.read()
        target.write(content[: len(content) // 2])
        target.flush()
        over.wait(30)

    monkeypatch.setattr(_SilentHandler, "copyfile", send_half_and_wait)
    monkeypatch.setattr(downloads, "SILENCE_S", 0.5)
    try:
        with pytest.raises(UserError, match=r"cannot download .*nothing came for 0.5 s.*manual"):
            data.prepare("tiny_v1", data_dir, None)
    finally:
        over.set()
    assert list(data_dir.iterdir()) == []


def test_download_of_something_else(served, data_dir):
    (served / TRAIN_LABELS).write_bytes(b"changed")
    with pytest.raises(UserError, match=f"{TRAIN_LABELS} has a wrong checksum.*--manual-dir"):
        data.prepare("tiny_v1", data_dir, None)
    assert list(data_dir.iterdir()) == []


def test_download_of_nothing(served, data_dir):
    (served / TRAIN_LABELS).unlink()
    message = f"cannot download .*{TRAIN_LABELS} .*HTTP code: 404.*--manual-dir"
    with pytest.raises(UserError, match=message):
        data.prepare("tiny_v1", data_dir, None)
    assert list(data_dir.iterdir()) == []


def test_no_network(tiny, data_dir, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    message = "cannot download http://tiny.invalid/.*; connect to the network.*FOLDER/tiny"
    with pytest.raises(UserError, match=message) as error:
        data.prepare("tiny_v1", data_dir, None)
    assert "\n" not in str(error.value)
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("dataset_id", ["mnist_v1", "fashion_mnist_v1", "kmnist_v1"])
def test_tensorflow_datasets_publishes_sums_of_the_four_files(dataset_id):
    infos = records.url_infos(str(published.PUBLISHED[dataset_id].raw_name))
    names = {f"{name}.gz" for name in published.PUBLISHED["mnist_v1"].sha256 or {}}
    assert {info.filename for info in infos.values()} == names
    assert all(re.fullmatch("[0-9a-f]{64}", info.checksum) for info in infos.values())


def test_no_tensorflow_and_not_a_word_on_the_terminal(tmp_path, tiny):
    script = f"""
        import hashlib, sys
        from pathlib import Path
        from mnist_jax import data
        from mnist_jax.data import published
        described = published.PUBLISHED["mnist_v1"]._replace(
            num_train=60, num_validation=20, num_test=20, sha256={{}})
        published.PUBLISHED["tiny_v1"] = described._replace(
            sha256={dict(published.PUBLISHED["tiny_v1"].sha256 or {})!r})
        for dataset_id in ("digits_v1", "tiny_v1"):
            dataset = data.prepare(dataset_id, Path({str(tmp_path)!r}), Path({str(tiny)!r}))
            data.read(dataset, "test")
        assert "tensorflow_datasets" in sys.modules
        assert "tensorflow" not in sys.modules
    """
    (tiny / "tiny").rename(tiny / "mnist")
    known = ["-W", "ignore:label() is deprecated"]  # protobuf's, of tensorflow-datasets
    command = [sys.executable, "-W", "error", *known, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
