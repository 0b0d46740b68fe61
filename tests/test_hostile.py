"""Files and names from elsewhere: data is read as data, and nothing in it can do more than fail.

Config files are Python and run as such. Everything else that is read is in here or in the test of
its own module: IDX files in `data/test_idx.py`, flags in `test_config.py`, requests in `serve/`.
"""

import ast
import hashlib
import io
import json
import logging
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from mnist_jax import config, data, files
from mnist_jax.card import model_card
from mnist_jax.data import arrays
from mnist_jax.data.idx import read_idx
from mnist_jax.errors import UserError, printable
from mnist_jax.export import safetensors, stablehlo
from mnist_jax.release import criteria as release
from mnist_jax.release import shown
from mnist_jax.release.latency import open_session
from mnist_jax.release.records import Criteria
from mnist_jax.run import folder as run_folder
from mnist_jax.run import log, paths
from mnist_jax.training.checkpoint import load_released, save_released

ROOT = Path(__file__).parents[1]
SOURCES = [
    *(ROOT / "mnist_jax").rglob("*.py"),
    *(ROOT / "configs").glob("*.py"),
    *(ROOT / "examples").rglob("*.py"),
]
# Each can run code that its input brings.
DANGEROUS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400])  # where arithmetic ends
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


# ---- No pickle


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_bring_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & DANGEROUS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in DANGEROUS
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "compile", "__import__"), node.lineno
            if name in ("np.load", "numpy.load"):
                told = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert told.get("allow_pickle") == "False", node.lineno
            if name == "torch.load":
                told = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert told.get("weights_only") == "True", node.lineno


class Payload:
    """Makes a folder wherever it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def payload(tmp_path):
    """A pickle that would leave a trace; there must be none after the test."""
    marker = tmp_path / "it_was_run"
    assert pickle.loads(pickle.dumps(Payload(marker))) is None
    marker.rmdir()  # so the payload works
    yield pickle.dumps(Payload(marker))
    assert not marker.exists()


def test_a_pickle_is_never_run(tmp_path, payload):
    path = tmp_path / "planted"
    path.write_bytes(payload)
    for read in (files.read_json, lambda path: read_idx(path, (5,), 9, None)):
        with pytest.raises(UserError):
            read(path)
    for from_bytes in (
        safetensors.from_bytes,
        stablehlo.from_bytes,
        lambda content: open_session(content, "all", 1),
    ):
        with pytest.raises(Exception):  # noqa: B017 (each library has its own; verify catches all)
            from_bytes(payload)


def test_a_pickle_among_the_arrays_is_never_run(tmp_path, payload):
    """With an index that fits, as only someone who means it would write."""
    splits = {
        name: arrays.Split(np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8))
        for name in arrays.SPLITS
    }
    arrays.write(tmp_path / "a", splits)
    path, index = tmp_path / "a" / "train_images.npy", files.read_json(tmp_path / "a/index.json")
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(tmp_path / "it_was_run")], object), allow_pickle=True)
    floats = io.BytesIO()
    np.save(floats, np.zeros((3, 28, 28)))
    for content in (payload, objects.getvalue(), floats.getvalue()):
        path.write_bytes(content)
        entry = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        index["files"][path.name] = entry
        index["data_hash"] = arrays._hash_index(index["files"])
        files.write_json(tmp_path / "a" / "index.json", index)
        with pytest.raises(UserError, match=r"train_images\.npy is missing, .* changed"):
            arrays.read(tmp_path / "a", "train")


def test_a_pickle_in_a_checkpoint_is_never_run(tmp_path, payload):
    weights = {"kernel": np.zeros((50, 50), np.float32)}
    save_released(tmp_path, weights, {})
    paths = [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(payload)
        try:
            params, _ = load_released(tmp_path, weights, {})
            np.testing.assert_array_equal(params["kernel"], weights["kernel"])
        except UserError:
            pass
        path.write_bytes(content)


# ---- JSON


def overwrite(path, content):
    """In its place: a file that is emptied first waits for the disk."""
    with path.open("r+b") as file:
        file.write(content)


def test_every_bit_of_a_json_file_counts(tmp_path):
    value = {"accuracy": 0.9915, "classes": ["ä", "1"], "epochs": [{"loss": 1e-05, "n": None}]}
    path = tmp_path / "x.json"
    files.write_json(path, value)
    content, num_refused = path.read_bytes(), 0
    for position in range(len(content) - 1):  # the last is a line end
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            overwrite(path, flipped)
            try:
                found = files.read_json(path)
            except UserError as error:
                assert str(path) in str(error)
                num_refused += 1
            else:  # a space, or a letter of the sum's own name
                assert {key: found[key] for key in value} == value
    assert num_refused > 0.7 * 8 * len(content)
    overwrite(path, content)
    for position in reversed(range(len(content) - 1)):
        os.truncate(path, position)
        with pytest.raises(UserError, match=r"x\.json"):
            files.read_json(path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"NaN",
        b"[Infinity]",
        b'{"contents_sha256":"","a":1e999}',
        b"9" * 5000,
        b"\xff",
        b"",
    ],
)
def test_json_that_is_made_to_hurt(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is not valid JSON"):
        files.read_json(tmp_path / "x.json")


@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_json_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        files.read_json(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@settings(deadline=None)
@given(json_values | st.fixed_dictionaries({"files": json_values, "data_hash": json_values}))
def test_any_index_of_arrays_is_refused(tmp_path_factory, index):
    folder = tmp_path_factory.getbasetemp() / "arrays"
    if isinstance(index, dict) and "files" in index:
        text = json.dumps(index["files"], sort_keys=True)
        index["data_hash"] = hashlib.sha256(text.encode()).hexdigest()
    files.write_json(folder / "index.json", index)
    with pytest.raises(UserError, match="missing, truncated or changed"):
        arrays.read(folder, "train")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that is finished as far as its JSON files go."""
    folder = tmp_path_factory.mktemp("finished")
    settings = {
        key: run_folder.jsonable(value) for key, value in config.default().to_dict().items()
    }
    run = {"config": settings, "dataset": {"data_hash": "0"}, "environment": {"versions": {}}}
    files.write_json(folder / paths.CONFIG, run)
    files.write_json(folder / paths.RELEASE, {})
    run_folder.read_run(folder)  # as it is, it passes
    return folder, run


@settings(deadline=None)
@given(st.sampled_from([*sorted(config.default()), None]), json_values)
def test_any_config_json_is_a_run_or_a_user_error(finished, key, value):
    folder, run = finished
    changed = {**run, "config": {**run["config"], key: value}} if key else value
    files.write_json(folder / paths.CONFIG, changed)
    try:
        found = run_folder.read_run(folder)["config"]
    except UserError as error:
        assert "config.json is not what a run writes" in str(error)
    else:
        config.validate(found)


@pytest.mark.parametrize("key", ["model_id", "dataset_id", "criterion_id", "optimizer_id"])
@pytest.mark.parametrize("value", ["../../etc", "/etc/passwd", "a\0b", "x" * 5000, ""])
def test_no_id_is_a_path(finished, key, value):
    folder, run = finished
    files.write_json(folder / paths.CONFIG, run | {"config": {**run["config"], key: value}})
    with pytest.raises(UserError, match=r"config\.json is not what a run writes"):
        run_folder.read_run(folder)
    with pytest.raises(UserError, match="must be one of"):
        config.validate({**config.default().to_dict(), key: value})
    with pytest.raises(UserError, match="is not known"):
        data.prepare(value, folder, None)


@settings(deadline=None, max_examples=50)
@given(json_values, json_values)
def test_a_card_of_any_json_is_refused(tmp_path_factory, verdict, history):
    folder = tmp_path_factory.getbasetemp() / "card"
    files.write_json(folder / "logs" / "release.json", verdict)
    files.write_json(folder / "logs" / "history.json", history)
    with pytest.raises(UserError, match=r"that no run has written|is not what a run writes"):
        model_card.write(folder)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(("num_correct", "num_examples", "per_class", "accuracy", "split", "loss")),
        json_values,
    ),
    st.none()
    | st.dictionaries(
        st.sampled_from(("files", "latency", "accuracy", "checks", "failures", "passed")),
        json_values,
    ),
)
def test_the_criteria_release_nothing_absurd_and_never_raise(metrics, verification):
    verdict = release.judge(
        Criteria(), run={}, metrics=metrics, training=None, verification=verification
    )
    assert verdict["verdict"] == "refused"
    assert verdict["reasons"]
    Console(quiet=True).print(shown.table(verdict))


# ---- Names


NASTY = "a\nb\x1b[31m\x07c\u202e\udcff"


def test_what_does_not_print_is_written_out():
    assert printable("plain ä 1") == "plain ä 1"
    assert printable(NASTY) == r"a\nb\x1b[31m\x07c\u202e\udcff"
    assert str(UserError(f"{NASTY} is bad")) == r"a\nb\x1b[31m\x07c\u202e\udcff is bad"


def test_no_name_forges_a_line_of_the_log_or_colours_the_terminal(tmp_path, capfd, monkeypatch):
    logger = logging.getLogger("mnist_jax")
    monkeypatch.setattr(logger, "handlers", [])  # pytest's would have the name as it is
    console = Console(force_terminal=True, width=200)
    with log.to_terminal(console), log.to_file(tmp_path / "x.log"):
        logger.info("run folder %s", NASTY)
    (line,) = (tmp_path / "x.log").read_text().splitlines()
    assert r"run folder a\nb\x1b[31m\x07c\u202e\udcff" in line
    out = capfd.readouterr().out
    assert len(out.splitlines()) == 1
    assert "\x1b[31m" not in out
    assert "\x07" not in out


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\udcffb"])
def test_a_folder_whose_name_does_not_print_is_refused(tmp_path, name):
    with (
        pytest.raises(UserError, match="holds a character that does not print; give") as error,
        run_folder.claim(tmp_path / name, {}),
    ):
        pass
    assert str(error.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_quotes_nothing_raw(capfd):
    row = {"name": "verified", "measured": False, "threshold": True, "unit": "", "rule": "=="}
    row |= {"passed": False, "n": None, "interval_95": None, "detail": ""}
    verdict = {"criteria": [row], "reasons": [f"verified: {NASTY} [bold]x[/bold]"]}
    Console(width=200).print(shown.table(verdict))
    out = capfd.readouterr().out
    assert r"a\nb\x1b[31m\x07c\u202e\udcff [bold]x[/bold]" in out
    assert "\x1b[31m" not in out


# ---- Data on disk


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.prepare("digits_v1", tmp_path_factory.mktemp("data"), None)


def test_no_damage_to_prepared_data_goes_unnoticed(digits, tmp_path):
    rng, whole = random.Random(0), {name: data.read(digits, name) for name in arrays.SPLITS}
    shutil.copytree(digits.folder, tmp_path / "digits_v1" / "1.0.0" / "arrays")
    num_refused = 0
    for path in sorted((tmp_path / "digits_v1").rglob("*.*o*")) + sorted(tmp_path.rglob("*.npy")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        for attempt in range(8):
            position = rng.randrange(len(content))
            flipped = bytearray(content)
            flipped[position] ^= 1 << rng.randrange(8)
            path.write_bytes(content[:position] if attempt < 2 else flipped)
            try:
                dataset = data.prepare("digits_v1", tmp_path, None)
            except UserError as error:
                assert str(path) in str(error)
                num_refused += 1
            else:
                for name, split in whole.items():
                    for one, other in zip(data.read(dataset, name), split, strict=True):
                        np.testing.assert_array_equal(one, other)
        path.write_bytes(content)
    assert num_refused >= 7 * 8
