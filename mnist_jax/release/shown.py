"""A verdict for people: each measurement in words, and all of them as a table."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mnist_jax.errors import printable
from mnist_jax.release.records import Criterion, Metrics, Release

TITLES = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "auc": "AUC"}


def show_measured(row: Criterion) -> str:
    """A measurement for people: four decimals, three with a unit, six where these would mislead.

    So 0.969983 against a threshold of 0.97 is not shown as 0.9700.
    """
    measured, threshold, unit = row["measured"], row["threshold"], row["unit"]
    if measured is None:
        return "not measured"
    if isinstance(measured, bool):
        return "yes" if measured else "no"
    if isinstance(measured, int):
        return f"{measured:,} {unit}".rstrip()
    shown = f"{measured:.3f}" if unit else f"{measured:.4f}"
    if side_of(float(shown), threshold) != side_of(measured, threshold):
        shown = f"{measured:.6f}"
    return f"{shown} {unit}".rstrip()


def show_rule(row: Criterion) -> str:
    """What a criterion asks for, for people: ">= 0.97", or "must hold"."""
    return "must hold" if row["threshold"] is True else f"{row['rule']} {show_threshold(row)}"


def table(release: Release) -> Group:
    """The criteria for a terminal of 80 columns: failures first, then remarks, the verdict last."""
    criteria = sorted(release["criteria"], key=lambda row: row["passed"])
    grid = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("", "criterion", "measured", "rule", "n", "95 % interval"):
        grid.add_column(heading)
    for row in criteria:
        interval = row["interval_95"]
        cells = (
            Text("pass", style="green") if row["passed"] else "FAIL",
            row["name"],
            show_measured(row),
            show_rule(row),
            "" if row["n"] is None else str(row["n"]),
            "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
        )
        grid.add_row(*cells, style="" if row["passed"] else "red")
    remarks = Table.grid(padding=(0, 1, 0, 0))
    # Text, not str: a class name in brackets must not be read as rich's markup.
    for reason in release["reasons"]:
        remarks.add_row("-", Text(printable(reason)), style="red")
    for row in criteria:
        if row["passed"] and row["detail"]:
            remarks.add_row("-", Text(printable(f"{row['name']}: {row['detail']}")), style="dim")
    if num_failed := sum(not row["passed"] for row in criteria):
        verdict = f"REFUSED: {num_failed} of {len(criteria)} criteria failed"
    else:
        verdict = f"RELEASED: all {len(criteria)} criteria passed"
    return Group(grid, remarks, Text(verdict, style="bold red" if num_failed else "bold green"))


def each_class(metrics: Metrics) -> str:
    """The measures in which every class counts alike, beside what a blind answer gets: one line."""
    intervals = metrics.get("intervals_95") or {}
    parts = [
        f"{title} {metrics[name]:.4f} ({intervals[name][0]:.4f} to {intervals[name][1]:.4f})"
        for name, title in TITLES.items()
        if name in intervals
    ]
    return ", ".join([*parts, *majority(metrics)])


def majority(metrics: Metrics) -> list[str]:
    """What a blind answer gets, and whether the model gives no other."""
    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    counts = [sum(row) for row in matrix]
    answered = [
        name for name, column in zip(names, zip(*matrix, strict=True), strict=True) if any(column)
    ]
    lines = [
        f"answering {names[counts.index(max(counts))]} to all would be right for "
        f"{max(counts) / sum(counts):.4f}"
    ]
    if len(answered) == 1:
        lines.append(f"THE MODEL ANSWERS {answered[0]} TO ALL")
    return lines


def show_threshold(row: Criterion) -> str:
    """The threshold as it was given: 0.97, 50 ms."""
    return f"{row['threshold']:.15g} {row['unit']}".rstrip()


def side_of(value: float | int, threshold: float | int) -> int:
    """1 above the threshold, -1 below, 0 on it."""
    return (value > threshold) - (value < threshold)
