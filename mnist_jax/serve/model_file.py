"""What a model's file says of itself: its images, how pictures become them, and its classes."""

import json
from typing import NamedTuple

import numpy as np

from mnist_jax.errors import UserError
from mnist_jax.export.interface import INPUT_NAME, OUTPUT_NAME, rule_of
from mnist_jax.export.session import Session

FLOAT = "tensor(float)"


class ModelFile(NamedTuple):
    """What a model takes and gives."""

    side: int  # of its square images, in pixels
    channels: int  # 1: grey; 3: red, green, blue
    rule: str  # how a picture becomes such an image: see `interface.rule_of`
    class_names: tuple[str, ...]  # in the order of the scores; none where the file does not say

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.side, self.side


def read_model(session: Session, place: object) -> ModelFile:
    """Checks a model's interface, and reads what it says.

    Args:
        session: the loaded model.
        place: where it is from, for the message.

    Raises:
        UserError: it is not a model of square grey or colour images with scores for classes.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [(value.name, value.type, value.shape) for value in (*inputs, *outputs)]
    sizes = inputs[0].shape[1:] if inputs else []
    expected = [(INPUT_NAME, FLOAT), (OUTPUT_NAME, FLOAT)]
    if (
        [value[:2] for value in found] != expected
        or len(sizes) != 3
        or sizes[0] not in (1, 3)
        or not isinstance(sizes[1], int)
        or sizes[1] != sizes[2]
        or isinstance(inputs[0].shape[0], int)
    ):
        raise UserError(
            f"{place} has {found}, not {INPUT_NAME}, {FLOAT}, [batch, 1 or 3, side, side] and "
            f"{OUTPUT_NAME}, {FLOAT}; export the run again"
        )
    channels, side, _ = sizes
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        rule = rule_of(metadata, side, channels)
        names = json.loads(metadata.get("class_names", "[]"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names is not a list of names")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place} has metadata that cannot be read ({error}); export the run again"
        ) from error
    return ModelFile(side, channels, rule, tuple(names))


def num_scores(session: Session, model: ModelFile) -> int:
    """Scores a black image, which also makes the next call quick; returns how many scores it has.

    Returns:
        0 where they are not one row.
    """
    image = np.zeros((1, *model.image_shape), np.float32)
    shape = np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: image})[0]).shape
    return shape[1] if len(shape) == 2 and shape[0] == 1 else 0
