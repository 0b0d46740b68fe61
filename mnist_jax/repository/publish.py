"""`scripts/publish`: puts a released run into a model repository, or makes a version the champion.

A new version meets the champion on the test set before it may take its place.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mnist_jax import command, data
from mnist_jax.config import PLACES
from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.export.interface import as_input
from mnist_jax.files import read_json, sha256
from mnist_jax.release import inputs
from mnist_jax.repository import layout, sign, store
from mnist_jax.repository.bom import make_bom
from mnist_jax.repository.existing import promote, sign_version
from mnist_jax.repository.layout import MODEL_NAME, Version
from mnist_jax.run import folder as run_folder
from mnist_jax.run import paths
from mnist_jax.run.paths import EXPORTED

# JAX, ONNX and SciPy take seconds to import: that is done where they are needed.

VARIANTS = ("float32", "int8")


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where something was published or promoted, 2 on a mistake."""
    parser = command.Parser("scripts/publish", __doc__)
    parser.add_argument("run_dir", type=Path, nargs="?", help="the folder of a released run")
    parser.add_argument("--repository", type=Path, required=True, help="made if it is not there")
    parser.add_argument("--name", help="of the model; the data set's id, unless given")
    parser.add_argument(
        "--variant", choices=VARIANTS, default="float32", help="int8: what scripts/quantize made"
    )
    parser.add_argument(
        "--force", metavar="REASON", help="publish although refused; the reason is recorded"
    )
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign with this private key (PEM); a run that is published already is signed there",
    )
    parser.add_argument(
        "--version", nargs=2, metavar=("NAME", "VERSION"), help="with --sign, in place of a run"
    )
    parser.add_argument(
        "--promote", nargs=2, metavar=("NAME", "VERSION"), help="make this version the champion"
    )
    inputs.add_flags(parser)
    return command.run(parser, arguments, _act)


def _act(options: argparse.Namespace) -> int:
    wanted = (options.run_dir, options.promote, options.version)
    if sum(what is not None for what in wanted) != 1:
        raise UserError(
            "give one of: the folder of a run, --promote NAME VERSION, --version NAME VERSION"
        )
    if options.version is not None:
        if options.sign is None:
            raise UserError("--version is for a version to sign; give --sign KEY too")
        name, version = options.version
        sign_version(options.repository, name, version, options.sign)
        return 0
    if options.promote is not None:
        name, version = options.promote
        promote(options.repository, name, version)
        return 0
    publish(options)
    return 0


class Candidate(NamedTuple):
    """What is to be published."""

    path: Path  # of the ONNX file
    release: dict[str, Any]
    quantization: dict[str, Any] | None
    forced_because: str | None


def publish(options: argparse.Namespace) -> None:
    """Adds a run's model as a new version; it becomes the champion if it is the first or better."""
    run = run_folder.read_run(options.run_dir)
    candidate = read_candidate(options.run_dir, run, options.variant, options.force)
    suffix = "" if options.variant == "float32" else f"_{options.variant}"
    name = (
        layout.default_name(run["dataset"]["dataset_id"]) + suffix
        if options.name is None
        else options.name
    )
    if not MODEL_NAME.match(name):
        raise UserError(
            f"name {name!r} is not made of letters, digits, _ and -; give another --name"
        )
    repository = options.repository
    published = find_published(repository, name, candidate)
    if options.sign is not None and published is not None:
        sign_version(repository, name, str(published), options.sign)
        return
    dataset = inputs.prepare_data(run, options)
    side = dataset.image_side
    test = data.read(dataset, "test")
    with store.lock(repository):
        store.check_has_links(repository, name)
        champion = check_fits(repository, name, candidate, side)
        number = store.next_number(repository, name)
        comparison, is_promoted, reason = None, True, "there was none before"
        if champion is not None:
            from mnist_jax.release import compare

            comparison = compare.compare(candidate.path, champion.model_path, test)
            comparison["champion"] = champion.number
            is_promoted, reason = compare.judge(comparison)
            if is_promoted and candidate.forced_because is not None:
                is_promoted, reason = False, "its release was refused"
        files = make_files(options.run_dir, repository, name, number, candidate, test)
        manifest = {
            **without_places(candidate.release),
            "image_side": side,
            "variant": options.variant,
            "quantization": candidate.quantization,
            "forced_because": candidate.forced_because,
            "comparison": comparison,
            "promotion": {"promoted": is_promoted, "reason": reason},
        }
        signer = None if options.sign is None else partial(sign.sign, private_key=options.sign)
        store.add_version(repository, name, number, files, manifest, signer)
        if comparison is not None and is_promoted:
            store.promote(repository, name, number)
    if comparison is not None:
        print(describe(comparison))
    print(f"published version {number} of {name} in {repository}")
    if comparison is None or is_promoted:
        print(f"it is the champion: {reason}")
    else:
        print(f"the champion is still version {comparison['champion']}: {reason}; to change that:")
        promotion = f"scripts/publish --promote {name} {number} --repository {repository}"
        print(f"  {command.as_called(promotion)}")


def read_candidate(
    run_dir: Path, run: dict[str, Any], variant: str, forced_because: str | None
) -> Candidate:
    """Reads what a run says of its model, and makes sure that it speaks of the file on disk.

    Raises:
        UserError: the verdict is against it, or the file is missing or changed since.
    """
    release = {**read_json(run_dir / paths.RELEASE), "run": run}
    if forced_because is not None and not forced_because.strip():
        raise UserError("--force is given no reason; say why, it is recorded")
    quantization, verdict = None, release["verdict"]
    reasons, path = release["reasons"], run_dir / EXPORTED["onnx"]
    described = (release["verification"] or {"files": {}})["files"].get("onnx")
    if variant == "int8":
        path = run_dir / paths.QUANTIZED
        quantization = read_json(run_dir / paths.QUANTIZATION)
        described = quantization["file"]
        if quantization["float32_sha256"] != release["verification"]["files"]["onnx"]["sha256"]:
            raise UserError(f"{path} was made of another export; run scripts/quantize again")
        if verdict == "released":
            verdict, reasons = quantization["verdict"], quantization["reasons"]
    inputs.check_exported(run_dir, path, described)
    if verdict == "released" and forced_because is not None:
        raise UserError(f"{run_dir} is released, there is nothing to force; leave --force out")
    if verdict != "released" and forced_because is None:
        raise UserError(
            f"{run_dir} is refused ({'; '.join(reasons)}); publish another run, or this one with "
            '--force "REASON"'
        )
    return Candidate(path, release, quantization, forced_because)


def check_fits(repository: Path, name: str, candidate: Candidate, side: int) -> Version | None:
    """Makes sure that a model may become a version of `name`; returns the champion, if any.

    Raises:
        UserError: it is one of the versions already, or has other classes, images or data.
    """
    number = find_published(repository, name, candidate)
    if number is not None:
        raise UserError(
            f"this model is version {number} of {name} already; nothing to publish (--sign KEY "
            "would sign it)"
        )
    labels = tuple(candidate.release["metrics"]["class_names"])
    data_hash = candidate.release["run"]["dataset"]["data_hash"]
    for number in layout.list_versions(repository, name):
        version = layout.load_version(repository, name, number)
        if version.labels != labels:
            raise UserError(
                f"the classes {', '.join(labels)} are not those of version {number} of {name}, "
                f"{', '.join(version.labels)}; clients would misread them, give another --name"
            )
        if version.manifest["image_side"] != side:
            raise UserError(
                f"version {number} of {name} takes images of {version.manifest['image_side']} "
                f"pixels a side, not {side}; give another --name"
            )
        if version.manifest["run"]["dataset"]["data_hash"] != data_hash:
            raise UserError(
                f"version {number} of {name} was tested on other data, so that the two cannot be "
                "compared; give another --name"
            )
    if not layout.list_versions(repository, name):
        return None
    return layout.load_version(repository, name, layout.champion(repository, name))


def find_published(repository: Path, name: str, candidate: Candidate) -> int | None:
    """Returns the number of the version that has the candidate's very file, if any."""
    digest = sha256(candidate.path)
    for number in layout.list_versions(repository, name):
        version = layout.load_version(repository, name, number)
        if version.manifest["files"][layout.MODEL]["sha256"] == digest:
            return number
    return None


def make_files(
    run_dir: Path, repository: Path, name: str, number: int, candidate: Candidate, test: Split
) -> dict[str, bytes]:
    """Returns the contents of a version's folder, by path, all but manifest and checksums."""
    from mnist_jax.repository.triton import WARM_UP_FILE, make_config

    warm_up = as_input(test.images[:1])
    model = candidate.path.read_bytes()
    labels = candidate.release["metrics"]["class_names"]
    # Triton answers with the highest where a client names no version: so none above this one.
    served = [n for n in layout.list_versions(repository, name) if n < number] + [number]
    card = run_dir / "model_card"
    files = {
        layout.MODEL: model,
        layout.NUMBER: f"{number}\n".encode(),
        layout.LABELS: "".join(f"{label}\n" for label in labels).encode(),
        layout.CONFIG: make_config(name, model, served).encode(),
        layout.BOM: make_bom(name, number, model, candidate.release, candidate.quantization),
        f"{layout.WARM_UP}/{WARM_UP_FILE}": warm_up.tobytes(),
    }
    for path in sorted(card.rglob("*")):
        if path.is_file():
            files[f"{layout.CARD}/{path.relative_to(card)}"] = path.read_bytes()
    return files


def without_places(release: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out where the run lived: a release is for people on other machines."""
    run = release["run"]
    config = {key: value for key, value in run["config"].items() if key not in PLACES}
    return {**release, "run": {**run, "config": config}}


def describe(comparison: Mapping[str, Any]) -> str:
    """The comparison for people, in two lines."""
    low, high = comparison["interval_95"]
    latency = comparison["latency"]
    fastest, slowest = latency["ratio_10_90"]
    return (
        f"against the champion, version {comparison['champion']}, "
        f"on {comparison['num_examples']:,} test images:\n"
        f"  accuracy {comparison['accuracy']:.4f}, {comparison['difference']:+.4f} "
        f"(95 % interval {low:+.4f} to {high:+.4f})\n"
        f"  latency {latency['p50_ms']:.3f} ms, {latency['ratio']:.2f} times the champion's "
        f"({fastest:.2f} to {slowest:.2f} over {latency['num_rounds']} rounds in turn)"
    )


if __name__ == "__main__":
    command.run_as_program(main)
