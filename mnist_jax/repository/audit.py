"""`scripts/verify PATH`: checks that every byte of a run, version, model or repository is as made.

A run's exported files are compared with its verification, those of a version with their checksums.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnist_jax import command
from mnist_jax.errors import UserError
from mnist_jax.files import read_json, sha256
from mnist_jax.release import inputs, runtimes
from mnist_jax.repository import layout, sign
from mnist_jax.run import paths


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where all is well, 1 where something is not, 2 on a mistake."""
    parser = command.Parser("scripts/verify", __doc__)
    parser.add_argument("path", type=Path, help="a run, a version, a model or a repository")
    parser.add_argument(
        "--public-key", type=Path, metavar="KEY", help="demand signatures that hold for it (PEM)"
    )
    parser.add_argument(
        "--runtimes",
        action="store_true",
        help="of a run: compute test images in every ONNX runtime that is installed too",
    )
    inputs.add_flags(parser)
    return command.run(parser, arguments, _act)


def _act(options: argparse.Namespace) -> int:
    path, is_well = options.path.absolute(), True
    if options.runtimes and not _is_run(path):
        raise UserError(f"{path} is not a run, and --runtimes needs its test images; name a run")
    for part in _parts(path):
        try:
            print(f"ok    {_check(part, options.public_key)}")
        except UserError as error:
            print(f"FAIL  {error}", file=sys.stderr)
            is_well = False
    if options.runtimes and is_well:
        return runtimes.check(path, options)
    return 0 if is_well else 1


def _parts(path: Path) -> Iterator[Path]:
    """Yields the runs, versions and models in a folder: each is checked by itself.

    Raises:
        UserError: there is none.
    """
    if _is_run(path) or _is_version(path):
        yield path
    elif _is_model(path):
        yield from _versions(path)
        yield path
    elif path.is_dir() and (models := [x for x in sorted(path.iterdir()) if _is_model(x)]):
        for model in models:
            yield from _parts(model)
    else:
        raise UserError(f"{path} is no run, version, model or repository; name one of these")


def _is_run(path: Path) -> bool:
    return (path / paths.RELEASE).is_file()


def _is_version(path: Path) -> bool:
    return any((path / name).is_file() for name in (layout.MANIFEST, layout.SUMS))


def _is_model(path: Path) -> bool:
    return layout.MODEL_NAME.match(path.name) is not None and bool(_versions(path))


def _versions(model: Path) -> list[Path]:
    """Every folder with a number, those included that have lost their sums."""
    numbers = [x.name for x in model.glob("[0-9]*") if layout.VERSION_NUMBER.match(x.name)]
    return [model / number for number in sorted(numbers, key=int)]


def _check(path: Path, public_key: Path | None) -> str:
    """Checks one part; returns what there is to say of it.

    Raises:
        UserError: something in it is not as it was made.
    """
    if _is_run(path):
        return _check_run(path)
    if layout.VERSION_NUMBER.match(path.name):
        return _check_version(path, public_key)
    if _is_version(path):  # a copy that stands alone
        layout.check_files(path)
        return f"{path}: {_signature(path, public_key)}"
    return _check_model(path)


def _check_run(run_dir: Path) -> str:
    release = read_json(run_dir / paths.RELEASE)
    files = (release["verification"] or {"files": {}})["files"].values()
    for entry in files:
        path = run_dir / entry["path"]
        if not path.is_file() or sha256(path) != entry["sha256"]:
            raise UserError(f"{path} is not what was verified; run scripts/export {run_dir} again")
    return f"{run_dir}: {release['verdict']}, {len(files)} exported files"


def _check_version(folder: Path, public_key: Path | None) -> str:
    repository, name = folder.parents[1], folder.parent.name
    number = int(folder.name)
    if number not in layout.list_versions(repository, name):
        raise UserError(
            f"{folder / layout.SUMS}: no such file; the folder was not copied whole, copy it again"
        )
    version = layout.load_version(repository, name, number)
    verdict, files = version.manifest["verdict"], len(version.manifest["files"])
    return f"{folder}: {verdict}, {files} files, {_signature(folder, public_key)}"


def _signature(folder: Path, public_key: Path | None) -> str:
    if public_key is not None:
        sign.check(folder, public_key)
        return f"signature holds for {public_key}"
    is_signed = (folder / layout.SIGNATURE).exists()
    return "signed (not checked without --public-key)" if is_signed else "not signed"


def _check_model(model: Path) -> str:
    """Checks that what lies beside the versions is the champion's."""
    number = layout.champion(model.parent, model.name)
    for name in (layout.CONFIG, layout.LABELS, layout.WARM_UP, layout.CARD):
        shown, made = (_contents(folder, name) for folder in (model, model / str(number)))
        for path in sorted(shown.keys() | made.keys()):
            if shown.get(path) != made.get(path):
                raise UserError(
                    f"{path} of {model} is not that of the champion, version {number}; copy the "
                    "repository again, with its links, as cp -a does"
                )
    return f"{model}: champion is version {number}"


def _contents(folder: Path, name: str) -> dict[str, bytes]:
    """Reads a file, or all files of a folder, by their path in `folder`."""
    files = [folder / name, *(folder / name).glob("**/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


if __name__ == "__main__":
    command.run_as_program(main)
