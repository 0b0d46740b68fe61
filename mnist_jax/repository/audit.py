"""`scripts/verify PATH`: checks that every byte of a run, version, model or repository is as made.

A run's exported files are compared with its verification, a version's files with its checksums.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_jax import command
from mnist_jax.errors import UserError, first_line
from mnist_jax.files import read_json, sha256
from mnist_jax.release import inputs, runtimes
from mnist_jax.repository import layout, sign
from mnist_jax.run import paths

# Of a part, with the public key if signatures are demanded; returns what there is to say of it, and
# raises a UserError where something in it is not as it was made.
Check = Callable[[Path, Path | None], str]


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
    for check, part in _parts(path):
        try:
            print(f"ok    {check(part, options.public_key)}")
        except UserError as error:
            print(f"FAIL  {error}", file=sys.stderr)
            is_well = False
    if options.runtimes and is_well:
        return runtimes.check(path, options)
    return 0 if is_well else 1


def _parts(path: Path) -> list[tuple[Check, Path]]:
    """Returns the runs, versions and models in a folder, each with its check.

    A folder that is several of these is checked as each: one file more must not hide the others.

    Raises:
        UserError: there is none.
    """
    models = [x for x in (path, *_contained(path)) if _is_model(x)]
    parts: list[tuple[Check, Path]] = [
        (_check_run, x) for x in dict.fromkeys((path, *models)) if _is_run(x)
    ]
    if _is_version(path):
        is_numbered = layout.VERSION_NUMBER.match(path.name)
        parts.append((_check_version if is_numbered else _check_copy, path))
    for model in models:
        parts += [(_check_version, version) for version in _versions(model)]
        parts.append((_check_model, model))
    if not parts:
        raise UserError(f"{path} is not a run, version, model or repository; name one of these")
    return parts


def _contained(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


def _is_run(path: Path) -> bool:
    return (path / paths.RELEASE).is_file()


def _is_version(path: Path) -> bool:
    return any((path / name).is_file() for name in (layout.MANIFEST, layout.SUMS))


def _is_model(path: Path) -> bool:
    return layout.MODEL_NAME.match(path.name) is not None and bool(_versions(path))


def _versions(model: Path) -> list[Path]:
    """Every folder with a number, those included that have lost their checksums."""
    numbers = [x.name for x in model.glob("[0-9]*") if layout.VERSION_NUMBER.match(x.name)]
    return [model / number for number in sorted(numbers, key=int)]


def _check_run(run_dir: Path, public_key: Path | None) -> str:
    if public_key is not None:
        raise UserError(
            f"{run_dir} is a run, which has no signature; "
            "publish it with scripts/publish --sign KEY, or leave the key out"
        )
    release = read_json(run_dir / paths.RELEASE)
    try:
        verdict = release["verdict"]
        files = (release["verification"] or {"files": {}})["files"].values()
        expected = [(run_dir / entry["path"], entry["sha256"]) for entry in files]
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run_dir / paths.RELEASE} is not what a run writes ({first_line(error)}); run again"
        ) from error
    for path, digest in expected:
        if not path.is_file() or sha256(path) != digest:
            raise UserError(f"{path} is not what was verified; run scripts/export {run_dir} again")
    return f"{run_dir}: {verdict}, {len(expected)} exported files"


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


def _check_copy(folder: Path, public_key: Path | None) -> str:
    """Checks a version outside a repository."""
    layout.check_files(folder)
    return f"{folder}: {_signature(folder, public_key)}"


def _signature(folder: Path, public_key: Path | None) -> str:
    if public_key is not None:
        sign.check(folder, public_key)
        return f"signature holds for {public_key}"
    is_signed = (folder / layout.SIGNATURE).exists()
    return "signed (not checked without --public-key)" if is_signed else "not signed"


def _check_model(model: Path, public_key: Path | None) -> str:
    """Checks that what lies beside the versions is the champion's: theirs are the signatures."""
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
