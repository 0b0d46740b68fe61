"""The page in a real browser, with the real server behind it."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from mnist_jax.serve import preprocess

SEVEN = [[[70, 60], [200, 60], [130, 230]]]
TAB, ENTER, SPACE, UP, DOWN, LEFT, RIGHT = (
    *("\ue004", "\ue007", " "),
    *("\ue013", "\ue015", "\ue012", "\ue014"),
)


@pytest.fixture
def page(browser, server):
    """The page as it is first seen."""
    browser.open(f"http://{server.http}/")
    browser.complaints()  # of pages before this one
    yield browser
    assert browser.complaints() == []


@pytest.fixture
def picture(tmp_path):
    """The file of a picture of a one."""
    levels = np.full((60, 40), 255, np.uint8)
    levels[10:50, 18:22] = 0
    Image.fromarray(levels).save(tmp_path / "one.png")
    return tmp_path / "one.png"


@pytest.fixture(scope="module")
def score(models):
    """Scores of an image by ONNX Runtime itself: `score(image, version)`."""
    sessions = [
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in models
    ]

    def score(image, version=1):
        inputs = {"image": preprocess.model_input(image)}
        return sessions[version - 1].run(["scores"], inputs)[0][0]

    return score


@pytest.mark.parametrize("digit", "0123456789")
def test_what_is_drawn_is_seen_and_scored_as_in_python(page, strokes, score, digit):
    image = preprocess.image_of_strokes(page.draw(strokes[digit]))
    np.testing.assert_array_equal(page.seen(), image)
    np.testing.assert_allclose(page.scores(), score(image), rtol=0, atol=1e-6)
    best = str(score(image).argmax())
    assert page.text("answer") == best
    assert page.text("said").startswith(f"{best}, score {score(image).max():.3f}")
    assert page.text("latency").startswith("digits, version 1: ")
    assert page.text("latency").endswith(" ms round trip")


@pytest.mark.slow
def test_a_model_of_mnist_reads_what_is_drawn(browser, serve, mnist_run, strokes):
    with serve(mnist_run) as server:
        browser.open(f"http://{server.http}/")
        read = {}
        for digit, lines in strokes.items():
            browser.draw(lines)
            read[digit] = browser.text("answer")
            browser.clear()
    assert sum(digit == answer for digit, answer in read.items()) >= 9, read


def test_an_empty_field_is_refused(page):
    page.script("document.getElementById('field').focus()")
    page.press(ENTER)
    page.wait(lambda: page.text("said").startswith("Nothing to read yet"))
    assert page.text("answer") == "nothing yet"
    page.draw(SEVEN)
    page.clear()
    page.press(ENTER)
    page.wait(lambda: page.text("said").startswith("Nothing to read yet"))
    assert not page.seen().any()


def test_a_picture_without_ink_is_refused(page, tmp_path):
    Image.new("RGB", (60, 40), (230, 220, 210)).save(tmp_path / "blank.png")
    page.upload(tmp_path / "blank.png")
    page.wait(lambda: page.text("said") == "No ink stands out in this picture.")
    assert page.text("answer") == "nothing to read"
    assert not [address for address in page.addresses() if address.endswith("infer")]


def test_a_file_that_is_no_picture_is_refused(page, tmp_path):
    page.draw(SEVEN)
    answer, scores = page.text("answer"), page.scores()
    (tmp_path / "text.png").write_text("not a picture")
    page.upload(tmp_path / "text.png")
    page.wait(lambda: page.text("said") == "This browser cannot open that file as a picture.")
    assert page.text("answer") == answer  # as the drawing is still there
    np.testing.assert_array_equal(page.scores(), scores)


def test_what_is_opened_where_no_model_is_leaves_the_reason(page, picture, tmp_path):
    page.script("window.fetch = async () => { throw new Error(); }")
    page.choose("version", "2")
    page.wait(lambda: page.script("return retry.checkVisibility()"))
    page.upload(picture)
    page.wait(lambda: page.seen().any())
    assert page.text("answer") == "no answer"
    (tmp_path / "text.png").write_text("not a picture")
    page.upload(tmp_path / "text.png")
    page.wait(lambda: page.text("said") == "This browser cannot open that file as a picture.")
    assert page.text("answer") == "no answer"
    assert page.script("return retry.checkVisibility()")


def test_a_stroke_takes_the_place_of_a_picture(page, picture):
    page.upload(picture)
    page.wait(lambda: page.text("said"))
    image = preprocess.image_of_strokes(page.draw(SEVEN))
    page.wait(lambda: np.array_equal(page.seen(), image))


@pytest.mark.parametrize("newer", ["stroke", "nothing"])
def test_a_picture_that_takes_long_gives_way_to_what_is_newer(page, picture, newer):
    page.script(
        "const make = createImageBitmap; window.createImageBitmap = async (...given) => {"
        "const made = await make(...given);"
        "await new Promise(resume => { window.release = resume; }); return made; }"
    )
    page.upload(picture)
    page.wait(lambda: page.script("return Boolean(window.release)"))
    image = np.zeros((28, 28), np.uint8)
    if newer == "stroke":
        image = preprocess.image_of_strokes(page.draw(SEVEN))
    else:
        page.clear()
    page.script(  # and waits as long as reading and showing the picture would take
        "release(); return new Promise(done => setTimeout(() => setTimeout("
        "() => requestAnimationFrame(() => requestAnimationFrame(done)))))"
    )
    np.testing.assert_array_equal(page.seen(), image)


@pytest.mark.parametrize("size", [(90, 70), (1100, 900)])
def test_a_picture_is_seen_as_in_python(page, score, tmp_path, size):
    width, height = size
    y, x = np.mgrid[:height, :width] / height
    picture = np.full((height, width, 3), (235, 225, 205), np.uint8)
    picture[np.abs(np.hypot(x - 0.6, y - 0.5) - 0.28) < 0.06] = (30, 40, 90)
    Image.fromarray(picture).save(tmp_path / "digit.png")
    page.upload(tmp_path / "digit.png")
    page.wait(lambda: page.text("said"))
    image = preprocess.image_of_picture(picture)
    np.testing.assert_array_equal(page.seen(), image)
    np.testing.assert_allclose(page.scores(), score(image), rtol=0, atol=1e-6)


def test_another_version_can_be_chosen(page, strokes, score):
    image = preprocess.image_of_strokes(page.draw(strokes["3"]))
    page.choose("version", "2")
    page.wait(lambda: page.text("latency").startswith("digits, version 2: "))
    np.testing.assert_allclose(page.scores(), score(image, 2), rtol=0, atol=1e-6)
    page.choose("version", "1, champion")
    page.wait(lambda: page.text("latency").startswith("digits, version 1: "))
    np.testing.assert_allclose(page.scores(), score(image, 1), rtol=0, atol=1e-6)


def test_a_promoted_version_answers_at_once(browser, serve, repository, promote):
    with serve(repository) as server:
        browser.open(f"http://{server.http}/")
        browser.draw(SEVEN)
        assert browser.text("latency").startswith("digits, version 1: ")
        promote(repository, "digits", 2)
        server.wait_for("version 2 is the champion")
        browser.draw(SEVEN)
        assert browser.text("latency").startswith("digits, version 2: ")
        browser.choose("version", "1")
        browser.wait(lambda: browser.text("latency").startswith("digits, version 1: "))
        browser.choose("version", "2, champion")
        browser.wait(lambda: browser.text("latency").startswith("digits, version 2: "))


def test_another_model_can_be_chosen_with_larger_images(
    browser, serve, publish, promote, tmp_path, models, strokes
):
    weights = np.random.default_rng(0).normal(size=(40 * 40, 10)).astype(np.float32)
    graph = onnx.parser.parse_graph(
        "wide (float[batch, 1, 40, 40] image) => (float[batch, 10] scores) {"
        "flat = Flatten(image) sums = MatMul(flat, weights) scores = Softmax(sums) }"
    )
    graph.initializer.append(numpy_helper.from_array(weights / 40, "weights"))
    wide = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    for name, content in {"digits": models[0], "wide": wide.SerializeToString()}.items():
        publish(tmp_path, name, 1, content)
        promote(tmp_path, name, 1)
    with serve(tmp_path) as server:
        browser.open(f"http://{server.http}/")
        image = preprocess.image_of_strokes(browser.draw(strokes["6"]))
        browser.choose("model", "wide")
        browser.wait(lambda: browser.text("latency").startswith("wide, version 1: "))
        np.testing.assert_array_equal(browser.seen(), np.pad(image, 6))
        logits = preprocess.model_input(image, side=40).reshape(-1) @ (weights / 40)
        scores = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(browser.scores(), scores, rtol=0, atol=1e-6)


def test_strokes_can_be_taken_back(page, strokes):
    first, second = strokes["4"]
    drawn = page.draw([first])
    page.draw([second])
    page.click("undo")
    image = preprocess.image_of_strokes(drawn)
    page.wait(lambda: np.array_equal(page.seen(), image))
    page.click("undo")
    page.wait(lambda: page.text("answer") == "nothing yet")
    assert page.script("return document.activeElement.id") == "field"


def test_it_can_be_drawn_on_with_the_keyboard(page, score):
    page.press(TAB)
    while page.script("return document.activeElement.id") != "field":
        page.press(TAB)
    page.press(*UP * 8, *LEFT * 5, SPACE)
    page.script(  # held down
        "field.dispatchEvent(new KeyboardEvent('keydown', {key: ' ', repeat: true}))"
    )
    page.press(*RIGHT * 9, *DOWN * 16, SPACE)
    corner, start, end = [180, 60], [90, 60], [180, 220]
    image = preprocess.image_of_strokes([[start, corner, end]])
    page.wait(lambda: np.array_equal(page.seen(), image))
    page.wait(lambda: page.text("said").startswith(str(score(image).argmax())))


def test_it_can_be_drawn_on_with_a_finger(make_browser, server, strokes):
    with make_browser(width=320, height=640, is_phone=True) as phone:
        phone.open(f"http://{server.http}/")
        drawn = phone.draw(strokes["2"], "touch")
        np.testing.assert_array_equal(phone.seen(), preprocess.image_of_strokes(drawn))
        assert phone.script("return document.documentElement.scrollWidth") <= 320
        assert phone.script("return scrollY") == 0, "drawing has scrolled the page"


def test_it_is_complete_in_itself_and_lets_no_other_script_run(page, server):
    assert all(address.startswith(f"http://{server.http}/") for address in page.addresses())
    page.script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.intruder = true'; document.body.append(script)"
    )
    assert page.script("return window.intruder") is None
    complaints = page.complaints()
    assert complaints and all("Content Security Policy" in one for one in complaints)


def test_a_server_that_has_gone_is_reported_and_asked_again(browser, serve, run):
    with serve(run) as server:
        browser.open(f"http://{server.http}/")
    browser.draw(SEVEN)
    browser.wait(lambda: browser.text("said").startswith("The server does not answer"))
    assert browser.text("answer") == "no answer"
    assert browser.script("return retry.checkVisibility() && said.matches('.wrong')")
    browser.script("window.asked = 0; window.fetch = async () => { asked++; throw new Error(); }")
    browser.click("retry")
    browser.wait(lambda: browser.script("return asked") == 1)
    browser.script("field.focus()")
    browser.wait(lambda: browser.script("return retry.checkVisibility()"))
    browser.press(ENTER)
    browser.wait(lambda: browser.script("return asked") == 2)


def test_two_digits_are_noticed(page, tmp_path):
    picture = np.full((120, 200), 255, np.uint8)
    picture[20:100, 30:50] = picture[20:100, 120:140] = picture[20:40, 90:140] = 0
    Image.fromarray(picture).save(tmp_path / "two.png")
    page.upload(tmp_path / "two.png")
    page.wait(lambda: "one digit at a time" in page.text("said"))
    assert page.text("answer") == "one digit at a time"
    assert page.script("return said.matches('.wrong')")


def test_a_photograph_of_a_phone_is_read_in_strips_as_in_python(page, tmp_path):
    y, x = np.mgrid[:4100, :4400] / 4100
    picture = np.full(x.shape, 230, np.uint8)
    picture[np.abs(np.hypot(x - 0.6, y - 0.5) - 0.28) < 0.06] = 30
    Image.fromarray(picture).save(tmp_path / "large.png")
    page.upload(tmp_path / "large.png")
    page.wait(lambda: page.text("said"))
    np.testing.assert_array_equal(page.seen(), preprocess.image_of_picture(picture))


def test_white_ink_on_transparent_is_seen_as_in_python(page, tmp_path, strokes):
    picture = np.full((280, 280, 4), 255, np.uint8)
    picture[..., 3] = preprocess.ink_of_strokes(strokes["4"])
    Image.fromarray(picture).save(tmp_path / "white.png")
    page.upload(tmp_path / "white.png")
    page.wait(lambda: page.text("said"))
    image = preprocess.image_of_picture(picture)
    np.testing.assert_array_equal(page.seen(), image)


def test_the_invitation_goes_with_the_first_stroke(page):
    assert page.script("return invitation.checkVisibility()")
    page.draw(SEVEN)
    assert not page.script("return invitation.checkVisibility()")
    page.clear()
    assert page.script("return invitation.checkVisibility()")


def test_opened_as_a_file_it_says_how_to_open_it(make_browser):
    with make_browser() as browser:
        browser.driver.get((Path(preprocess.__file__).parent / "page" / "index.html").as_uri())
        shown = browser.script("return document.body.innerText")
        assert "python3 -m http.server" in shown and "loading" not in shown


def test_no_kind_of_picture_is_offered_that_is_refused(page):
    kinds = page.script("return file.accept").split(",")
    assert "image/png" in kinds and not {"image/*", "image/svg+xml"} & set(kinds)


@pytest.mark.parametrize("size", [(844, 390), (640, 400), (390, 844), (1280, 800)])
def test_the_field_fits_and_can_be_scrolled_past(make_browser, server, size):
    width, height = size
    with make_browser(width=width, height=height, is_phone=True) as phone:
        phone.open(f"http://{server.http}/")
        box = phone.script(
            "const box = field.getBoundingClientRect(); return [box.width, box.height]"
        )
        assert max(box) <= height - 40 and abs(box[0] - box[1]) < 1
        if width > height:  # on its side: nothing has to be scrolled to
            for name in ("field", "answer", "clear"):
                place = "return document.getElementById(arguments[0]).getBoundingClientRect()"
                assert phone.driver.execute_script(place, name)["bottom"] <= height, name
        assert phone.script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_are_seen(make_browser, server, scheme):
    with make_browser(scheme=scheme) as browser:
        browser.open(f"http://{server.http}/")
        for name in ("field", "open"):
            colors = browser.script(
                f"const found = getComputedStyle(document.getElementById('{name}'));"
                "return [found.borderTopColor, getComputedStyle(document.body).backgroundColor]"
            )
            edge, ground = (luminance(color) for color in colors)
            assert (max(edge, ground) + 0.05) / (min(edge, ground) + 0.05) >= 3


def luminance(color):
    """Relative luminance of `rgb(...)`, 0 to 1 (WCAG 2.2)."""
    levels = np.array([int(part) for part in re.findall(r"\d+", color)[:3]]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
