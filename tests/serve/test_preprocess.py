"""Python, JavaScript and a plain reading of the specification give the same images, to the bit."""

import base64
import gzip
import json
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_jax.serve import preprocess

HERE = Path(__file__).parent
REFERENCE = runpy.run_path(str(HERE / "make_vectors.py"))
STROKES = json.loads((HERE / "strokes.json").read_text())
VECTORS = json.loads((HERE / "vectors.json").read_text())


def unpacked(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def test_the_vectors_are_what_the_specification_gives():
    assert REFERENCE["vectors"]() == VECTORS


@pytest.mark.parametrize("digit", STROKES)
def test_strokes_give_their_vectors(digit):
    image = preprocess.image_of_strokes(STROKES[digit])
    np.testing.assert_array_equal(image, unpacked(VECTORS["strokes"][digit], 28, 28))


@pytest.mark.parametrize("case", VECTORS["pictures"], ids=lambda case: case["name"])
def test_pictures_give_their_vectors(case):
    picture = unpacked(case["rgba"], case["height"], case["width"], 4)
    picture = picture.repeat(case["repeat"], 0).repeat(case["repeat"], 1)
    assert preprocess.holds_several(preprocess.ink_of_picture(picture)) == case["several"]
    if case["image"] is None:
        with pytest.raises(preprocess.NoInkError, match="no ink"):
            preprocess.image_of_picture(picture)
    else:
        image = preprocess.image_of_picture(picture)
        np.testing.assert_array_equal(image, unpacked(case["image"], 28, 28))


def test_javascript_gives_the_vectors():
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH: the page's JavaScript is not tested here")
    result = subprocess.run(
        [node, "--test", str(HERE / "preprocess.test.mjs")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=45)))
def test_any_ink_is_fitted_as_the_specification_says(ink):
    expected = REFERENCE["image"](ink.tolist())
    if expected is None:
        with pytest.raises(preprocess.NoInkError):
            preprocess.image_of_ink(ink)
    else:
        np.testing.assert_array_equal(preprocess.image_of_ink(ink), expected)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.uint8, (9, 11)).filter(lambda box: box.max() >= 32 and box[0].any()),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_where_the_ink_lies_does_not_matter(box, top, left):
    image = preprocess.image_of_ink(box)
    moved = preprocess.image_of_ink(np.pad(box, ((top, 40 - top), (left, 40 - left))))
    np.testing.assert_array_equal(moved, image)


def test_the_image_has_the_properties_of_mnist():
    for strokes in STROKES.values():
        image = preprocess.image_of_strokes(strokes)
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        assert image.max() == 255
        for axis in (0, 1):
            centre = (image.sum(1 - axis) @ np.arange(28)) / image.sum()
            assert 13.5 <= centre < 14.5


def test_published_images_come_out_as_they_went_in(real_data):
    packed = gzip.decompress((real_data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    published = np.frombuffer(packed, np.uint8, offset=16).reshape(-1, 28, 28)
    made = np.array([preprocess.image_of_ink(image) for image in published])
    # One level: the strongest is 254 in a tenth of them, and becomes 255.
    same = (np.abs(made.astype(int) - published) <= 1).all((1, 2))
    assert same.mean() >= 0.999


@pytest.fixture(scope="module")
def drawings():
    """Pictures of the strokes, dark on light with a margin of 14 pixels, and their images."""
    inks = [preprocess.ink_of_strokes(strokes) for strokes in STROKES.values()]
    pictures = [np.pad(255 - ink, 14, constant_values=255) for ink in inks]
    return [(picture, preprocess.image_of_picture(picture)) for picture in pictures]


@pytest.mark.parametrize("width", [1, 3, 8, 14])
@pytest.mark.parametrize("sides", ["top", "right", "bottom", "left", "all"])
@pytest.mark.parametrize("is_negative", [False, True])
def test_frames_and_lines_at_the_edge_change_nothing(drawings, width, sides, is_negative):
    for drawing, plain in drawings:
        picture = drawing.copy()
        lines = {
            "top": np.s_[:width],
            "right": np.s_[:, -width:],
            "bottom": np.s_[-width:],
            "left": np.s_[:, :width],
        }
        for side in lines if sides == "all" else [sides]:
            picture[lines[side]] = 0
        framed = preprocess.image_of_picture(255 - picture if is_negative else picture)
        np.testing.assert_array_equal(framed, plain)


def test_one_digit_is_not_taken_for_several_and_two_are():
    drawn = [preprocess.ink_of_strokes(strokes) for strokes in STROKES.values()]
    for one, other in zip(drawn, [*drawn[1:], drawn[0]], strict=True):
        assert not preprocess.holds_several(one)
        assert preprocess.holds_several(np.hstack([one, other]))


def test_a_negative_gives_the_same_image():
    grey = np.zeros((60, 50), np.uint8)
    grey[10:45, 20:26] = 255
    grey[10:15, 12:26] = 140
    np.testing.assert_array_equal(
        preprocess.image_of_picture(grey), preprocess.image_of_picture(255 - grey)
    )


def test_grey_rgb_and_rgba_agree():
    grey = np.random.default_rng(0).integers(0, 256, (41, 30)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, 2)
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], 2)
    image = preprocess.image_of_picture(grey)
    np.testing.assert_array_equal(preprocess.image_of_picture(rgb), image)
    np.testing.assert_array_equal(preprocess.image_of_picture(rgba), image)


@pytest.mark.parametrize("strokes", [[], [[]]], ids=["no stroke", "a stroke without a point"])
def test_an_empty_field_is_refused(strokes):
    with pytest.raises(preprocess.NoInkError, match="draw a digit"):
        preprocess.image_of_strokes(strokes)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((5, 5), np.float32), r"uint8 \[height, width\]"),
        (np.zeros(5, np.uint8), r"uint8 \[height, width\]"),
        (np.zeros((0, 5), np.uint8), r"uint8 \[height, width\]"),
        (np.zeros((5, 5, 2), np.uint8), "must have 1, 3 or 4"),
        (np.zeros((2, 2000), np.uint8), "too narrow"),
    ],
)
def test_what_is_no_picture_is_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        preprocess.image_of_picture(picture)


def test_the_input_is_what_a_model_takes():
    image = np.arange(784).reshape(28, 28).astype(np.uint8)
    values = preprocess.model_input(image)
    assert values.dtype == np.float32 and values.shape == (1, 1, 28, 28)
    np.testing.assert_array_equal(values[0, 0], (image / 255).astype(np.float32))
    larger = preprocess.model_input(image, side=40)
    assert larger.shape == (1, 1, 40, 40)
    np.testing.assert_array_equal(larger[..., 6:34, 6:34], values)
    assert larger.sum() == pytest.approx(values.sum())
