"""How long a run takes around its training: this project's own phases, from outside and inside."""

import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.interleaved import result

ROOT = Path(__file__).parents[1]
TOTALS = re.compile(
    r"time: ([\d.]+) s to the first step .*, ([\d.]+) s of training, ([\d.]+) s to the verdict.*"
)
DETAIL = re.compile(r"(?<=[(,])([a-z ]+) (\d+\.\d)(?=[,)])")


def quick_start(is_quick: bool) -> dict[str, Any]:
    """The README's first command, with cold caches and then with warm ones."""
    flags = ["--config=configs/digits_cnn_v1.py", *(["--epochs=1"] if is_quick else [])]
    title = "The quick start" + (", cut to 1 epoch" if is_quick else "")
    return _measure("quick_start", title, flags, num_warm=1 if is_quick else 3)


def mnist(manual_dir: Path) -> dict[str, Any]:
    """MNIST, cut to one epoch: what counts is the way to the first step."""
    flags = ["--model-id=mnist_cnn_v1", "--epochs=1", f"--manual-dir={manual_dir.absolute()}"]
    return _measure("mnist_start", "One epoch of mnist_cnn_v1 on MNIST", flags, num_warm=3)


def fast(is_quick: bool, manual_dir: Path) -> dict[str, Any]:
    """The fast recipe from the command line to the verdict."""
    flags = ["--config=configs/mnist_cnn_fast_v1.py", f"--manual-dir={manual_dir.absolute()}"]
    flags += ["--epochs=1"] if is_quick else []
    return _measure("gpu_start", "The whole run of mnist_cnn_fast_v1", flags, num_warm=3)


def _measure(part_id: str, title: str, flags: list[str], num_warm: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
        environment.pop("JAX_ENABLE_COMPILATION_CACHE", None)
        for number in range(1 + num_warm):
            run_dir = Path(folder, f"run_{number}")
            command = [sys.executable, "-m", "benchmarks.start_up", "--quiet", *flags]
            command += [f"--data-dir={folder}/data", f"--output-dir={run_dir}"]
            start = time.perf_counter()
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True
            )
            wall = time.perf_counter() - start
            log = (run_dir / "pipeline.log").read_text() if run_dir.is_dir() else ""
            totals = TOTALS.search(log)
            if done.returncode not in (0, 1) or totals is None:
                raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
            when = "first run" if number == 0 else "with warm caches"
            names = ("to the first step", "training", "to the verdict")
            parts = dict(zip(names, map(float, totals.groups()), strict=True))
            parts |= {name.strip(): float(s) for name, s in DETAIL.findall(totals.group())}
            for name, value in {"all, from outside": wall, **parts}.items():
                seconds.setdefault(f"{when}: {name}", []).append(value)
    return result(part_id, title, "s", 1, seconds, [])


class _WithoutTorch:
    """Hides PyTorch, which came along with the benchmarks: tensorboardX imports it if it can."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "torch":
            raise ImportError(name)


if __name__ == "__main__":
    sys.meta_path.insert(0, _WithoutTorch())
    runpy.run_module("mnist_jax.train", run_name="__main__")
