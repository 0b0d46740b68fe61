"""A picture file to what a model sees, by the model's rule: docs/preprocessing.md."""

import numpy as np
from jaxtyping import UInt8

from mnist_jax.data import pictures
from mnist_jax.data.decoder import Seen, prepare_one
from mnist_jax.export.interface import INK, INK_PX
from mnist_jax.serve import preprocess

AS_IS = "as-is"  # in place of `INK`: no ink is looked for


def prepare_file(
    picture: str | bytes, side: int, rule: str
) -> tuple[Seen, UInt8[np.ndarray, "side side 3"] | None]:
    """Reads, decodes and prepares one picture, as `decoder.prepare_one` does for own pictures.

    Args:
        picture: a path, or the contents of a file.
        side: of the model's images, in pixels.
        rule: see `interface.rule_of`; or `AS_IS`.
    """
    if rule not in (INK, AS_IS):
        return prepare_one(picture, side, rule)
    try:
        contents = pictures.read_file(picture) if isinstance(picture, str) else picture
        decoded = pictures.decode(contents, keeps_alpha=rule == INK)
        if rule == INK:
            image = preprocess.image_of_picture(decoded.pixels)
        else:
            image = pictures.to_grey(pictures.prepare(decoded.pixels, INK_PX, "pad"))[..., 0]
    except (pictures.Unreadable, ValueError, MemoryError) as error:
        return Seen(str(error) or "too little memory"), None
    framed = np.pad(image, (side - INK_PX) // 2)  # larger images have it in the middle of black
    return Seen(None, decoded.size, decoded.mode), np.repeat(framed[..., None], 3, axis=2)
