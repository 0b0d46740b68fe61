"""What TensorBoard shows of an epoch's answers: the confusion matrix, and some mistakes."""

import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw

from mnist_jax.data import Split

CELL, TILE, LINE = 16, 64, 14  # pixels: of a count, of a picture, of the text below it
MAX_SIDE = 1024  # pixels, of the confusion matrix, as long as each count has one
MAX_MISTAKES, COLUMNS = 24, 8
BLUE, GREY = np.array([0, 114, 178]), np.array([205, 205, 205])  # as in the card's plots


def draw(
    split: Split, answers: Integer[np.ndarray, " n"], class_names: Sequence[str]
) -> dict[str, bytes]:
    """Returns PNG by name: `confusion_matrix`, and `mistakes` where there are any.

    Args:
        split: what was asked.
        answers: the class that each image is taken for.
        class_names: by label.
    """
    found = {"confusion_matrix": _png(confusion_matrix(split.labels, answers, len(class_names)))}
    wrong = np.flatnonzero(answers != split.labels)[:MAX_MISTAKES]
    if len(wrong):
        pairs = [(int(split.labels[i]), int(answers[i])) for i in wrong]
        words = [f"{class_names[true]} > {class_names[given]}" for true, given in pairs]
        found["mistakes"] = _png(mistakes(split.images[wrong], words))
    return found


def confusion_matrix(
    labels: UInt8[np.ndarray, " n"], answers: Integer[np.ndarray, " n"], num_classes: int
) -> Image.Image:
    """A square for each pair, true class by row: the bluer, the more; right answers in grey."""
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (labels, answers), 1)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    colours = np.where(np.eye(num_classes, dtype=bool)[..., None], GREY, BLUE)
    # The root, so that one error in a hundred can be seen.
    shades = 255 - np.sqrt(share)[..., None] * (255 - colours)
    cell = min(CELL, max(1, MAX_SIDE // num_classes))
    return Image.fromarray(shades.round().astype(np.uint8).repeat(cell, 0).repeat(cell, 1))


def mistakes(images: UInt8[np.ndarray, "n ..."], words: Sequence[str]) -> Image.Image:
    """The pictures side by side, each with its words below it."""
    rows = math.ceil(len(images) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (image, text) in enumerate(zip(images, words, strict=True)):
        left, top = index % COLUMNS * TILE, index // COLUMNS * (TILE + LINE)
        tile = (
            Image.fromarray(image.squeeze())
            .convert("RGB")
            .resize((TILE - 2, TILE - 2), Image.Resampling.NEAREST)
        )
        sheet.paste(tile, (left, top))
        pen.text((left + 1, top + TILE - 1), text[:10], fill="black")
    return sheet


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
