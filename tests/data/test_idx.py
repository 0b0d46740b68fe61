import gzip
import hashlib
import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.data.idx import contents_sha256, read_idx
from mnist_jax.errors import UserError

IMAGES = np.arange(5 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(5, 28, 28)
LABELS = np.array([0, 9, 3, 1, 7], np.uint8)
IMAGE_BYTES = struct.pack(">IIII", 0x803, 5, 28, 28) + IMAGES.tobytes()
LABEL_BYTES = struct.pack(">II", 0x801, 5) + LABELS.tobytes()
PACKED_LABELS = gzip.compress(LABEL_BYTES, mtime=0)  # a time of now would change the tests' names


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_what_was_written(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(IMAGE_BYTES) if suffix else IMAGE_BYTES)
    array = read_idx(path, (5, 28, 28), 255, hashlib.sha256(IMAGE_BYTES).hexdigest())
    np.testing.assert_array_equal(array, IMAGES)
    path.write_bytes(gzip.compress(LABEL_BYTES) if suffix else LABEL_BYTES)
    array = read_idx(path, (5,), 9, hashlib.sha256(LABEL_BYTES).hexdigest())
    np.testing.assert_array_equal(array, LABELS)
    assert array.dtype == np.uint8


def test_contents_sha256_is_that_of_the_file():
    assert contents_sha256(IMAGES) == hashlib.sha256(IMAGE_BYTES).hexdigest()
    assert contents_sha256(LABELS) == hashlib.sha256(LABEL_BYTES).hexdigest()


def _header(magic: int, *counts: int) -> bytes:
    return struct.pack(f">I{len(counts)}I", magic, *counts)


@pytest.mark.parametrize(
    ("name", "contents", "problem"),
    [
        ("labels", b"", "is truncated: 0 bytes of a 8-byte header"),
        ("labels", LABEL_BYTES[:6], "is truncated: 6 bytes of a 8-byte header"),
        ("labels", LABEL_BYTES[:-1], "is truncated: 4 of 5 values"),
        ("labels", LABEL_BYTES + b"\0", "has more than its 5 values"),
        ("labels", IMAGE_BYTES, "has magic number 0x00000803, not 0x00000801"),
        ("labels", b"<!DOCTYPE html>", "has magic number 0x3c21444f, not 0x00000801"),
        ("labels", _header(0x801, 4) + bytes(4), "declares 4 values, not 5"),
        ("labels", _header(0x801, 2**32 - 1) + bytes(5), "declares 4294967295 values, not 5"),
        ("labels", _header(0x801, 5) + b"\0\1\2\3\12", "holds the value 10, above 9"),
        ("labels", _header(0x801, 5) + bytes(5), "has contents of SHA-256 [0-9a-f]{64}, not"),
        ("labels.gz", LABEL_BYTES, "is not a gzip file, though its name ends in .gz"),
        ("labels.gz", b"", "is not a gzip file, though its name ends in .gz"),
        ("labels.gz", PACKED_LABELS[:-9], "is a damaged or truncated gzip file"),
        ("labels.gz", PACKED_LABELS[:-8] + bytes(8), "is a damaged or truncated gzip"),
        ("labels.gz", gzip.compress(LABEL_BYTES[:-1], mtime=0), "is truncated: 4 of 5 values"),
    ],
)
def test_wrong_file_is_named_with_its_fault_and_the_remedy(tmp_path, name, contents, problem):
    path = tmp_path / name
    path.write_bytes(contents)
    with pytest.raises(UserError) as error:
        read_idx(path, (5,), 9, hashlib.sha256(LABEL_BYTES).hexdigest())
    message = str(error.value)
    assert re.match(re.escape(f"{path} ") + problem, message)
    assert message.endswith("; replace it with the published file")
    assert "\n" not in message


def test_images_of_another_size(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(_header(0x803, 5, 32, 32) + bytes(5 * 32 * 32))
    with pytest.raises(UserError, match=r"declares 5x32x32 values, not 5x28x28"):
        read_idx(path, (5, 28, 28), 255, None)


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(UserError, match=r"labels.gz is missing; put the published file there"):
        read_idx(tmp_path / "labels.gz", (5,), 9, None)
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_idx(tmp_path, (5,), 9, None)


@pytest.mark.parametrize("header", [_header(0x803, 5, 28, 28), _header(0x803, 2**31, 2**31, 2**31)])
def test_memory_follows_what_is_expected_not_what_the_file_holds(tmp_path, header):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"has more than|declares"):
        read_idx(path, (5, 28, 28), 255, None)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


@st.composite
def _damaged(draw):
    """A right file with something cut, changed or put in, before or after compression."""
    contents = bytearray(LABEL_BYTES)
    packed = draw(st.booleans())
    if packed and draw(st.booleans()):
        contents = bytearray(gzip.compress(bytes(contents), mtime=0))
        packed = False
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(contents)))
        length = draw(st.integers(0, 4))
        contents[at : at + length] = draw(st.binary(max_size=4))
    return gzip.compress(bytes(contents), mtime=0) if packed else bytes(contents)


@given(st.binary(max_size=64) | _damaged(), st.sampled_from(["labels", "labels.gz"]))
def test_any_bytes_give_the_array_or_a_user_error(tmp_path_factory, contents, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(contents)
    try:
        array = read_idx(path, (5,), 9, None)
    except UserError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        is_packed = name.endswith(".gz") or contents.startswith(b"\x1f\x8b")
        plain = gzip.decompress(contents) if is_packed else contents
        assert plain == _header(0x801, 5) + array.tobytes()
        assert array.shape == (5,)
        assert array.max() <= 9


@given(st.binary(max_size=64) | _damaged(), st.sampled_from(["labels", "labels.gz"]))
def test_with_a_sum_nothing_but_the_published_contents_pass(tmp_path_factory, contents, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(contents)
    try:
        array = read_idx(path, (5,), 9, hashlib.sha256(LABEL_BYTES).hexdigest())
    except UserError:
        return
    np.testing.assert_array_equal(array, LABELS)
