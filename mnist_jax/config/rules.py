"""What a value of a key must be: rules, in words and as tests."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value must be: in words, after "must be", and as a test of it."""

    text: str
    holds: Callable[[Any], bool]
    is_path: bool = False  # `~` in it is the home folder


def one_of(*ids: str) -> Rule:
    """The value is one of some."""
    return Rule("one of " + ", ".join(ids), lambda value: value in ids)


def some_of(*ids: str) -> Rule:
    """The values are some of these, or `all`."""
    text = "all or some of " + ", ".join(ids)
    return Rule(text, lambda names: bool(names) and {*names} <= {"all", *ids})


def from_to(low: int | float, high: int | float) -> Rule:
    """The value lies between two, which are allowed."""

    def holds(value: Any) -> bool:
        return low <= value <= high

    is_whole = isinstance(low, int)
    return Rule(f"from {low} to {high}" if is_whole else f"from {low:g} to {high:g}", holds)


def above_zero(high: float) -> Rule:
    """The value is positive, and at most so much."""
    return Rule(f"above 0 and at most {high:g}", lambda value: 0 < value <= high)


def split_reference(text: str) -> tuple[str, str] | None:
    """Splits `path/to/file.py:Name` or `package.module:Name`; None where the text is neither."""
    place, _, name = text.rpartition(":")
    is_file = place.endswith(".py") and "\0" not in place
    is_module = bool(place) and all(part.isidentifier() for part in place.split("."))
    return (place, name) if name.isidentifier() and (is_file or is_module) else None


def own_or_one_of(what: str, *ids: str) -> Rule:
    """The value is one of some, or a reference to the user's own code."""
    text = f"one of {', '.join(ids)}, or your own: path/to/file.py:{what}, package.module:{what}"
    return Rule(text, lambda value: value in ids or split_reference(value) is not None, True)


def _is_setting(name: Any, value: Any) -> bool:
    is_value = isinstance(value, bool | int | str) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return isinstance(name, str) and name.isidentifier() and is_value


SWITCH = Rule("true or false", lambda value: True)
BELOW_ONE = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
FOLDER = Rule("the path of a folder", lambda value: bool(value) and "\0" not in value, True)
SHARE = Rule("above 0 and below 1", lambda value: 0 < value < 1)
PATH_OR_NONE = Rule("the path of a file or folder, or empty", lambda value: "\0" not in value, True)
FOLDER_OR_NONE = Rule("the path of a folder, or empty", lambda value: "\0" not in value, True)
ADDRESS = re.compile(r"\S+:\d{1,5}")
IMAGE_SIDE = Rule("from 16 to 128, or 0", lambda value: value == 0 or 16 <= value <= 128)
CHANNELS = Rule("0, 1 or 3", lambda value: value in (0, 1, 3))
CLASS_WEIGHTS = Rule(
    "none, balanced, a JSON file of weights by class name, or such an object itself",
    lambda value: bool(value) and "\0" not in value,
    True,
)
COORDINATOR = Rule(
    "HOST:PORT or auto",
    lambda value: value in ("", "auto") or ADDRESS.fullmatch(value) is not None,
)
SETTINGS = Rule(
    "names with numbers, true or false, or texts",
    lambda value: all(_is_setting(*item) for item in value.items()),
)
