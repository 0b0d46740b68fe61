import json
import os

import pytest

from mnist_jax import files
from mnist_jax.errors import UserError


def test_what_is_written_is_read(tmp_path):
    value = {"b": [1, 2.5, None], "a": "ä"}
    files.write_json(tmp_path / "new" / "x.json", value)
    assert files.read_json(tmp_path / "new" / "x.json") == value
    text = (tmp_path / "new" / "x.json").read_text()
    assert text.index('"a"') < text.index('"b"')


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_json(path, 1)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"x\.json: No space left on device; choose a folder"):
        files.write_json(path, 2)
    assert files.read_json(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        files.write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*No such file.*; name a folder"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text(json.dumps([1, 2])[:-1])
    with pytest.raises(UserError, match=r"cut\.json is not valid JSON, or .*; it is damaged"):
        files.read_json(tmp_path / "cut.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"bytes\.json is not valid JSON"):
        files.read_json(tmp_path / "bytes.json")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x"):
        files.write_text(tmp_path / "file" / "x", "")
