"""What an exported ONNX file promises: names, versions, formats; without JAX."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

OPSET = 17
IR_VERSION = 8  # with opset 17: loads on ONNX Runtime 1.16 and newer
INPUT_NAME, OUTPUT_NAME, BATCH_NAME = "image", "scores", "batch"

# How a picture becomes an image: docs/preprocessing.md. The file names its fit where it was made of
# the user's own pictures.
INK = "ink"  # one character on paper, as MNIST's images were made
FITS = ("pad", "crop", "stretch")
INK_PX = 28  # side of what ink becomes; larger images have it in the middle of black


def as_input(images: np.ndarray) -> Float[np.ndarray, "n channels side side"]:
    """Returns images as the file takes them: float32, 0 to 1, the channels first.

    Args:
        images: uint8, 0 to 255, `[n, side, side]` or with an axis of channels; or float32, 0 to 1,
            `[n, side, side, channels]`.
    """
    levels = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
    levels = levels[..., None] if levels.ndim == 3 else levels
    return np.ascontiguousarray(levels.transpose(0, 3, 1, 2))


def rule_of(metadata: Mapping[str, str], side: int, channels: int) -> str:
    """Returns how a picture becomes an image: `INK` or one of `FITS`.

    Args:
        metadata: of the ONNX file.
        side: of its images, in pixels.
        channels: of its images, 1 or 3.

    Raises:
        ValueError: the file names a fit that is none.
    """
    if "fit" in metadata:
        if metadata["fit"] not in FITS:
            raise ValueError(f"fit {metadata['fit'][:40]!r} is not one of {', '.join(FITS)}")
        return metadata["fit"]
    can_hold_ink = channels == 1 and side >= INK_PX and side % 2 == 0
    return INK if can_hold_ink else "pad"
