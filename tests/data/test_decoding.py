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
    found = list(decoding.decode_all(chunks, 16, "pad", workers=1, prepare="crasher:prepare"))
    reasons = [[one.reason for one in part.seen] for part in found]
    assert reasons == [
        [None, "its decoder crashed", None],
        ["not a picture in a known format", None],
        [None],
    ]
    levels = [np.unique(image).tolist() for part in found for image in part.images]
    assert levels == [[1], [2], [3], [4]]


def test_nothing_to_decode_starts_no_process(monkeypatch):
    monkeypatch.setattr(decoding, "_Worker", None)
    assert list(decoding.decode_all([], 16, "pad")) == []
