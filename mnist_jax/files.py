"""Files that appear whole or not at all; JSON that knows whether it is still what was written."""

import fcntl
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mnist_jax.errors import UserError

CHECKSUM = "contents_sha256"
UNFINISHED = ".part"  # the end of the name of a file that is still being written


@contextmanager
def appearing(path: Path) -> Iterator[io.BufferedWriter]:
    """Lends a file beside `path`, which is renamed into place where the body ends well.

    Raises:
        UserError: the folder cannot be written or the disk is full. Then, and where the body
            raises, no part of the file is left.
    """
    temporary, is_lent = None, False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED
        )
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            is_lent = True
            yield file
            is_lent = False
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and not is_lent:
            raise cannot_write(path, error) from error
        raise


@contextmanager
def locked(
    folder: Path, refusal: Callable[[OSError], UserError], *, waits: bool = False
) -> Iterator[int]:
    """Keeps other processes that ask for it out of a folder, and lends the folder's handle.

    The kernel holds the lock: it ends with the process, however that ends.

    Args:
        folder: it must be there.
        refusal: what to raise where the folder cannot be opened, or (the error names no file then)
            cannot be locked; of another process's lock it gets a BlockingIOError.
        waits: for the other process to end.

    Raises:
        UserError: what `refusal` returns.
    """
    with ExitStack() as stack:
        try:
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError as error:
            raise refusal(error) from error
        yield handle


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to say where a file cannot be written."""
    return UserError(
        f"cannot write {path}: {error.strerror}; choose a folder you can write, with free space"
    )


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` beside `path`, flushes it to the disk, then renames it into place.

    Raises:
        UserError: the folder cannot be written or the disk is full; no part of the file is left.
    """
    with appearing(path) as file:
        try:
            file.write(data)
            file.flush()
        except OSError as error:
            raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys; NaN and infinity are refused, since JSON has neither.

    An object also gets the SHA-256 of the rest of it, `contents_sha256`, which `read_json` checks:
    a bit that flips on a disk mostly leaves JSON that can be read, with another number in it.
    """
    if isinstance(value, dict):
        contents = {key: value[key] for key in value if key != CHECKSUM}
        value = {**contents, CHECKSUM: json_sha256(contents)}
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
        UserError: the file is missing, cannot be read, is not JSON or not what was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        # Other programs write JSON without a checksum: there is nothing to check it against.
        if (
            isinstance(value, dict)
            and CHECKSUM in value
            and value.pop(CHECKSUM) != json_sha256(value)
        ):
            raise ValueError(f"its {CHECKSUM} is another")
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name a folder that a run has written"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON, or not what was written ({error}); it is damaged, run again"
        ) from error
    return value


def sha256(content: bytes | Path) -> str:
    """Returns the SHA-256, in hex, of bytes or of a file."""
    return hashlib.sha256(
        content if isinstance(content, bytes) else content.read_bytes()
    ).hexdigest()


def json_sha256(value: Any) -> str:
    """Returns the SHA-256, in hex, of JSON with sorted keys."""
    return sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
