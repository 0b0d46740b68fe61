"""The README is short, and what it says works."""

import html
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mnist_jax import train
from mnist_jax.config import flags
from mnist_jax.files import read_json, sha256
from mnist_jax.studies import import_weights

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.split(" #")[0] for _, block in BLOCKS for line in block.splitlines()]
EASY = ("--min-test-accuracy=0.1", "--min-per-class-accuracy=0", "--max-inference-time-ms=1000")


def section(title):
    """Returns what stands below a heading of the second level."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def command(name):
    """Returns the arguments of the one command that begins so."""
    (line,) = [line for line in COMMANDS if line.startswith(name)]
    return shlex.split(line)[1:]


def test_it_is_read_in_three_minutes():
    assert len(README.split()) <= 800


def test_it_has_these_parts_in_this_order():
    headings = re.findall(r"^## (.*)$", README, flags=re.MULTILINE)
    assert headings == [
        *("Why", "Quick start", "Use the file", "Bring your own"),
        *("Results", "How it works", "Limits", "More"),
    ]
    assert README.index("<img") < README.index("## Why")


def test_it_names_the_rooms_in_a_few_words_each():
    rooms = dict(re.findall(r"^mnist_jax/(\w+)/ +(.*)$", section("How it works"), re.MULTILINE))
    there = {path.parent.name for path in (ROOT / "mnist_jax").glob("*/__init__.py")}
    assert set(rooms) == there - {"studies"}
    assert all(len(words.split()) <= 6 for words in rooms.values())


def test_the_first_two_scripts_are_the_two_promised():
    scripts = [line for line in COMMANDS if line.startswith("scripts/")]
    assert scripts[0].startswith("scripts/train --config=configs/digits_cnn_v1.py")
    assert scripts[1] == "scripts/test"
    assert "scripts/train --model-id mnist_cnn_v1 --epochs 5" in README


def test_every_flag_is_a_flag():
    known = {flag.name for flag in flags.FLAGS} | {"config", "help"}
    for name in re.findall(r"`--([a-z_-]+)", README):
        assert name.replace("-", "_") in known, name


def test_every_figure_comes_from_a_document_that_a_command_writes():
    written = "".join((ROOT / "docs" / f"{n}.md").read_text() for n in ("results", "benchmarks"))
    figures = re.findall(r"\d[\d,]*\.\d+|\d+,\d{3}", section("Results"))
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in written] == []


# ---- Its pictures


def test_its_pictures_are_there_small_and_described():
    pictures = re.findall(r'<img src="(docs/images/\S+)" width="\d+%" alt="([^"]+)">', README)
    assert len(pictures) == README.count("<img") == 3
    assert sum((ROOT / path).stat().st_size for path, _ in pictures) < 300_000
    assert all(len(words.split()) > 3 for _, words in pictures)
    assert not re.search(
        r"@font-face|@import|url\(['\"]?http|href=", (IMAGES / "terminal.svg").read_text()
    )


def test_its_pictures_are_as_new_as_what_they_show():
    sources = read_json(IMAGES / "sources.json")
    changed = [
        path
        for path, digest in sources.items()
        if path != "contents_sha256" and ((ROOT / path).is_file() and sha256(ROOT / path)) != digest
    ]
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "mnist_jax/serve/page").iterdir()}
    assert changed == [] and page <= set(sources), "run scripts/screenshots RUN_DIR"


def test_the_quick_start_ends_as_its_picture_does():
    drawn = re.sub(r"<style>.*?</style>|<[^>]+>", "", (IMAGES / "terminal.svg").read_text())
    drawn = "".join(html.unescape(drawn).split())
    (shown,) = re.findall(r"```text\n(.*?)```", section("Quick start"), re.DOTALL)
    for line in shown.splitlines():
        assert "".join(line.split()) in drawn, line


# ---- What it shows is run


def test_the_file_is_used_as_shown(released, tmp_path, monkeypatch):
    (snippet,) = [block for language, block in BLOCKS if language == "python"]
    (tmp_path / "run").symlink_to(released / "run")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)
    assert names["scores"].shape == (1, 10)
    np.testing.assert_allclose(names["scores"].sum(), 1, atol=1e-6)


@pytest.mark.slow
def test_own_pictures_as_shown(tmp_path, monkeypatch):
    images, labels = load_digits(return_X_y=True)
    for index, (image, label) in enumerate(zip(images[:400], labels, strict=False)):
        folder = tmp_path / "FOLDER" / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        levels = (image.reshape(8, 8) * 15.9375).astype(np.uint8)
        Image.fromarray(levels).resize((28, 28)).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    assert train.main([*command("scripts/train --data"), "-q", "--epochs=1", *EASY]) == 0
    assert read_json(tmp_path / "mine/logs/metrics.json")["class_names"][3] == "digit 3"


@pytest.mark.slow
def test_an_own_network_and_loss_as_shown(released, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    places = (f"--output-dir={tmp_path / 'run'}", f"--data-dir={released / 'data'}")
    shown = command("scripts/train --model-id examples")
    assert train.main([*shown, *places, "-q", "--max-inference-time-ms=1000"]) == 0


@pytest.mark.slow
def test_weights_from_elsewhere_as_shown(released, tmp_path, monkeypatch):
    shown = command("scripts/import")
    (tmp_path / shown[0]).symlink_to(released / "run/models/mnist_model.safetensors")
    monkeypatch.chdir(tmp_path)
    places = ("--output-dir=imported", f"--data-dir={released / 'data'}")
    assert import_weights.main([*shown, *places, "-q", *EASY]) == 0
