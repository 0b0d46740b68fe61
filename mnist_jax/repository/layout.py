"""A model repository on disk: where things are in it, and how a version is read.

    REPOSITORY/NAME/
      1/ 2/ ...     a version each: whole, and never changed after it appeared
      serving       a link to the champion's folder, the only thing that ever changes
      champion  config.pbtxt  labels.txt  warmup/  card/    links into `serving`

Renaming one link therefore moves the champion's number and Triton's configuration together. A
repository whose links were replaced by copies of what they point to reads the same.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_jax.errors import UserError, first_line
from mnist_jax.files import sha256

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z")
VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,8}\Z")

# In a model's folder, each a link into `SERVING`.
CHAMPION, CONFIG, LABELS, WARM_UP, CARD = "champion", "config.pbtxt", "labels.txt", "warmup", "card"
SERVING = "serving"
# In a version's folder, beside those.
MODEL, MANIFEST, SUMS, BOM = "model.onnx", "manifest.json", "SHA256SUMS", "bom.cdx.json"
NUMBER = "version"  # its number, as text: what `champion` leads to
SIGNATURE = "model.sig"  # made over all the others, and so not among the checksums


@dataclass(frozen=True)
class Version:
    """A version whose every byte was found to be what was published."""

    name: str
    number: int
    model_path: Path
    model: bytes  # what was read there and checked; what may lie there later is another matter
    labels: tuple[str, ...]  # class names, in the order of the scores
    manifest: Mapping[str, Any]


def default_name(dataset_id: str) -> str:
    """Returns a data set's id as the name of a model: letters, digits, `_` and `-` alone."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", dataset_id).strip("_") or "model"


def list_models(repository: Path) -> tuple[str, ...]:
    """Returns the names of the models that have a version, sorted.

    Raises:
        UserError: `repository` is not a folder.
    """
    try:
        names = sorted(entry.name for entry in repository.iterdir())
    except OSError as error:
        raise UserError(
            f"{repository} is not a model repository ({error.strerror}); "
            "name a folder that scripts/publish has filled"
        ) from error
    return tuple(
        name for name in names if MODEL_NAME.match(name) and list_versions(repository, name)
    )


def list_versions(repository: Path, name: str) -> tuple[int, ...]:
    """Returns the numbers of a model's versions, ascending; none where there is no such model."""
    if not MODEL_NAME.match(name):
        return ()
    folder = repository / name
    try:
        numbers = [entry.name for entry in folder.iterdir() if VERSION_NUMBER.match(entry.name)]
    except OSError:
        return ()
    # os.path: `Path.is_file` raises where a folder must not be entered.
    return tuple(
        sorted(int(number) for number in numbers if os.path.isfile(folder / number / SUMS))
    )


def champion(repository: Path, name: str) -> int:
    """Returns the number of the version that answers where a client names none.

    Raises:
        UserError: there is no such model, or its champion is not one of its versions.
    """
    path = repository / name / CHAMPION
    number, failure = "", None
    if MODEL_NAME.match(name):
        try:
            number = read_file(path).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            failure = error
    # Listed last: a new champion's folder is there before anything says that it is the champion.
    versions = list_versions(repository, name)
    if not versions:
        known = ", ".join(list_models(repository)) or "none"
        raise UserError(f"{repository} has no model {name!r}; it has {known}")
    if failure is not None:
        raise UserError(f"{path} cannot be read; {_promote_again(name)}") from failure
    if not VERSION_NUMBER.match(number) or int(number) not in versions:
        raise UserError(f"{path} says {number!r}, no version of {name}; {_promote_again(name)}")
    return int(number)


def read_file(path: Path) -> bytes:
    """Reads a regular file; a pipe or device would never end, or never begin.

    Raises:
        OSError: it is none, or cannot be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read()


def _promote_again(name: str) -> str:
    return f"name one with scripts/publish --promote {name} VERSION"


def load_version(repository: Path, name: str, number: int) -> Version:
    """Reads a version and compares every file in it with its published checksum.

    Raises:
        UserError: there is no such version, or a file of it is changed, missing or too many; the
            message names the first.
    """
    if number not in list_versions(repository, name):
        raise UserError(
            f"{repository} has no version {number} of {name!r}; it has "
            f"{', '.join(map(str, list_versions(repository, name))) or 'none'}"
        )
    folder = repository / name / str(number)
    manifest, contents = check_files(folder)
    if (manifest.get("name"), manifest.get("version")) != (name, number):
        raise UserError(
            f"{folder} was published as version {manifest.get('version')} of "
            f"{manifest.get('name')}; put it back there, or publish the run again"
        )
    labels = tuple(contents[LABELS].decode().splitlines())
    return Version(name, number, folder / MODEL, contents[MODEL], labels, manifest)


def check_files(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Compares a version's files with `SHA256SUMS`, and that with `manifest.json`.

    Returns:
        The manifest, and the content of every file that has a checksum, by its path in the folder.

    Raises:
        UserError: a file is changed, missing, or too many; the message names the first.
    """
    remedy = "restore it from a copy, or publish the run again as a new version"
    sums = read_sums(folder / SUMS)
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    for name in sorted(found - {SUMS, SIGNATURE} - sums.keys()):
        raise UserError(f"{folder / name} is not among the files published; remove it")
    contents = {}
    for name, digest in sorted({MANIFEST: "", MODEL: "", LABELS: "", **sums}.items()):
        try:
            contents[name] = read_file(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; {remedy}") from error
        if sha256(contents[name]) != digest:
            raise UserError(f"{folder / name} is not what was published; {remedy}")
    try:
        manifest = json.loads(contents[MANIFEST])
        listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / MANIFEST} is not a manifest ({first_line(error)}); {remedy}"
        ) from error
    others = {name: digest for name, digest in sums.items() if name != MANIFEST}
    for name in sorted(name for name, _ in listed.items() ^ others.items()):
        raise UserError(
            f"{folder / name} has one checksum in {SUMS}, another in {MANIFEST}; {remedy}"
        )
    return manifest, contents


def read_sums(path: Path) -> dict[str, str]:
    """Reads a list of checksums as `sha256sum` writes it: digests, in hex, by path.

    Raises:
        UserError: the file is missing or not such a list.
    """
    try:
        lines = read_file(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {first_line(error)}; restore it from a copy") from error
    sums = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if match is None or ".." in Path(match[2]).parts or match[2].startswith("/"):
            raise UserError(f"{path} has a line that is not a checksum, {line[:80]!r}; restore it")
        sums[match[2]] = match[1]
    return sums
