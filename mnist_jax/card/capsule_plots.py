"""The pictures of a capsule network's card: drawings, dimensions, couplings; from arrays alone."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mnist_jax.card.plots import LOOK, VERMILLION, save
from mnist_jax.run import paths

GREY_LEVELS = {"cmap": "gray", "vmin": 0, "vmax": 1}
MAX_COUPLED = 5  # images whose couplings are shown
MAX_CLASSES_COUPLED = 20  # of more, there is no room for a map or a row each
PRIMARY_TYPES_AT_A_PLACE = 32  # of mnist_capsule_v1, whose primary capsules lie on a grid


def draw(run_dir: Path, class_names: list[str]) -> None:
    """Writes reconstructions, perturbations and couplings as PNG, if the run recorded any."""
    path = run_dir / paths.CAPSULES
    if not path.is_file():
        return
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    folder = run_dir / "model_card" / "plots"
    with style.context(["default", LOOK]):
        save(_reconstructions(arrays, class_names), folder / "reconstructions.png")
        if len(arrays["perturbed"]):
            save(_perturbations(arrays, class_names), folder / "perturbations.png")
        if int(arrays["num_right"]) and len(class_names) <= MAX_CLASSES_COUPLED:
            save(_couplings(arrays, class_names), folder / "couplings.png")


def _reconstructions(arrays: dict[str, np.ndarray], class_names: list[str]) -> Figure:
    """Right answers above; wrong ones below, drawn from the true capsule and from the answer's."""
    num_right, num = int(arrays["num_right"]), len(arrays["images"])
    images = arrays["images"] / 255
    rows = [
        ("test image", images[:num_right], 0),
        ("drawn again", arrays["drawn_from_label"][:num_right], 0),
        ("test image", images[num_right:], num_right),
        ("from the true\nclass's capsule", arrays["drawn_from_label"][num_right:], num_right),
        ("from the answer's\ncapsule", arrays["drawn_from_answer"][num_right:], num_right),
    ]
    rows = [row for row in rows if len(row[1])]
    columns = max(num_right, num - num_right)
    # Long names need room between the columns.
    size = 0.85 if max(map(len, class_names)) < 4 else 1.2
    figure = Figure(figsize=(1.5 + size * columns, 0.8 + (size + 0.1) * len(rows)))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.01, hspace=0)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for cells, (label, pictures, first) in zip(grid, rows, strict=True):
        for axes in cells:
            _bare(axes)
        cells[0].set_ylabel(label, rotation=0, ha="right", va="center", size="small")
        for index, (axes, picture) in enumerate(zip(cells, pictures, strict=False)):
            axes.imshow(picture, **GREY_LEVELS)
            if label == "test image":
                name = class_names[arrays["labels"][first + index]]
                answer = class_names[arrays["answers"][first + index]]
                wrong = {"color": VERMILLION} if first else {}
                axes.set_title(name if not first else f"{name} as {answer}", size="small", **wrong)
        for axes in cells[len(pictures) :]:
            axes.axis("off")
    figure.suptitle(
        f"What the decoder draws: {num_right} right answers, then {num - num_right} wrong ones",
        size="medium",
    )
    return figure


def _perturbations(arrays: dict[str, np.ndarray], class_names: list[str]) -> Figure:
    """One block an image: a row for each dimension, a column for each step."""
    blocks = arrays["perturbed"]
    num, dims, steps, side = blocks.shape[:4]
    figure = Figure(figsize=(0.6 + num * 0.42 * steps, 0.9 + 0.42 * dims))
    for index, axes in enumerate(figure.subplots(1, num, squeeze=False)[0]):
        gap = 2  # pixels between two drawings
        sheet = np.ones((dims * (side + gap) - gap, steps * (side + gap) - gap, *blocks.shape[5:]))
        for dim, step in np.ndindex(dims, steps):
            top, left = dim * (side + gap), step * (side + gap)
            sheet[top : top + side, left : left + side] = blocks[index, dim, step]
        axes.imshow(sheet, **GREY_LEVELS)
        _bare(axes)
        middle = (side - 1) / 2
        shown, moved_by = range(0, steps, 5), arrays["moved_by"]
        axes.set_xticks(
            [step * (side + gap) + middle for step in shown],
            [f"{moved_by[step]:+.2f}" if moved_by[step] else "0" for step in shown],
        )
        axes.set_yticks([dim * (side + gap) + middle for dim in range(dims)], range(1, dims + 1))
        axes.tick_params(length=0, labelsize="small")
        axes.set_xlabel("added to the dimension", size="small")
        name = class_names[arrays["labels"][index]]
        axes.set_title(f"the capsule of class {name}", size="small")
        if index == 0:
            axes.set_ylabel("dimension of the capsule", size="small")
    figure.suptitle("What each dimension of a class capsule stands for", size="medium")
    return figure


def _couplings(arrays: dict[str, np.ndarray], class_names: list[str]) -> Figure:
    """To which class the primary capsules are coupled: by place, or one by one where few."""
    lengths, couplings = arrays["lengths_below"], arrays["couplings"]
    couplings = np.broadcast_to(couplings, (len(lengths), *couplings.shape[1:]))
    maps = _by_place(couplings, lengths)
    shown = couplings if maps is None else maps
    alike = 1 / couplings.shape[1]
    spread = max(1e-3, float(np.quantile(np.abs(shown - alike), 0.999)))
    # White where all couplings are alike; none is below zero.
    norm = TwoSlopeNorm(alike, vmin=max(0, alike - spread), vmax=alike + spread)
    scale = {"cmap": "RdBu_r", "norm": norm}
    num_images = min(int(arrays["num_right"]), MAX_COUPLED)
    columns = 2 if maps is None else 1 + len(class_names)
    if maps is None:
        figure, widths = Figure(figsize=(8, 1.4 + 1.3 * num_images)), [1, 4]
        what = "own class between lines"
    else:
        figure, widths = Figure(figsize=(1 + 0.85 * columns, 1.2 + 0.85 * num_images)), None
        what = "mean by place, weighted by length; own class framed"
    grid = figure.subplots(num_images, columns, squeeze=False, width_ratios=widths)
    for index, cells in enumerate(grid):
        for axes in cells:
            _bare(axes)
        cells[0].imshow(arrays["images"][index] / 255, **GREY_LEVELS)
        label = int(arrays["labels"][index])
        if maps is None:
            drawn = _draw_couplings(cells[1], couplings[index], label, class_names, scale)
            if index == num_images - 1:
                cells[1].set_xlabel("primary capsule", size="small")
        else:
            names = class_names if index == 0 else None
            drawn = _draw_maps(cells[1:], maps[index], label, names, scale)
    digits = 2 if spread > 0.05 else 3
    ticks = [norm.vmin, alike, norm.vmax]
    bar = figure.colorbar(drawn, ax=grid, shrink=0.6, ticks=ticks, format=f"{{x:.{digits}f}}")
    bar.set_label(f"coupling; white: {alike:.2g}, as at the start")
    figure.suptitle(f"Couplings of the primary capsules to each class ({what})", size="medium")
    return figure


def _by_place(couplings: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
    """The mean coupling at each place, `[n, classes, side, side]`; None where there is no grid."""
    n, classes, inputs = couplings.shape
    side = round((inputs / PRIMARY_TYPES_AT_A_PLACE) ** 0.5)
    if side**2 * PRIMARY_TYPES_AT_A_PLACE != inputs:
        return None
    weights = lengths.reshape(n, 1, side, side, PRIMARY_TYPES_AT_A_PLACE)
    by_type = couplings.reshape(n, classes, side, side, PRIMARY_TYPES_AT_A_PLACE)
    # A short capsule's coupling changes nothing: the mean is weighted by length.
    return (by_type * weights).sum(axis=-1) / (weights.sum(axis=-1) + 1e-9)


def _draw_maps(
    row: np.ndarray,
    maps: np.ndarray,
    label: int,
    class_names: list[str] | None,
    scale: dict[str, Any],
) -> AxesImage:
    """One map for each class; the own one is framed."""
    for k, axes in enumerate(row):
        drawn = axes.imshow(maps[k], **scale)
        for spine in axes.spines.values():
            spine.set(visible=k == label, color="black", linewidth=2)
        if class_names is not None:
            axes.set_title(class_names[k], size="small")
    return drawn


def _draw_couplings(
    axes: Axes,
    couplings: np.ndarray,
    label: int,
    class_names: list[str],
    scale: dict[str, Any],
) -> AxesImage:
    """A row for each class, a column for each primary capsule; the own class between lines."""
    drawn = axes.imshow(couplings, aspect="auto", **scale)
    axes.axhline(label - 0.5, color="black", linewidth=1.5)
    axes.axhline(label + 0.5, color="black", linewidth=1.5)
    classes, inputs = couplings.shape
    axes.set_yticks(range(classes), class_names, size="xx-small")
    axes.set_xticks(range(inputs), [str(n + 1) for n in range(inputs)], size="xx-small")
    axes.tick_params(length=0)
    return drawn


def _bare(axes: Axes) -> None:
    """No ticks and no frame: a picture."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
