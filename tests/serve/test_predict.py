"""`scripts/predict`: its answers beside the run's own, and what becomes of odd files and names."""

import csv
import io
import json
import os
import re
import runpy
import subprocess
import sys
import urllib.request
import zlib
from itertools import repeat
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from mnist_jax import data, files
from mnist_jax.card import model_card
from mnist_jax.config import FITS
from mnist_jax.data import arrays, own, pictures
from mnist_jax.errors import UserError
from mnist_jax.export import interface
from mnist_jax.run.paths import EXPORTED, HISTORY
from mnist_jax.serve import listed, predict, prepared, preprocess

ROOT = Path(__file__).parents[2]


@pytest.fixture
def answer(capfdbinary):
    """Runs the command: `status, rows, errors = answer(model, path, ...)`; rows without header."""

    def answer(*arguments):
        status = predict.main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        rows = list(csv.reader(io.StringIO(out.decode("utf-8", "surrogateescape"), newline="")))
        return status, rows[1:], err.decode().splitlines()

    return answer


def scores_of(model, images):
    """Scores by ONNX Runtime itself, of one image at a time."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["scores"], {"image": image[None]})[0] for image in images])


def as_input(split):
    """A split's images as the file takes them."""
    images = split.images.reshape(*split.images.shape[:3], -1).transpose(0, 3, 1, 2)
    return images.astype(np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def linear(tmp_path_factory, make_model):
    """A model of colour pictures, 16 pixels a side, with two classes."""
    folder = tmp_path_factory.mktemp("linear")
    names = json.dumps(["a", "b"])
    return make_model(folder / "linear.onnx", (3, 16, 16), 2, fit="pad", class_names=names)


def test_the_answers_on_a_runs_test_files_are_the_runs_own(own_run, photographs, answer):
    config = json.loads((own_run / "logs" / "config.json").read_text())
    (folder,) = (Path(config["config"]["data_dir"]) / "own").iterdir()
    test = arrays.read(folder, "test")
    names = json.loads((folder / "names.json").read_text())["test"]
    status, rows, errors = answer(own_run, photographs / "test", "--top=2")
    assert (status, errors, len(rows)) == (0, [], len(names))
    scores = scores_of(own_run / "models" / "mnist_model.onnx", as_input(test))
    labels, num_correct = config["dataset"]["class_names"], 0
    for name, row, label in zip(names, scores, test.labels, strict=True):
        first, second = np.argsort(-row)
        expected = [labels[first], str(row[first]), labels[second], str(row[second])]
        assert [str(photographs / name), *expected] in rows
        num_correct += first == label
    metrics = json.loads((own_run / "logs" / "metrics.json").read_text())
    assert num_correct == metrics["num_correct"]


@pytest.mark.parametrize("fit", pictures.FITS)
def test_grey_pictures_become_what_training_makes_of_them(fit, tmp_path, answer, make_model):
    random = np.random.default_rng(1)
    for label in ("0", "1"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for index, size in enumerate([(28, 28), (13, 30), (50, 41), (30, 20), (7, 7), (28, 9)]):
            levels = random.integers(0, 256, size, np.uint8)
            Image.fromarray(levels).save(tmp_path / "own" / label / f"{label}{index}.png")
    settings = own.Settings(image_side=20, fit=fit, validation_share=0.2, test_share=0.5)
    made, _ = own.prepare(tmp_path / "own", tmp_path / "data", settings)
    assert made.channels == 1
    model = make_model(tmp_path / "grey.onnx", (1, 20, 20), 3, fit=fit)
    status, rows, _ = answer(model, tmp_path / "own")
    assert status == 0
    found = {os.path.basename(path): score for path, _, score in rows}
    for name, image in zip(own.names(made.folder)["test"], as_input(data_of(made)), strict=True):
        assert found[os.path.basename(name)] == str(scores_of(model, [image]).max())


def data_of(made):
    return arrays.read(made.folder, "test")


def test_a_published_data_sets_own_pictures_are_taken_as_they_are(run, tmp_path, answer):
    config = json.loads((run / "logs" / "config.json").read_text())
    dataset = data.prepare("digits_v1", Path(config["config"]["data_dir"]), None)
    test = data.read(dataset, "test")
    for index, image in enumerate(test.images):
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    status, rows, _ = answer(run, tmp_path, "--as-is")
    assert status == 0
    scores = scores_of(run / "models" / "mnist_model.onnx", as_input(test))
    assert [row[2] for row in rows] == [str(one) for one in scores.max(1)]
    assert [int(row[1]) for row in rows] == scores.argmax(1).tolist()
    metrics = json.loads((run / "logs" / "metrics.json").read_text())
    assert (scores.argmax(1) == test.labels).sum() == metrics["num_correct"]


def test_photographs_of_digits_are_prepared_as_the_page_prepares_them(run, tmp_path, answer):
    strokes = json.loads((Path(__file__).parent / "strokes.json").read_text())
    inks = {digit: preprocess.ink_of_strokes(lines) for digit, lines in strokes.items()}
    for digit, ink in inks.items():
        kind = "jpg" if int(digit) % 2 else "png"
        Image.fromarray(255 - ink // 2).save(tmp_path / f"{digit}.{kind}")
    white = np.full((280, 280, 4), 255, np.uint8)
    white[..., 3] = inks["4"]
    Image.fromarray(white).save(tmp_path / "white on nothing.png")
    Image.new("RGB", (60, 40), (230, 220, 210)).save(tmp_path / "blank.png")
    status, rows, errors = answer(run, tmp_path)
    assert status == 2
    (line,) = errors
    assert line.startswith(f"{tmp_path / 'blank.png'}: there is no ink to look at")
    assert len(rows) == 11
    for path, _, score in rows:
        with Image.open(path) as picture:
            image = preprocess.image_of_picture(np.asarray(picture))
        inputs = preprocess.model_input(image)
        assert score == str(scores_of(run / "models" / "mnist_model.onnx", inputs).max())


@pytest.fixture(scope="module")
def many_kinds(tmp_path_factory):
    """Pictures as they come: rotated, transparent, with palettes, deep, tiny, large."""
    folder = tmp_path_factory.mktemp("kinds")
    flower = Image.fromarray(load_sample_image("flower.jpg")).crop((100, 0, 500, 427))
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright
    flower.resize((90, 61)).save(folder / "rotated.jpg", exif=exif)
    flower.save(folder / "large.png")
    small = flower.resize((33, 20))
    small.convert("CMYK").save(folder / "cmyk.jpg")
    small.convert("L").save(folder / "grey.jpg")
    small.convert("1").save(folder / "bilevel.png")
    small.resize((1, 1)).save(folder / "tiny.bmp")
    small.resize((7, 24)).save(folder / "narrow.webp", lossless=True)
    small.quantize(16).save(folder / "palette.gif")
    small.putalpha(small.convert("L"))
    small.save(folder / "transparent.png")
    small.quantize(16).save(folder / "palette with alpha.png")
    small.convert("LA").save(folder / "grey with alpha.png")
    deep = np.arange(35 * 20, dtype=np.uint16).reshape(20, 35) * 93
    Image.fromarray(deep).save(folder / "deep.png")
    return folder


@pytest.mark.parametrize(
    ("shape", "fit"),
    [((1, 28, 28), None), ((3, 20, 20), None)]
    + [((channels, 24, 24), fit) for channels in (1, 3) for fit in pictures.FITS],
)
def test_the_cards_snippet_gives_the_answers(
    shape, fit, own_run, many_kinds, tmp_path, answer, make_model, monkeypatch, capfdbinary
):
    metadata = {} if fit is None else {"fit": fit}
    release = files.read_json(own_run / "logs" / "release.json")
    release["metrics"] |= {"class_names": ["a", "b"], "image_shape": [*shape[1:], shape[0]]}
    release["verification"]["files"]["onnx"]["metadata"] = metadata
    files.write_json(tmp_path / "logs" / "release.json", release)
    files.write_json(tmp_path / "logs" / "history.json", files.read_json(own_run / HISTORY))
    model_card.write(tmp_path)
    card = (tmp_path / model_card.CARD).read_text()
    (tmp_path / "models").mkdir()
    names = json.dumps(["a", "b"])
    model = make_model(tmp_path / EXPORTED["onnx"], shape, 2, class_names=names, **metadata)
    _, rows, _ = answer(model, many_kinds)
    assert len(rows) >= 9  # of most, ink stands out
    (tmp_path / "snippet.py").write_text(re.search(r"```python\n(.*?)\n```", card, re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["snippet.py", *(path for path, _, _ in rows)])
    snippet = runpy.run_path("snippet.py")
    said = capfdbinary.readouterr().out.decode().splitlines()
    assert said == [f"{label}: {float(score):.4f}" for _, label, score in rows]
    rule = interface.rule_of(metadata, shape[1], shape[0])
    for path, _, _ in rows:
        _, seen = prepared.prepare_file(path, shape[1], rule)
        (expected,) = predict.model_inputs(seen[None], shape[0])
        np.testing.assert_array_equal(snippet["read_picture"](path), expected, path)


@pytest.mark.parametrize("name", ["own_run", "run"])
def test_the_server_gives_the_same_to_the_bit(name, photographs, serve, answer, request):
    folder = request.getfixturevalue(name)
    rule, shape = ("crop", (3, 24, 24)) if name == "own_run" else (prepared.AS_IS, (1, 28, 28))
    paths = sorted((photographs / "test").rglob("*.jpg"))[::4]
    _, rows, _ = answer(folder, *paths, *(["--as-is"] if name == "run" else []))
    with serve(folder) as server:
        (model,) = ask(server, "/v2/repository/index", {})
        facts = ask(server, f"/v2/models/{model['name']}")
        assert facts["inputs"][0]["shape"] == [-1, *shape]
        assert facts["parameters"]["preparation"] == ("crop" if name == "own_run" else "ink")
        for path, (_, label, score) in zip(paths, rows, strict=True):
            _, seen = prepared.prepare_file(str(path), shape[1], rule)
            (image,) = predict.model_inputs(seen[None], shape[0])
            tensor = {"name": "image", "shape": [1, *shape], "datatype": "FP32"}
            body = {"inputs": [tensor | {"data": image.ravel().tolist()}]}
            given = ask(server, f"/v2/models/{model['name']}/infer", body)["outputs"][0]["data"]
            assert facts["parameters"]["labels"][int(np.argmax(given))] == label
            assert np.float32(max(given)) == np.float32(score)


def ask(server, path, body=None):
    """Returns the JSON of a GET, or of a POST where there is something to send."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{server.http}{path}", data) as reply:
        return json.load(reply)


def test_a_score_does_not_depend_on_what_else_is_asked(own_run, photographs, answer):
    one = sorted((photographs / "test").rglob("*.jpg"))[5]
    (alone,) = answer(own_run, one)[1]
    assert alone in answer(own_run, photographs / "test", photographs / "train")[1]


def test_names_come_back_byte_for_byte(linear, tmp_path, answer):
    names = [b'comma, "quote".png', b"line\nend.png", b"not \xff UTF-8.png", "Ünï.png".encode()]
    folder = os.fsencode(tmp_path / "pictures")
    os.mkdir(folder)
    for name in names:
        Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
        os.rename(tmp_path / "one.png", os.path.join(folder, name))
    status, rows, _ = answer(linear, tmp_path / "pictures")
    assert status == 0
    assert [os.path.basename(os.fsencode(row[0])) for row in rows] == sorted(names)
    (tmp_path / "list").write_bytes(b"".join(os.path.join(folder, one) + b"\0" for one in names))
    before = os.dup(0)
    with (tmp_path / "list").open() as stdin, os.fdopen(before):
        os.dup2(stdin.fileno(), 0)
        status, rows, _ = answer(linear, "-", "--null")
        os.dup2(before, 0)
    assert status == 0
    assert [os.path.basename(os.fsencode(row[0])) for row in rows] == names
    with (tmp_path / "list").open() as stdin, pytest.raises(UserError, match="give --null"):
        [*listed.list_files(["-"], b"\n", refuse=print, stdin=stdin.fileno())]


def test_a_terminal_gets_no_codes_from_names():
    place = io.BytesIO()
    predict._Table(place, "terminal", is_terminal=True).write([["\x1b[2J\n\udcff", "a,b"]])
    assert place.getvalue() == b'\\x1b[2J\\n\\udcff,"a,b"\n'


def bomb():
    """A PNG that says it has 60,000 x 60,000 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    head = buffer.getvalue()
    head = head[:16] + (60_000).to_bytes(4, "big") * 2 + head[24:]
    return head[:29] + zlib.crc32(head[12:29]).to_bytes(4, "big") + head[33:]


def test_each_file_that_cannot_be_read_has_its_line(linear, tmp_path, answer):
    folder, outside = tmp_path / "pictures", tmp_path / "outside"
    (folder / "below").mkdir(parents=True)
    outside.mkdir()
    for place in (folder / "good.png", folder / "below" / "good.jpg", outside / "good.png"):
        Image.new("RGB", (20, 30), (200, 10, 10)).save(place)
    good = (folder / "good.png").read_bytes()
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "empty.png").touch()
    (folder / "text\x1b[2J\nname.png").write_bytes(b"text")
    (folder / ".hidden").write_bytes(b"text")
    (folder / "inside.png").symlink_to("good.png")
    (folder / "nowhere.png").symlink_to("nothing")
    (folder / "out.png").symlink_to(outside / "good.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "fifo.png")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(pictures.MAX_FILE_BYTES + 1)
    status, rows, errors = answer(linear, folder, "/dev/zero", tmp_path / "missing.png")
    assert status == 2
    good = ["below/good.jpg", "good.png", "inside.png"]
    assert [row[0] for row in rows] == [str(folder / name) for name in good]
    found = dict(line.removeprefix(f"{folder}/").split(": ", 1) for line in errors)
    assert "more than 50,000,000" in found.pop("bomb.png")
    assert found.pop("cut.png") and found.pop("huge.png").endswith("more than 268,435,456")
    assert found == {
        "empty.png": "an empty file",
        "text\\x1b[2J\\nname.png": "not a picture in a known format",
        "nowhere.png": "a link that leads nowhere",
        "out.png": "a link out of the folder",
        "round": "a link to a folder",
        "fifo.png": "not a regular file",
        "/dev/zero": "not a regular file",
        str(tmp_path / "missing.png"): "No such file or directory",
    }


def test_the_output_appears_whole_or_not_at_all(linear, tmp_path, answer, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    place = tmp_path / "new" / "answers.csv"
    status, rows, _ = answer(linear, tmp_path / "one.png", "--output", place)
    assert (status, rows) == (0, [])  # what is printed is one line that says where
    header, row = csv.reader(place.read_text().splitlines())
    assert header == ["path", "label", "score"] and row[0] == str(tmp_path / "one.png")

    def interrupted(*_):
        raise KeyboardInterrupt

    before = place.read_bytes()
    monkeypatch.setattr(predict, "to_grey", interrupted)
    monkeypatch.setattr(predict, "model_inputs", interrupted)
    assert answer(linear, tmp_path / "one.png", "--output", place)[0] == 130
    assert answer(linear, tmp_path / "one.png", "--output", place.parent / "other")[0] == 130
    assert [path.name for path in place.parent.iterdir()] == ["answers.csv"]
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{linear}", "{folder}"], "there are no pictures in {folder}; name some"),
        (["{linear}", "{folder}", "--top=3"], "--top is 3, but must be from 1 to 2, the number"),
        (["{linear}", "{folder}", "--top=0"], "--top is 0, but must be from 1 to 2"),
        (["{linear}", "{folder}", "--as-is"], "--as-is is for models of published data sets"),
        (["{linear}", "{folder}", "--output={folder}"], "is not a regular file; name a file"),
        (["{linear}", "{folder}", "--output=/dev/null"], "is not a regular file; name a file"),
        (["{folder}", "{folder}"], "holds 0 models, none; name a run or a repository"),
        (["{folder}/none.onnx", "{folder}"], "No such file or directory; name a run, a model"),
        (["/dev/zero", "{folder}"], "it is not a regular file; name a run, a model"),
        ([__file__, "{folder}"], "cannot be loaded"),
        (["{linear}"], "the following arguments are required: PATH; see scripts/predict --help"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(linear, tmp_path, answer, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"linear": linear, "folder": tmp_path / "empty"}
    status, rows, errors = answer(*(one.format(**places) for one in arguments))
    assert (status, rows) == (2, [])
    (line,) = errors
    assert message.format(**places) in line


@pytest.mark.parametrize(
    ("shape", "metadata", "message"),
    [
        (
            (3, 16, 16),
            {"fit": "zoom"},
            "metadata that cannot be read (fit 'zoom' is not one of pad, crop",
        ),
        ((3, 16, 16), {"class_names": "["}, "metadata that cannot be read (Expecting value"),
        ((3, 16, 16), {"class_names": "[1]"}, "class_names is not a list of names"),
        ((3, 16, 16), {"class_names": '["a"]'}, "gives 2 scores for 1 class names"),
        ((2, 16, 16), {}, "not image, tensor(float), [batch, 1 or 3, side, side]"),
        ((3, 16, 17), {}, "not image, tensor(float), [batch, 1 or 3, side, side]"),
    ],
)
def test_a_file_of_another_interface_is_refused(
    shape, metadata, message, tmp_path, answer, make_model
):
    model = make_model(tmp_path / "other.onnx", shape, 2, **metadata)
    status, _, (line,) = answer(model, tmp_path)
    assert status == 2 and message in line


def test_a_model_is_found_by_every_name_it_has(repository, models, tmp_path, capsys):
    names = [repository, repository / "digits", repository / "digits" / "serving"]
    for path in [*names, repository / "digits" / "1"]:
        assert predict.load(path).labels == tuple("0123456789")
        assert predict.find_model(path).model == models[0]
    assert predict.find_model(repository / "digits" / "2").model == models[1]
    (tmp_path / "file.onnx").write_bytes(models[1])
    assert predict.load(tmp_path / "file.onnx").labels == tuple("0123456789")  # as it says itself
    (repository / "digits" / "2").rename(tmp_path / "copy")
    assert predict.find_model(tmp_path / "copy").model == models[1]
    with (repository / "digits" / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"model\.onnx is not what was published"):
        predict.load(repository)


def test_of_several_models_one_must_be_named(repository, publish, promote, models):
    publish(repository, "others", 1, models[1])
    promote(repository, "others", 1)
    with pytest.raises(UserError, match=r"holds 2 models, digits, others; name one .*/digits"):
        predict.find_model(repository)


def test_few_pictures_are_held_at_a_time(linear, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    taken = 0

    def endless():
        nonlocal taken
        for path in repeat(str(tmp_path / "one.png")):
            taken += 1
            yield path

    classifier = predict.load(linear)
    found = predict.answers(classifier, endless(), "pad", lambda path, reason: None)
    for _ in range(3):
        names, scores = next(found)
        assert len(names) == len(scores) == 64
    found.close()
    assert taken <= 64 * (3 + 3 * len(os.sched_getaffinity(0)))


def test_a_full_disk_and_a_reader_that_left_are_said(linear, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    command = [sys.executable, "-P", "-m", "mnist_jax", "predict", str(linear)]
    closed, end = os.pipe()
    os.close(closed)
    with open("/dev/full", "wb") as full, os.fdopen(end, "wb") as pipe:
        for place, reason in ((full, "No space left on device"), (pipe, "Broken pipe")):
            done = subprocess.run(
                [*command, str(tmp_path / "one.png")], stdout=place, stderr=subprocess.PIPE
            )
            assert done.returncode == 2
            assert done.stderr.decode().startswith(f"error: cannot write standard output: {reason}")


WITHOUT_JAX = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"jax", "jaxlib", "flax", "optax", "orbax", "jax2onnx", "onnx",
                                      "ml_collections", "tensorflow_datasets", "sklearn"}:
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
import mnist_jax.serve.prepared
sys.argv[0] = "predict"
runpy.run_module("mnist_jax.serve.predict", run_name="__main__", alter_sys=True)
"""


def test_it_needs_no_jax(linear, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    command = [sys.executable, "-c", WITHOUT_JAX, str(linear), "-"]
    done = subprocess.run(
        command, input=f"{tmp_path / 'one.png'}\n\n", capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith(f"{tmp_path / 'one.png'},")


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda name: not {*b"\n\0"} & {*name})))
def test_a_list_is_read_as_it_was_written(names):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"):
        os.write(writing, b"\n".join(names))
        os.close(writing)
        assert [os.fsencode(name) for name in listed._lines(reading, b"\n")] == names


@pytest.mark.parametrize(
    ("byte", "message"),
    [(b"a", "more than 65,536 bytes; end each in a line end"), (b"\0", "--null")],
)
def test_a_list_without_ends_is_refused(byte, message, tmp_path):
    (tmp_path / "list").write_bytes(2**17 * byte)
    with (tmp_path / "list").open("rb") as stdin, pytest.raises(UserError, match=message):
        next(listed._lines(stdin.fileno(), b"\n"))


def test_a_path_is_expanded_where_nothing_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "~backup").touch()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "b").touch()
    (tmp_path / "home" / "a").touch()
    found = listed.list_files(["~backup", "~"], b"\n", print)
    assert list(found) == ["~backup", f"{tmp_path}/home/a", f"{tmp_path}/home/b"]


def test_the_rules_are_those_of_the_pictures():
    assert interface.FITS == pictures.FITS == FITS


def test_a_lent_file_that_is_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), files.appearing(tmp_path / "x") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
