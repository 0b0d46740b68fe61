"""The page for models of the user's own pictures: what it shows, sees and says."""

import csv

import numpy as np
import pytest
from PIL import Image

from mnist_jax.serve import predict, prepared

WORDS = ["rose", "цветок", "中国", "زهرة", "פרח", "ดอกไม้", "फूल", "ἄνθος", "a" * 60, "<b> & co"]


@pytest.fixture(scope="module")
def own_server(serve, own_run):
    with serve(own_run) as server:
        yield server


def show(browser, server, path):
    browser.open(f"http://{server.http}/")
    browser.upload(path)
    browser.wait(lambda: browser.text("said"))


def test_it_sees_what_predict_sees_and_says_the_same(
    browser, own_server, own_run, photographs, tmp_path
):
    paths = sorted((photographs / "test").rglob("*.jpg"))[::6]
    flower = Image.open(paths[-1]).resize((70, 41))
    exif = Image.Exif()
    exif[0x0112] = 8
    flower.save(tmp_path / "turned.png", exif=exif)
    flower.quantize(16).save(tmp_path / "palette.gif")
    paths += [tmp_path / "turned.png", tmp_path / "palette.gif"]
    output = tmp_path / "answers.csv"
    assert predict.main([str(own_run), *map(str, paths), f"--output={output}"]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for path, row in zip(paths, rows, strict=True):
        show(browser, own_server, path)
        _, seen = prepared.prepare_file(str(path), 24, "crop")
        np.testing.assert_array_equal(browser.seen_in_colour(), seen, str(path))
        assert browser.text("answer") == row["label"]
        assert np.float32(browser.scores().max()) == np.float32(row["score"])
    assert browser.complaints() == []


def test_it_asks_for_a_picture_and_takes_no_strokes(browser, own_server, tmp_path):
    browser.open(f"http://{own_server.http}/")
    assert browser.text("invitation") == "Open a picture, or paste or drop it here"
    assert not browser.script("return undo.checkVisibility() || keys.checkVisibility()")
    browser.script(
        "field.dispatchEvent(new PointerEvent('pointerdown', {isPrimary: true, button: 0}))"
    )
    browser.script("field.focus()")
    browser.press(" ", "\ue007")
    browser.wait(lambda: browser.text("said") == "Nothing to see yet: open a picture.")
    assert browser.text("answer") == "nothing yet"
    (tmp_path / "text.png").write_text("not a picture")
    browser.upload(tmp_path / "text.png")
    browser.wait(lambda: browser.text("said") == "This browser cannot open that file as a picture.")


@pytest.mark.parametrize("size", [(1280, 800), (390, 844), (320, 640)])
def test_of_two_hundred_classes_the_best_are_shown_and_the_rest_on_request(
    make_browser, make_model, serve, publish, promote, photographs, tmp_path, size
):
    labels = [f"{WORDS[i % len(WORDS)]} {i}" for i in range(200)]
    model = make_model(tmp_path / "many.onnx", (1, 20, 20), 200, fit="stretch").read_bytes()
    publish(tmp_path / "repository", "many", 1, model, labels=labels)
    promote(tmp_path / "repository", "many", 1)
    path = next((photographs / "test").rglob("*.jpg"))
    width, height = size
    with (
        serve(tmp_path / "repository") as server,
        make_browser(width=width, height=height, is_phone=width < 700) as browser,
    ):
        show(browser, server, path)
        seen = browser.seen()  # grey
        rows = "[...document.querySelectorAll('#scores tr')]"
        shown = f"return {rows}.filter(row => row.checkVisibility()).map(row => row.textContent)"
        best = browser.script(shown)
        (image,) = predict.model_inputs(np.repeat(seen[..., None], 3, 2)[None], 1)
        classifier = predict.load(tmp_path / "repository")
        (scores,) = classifier.session.run(["scores"], {"image": image[None]})[0]
        order = np.argsort(-scores, kind="stable")
        assert [row.rpartition(" ")[2][:-5] for row in best] == [str(i) for i in order[:5]]
        browser.click("all")
        assert len(browser.script(shown)) == 200
        assert browser.text("answer") == labels[order[0]]
        assert browser.script("return document.documentElement.scrollWidth") <= width
        box = browser.script(
            "const one = document.getElementById('answer').getBoundingClientRect();"
            "const all = document.querySelector('.answer div').getBoundingClientRect();"
            "return [one.top >= all.top, one.bottom <= all.bottom, one.width <= all.width]"
        )
        assert box == [True, True, True]
        browser.click("all")
        assert len(browser.script(shown)) == 5
