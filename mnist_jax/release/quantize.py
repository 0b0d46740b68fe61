"""`scripts/quantize RUN_DIR`: an int8 variant of a run's ONNX file, judged by criteria of its own.

Weights and activations of convolutions and dense layers become 8-bit whole numbers; input, scores
and normalisation stay float32, and so does the interface. The ranges of the activations are those
seen on a slice of the train split.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from mnist_jax import command, data
from mnist_jax.data import Split
from mnist_jax.data.arrays import split_off
from mnist_jax.errors import UserError, first_line
from mnist_jax.export.interface import INPUT_NAME, as_input
from mnist_jax.files import sha256, write_bytes, write_json
from mnist_jax.release import inputs
from mnist_jax.run import folder as run_folder
from mnist_jax.run import paths

OPERATORS = ("Conv", "Gemm", "MatMul")
NUM_CALIBRATION_IMAGES = 512  # of the train split, every class in its share

MIN_SAME_CLASS = 0.99  # of the test images
MAX_SIZE_RATIO = 0.5


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the variant may be published, 1 where a criterion refused, 2 on a mistake."""
    parser = command.Parser("scripts/quantize", __doc__)
    parser.add_argument("run_dir", type=Path, help="the folder of a finished run")
    inputs.add_flags(parser)
    return command.run(parser, arguments, _act)


def _act(options: argparse.Namespace) -> int:
    run_dir = options.run_dir
    run = run_folder.read_run(run_dir)
    source = inputs.find_onnx(run_dir)
    dataset = inputs.prepare_data(run, options)
    with run_folder.lock(run_dir):
        train = data.read(dataset, "train")
        _, calibration = split_off(train, min(NUM_CALIBRATION_IMAGES, len(train.labels)))
        write_bytes(run_dir / paths.QUANTIZED, quantize(source, calibration))
        report = judge(source, run_dir / paths.QUANTIZED, data.read(dataset, "test"))
        report["num_calibration_images"] = len(calibration.labels)
        write_json(run_dir / paths.QUANTIZATION, report)
    for row in report["criteria"]:
        name, measured, threshold = row["name"], row["measured"], row["threshold"]
        verdict = "pass" if row["passed"] else "FAIL"
        print(f"{verdict} {name:<20} {measured:7.4f} {row['rule']} {threshold:g}")
    comparison = report["comparison"]
    low, high = comparison["interval_95"]
    print(
        f"accuracy {comparison['accuracy']:.4f} of {comparison['num_examples']:,} test images; the "
        f"difference lies within {low:+.4f} to {high:+.4f} (95 %)"
    )
    print(
        f"{report['verdict']}: {run_dir / paths.QUANTIZED}, {report['file']['size_bytes']:,} bytes"
    )
    return 0 if report["verdict"] == "released" else 1


def quantize(source: Path, calibration: Split) -> bytes:
    """Returns the int8 variant of an ONNX file; the same file and images give the same bytes.

    Raises:
        UserError: ONNX Runtime's quantiser cannot take the graph.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        target = Path(folder, "int8.onnx")
        try:
            quantize_static(
                source,
                target,
                _reader(calibration),
                quant_format=QuantFormat.QDQ,  # plain ONNX operators, no domain of Microsoft's
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # 7 bits: with 8, sums of pairs overflow on x86 CPUs without VNNI, and what is
                # measured here is not what they compute.
                reduce_range=True,
            )
            proto = onnx.load(target)
        except Exception as error:  # it is a converter: it can fail in any way
            raise UserError(
                f"{source} cannot be quantised ({first_line(error)}); publish it as it is"
            ) from error
    before = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(proto, {**before, "variant": "int8"})
    proto.producer_name, proto.producer_version = "mnist_jax", ""
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def judge(source: Path, variant: Path, test: Split) -> dict[str, Any]:
    """Compares an int8 file with the float32 file it was made of, on the whole test split.

    Returns:
        `quantization.json`: verdict ("released" or "refused"), reasons, criteria, the comparison
        they stand on, and both files' SHA-256.
    """
    from mnist_jax.release import compare

    comparison = compare.compare(variant, source, test)
    sizes = [path.stat().st_size for path in (variant, source)]
    same_class = 1 - comparison["num_other_class"] / comparison["num_examples"]
    criteria = [
        _row("accuracy_difference", comparison["difference"], ">=", -compare.MARGIN),
        _row("same_class", same_class, ">=", MIN_SAME_CLASS),
        _row("size_ratio", sizes[0] / sizes[1], "<=", MAX_SIZE_RATIO),
        _row("latency_ratio", comparison["latency"]["ratio"], "<=", compare.SLOWER),
    ]
    reasons = [
        f"{row['name']} {row['measured']:.4f} is not {row['rule']} {row['threshold']:g}"
        for row in criteria
        if not row["passed"]
    ]
    digests = [sha256(path) for path in (variant, source)]
    return {
        "verdict": "refused" if reasons else "released",
        "reasons": reasons,
        "criteria": criteria,
        "comparison": comparison,
        "file": {"path": paths.QUANTIZED, "sha256": digests[0], "size_bytes": sizes[0]},
        "float32_sha256": digests[1],
    }


def _row(name: str, measured: float, rule: str, threshold: float) -> dict[str, Any]:
    passed = measured >= threshold if rule == ">=" else measured <= threshold
    return {
        "name": name,
        "measured": measured,
        "rule": rule,
        "threshold": threshold,
        "passed": passed,
    }


def _reader(calibration: Split) -> Any:
    """The images as ONNX Runtime's quantiser asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = ({INPUT_NAME: as_input(i[None])} for i in calibration.images)

        def get_next(self) -> Any:
            return next(self._batches, None)

    return Reader()


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps the quantiser's advice, for another kind of graph, off the terminal.

    It logs to the root logger, which makes Python install a handler there.
    """
    handlers = logging.root.handlers[:]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        logging.root.handlers[:] = handlers


if __name__ == "__main__":
    command.run_as_program(main)
