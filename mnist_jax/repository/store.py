"""Changing a repository: every change is one rename, so that readers find it whole.

What is being written lies where Triton looks for no model: a new version beside the others, under
a name that is not a number. Only a model's first version has to lie beside the models until it is
whole, since a folder without a configuration is what Triton does not start with.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist_jax.errors import UserError
from mnist_jax.files import locked, sha256, write_bytes
from mnist_jax.repository.layout import (
    CARD,
    CHAMPION,
    CONFIG,
    LABELS,
    MANIFEST,
    NUMBER,
    SERVING,
    SUMS,
    VERSION_NUMBER,
    WARM_UP,
    list_versions,
)

STAGING = ".publishing_"
LINKS = {CHAMPION: NUMBER, CONFIG: CONFIG, LABELS: LABELS, WARM_UP: WARM_UP, CARD: CARD}


@contextmanager
def lock(repository: Path) -> Iterator[None]:
    """Makes the folder if need be, keeps other publishers out, and clears what a killed one left.

    Raises:
        UserError: the folder cannot be made or written, or another process publishes to it.
    """

    def refusal(error: OSError) -> UserError:
        if isinstance(error, BlockingIOError):
            return UserError(
                f"another process is publishing to {repository}; wait until it has finished"
            )
        return UserError(
            f"{repository} cannot be a repository ({error.strerror}); name a folder, or a new path"
        )

    try:
        repository.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(error) from error
    with locked(repository, refusal):
        for pattern in (f"{STAGING}*", f"*/{STAGING}*"):
            for leftover in repository.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def next_number(repository: Path, name: str) -> int:
    """Returns the number of a model's next version: above all there are, whole or not."""
    folder = repository / name
    names = os.listdir(folder) if folder.is_dir() else []
    return 1 + max((int(number) for number in names if VERSION_NUMBER.match(number)), default=0)


def add_version(
    repository: Path,
    name: str,
    number: int,
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any],
    sign: Callable[[Path], None] | None = None,
) -> None:
    """Adds a version, with its manifest and checksums; the first of a model becomes its champion.

    Args:
        repository: the caller holds its lock.
        name: the model.
        number: what `next_number` gives.
        files: the contents by path in the version's folder.
        manifest: what is to be said of the version, besides its name, number and files.
        sign: makes a signature in the folder that it is given, before the version appears.

    Raises:
        UserError: something else is at its place, or the disk is full; nothing is left then.
    """
    is_first = not list_versions(repository, name)
    try:
        staging = Path(
            tempfile.mkdtemp(prefix=STAGING, dir=repository if is_first else repository / name)
        )
    except OSError as error:
        raise UserError(
            f"cannot write to {repository}: {error.strerror}; choose a folder you can write"
        ) from error
    try:
        version = staging / str(number) if is_first else staging
        listed = {path: _describe(content) for path, content in files.items()}
        about = {**manifest, "name": name, "version": number, "files": listed}
        content = json.dumps(about, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
        every = {**files, MANIFEST: content}
        sums = [f"{_describe(every[path])['sha256']}  {path}\n" for path in sorted(every)]
        for path, content in {**every, SUMS: "".join(sums).encode()}.items():
            write_bytes(version / path, content)
        if sign is not None:
            sign(version)
        if is_first:
            (staging / SERVING).symlink_to(str(number))
            for link, target in LINKS.items():
                (staging / link).symlink_to(f"{SERVING}/{target}")
        for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
            if not folder.is_symlink():
                folder.chmod(0o755)
                _sync(folder)
        place = repository / name if is_first else repository / name / str(number)
        os.rename(staging, place)
        _sync(place.parent)
    except OSError as error:
        raise UserError(
            f"cannot put version {number} of {name} into {repository}: {error.strerror}; "
            "remove what is in its place, or give another --name"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_has_links(repository: Path, name: str) -> None:
    """Makes sure that a model's champion can change.

    Raises:
        UserError: the repository is a copy without links.
    """
    link = repository / name / SERVING
    if link.exists() and not link.is_symlink():
        raise UserError(
            f"{link} is a copy, not a link; copy the repository with its links, as cp -a does, or "
            "change the original"
        )


def promote(repository: Path, name: str, number: int) -> None:
    """Makes a version the champion; Triton's configuration changes in the same instant.

    Raises:
        UserError: the repository is a copy without links, or cannot be written.
    """
    check_has_links(repository, name)
    link = repository / name / SERVING
    staging = link.with_name(f".{SERVING}")
    try:
        staging.unlink(missing_ok=True)
        staging.symlink_to(str(number))
        os.replace(staging, link)
        _sync(link.parent)
    except OSError as error:
        raise UserError(
            f"cannot write to {link.parent}: {error.strerror}; {name} stays as it was"
        ) from error


def _describe(content: bytes) -> dict[str, Any]:
    return {"sha256": sha256(content), "size_bytes": len(content)}


def _sync(folder: Path) -> None:
    """Flushes a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
