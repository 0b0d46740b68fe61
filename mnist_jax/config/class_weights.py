"""The user's own weights of classes: checked, and kept in the configuration itself."""

import json
from pathlib import Path
from typing import Any

from mnist_jax.errors import UserError, printable

IDS = ("none", "balanced")
LEAST, MOST = 1e-6, 1e6
_REMEDY = 'write {"CLASS": WEIGHT, ...} with every class once'


def inlined(value: str) -> str:
    """Puts the weights in place of the file that holds them.

    So the hash of the configuration, a run that resumes and the command on the card need no file.

    Args:
        value: one of `IDS`, the path of a JSON file, or a JSON object.

    Returns:
        One of `IDS`, or a JSON object of numbers, sorted by name.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    return value if value in IDS else json.dumps(parsed(value), sort_keys=True)


def parsed(value: str) -> dict[str, float]:
    """Reads the weights by class name, each from `LEAST` to `MOST`.

    Args:
        value: the path of a JSON file, or a JSON object.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    is_inline = value.lstrip().startswith("{")
    where = "class_weights" if is_inline else f"class_weights: {value}"
    try:
        text = value if is_inline else Path(value).read_text(encoding="utf-8")
        weights = json.loads(text, object_pairs_hook=_without_repeats)
    except OSError as error:
        raise UserError(
            f"class_weights is {value!r}, but must be none, balanced or a JSON file that can be "
            f"read ({error.strerror}); name one"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not JSON of one weight a class ({error}); {_REMEDY}"
        ) from error
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{where} holds no object with weights; {_REMEDY}")
    for name, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not LEAST <= weight <= MOST:
            shown = printable(json.dumps(weight))[:40]
            raise UserError(
                f"{where} gives {name!r} the weight {shown}, but must give a number from {LEAST:g} "
                f"to {MOST:g}; {_REMEDY}"
            )
    return {name: float(weight) for name, weight in weights.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a class is named twice")
    return found
