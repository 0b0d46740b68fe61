"""Decoding in child processes: order, and what a crash costs."""

import io

import numpy as np
from PIL import Image

from mnist_jax.data import decoding

CRASHER = """
import os
from mnist_jax.data.decoder import prepare_one

def prepare(picture, side, rule):
    if picture == b"deadly":
        os.abort()
    return prepare_one(picture, side, rule)
"""


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (16, 16), level).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_kills_its_decoder_is_lost_alone(tmp_path, monkeypatch):
    (tmp_path / "crasher.py").write_text(CRASHER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chunks = [[png(1), b"deadly", png(2)], [b"text", png(3)], [png(4)]]
    with decoding.Decoders(workers=1, prepare="crasher:prepare") as decoders:
        found = [
            decoded._replace(images=decoded.images.copy())
            for decoded in decoders.decode(chunks, 16, "pad")
        ]
    reasons = [[one.reason for one in part.seen] for part in found]
    assert reasons == [
        [None, "its decoder crashed", None],
        ["not a picture in a known format", None],
        [None],
    ]
    levels = [np.unique(image).tolist() for part in found for image in part.images]
    assert levels == [[1], [2], [3], [4]]


def test_pictures_of_two_sizes_come_in_order_and_nothing_is_left(tmp_path):
    chunks = [[png(10 * k + i) for i in range(3)] for k in range(12)]
    with decoding.Decoders(workers=2) as decoders:
        for side in (16, 40):
            levels = [d.images[:, 0, 0, 0].tolist() for d in decoders.decode(chunks, side, "pad")]
            assert levels == [[10 * k + i for i in range(3)] for k in range(12)]
        assert list(decoders.decode([], 16, "pad")) == []
        (source,) = decoders._sources
    assert source.process.returncode == 0  # it has waited for its workers


def test_what_is_left_undecoded_holds_nothing_up():
    with decoding.Decoders(workers=2) as decoders:
        decoded = decoders.decode(([png(1)] for _ in range(10**6)), 16, "pad")
        assert next(decoded).seen[0].reason is None
        decoded.close()
        (source,) = decoders._sources
    assert source.process.poll() is not None
