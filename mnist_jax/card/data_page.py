"""The card's page on the user's own pictures: what `logs/data_report.json` found in them."""

from collections.abc import Sequence

from mnist_jax.card.markdown import escaped, folded, table
from mnist_jax.data.report import DataReport, Found

MOST_ROWS = 12  # of a table that is not folded
MOST_NAMES = 3  # that stand in the text
HOW = """\
All of this was looked for before the training: the pictures of all splits, the test split's too,
were compared with one another, without their labels. The test labels served to take the split by
class, where the data came without one, and for the counts above; nothing else read them until the
training was over."""


def page(report: DataReport, class_names: Sequence[str]) -> str:
    """Returns counts by class and split, sizes and modes, and every kind of finding.

    Args:
        report: `data_report.json`.
        class_names: in the order of the labels.
    """
    across = {tuple(pair.split("-")): found for pair, found in report["duplicates_across"].items()}
    lists = [
        _findings("Unreadable files, which were left out", report["unreadable"]),
        _findings("Pictures of a rare size", report["odd_sizes"]),
        *(
            _findings(f"Exact copies of an earlier picture within {split}", found)
            for split, found in report["duplicates_within"].items()
        ),
        *(
            _findings(f"Exact copies in {b} of pictures of {a}{_leak(b)}", found)
            for (a, b), found in across.items()
        ),
        _findings("Pairs of other levels with the same edges", report["near_duplicates"]),
        _findings("Pictures of train and validation under two labels", report["two_labels"]),
        *(
            f"Classes that {split} lacks: {', '.join(escaped(absent))}."
            for split, absent in report["absent_classes"].items()
            if absent
        ),
        *(
            f"Left out of {split}, since a later split has them: {count:,}."
            for split, count in report["dropped"].items()
            if count
        ),
    ]
    found = [text for text in lists if text]
    clean = "Nothing else was found: every file was read, and no picture is there twice."
    return "\n\n".join([_counts(report, class_names), _kinds(report), *(found or [clean]), HOW])


def _leak(split: str) -> str:
    return ", which is not independent" if split == "test" else ""


def _counts(report: DataReport, class_names: Sequence[str]) -> str:
    splits = [split for split in ("train", "validation", "test") if split in report["counts"]]
    rows = [
        [escaped(name), *(f"{report['counts'][split].get(name, 0):,}" for split in splits)]
        for name in class_names
    ]
    text = table("|".join(["class", *(f"{split} pictures" for split in splits)]), rows)
    return text if len(rows) <= MOST_ROWS else folded(f"Pictures of {len(rows):,} classes", text)


def _kinds(report: DataReport) -> str:
    sizes, modes = (
        [f"{name} ({count:,})" for name, count in sorted(found.items(), key=lambda item: -item[1])]
        for found in (report["sizes"], report["modes"])
    )
    more = f" and {len(sizes) - MOST_NAMES} more" if len(sizes) > MOST_NAMES else ""
    shown = ", ".join(escaped(sizes[:MOST_NAMES]))
    return f"Sizes in the files, in pixels: {shown}{more}. Modes: {', '.join(escaped(modes))}."


def _findings(title: str, found: Found) -> str:
    """A line for one kind of finding; the names fold away where they are many."""
    if not found["count"]:
        return ""
    lines = [f"- {', '.join(escaped(names))}" for names in found["named"]]
    head = f"{title}: {found['count']:,}."
    if len(lines) <= MOST_NAMES and found["count"] == len(lines):
        return "\n".join([head, "", *lines])
    cut = f", the first {len(lines)} named" if found["count"] > len(lines) else ""
    return folded(f"{head[:-1]}{cut}.", "\n".join(lines))
