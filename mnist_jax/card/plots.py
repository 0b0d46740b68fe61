"""The pictures of the model card that any model has, drawn from the JSON files alone."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_jax.files import write_bytes
from mnist_jax.release.intervals import wilson
from mnist_jax.release.records import History, Release

# Okabe and Ito's colours: told apart with every common kind of colour blindness.
BLUE, ORANGE, VERMILLION, GREY = "#0072B2", "#E69F00", "#D55E00", "#DDDDDD"
LOOK = {
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "grid.color": GREY,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called $x$
}
MAX_EPOCHS_WITH_MARKERS = 30
MAX_CLASSES_WITH_COUNTS = 30  # in the confusion matrix; of more it shows colours alone
MAX_NAMES = 50  # of classes on an axis of it
MAX_CLASSES_IN_LINES = 200  # of accuracy by class; of more the least accurate


def draw(release: Release, history: History | None, folder: Path) -> None:
    """Writes confusion_matrix, per_class_accuracy, training_accuracy and training_loss as PNG.

    The last two need a history.

    The same input gives the same bytes: no version and no settings of the user get in.

    Args:
        release: release.json whole.
        history: history.json whole; None where the network was not trained here.
        folder: where the files go; made if missing.
    """
    loss_label = f"{release['metrics']['criterion_id']} loss, mean over the images"
    with style.context(["default", LOOK]):
        pictures = {
            "confusion_matrix": _confusion_matrix(release),
            "per_class_accuracy": _per_class_accuracy(release),
        }
        if history is not None:
            pictures |= {
                "training_accuracy": _training(release, history, "accuracy", "accuracy"),
                "training_loss": _training(release, history, "loss", loss_label),
            }
        for name, figure in pictures.items():
            save(figure, folder / f"{name}.png")


def draw_robustness(runs: list[dict[str, Any]], path: Path) -> None:
    """Writes a picture of one run's answers to each challenge, and other runs' beside them.

    Args:
        runs: robustness.json of each.
        path: where the PNG goes.
    """
    with style.context(["default", LOOK]):
        save(_robustness(runs), path)


def draw_sweep(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a picture of validation accuracy by the values of a key, a line for each of a second.

    Args:
        rows: `studies.sweep.Row` of each combination, in the order of the values.
        path: where the PNG goes.
    """
    key, *others = rows[0]["values"]
    ticks = list(dict.fromkeys(row["values"][key] for row in rows))
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        label = "".join(f"{other} {row['values'][other]}" for other in others)
        lines.setdefault(label, []).append(row)
    with style.context(["default", LOOK]):
        figure = Figure(figsize=(7, 4.4))
        axes = figure.add_subplot()
        for index, (label, line) in enumerate(lines.items()):
            offset = 0.06 * (index - (len(lines) - 1) / 2)
            places = [ticks.index(row["values"][key]) + offset for row in line]
            middle = np.array([row["accuracy"] for row in line])
            low, high = np.array([row["interval_95"] for row in line]).T
            color = (BLUE, ORANGE, VERMILLION, "#009E73")[index % 4]
            look = {"marker": "o", "capsize": 3, "color": color, "label": label}
            axes.errorbar(places, middle, np.maximum(0, [middle - low, high - middle]), **look)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.grid(axis="y")
        axes.set(xlabel=key, ylabel="accuracy on validation, best epoch; 95 % interval")
        if others:
            axes.legend()
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG; the same figure gives the same bytes."""
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    write_bytes(path, png.getvalue())


def _confusion_matrix(release: Release) -> Figure:
    """Counts in every cell; colour for the errors alone, or the diagonal would drown them.

    Of many classes colours alone, and every second or third name: counts could not be read.
    """
    metrics = release["metrics"]
    names, counts = metrics["class_names"], np.array(metrics["confusion_matrix"])
    is_correct = np.eye(len(names), dtype=bool)
    errors = np.ma.masked_where(is_correct | (counts == 0), counts)
    most = max(10, errors.max() if errors.count() else 0)
    # Logarithmic, so that one stray error and a hundred both show; from 0.5, so that 1 has a tint.
    scale = ScalarMappable(LogNorm(0.5, most), "Blues")
    colors = scale.to_rgba(errors)
    colors[is_correct] = to_rgba(GREY)

    has_counts = len(names) <= MAX_CLASSES_WITH_COUNTS
    size_inches = 2.5 + (0.5 * len(names) if has_counts else 10)
    figure = Figure(figsize=(size_inches + 0.6, size_inches))
    axes = figure.add_subplot()
    axes.imshow(colors)
    luminance = colors[..., :3] ** 2.2 @ (0.2126, 0.7152, 0.0722)
    for (row, column), count in np.ndenumerate(counts):
        # Below this luminance white contrasts more than black does.
        color = "white" if luminance[row, column] < 0.179 else "black"
        if count and has_counts:
            axes.text(column, row, count, color=color, ha="center", va="center", size="small")
    turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    places = range(0, len(names), -(-len(names) // MAX_NAMES))
    shown = [names[place] for place in places]
    axes.set_xticks(places, shown, **(turn if max(map(len, shown)) > 3 else {}))
    axes.set_yticks(places, shown)
    if has_counts:
        axes.set_xticks(np.arange(len(names)) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(names)) + 0.5, minor=True)
        axes.grid(which="minor")
        axes.tick_params(which="minor", length=0)
    else:
        axes.tick_params(labelsize="x-small")
    axes.set(xlabel="predicted class", ylabel="true class")
    n, num_errors = metrics["num_examples"], metrics["num_examples"] - metrics["num_correct"]
    axes.set_title(f"{_title(release)}: {num_errors:,} of {n:,} test images wrong")
    ticks = [k * 10**power for power in range(6) for k in (1, 2, 5) if k * 10**power <= most]
    bar = figure.colorbar(scale, ax=axes, shrink=0.8, ticks=ticks, format="{x:,.0f}")
    bar.minorticks_off()
    bar.ax.set_ylim(1, most)
    bar.set_label("errors (images, logarithmic); grey: correct, blank: none")
    return figure


def _per_class_accuracy(release: Release) -> Figure:
    """One line a class: accuracy, Wilson 95 % interval and counts, against the criterion."""
    classes, title = release["metrics"]["per_class"], f"{_title(release)}: accuracy by class"
    if len(classes) > MAX_CLASSES_IN_LINES:
        title += f", the lowest {MAX_CLASSES_IN_LINES} of {len(classes):,}"
        classes = sorted(classes, key=lambda row: row["accuracy"])[:MAX_CLASSES_IN_LINES]
    criteria = {row["name"]: row for row in release["criteria"]}
    minimum = criteria["worst_class_accuracy"]["threshold"]
    figure = Figure(figsize=(7, 1.6 + 0.34 * len(classes)))
    axes = figure.add_subplot()
    left = minimum
    for i, row in enumerate(classes):
        if not row["num_examples"]:
            axes.text(0.5, i, "no test image", transform=axes.get_yaxis_transform(), va="center")
            continue
        low, high = wilson(row["num_correct"], row["num_examples"])
        left = min(left, low)
        color, marker = (BLUE, "o") if row["accuracy"] >= minimum else (VERMILLION, "X")
        axes.hlines(i, low, high, color=color, linewidth=2)
        axes.plot(row["accuracy"], i, marker, color=color, markersize=7)
        counts = f"{row['num_correct']:,} of {row['num_examples']:,}"
        axes.text(1.02, i, counts, transform=axes.get_yaxis_transform(), va="center", size="small")
    axes.axvline(minimum, color="black", linestyle="--", linewidth=1)
    label, above = f"criterion: at least {minimum:g}", axes.get_xaxis_transform()
    axes.text(minimum, 1.01, label, transform=above, ha="center", size="small")
    axes.set_xlim(max(0, left - 0.02), 1.003)
    axes.set_yticks(range(len(classes)), [row["class_name"] for row in classes])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_xlabel("accuracy on the class's test images, with Wilson 95 % interval")
    axes.set_title(title, pad=20)
    return figure


def _training(release: Release, history: History, metric: str, label: str) -> Figure:
    """One metric by epoch, on train and validation, with the epoch that was kept."""
    rows, best_epoch = history["epochs"], history["best_epoch"]
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(7, 4.4))
    axes = figure.add_subplot()
    lines = (("train", ORANGE, "s", "during the epoch"), ("validation", BLUE, "o", "after it"))
    for split, color, marker, moment in lines:
        values = [row[f"{split}_{metric}"] for row in rows]
        legend = f"{split}, {moment} (n = {release['run']['dataset'][f'num_{split}']:,})"
        marker = marker if len(rows) <= MAX_EPOCHS_WITH_MARKERS else ""
        axes.plot(epochs, values, marker=marker, color=color, label=legend, clip_on=False)
    best = rows[epochs.index(best_epoch)][f"validation_{metric}"]
    legend = f"epoch kept: {best_epoch}, validation {best:.4f}"
    ring = {"marker": "o", "ms": 14, "mfc": "none", "color": "black", "ls": "none"}
    axes.plot(best_epoch, best, **ring, label=legend, clip_on=False)
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    low, high = axes.get_ylim()
    if metric == "loss":  # one of the user's own can be negative
        is_positive = all(row[f"{split}_loss"] >= 0 for row in rows for split, *_ in lines)
        axes.set_ylim((0 if is_positive else low, high))
    else:
        axes.set_ylim((max(low, 0), min(high, 1.005)))
    axes.grid(axis="y")
    axes.set(xlabel="epoch", ylabel=label)
    axes.set_title(f"{_title(release)}: {metric} during training", pad=12)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", columnspacing=1.2)
    return figure


def _robustness(runs: list[dict[str, Any]]) -> Figure:
    """Accuracy by angle, and a bar for each of the other challenges, with Wilson 95 % intervals."""
    others = [row["name"] for row in runs[0]["challenges"] if row["name"] != "rotation"]
    others = list(dict.fromkeys(others))
    figure = Figure(figsize=(9.5 if others else 7, 4.4))
    widths = [2, 0.6 + 0.5 * len(others)] if others else [1]
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    for index, run in enumerate(runs):
        look = {"color": (BLUE, ORANGE, VERMILLION, "#009E73")[index % 4]}
        marker = ("o", "s", "^", "D")[index % 4]
        rows = [row for row in run["challenges"] if row["name"] == "rotation"]
        angles = [row["degrees"] for row in rows]
        label = f"{run['model_id']}, {run['num_parameters']:,} parameters"
        axes[0].plot(angles, [row["accuracy"] for row in rows], marker=marker, label=label, **look)
        low, high = np.array([row["interval_95"] for row in rows]).T
        axes[0].fill_between(angles, low, high, alpha=0.2, linewidth=0, **look)
        for place, name in enumerate(others):
            for row in (row for row in run["challenges"] if row["name"] == name):
                x = place + 0.15 * (index - (len(runs) - 1) / 2)
                axes[1].vlines(x, *row["interval_95"], linewidth=2, **look)
                axes[1].plot(x, row["accuracy"], marker, **look)
                axes[1].annotate(
                    f"{row['accuracy']:.3f}",
                    (x, row["accuracy"]),
                    xytext=(6, -3),
                    textcoords="offset points",
                    size="small",
                )
    axes[0].set_xticks(angles[::2], [f"{angle:+d}°" if angle else "0°" for angle in angles[::2]])
    axes[0].set(
        xlabel="rotation of the test images, counter-clockwise", ylabel="accuracy", ylim=(0, 1.02)
    )
    if others:
        titles = {"placed": "at a random\nplace", "affine": "affine, after\naffNIST"}
        axes[1].set_xticks(range(len(others)), [titles[name] for name in others])
        axes[1].set_xlim(-0.5, len(others) - 0.3)
    for part in axes:
        part.grid(axis="y")
    n = runs[0]["challenges"][0]["num_examples"]
    side, epochs = runs[0]["image_side"], runs[0]["epochs"]
    figure.suptitle(
        f"{runs[0]['model_id']} on changed test images, n = {n:,}, {side} x {side} pixels"
        + (f", after {epochs} epoch{'s' * (epochs > 1)}" if epochs else ""),
        size="medium",
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", columnspacing=1.2)
    return figure


def _title(release: Release) -> str:
    return f"{release['metrics']['model_id']} on {release['metrics']['dataset_id']}"
