"""The files on disk against the JAX network: what ships is what was tested.

Every check runs and every failure is collected, whatever a file holds.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from flax import nnx
from jaxtyping import Float, Integer
from onnx import TensorProto, helper

from mnist_jax.data import Split
from mnist_jax.errors import first_line
from mnist_jax.export import onnx as onnx_export
from mnist_jax.export import safetensors, stablehlo
from mnist_jax.export.interface import BATCH_NAME, INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME
from mnist_jax.export.session import OPTIMIZATIONS, open_session
from mnist_jax.models.network import images_to_float, take_apart
from mnist_jax.models.predict import Predictor, Trained, in_batches
from mnist_jax.release.latency import measure_latency
from mnist_jax.run.paths import EXPORTED

TOLERANCE = 1e-5  # the largest |difference| of a score
BATCH_SIZE = 64  # images
SAMPLE_SIZE, SAMPLE_BATCH_SIZES = 256, (1, 2, 7, 256)  # images
MAX_LISTED = 20  # class disagreements described one by one

# Plain ONNX, which every runtime has. Left out on purpose: Dropout and all that is random, loops
# and branches.
# fmt: off
ALLOWED_OPERATORS = frozenset((
    "Conv", "Gemm", "MatMul", "Einsum", "BatchNormalization", "LayerNormalization",
    "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool",
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Softplus", "Softmax",
    "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Exp", "Log",
    "Max", "Min", "Clip", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMean", "ReduceMax",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Pad", "Expand",
    "Shape", "Gather", "ConstantOfShape", "Cast", "Equal", "Greater", "Less", "Where", "Transpose",
))
# fmt: on

Predict = Callable[[Any], Any]  # images [batch, 1, side, side], grey levels 0 to 1, to scores


class Reference(NamedTuple):
    """Images, and what JAX says about them."""

    inputs: str
    images: Float[np.ndarray, "n 1 side side"]
    scores: Float[np.ndarray, "n classes"]
    batch_size: int
    labels: Integer[np.ndarray, " n"] | None = None


class Report:
    """What was found; its attributes are keys of `verification.json`."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.checks: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.parity: list[dict[str, Any]] = []
        self.latency: dict[str, Any] | None = None

    @contextmanager
    def check(self, name: str, detail: str = "") -> Iterator[list[str]]:
        """Records one check; the block adds what is wrong to the list, or raises."""
        problems: list[str] = []
        try:
            yield problems
        except Exception as error:  # a broken file can break a library in any way
            problems.append(first_line(error))
        detail = "; ".join(problems) or detail
        self.checks.append({"name": name, "passed": not problems, "detail": detail})
        self.failures += [f"{name}: {problem}" for problem in problems]


def verify_files(
    run_dir: Path,
    formats: Sequence[str],
    test: Split,
    jax_scores: Float[np.ndarray, "n classes"],
    trained: Trained,
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """Checks the exported files of a run against its network, over the whole test set.

    Args:
        run_dir: the run's folder; the files lie at `export.EXPORTED` in it.
        formats: those exported; `orbax` is passed over, it is what the others are compared with.
        test: the test set.
        jax_scores: the network's scores of it, computed in full float32.
        trained: the network, as read from the checkpoint.
        metadata: what the ONNX file must say of itself; a server takes the classes' names from it.

    Returns:
        `verification.json`; it passed if there is no line in `failures`. No file can raise.
    """
    report = Report()
    pixels, labels = channels_first(images_to_float(test.images)), test.labels
    image_shape = (*pixels.shape[2:], pixels.shape[1])
    references = [
        Reference("test set", pixels, jax_scores, BATCH_SIZE, labels),
        _probes(trained.scores, image_shape),
    ]
    with report.check("jax: scores", "finite") as problems:
        if not all(np.isfinite(reference.scores).all() for reference in references):
            problems.append("the network itself gives scores that are not finite")
    for name in formats:
        if name == "orbax" or (data := _read(report, name, run_dir / EXPORTED[name])) is None:
            continue
        if name == "onnx":
            num_classes = jax_scores.shape[1]
            report.files[name] |= _check_structure(report, data, image_shape, num_classes)
            with report.check("onnx: metadata", ", ".join(metadata)) as problems:
                stated = report.files[name]["metadata"]
                problems += [
                    f"{key} is {stated.get(key)}, not {metadata[key]}"
                    for key in metadata
                    if stated.get(key) != metadata[key]
                ]
            _check_onnx_parity(report, data, references)
            with report.check("onnx: latency"):
                report.latency = measure_latency(run_dir / EXPORTED[name], pixels[:1])
        elif name == "safetensors":
            with report.check("safetensors: parity") as problems:
                arrays = safetensors.from_bytes(data)
                if safetensors.to_bytes(*arrays, {}) != safetensors.to_bytes(*trained[1:], {}):
                    problems.append("its arrays are not, bit for bit, the checkpoint's")
                from_file = Trained(trained.predictor, *arrays)

                def predict(images, network=from_file):
                    return network.scores(channels_last(images))

                problems += _compare(report, name, None, predict, references)
        elif name == "stablehlo":
            with report.check("stablehlo: parity") as problems:
                problems += _compare(report, name, None, stablehlo.from_bytes(data), references)
    accuracy = _accuracy(report, jax_scores, labels)
    found = {"passed": not report.failures, **vars(report)}
    return found | {"accuracy": accuracy, "tolerance": TOLERANCE}


def check_parity_before_training(model: nnx.Module, image_shape: tuple[int, int, int]) -> None:
    """Exports an untrained network in memory and compares, so that a misfit shows in seconds.

    Raises:
        ExportError: the network cannot be exported, or its ONNX form computes something else.
    """
    data = onnx_export.to_bytes(model, image_shape, {})
    structure, *weights = take_apart(model)
    probes = _probes(Trained(Predictor(structure), *weights).scores, image_shape)
    report = Report()
    _check_structure(report, data, image_shape, num_classes=probes.scores.shape[1])
    _check_onnx_parity(report, data, [probes])
    if report.failures:
        raise onnx_export.ExportError(
            f"the exported {type(model).__name__} is at fault, {report.failures[0]}; change the "
            "layer that causes it: a model that cannot be released is not worth training"
        )


def _probes(predict: Predict, image_shape: tuple[int, int, int]) -> Reference:
    """Images that no data set has: black, white, and noise."""
    height, width, channels = image_shape
    shape = (BATCH_SIZE, channels, height, width)
    images = np.random.default_rng(0).random(shape, np.float32)
    images[0], images[1] = 0, 1
    return Reference("probes", images, predict(channels_last(images)), BATCH_SIZE)


def channels_first(
    images: Float[np.ndarray, "n side side c"],
) -> Float[np.ndarray, "n c side side"]:
    """Lays images out as exported files take them."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def channels_last(images: Float[np.ndarray, "n c side side"]) -> Float[np.ndarray, "n side side c"]:
    """Lays images out as networks take them."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _read(report: Report, name: str, path: Path) -> bytes | None:
    """Reads a file and notes what it is; None where it cannot be read."""
    with report.check(f"{name}: file", EXPORTED[name]):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        report.files[name] = {"path": EXPORTED[name], "sha256": digest, "size_bytes": len(data)}
        return data


def _check_structure(
    report: Report, data: bytes, image_shape: tuple[int, int, int], num_classes: int
) -> dict[str, Any]:
    """Checks an ONNX file without running it; returns what it says of itself."""
    with report.check("onnx: checker", "full"):
        onnx.checker.check_model(data, full_check=True)
    proto = onnx.ModelProto()
    with report.check("onnx: shape inference", "strict"):
        proto = onnx.load_model_from_string(data)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    graph = proto.graph
    height, width, channels = image_shape
    shape = [BATCH_NAME, channels, height, width]
    expected = [
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape),
        helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [BATCH_NAME, num_classes]),
    ]
    declared = [*graph.input, *graph.output]
    rule = " to ".join(map(helper.printable_value_info, expected))
    with report.check("onnx: interface", rule) as problems:
        if declared != expected:
            found = " to ".join(map(helper.printable_value_info, declared))
            problems.append(f"{found} is not {rule}")
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    rule = f"opset {OPSET}, IR version {IR_VERSION}"
    with report.check("onnx: versions", rule) as problems:
        if opsets != {"": OPSET} or proto.ir_version != IR_VERSION:
            problems.append(f"opsets {opsets}, IR version {proto.ir_version} are not {rule}")
    operators = Counter(f"{node.domain} {node.op_type}".strip() for node in graph.node)
    with report.check("onnx: operators", ", ".join(sorted(operators))) as problems:
        problems += [f"{name} is not allowed" for name in sorted({*operators} - ALLOWED_OPERATORS)]
    with report.check("onnx: weights", "in the file, finite") as problems:
        for tensor in graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                problems.append(f"{tensor.name} is stored outside the file")
            elif not np.isfinite(onnx.numpy_helper.to_array(tensor)).all():
                problems.append(f"{tensor.name} is not finite")
    return {
        "opset": opsets.get(""),
        "ir_version": proto.ir_version,
        "operators": dict(operators),
        "metadata": {entry.key: entry.value for entry in proto.metadata_props},
    }


def _check_onnx_parity(report: Report, data: bytes, references: list[Reference]) -> None:
    """Runs an ONNX file at each optimisation level, the first images at other batch sizes too."""
    images, scores = (array[:SAMPLE_SIZE] for array in references[0][1:3])
    samples = [Reference("sample", images, scores, size) for size in SAMPLE_BATCH_SIZES]
    for level in OPTIMIZATIONS:
        with report.check(f"onnx: parity, optimisation {level}") as problems:
            session = open_session(data, level, num_threads=os.cpu_count() or 1)

            def predict(images, session=session):
                return session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]

            problems += _compare(report, "onnx", level, predict, [*references, *samples])


def _compare(
    report: Report, name: str, level: str | None, predict: Predict, references: list[Reference]
) -> list[str]:
    """Adds one row of parity for each reference; returns what is wrong."""
    problems = []
    for inputs, images, jax_scores, batch_size, labels in references:
        scores = in_batches(predict, images, batch_size)
        if scores.shape != jax_scores.shape:
            problems.append(f"{inputs}: scores {scores.shape} are not {jax_scores.shape}")
            continue
        row = {"format": name, "optimization": level, "inputs": inputs, "batch_size": batch_size}
        row |= _difference(scores, jax_scores)
        if labels is not None:
            row["num_correct"] = _num_correct(scores, labels)
            row["num_correct_jax"] = _num_correct(jax_scores, labels)
        report.parity.append(row)
        problems += [f"{inputs}, batch {batch_size}: {fault}" for fault in _faults(row)]
    return problems


def _difference(
    scores: Float[np.ndarray, "n classes"], jax_scores: Float[np.ndarray, "n classes"]
) -> dict[str, Any]:
    """Compares scores; a tie is an image whose two largest scores are equal, in either."""
    ties = _is_tie(scores) | _is_tie(jax_scores)
    classes, jax_classes = scores.argmax(axis=1), jax_scores.argmax(axis=1)
    others = np.flatnonzero((classes != jax_classes) & ~ties)
    return {
        "num_examples": len(scores),
        "max_abs_difference": _finite(np.abs(scores - jax_scores).max()),
        "num_class_disagreements": len(others),
        "num_ties": int(ties.sum()),
        "disagreements": [
            {
                "index": int(index),
                "jax_class": int(jax_classes[index]),
                "file_class": int(classes[index]),
                "margin": _finite(jax_scores[index].max() - jax_scores[index, classes[index]]),
            }
            for index in others[:MAX_LISTED]
        ],
    }


def _faults(row: dict[str, Any]) -> Iterator[str]:
    """Says what in a row of parity is not as it must be."""
    if row["max_abs_difference"] is None:
        yield "scores are not finite"
    elif row["max_abs_difference"] > TOLERANCE:
        yield f"a score differs by {row['max_abs_difference']:.3g}, more than {TOLERANCE}"
    for first in row["disagreements"][:1]:
        yield (
            f"{row['num_class_disagreements']} of {row['num_examples']} images get another class; "
            f"image {first['index']} gets {first['file_class']}, not {first['jax_class']}"
        )
    if row.get("num_correct") != row.get("num_correct_jax"):
        yield f"{row['num_correct']} are right, not {row['num_correct_jax']} as in JAX"


def _is_tie(scores: Float[np.ndarray, "n classes"]) -> np.ndarray:
    largest = np.partition(scores, -2, axis=1)[:, -2:]
    return largest[:, 0] == largest[:, 1]


def _finite(value: Any) -> float | None:
    """Returns a number for JSON, which knows neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def _num_correct(scores: np.ndarray, labels: np.ndarray) -> int:
    return int((scores.argmax(axis=1) == labels).sum())


def _accuracy(report: Report, jax_scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Counts what is right by JAX, and by the ONNX file as a server runs it (None without one)."""
    num_jax, num_onnx = _num_correct(jax_scores, labels), None
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
