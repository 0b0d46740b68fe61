import base64
import io
import json
import shutil
import subprocess
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mnist_jax.data import pictures
from tests.waiting import HANG_S

JS = Path(__file__).parents[2] / "mnist_jax" / "serve" / "page" / "resample.js"


def _bytes(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _random(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@given(st.integers(1, 40), st.integers(1, 40))
def test_weights_add_up_on_each_axis(source, target):
    weights = pictures.weights(source, target)
    assert (weights.sum(1) == pictures._total(source, target)).all()
    assert (weights >= 0).all() and (weights == np.round(weights)).all()


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.sampled_from(pictures.FITS))
def test_a_flat_picture_stays_flat_where_it_is(height, width, side, fit):
    result = pictures.prepare(np.full((height, width, 1), 200, np.uint8), side, fit)
    assert result.shape == (side, side, 1)
    if fit != "pad" or height == width:
        assert (result == 200).all()


def test_shrinking_is_the_mean_by_area():
    pixels = _random(6, 9, 1)
    found = pictures.prepare(pixels, 2, "stretch")[:, :, 0]
    fine = np.repeat(pixels[:, :, 0].astype(int), 2, axis=1)  # 9 columns as 18, 9 for each half
    for y in range(2):
        for x in range(2):
            mean = Fraction(int(fine[3 * y : 3 * y + 3, 9 * x : 9 * x + 9].sum()), 27)
            assert found[y, x] == int(mean + Fraction(1, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    from PIL import ImageOps

    image = Image.fromarray(_random(3, 5))
    exif = Image.Exif()
    exif[0x0112] = orientation
    contents = _bytes(image, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(contents))))
    np.testing.assert_array_equal(pictures.decode(contents).pixels, expected)


def test_alpha_is_over_white_and_16_bits_are_scaled():
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)
    np.testing.assert_array_equal(
        pictures.decode(_bytes(Image.fromarray(rgba), "PNG")).pixels,
        [[[255, 255, 255], [10, 20, 30]]],
    )
    deep = Image.fromarray(np.array([[0, 257, 65_535]], np.uint16))
    assert pictures.decode(_bytes(deep, "PNG")).pixels[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("damage", ["truncated", "text", "huge"])
def test_unreadable_pictures_have_a_reason(damage):
    contents = _bytes(Image.fromarray(_random(64, 64)), "PNG")
    if damage == "huge":  # the header alone
        contents = contents[:16] + (60_000).to_bytes(4, "big") * 2 + contents[24:]
        import zlib

        contents = contents[:29] + zlib.crc32(contents[12:29]).to_bytes(4, "big") + contents[33:]
    bad = {"truncated": contents[:200], "text": b"hello", "huge": contents}[damage]
    with pytest.raises(pictures.Unreadable, match=r"truncated|not a picture|more than 50,000,000"):
        pictures.decode(bad)


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536)])
def test_a_side_that_is_too_long_is_unreadable(size):
    with pytest.raises(pictures.Unreadable, match="more than 65,535 a side"):
        pictures.decode(_bytes(Image.new("L", size), "PNG"))


def test_the_weights_of_a_long_axis_are_not_kept():
    weights = weakref.ref(pictures.weights(pictures.LONGEST_SIDE, 16))
    assert weights() is None


def test_javascript_gives_the_same_levels(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run the page's code")
    sizes = [(5, 9), (9, 5), (28, 28), (100, 70), (17, 16), (1, 40), (40, 1)]
    cases = [
        {"h": h, "w": w, "c": c, "side": side, "fit": fit, "seed": h * 100 + w + c}
        for h, w in sizes
        for c in (1, 3)
        for side in (16, 28)
        for fit in pictures.FITS
    ]
    for case in cases:
        pixels = _random(case["h"], case["w"], case["c"], case["seed"])
        case["levels"] = base64.b64encode(pixels.tobytes()).decode()
        expected = pictures.prepare(pixels, case["side"], case["fit"])
        case["expected"] = base64.b64encode(expected.tobytes()).decode()
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    script = (
        "const r=await import(process.argv[1]);const fs=await import('fs');"
        "const cs=JSON.parse(fs.readFileSync("
        "process.argv[2]));let n=0;for(const c of cs){const v=new Uint8Array(Buffer.from(c.levels,"
        "'base64'));const o=Buffer.from(r.resample(v,c.h,c.w,c.c,c.side,c.fit)).toString('base64');"
        "if(o!==c.expected){throw new Error(JSON.stringify([c.h,c.w,c.c,c.side,c.fit]));}n++;}"
        "console.log(n)"
    )
    module = tmp_path / "resample.mjs"  # older versions of Node take no .js file for a module
    shutil.copy(JS, module)
    command = [node, "--input-type=module", "-e", script, str(module), str(tmp_path / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert done.stdout.strip() == str(len(cases)), done.stderr
