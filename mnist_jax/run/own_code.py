"""The user's own code: named as `path/to/file.py:Name` or `package.module:Name`, loaded, hashed."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_jax import files
from mnist_jax.errors import UserError, first_line


def is_reference(text: str) -> bool:
    """Returns whether a text names the user's own code, and no built-in id."""
    return ":" in text


def load(reference: str, key: str) -> Any:
    """Returns the object that a reference names.

    Args:
        reference: `path/to/file.py:Name` or `package.module:Name`; the file's folder can be
            imported from while it is loaded.
        key: the key of the configuration that has it, for messages.

    Raises:
        UserError: the file or module is missing, fails when it is loaded, or holds no such name.
    """
    place, _, name = reference.rpartition(":")
    path, is_file = os.path.expanduser(place), place.endswith(".py")
    if is_file and not os.path.isfile(path):
        raise UserError(f"{key} names {place}, which is not a file; give its path")
    try:
        module = _load_file(Path(path).absolute()) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise UserError(
            f"{key} names {place}, which cannot be loaded ({first_line(error)}); fix it there"
        ) from error
    if not hasattr(module, name):
        raise UserError(f"{key} names {name!r}, but {place} defines no {name}; check the name")
    return getattr(module, name)


def sha256(reference: str) -> str:
    """Returns the SHA-256, in hex, of the file that a reference names.

    Raises:
        UserError: it is gone.
    """
    place, _, _ = reference.rpartition(":")
    path = place
    if not place.endswith(".py"):
        try:
            found = importlib.util.find_spec(place)
        except ImportError:  # of the package above it
            found = None
        path = found.origin if found and found.origin else place
    try:
        return files.sha256(Path(path).expanduser())
    except OSError as error:
        raise UserError(
            f"{path}, which {reference} names, cannot be read ({error.strerror}); put it back"
        ) from error


def short_name(reference: str) -> str:
    """Returns the name for cards and metadata: an id as it is, a class of a file in lower case."""
    return reference.rpartition(":")[2].lower() if is_reference(reference) else reference


def describe(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns which keys of a configuration name the user's own code, and its SHA-256.

    Raises:
        UserError: it is gone.
    """
    return {
        key: {"reference": config[key], "sha256": sha256(config[key])}
        for key in ("model_id", "criterion_id")
        if is_reference(config[key])
    }


def check_unchanged(recorded: Mapping[str, Mapping[str, str]]) -> None:
    """Makes sure that the user's own code is what a run was made with.

    Args:
        recorded: from `describe`, when the run began.

    Raises:
        UserError: a file has changed, or is gone.
    """
    for key, code in recorded.items():
        if (now := sha256(code["reference"])) != code["sha256"]:
            raise UserError(
                f"{key} names {code['reference']}, which has changed since the run was made: its "
                f"SHA-256 was {code['sha256'][:16]}, and is {now[:16]}; restore the file"
            )


def _load_file(path: Path) -> Any:
    name = f"own_code_{files.sha256(str(path).encode())[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
