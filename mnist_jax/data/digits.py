"""The embedded data set: scikit-learn's 1,797 real digits, resampled from 8x8 to 28x28."""

import numpy as np
from jaxtyping import UInt8
from sklearn.datasets import load_digits

from mnist_jax.data.arrays import Split, split_off


def load(num_test: int) -> dict[str, Split]:
    """Returns `test`, a fixed slice in which every class has its share, and `train`, the rest.

    The 13 people who wrote the digits are in both: scikit-learn's file does not say who wrote what.
    """
    bundle = load_digits()
    images = upscale(bundle.images.astype(np.uint8))  # pyright: ignore[reportAttributeAccessIssue]
    labels = bundle.target.astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    train, test = split_off(Split(images, labels), num_test)
    return {"train": train, "test": test}


def upscale(images: UInt8[np.ndarray, "num_images 8 8"]) -> UInt8[np.ndarray, "num_images 28 28"]:
    """Draws 8x8 images of 0..16 as MNIST draws digits: 20x20 grey levels, centred in 28x28.

    Bicubic (Keys, a = -1/2), black outside. At a ratio of 20 to 8 all distances are tenths of a
    pixel and all weights are whole 2000ths, so that the result is exact and the same everywhere.
    """
    tenths = np.abs(4 * np.arange(20)[:, None] - 3 - 10 * np.arange(8)[None, :])
    near = 3 * tenths**3 - 50 * tenths**2 + 2000
    far = -(tenths**3) + 50 * tenths**2 - 800 * tenths + 4000
    weights = np.select([tenths <= 10, tenths <= 20], [near, far], 0)  # [20, 8]

    one = 16 * 2000**2  # what a full pixel comes to after both passes
    values = weights @ images.astype(np.int64) @ weights.T  # [num_images, 20, 20]
    levels = np.clip((values * 255 + one // 2) // one, 0, 255).astype(np.uint8)
    return np.pad(levels, ((0, 0), (4, 4), (4, 4)))
