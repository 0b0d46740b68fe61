"""What an exported ONNX file promises: names, versions, formats; without JAX."""

from collections.abc import Mapping

OPSET = 17
IR_VERSION = 8  # with opset 17: loads on ONNX Runtime 1.16 and newer
INPUT_NAME, OUTPUT_NAME, BATCH_NAME = "image", "scores", "batch"

FORMATS = ("orbax", "safetensors", "onnx", "stablehlo")

# How a picture becomes an image: docs/preprocessing.md. The file names its fit where it was made of
# the user's own pictures.
INK = "ink"  # one character on paper, as MNIST's images were made
FITS = ("pad", "crop", "stretch")
INK_PX = 28  # side of what ink becomes; larger images have it in the middle of black


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
