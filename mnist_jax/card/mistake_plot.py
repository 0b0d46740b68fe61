"""`plots/mistakes.png`: the test pictures that the network gets wrong, most confident first."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import style
from matplotlib.figure import Figure

from mnist_jax.card import mistakes
from mnist_jax.card.plots import LOOK, VERMILLION, save
from mnist_jax.data import Split

COLUMNS, ROWS = 6, 4
LONGEST_NAME = 14  # characters that fit above a picture


def draw(
    scores: Float[np.ndarray, "n classes"],
    test: Split,
    class_names: Sequence[str],
    folder: Path,
) -> None:
    """Writes mistakes.png; where there is no mistake, there is no picture.

    Args:
        scores: of the test split.
        test: images uint8, or float 0 to 1 with an axis of channels, grey or RGB, of any side.
        class_names: by label.
        folder: where it goes; made if missing.
    """
    wrong = mistakes.find(scores, test.labels)
    if not len(wrong):
        return
    with style.context(["default", LOOK]):
        save(_grid(wrong, scores, test, class_names), folder / "mistakes.png")


def _grid(
    wrong: np.ndarray,
    scores: Float[np.ndarray, "n classes"],
    test: Split,
    class_names: Sequence[str],
) -> Figure:
    shown = wrong[: COLUMNS * ROWS]
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(1.5 * COLUMNS, 0.6 + 1.75 * rows))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, shown.tolist(), strict=False):
        image, answer = test.images[index], int(scores[index].argmax())
        image = image[..., 0] if image.shape[2:] == (1,) else image
        highest = 255 if image.dtype == np.uint8 else 1
        axes.imshow(image, cmap="gray", vmin=0, vmax=highest, interpolation="nearest")
        true, given = (_short(class_names[i]) for i in (int(test.labels[index]), answer))
        axes.set_title(f"{true} → {given}", size="small", color=VERMILLION, pad=2)
        score = f"{scores[index, answer]:.4f}"
        axes.text(0.5, -0.03, score, transform=axes.transAxes, ha="center", va="top", size="small")
    figure.suptitle(
        f"true class → answer, and the answer's score: the {len(shown):,} most confident of "
        f"{len(wrong):,} mistakes on {len(test.labels):,} test images",
        size="medium",
    )
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
