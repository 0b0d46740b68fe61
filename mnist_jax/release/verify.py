"""The files on disk against the JAX network: what ships is what was tested.

Every check runs and every failure is collected, whatever a file holds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from jaxtyping import Float

from mnist_jax.data import Split
from mnist_jax.export import onnx, safetensors, stablehlo
from mnist_jax.export.interface import as_input
from mnist_jax.files import sha256
from mnist_jax.models.network import take_apart
from mnist_jax.models.predict import Predictor, Trained
from mnist_jax.release import parity
from mnist_jax.release.latency import measure_latency
from mnist_jax.release.parity import Reference, channels_last, make_probes
from mnist_jax.release.records import FileAccuracy, Verification
from mnist_jax.release.report import Report
from mnist_jax.release.structure import check_structure
from mnist_jax.run.paths import EXPORTED


def verify_files(
    run_dir: Path,
    formats: Sequence[str],
    *,
    test: Split,
    jax_scores: Float[np.ndarray, "n classes"],
    trained: Trained,
    metadata: Mapping[str, str],
) -> Verification:
    """Checks the exported files of a run against its network, over the whole test set.

    Args:
        run_dir: the run's folder; the files lie at `paths.EXPORTED` in it.
        formats: those exported; `orbax` is passed over, it is what the others are compared with.
        test: the test set; its images uint8, or float32 0 to 1 with an axis of channels.
        jax_scores: the network's scores of it, computed in full float32.
        trained: the network, as read from the checkpoint.
        metadata: what the ONNX file must say of itself; a server takes the classes' names from it.

    Returns:
        `verification.json`; it passed if there is no line in `failures`. No file can raise.
    """
    report = Report()
    pixels = as_input(test.images)
    references = [
        Reference("test set", pixels, jax_scores, parity.BATCH_SIZE, test.labels),
        make_probes(trained.scores, (*pixels.shape[2:], pixels.shape[1])),
    ]
    with report.check("jax: scores", "finite") as problems:
        if not all(np.isfinite(reference.scores).all() for reference in references):
            problems.append("the network itself gives scores that are not finite")
    for name in formats:
        path = run_dir / EXPORTED[name]
        if name == "orbax" or (data := _read(report, name, path)) is None:
            continue
        if name == "onnx":
            _verify_onnx(report, data, references, metadata)
            with report.check("onnx: latency"):
                report.latency = measure_latency(path, pixels[:1])
        elif name == "safetensors":
            _verify_safetensors(report, data, references, trained)
        elif name == "stablehlo":
            with report.check("stablehlo: parity") as problems:
                predict = stablehlo.from_bytes(data)
                problems += parity.compare(report, name, None, predict, references)
    return {
        "passed": not report.failures,
        "failures": report.failures,
        "checks": report.checks,
        "files": report.files,
        "parity": report.parity,
        "latency": report.latency,
        "accuracy": _accuracy(report, jax_scores, test.labels),
        "tolerance": parity.TOLERANCE,
    }


def _verify_onnx(
    report: Report, data: bytes, references: list[Reference], metadata: Mapping[str, str]
) -> None:
    first = references[0]
    shape = (*first.images.shape[2:], first.images.shape[1])
    facts = check_structure(report, data, shape, first.scores.shape[1])
    report.files["onnx"] = {**report.files["onnx"], **facts}
    with report.check("onnx: metadata", ", ".join(metadata)) as problems:
        problems += [
            f"{key} is {facts['metadata'].get(key)}, not {metadata[key]}"
            for key in metadata
            if facts["metadata"].get(key) != metadata[key]
        ]
    parity.check_onnx_parity(report, data, references)


def _verify_safetensors(
    report: Report, data: bytes, references: list[Reference], trained: Trained
) -> None:
    with report.check("safetensors: parity") as problems:
        params, model_state = safetensors.from_bytes(data)
        again = safetensors.to_bytes(params, model_state, {})
        if again != safetensors.to_bytes(trained.params, trained.model_state, {}):
            problems.append("its arrays are not, bit for bit, the checkpoint's")
        from_file = Trained(trained.predictor, params, model_state)

        def predict(images):
            return from_file.scores(channels_last(images))

        problems += parity.compare(report, "safetensors", None, predict, references)


def check_parity_before_training(model: nnx.Module, image_shape: tuple[int, int, int]) -> None:
    """Exports an untrained network in memory and compares, so that a misfit shows in seconds.

    Raises:
        ExportError: the network cannot be exported, or its ONNX form computes something else.
    """
    data = onnx.to_bytes(model, image_shape, {})
    structure, params, model_state = take_apart(model)
    trained = Trained(Predictor(structure), params, model_state)
    probes = make_probes(trained.scores, image_shape)
    report = Report()
    check_structure(report, data, image_shape, num_classes=probes.scores.shape[1])
    parity.check_onnx_parity(report, data, [probes])
    if report.failures:
        raise onnx.ExportError(
            f"the exported {type(model).__name__} is at fault, {report.failures[0]}; change the "
            "layer that causes it: a model that cannot be released is not worth training"
        )


def _read(report: Report, name: str, path: Path) -> bytes | None:
    """Reads a file and notes what it is; None where it cannot be read."""
    with report.check(f"{name}: file", EXPORTED[name]):
        data = path.read_bytes()
        report.files[name] = {
            "path": EXPORTED[name],
            "sha256": sha256(data),
            "size_bytes": len(data),
        }
        return data


def _accuracy(report: Report, jax_scores: np.ndarray, labels: np.ndarray) -> FileAccuracy:
    """Counts what is right by JAX, and by the ONNX file as a server runs it (None without one)."""
    num_jax, num_onnx = parity.num_correct(jax_scores, labels), None
    for row in report.parity:
        if row["optimization"] == "all" and "num_correct" in row:
            num_onnx = row["num_correct"]
    return {
        "jax": num_jax / len(labels),
        "onnx": None if num_onnx is None else num_onnx / len(labels),
        "num_correct_jax": num_jax,
        "num_correct_onnx": num_onnx,
        "num_examples": len(labels),
    }
