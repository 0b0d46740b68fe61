"""The user's own code: named as `path/to/file.py:Name` or `package.module:Name`, loaded, hashed."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

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
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    except FileNotFoundError as error:
        raise UserError(f"{key} names {place}, which is not a file; give its path") from error
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
        found = importlib.util.find_spec(place)
        path = found.origin if found and found.origin else place
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}, which {reference} names, cannot be read ({error.strerror}); put it back"
        ) from error


def _load_file(path: Path) -> Any:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"own_code_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
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


def _import(name: str) -> Any:
    return importlib.import_module(name)
