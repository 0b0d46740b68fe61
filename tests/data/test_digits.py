import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mnist_jax.data import digits


def _bicubic_by_pillow(image: np.ndarray) -> np.ndarray:
    """Resamples on a black ground that is wide enough for Pillow's edge rule not to matter."""
    padded = np.pad(image.astype(np.float32) * 255 / 16, 4)
    drawn = np.asarray(Image.fromarray(padded).resize((40, 40), Image.Resampling.BICUBIC))
    return np.clip(drawn[10:30, 10:30], 0, 255)


def test_upscale_is_bicubic():
    images = load_digits().images[:200].astype(np.uint8)
    drawn = digits.upscale(images)
    assert drawn.shape == (200, 28, 28)
    assert drawn.dtype == np.uint8
    expected = np.stack([_bicubic_by_pillow(image) for image in images])
    assert np.abs(drawn[:, 4:24, 4:24] - expected).max() < 0.501


def test_upscale_centres_in_black():
    drawn = digits.upscale(np.full((1, 8, 8), 16, np.uint8))[0]
    assert drawn[4:24, 4:24].min() > 0
    assert drawn.sum(dtype=int) == drawn[4:24, 4:24].sum(dtype=int)
    np.testing.assert_array_equal(drawn, drawn.T)
    np.testing.assert_array_equal(drawn, drawn[::-1, ::-1])
    assert drawn[14, 14] == 255


def test_load_divides_all_digits_by_class():
    splits = digits.load(360)
    assert [len(splits[split].labels) for split in ("train", "test")] == [1437, 360]
    everything = np.concatenate([splits["train"].images, splits["test"].images])
    bundled = digits.upscale(load_digits().images.astype(np.uint8))
    assert sorted(map(bytes, everything)) == sorted(map(bytes, bundled))
    assert set(np.bincount(splits["test"].labels)) <= {34, 35, 36, 37}
