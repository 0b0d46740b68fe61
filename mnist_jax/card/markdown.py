"""Markdown for the card: tables, parts that fold, and text that is shown as it is."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mnist_jax.errors import printable


def table(header: str, rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table; the header's cells are separated by `|`."""
    lines = [header.split("|"), ["---"] * (header.count("|") + 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def folded(summary: str, text: str) -> str:
    """Returns a part that opens at a click, where HTML is shown; elsewhere it is all there."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def escaped(tree: Any) -> Any:
    """A copy of JSON in which Markdown shows every string as it is, on one line, in a cell too.

    Keys stay as they are.
    """
    if isinstance(tree, dict):
        return {key: escaped(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [escaped(value) for value in tree]
    if not isinstance(tree, str):
        return tree
    line = printable(" ".join(tree.split()))
    # "<" and "&" only where a tag or an entity could begin, so that "<= 10 MB" stays as it is.
    line = re.sub(r"<(?=[A-Za-z/!?])|&(?=[A-Za-z#])", lambda match: html.escape(match[0]), line)
    return re.sub(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", line)
