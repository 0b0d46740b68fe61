"""Writes docs/runtimes.md: every built-in network in every ONNX runtime that is installed.

    scripts/install runtimes
    .venv/bin/python -m benchmarks.runtimes --output-dir DIR

Each network is trained for an epoch on the embedded digits, in DIR, unless it is there already;
`scripts/verify DIR/NETWORK --runtimes` compares the runtimes on 200 test images.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from mnist_jax.config import MODELS
from mnist_jax.files import read_json, write_text
from mnist_jax.run import environment, paths

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "runtimes.md"
CAPSULES = ("mnist_capsule_v1", "mnist_efficient_capsule_v1")  # whose loss is theirs alone
FLAGS = ("--dataset-id=digits_v1", "--epochs=1", "--batch-size=16", "--export_format=onnx")
NO_CRITERIA = (
    "--min-test-accuracy=0",
    "--min-per-class-accuracy=0",
    "--max-model-size-mb=100",
    "--max-inference-time-ms=1000",
)
HEAD = """# Runtimes

`scripts/verify RUN_DIR --runtimes` computes the first 200 test images of a run with its ONNX file
in every runtime that is installed, one by one and in batches of 20. It compares all scores with
those of ONNX Runtime, one by one, prints a line for each and writes `logs/runtimes.json`. Exit
status 1: a runtime that is there gives other scores (off by more than 1e-5), other answers or an
error. `scripts/install runtimes` adds OpenVINO, tract and OpenCV.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, required=True, help="where the runs are")
    parser.add_argument("--data-dir", type=Path, help="of the digits; OUTPUT_DIR/data unless given")
    options = parser.parse_args()
    data_dir = options.data_dir or options.output_dir / "data"
    reports = {}
    for model_id in MODELS:
        run_dir = options.output_dir / model_id
        if not (run_dir / paths.RELEASE).is_file():
            loss = "capsule_loss_v1" if model_id in CAPSULES else "nll"
            chosen = [f"--model-id={model_id}", f"--criterion-id={loss}", *FLAGS, *NO_CRITERIA]
            places = [f"--data-dir={data_dir}", f"--output-dir={run_dir}"]
            call("train", *chosen, *places, "--skip-visualizations", "-q")
        call("verify", str(run_dir), "--runtimes", f"--data-dir={data_dir}")
        reports[model_id] = read_json(run_dir / paths.RUNTIMES)
    write_text(DOCUMENT, document(reports))


def call(*arguments: str) -> None:
    """Runs a command of the program; status 1, a refusal, is an answer like another."""
    done = subprocess.run([sys.executable, "-m", "mnist_jax", *arguments], cwd=ROOT)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


def document(reports: dict[str, dict[str, Any]]) -> str:
    """Returns the document: a table for each runtime's version, a row for each network."""
    lines = [HEAD + "Every built-in network, after an epoch on the embedded digits:", ""]
    lines += ["| network | runtime | batch | largest difference | other answers | ms a batch |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for model_id, report in reports.items():
        for row in report["rows"]:
            name = f"{row['runtime']} {row['version']}".strip()
            figures = [row["problem"] or "-", "", ""]
            if row["max_abs_difference"] is not None:
                figures = [
                    f"{row['max_abs_difference']:.1e}",
                    f"{row['num_other_class']} of {report['num_images']}",
                    f"{row['ms_per_batch']:.2f}",
                ]
            cells = [f"`{model_id}`", name, str(row["batch_size"]), *figures]
            lines.append(f"| {' | '.join(cells)} |")
    cores = environment.num_cpus()
    machine = f"{cores} cores of {environment.cpu_name()}, shared with others"
    command = "`python -m benchmarks.runtimes --output-dir DIR`"
    lines += ["", f"Medians on {machine}: for their order only. Written by {command}.", ""]
    return "\n".join([*lines, NOTES])


NOTES = """**onnxruntime-web**: `tests/serve/page/test_demo.py` compares it, in a browser, with the
server's ONNX Runtime, to 1e-5 (marked `network`, since npm has to fetch it).

**OpenVINO** is told to compute in float32 (`INFERENCE_PRECISION_HINT: f32`): left to choose, it
takes bfloat16 where the processor has that.
"""


if __name__ == "__main__":
    main()
