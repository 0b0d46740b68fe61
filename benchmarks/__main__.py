"""Times this project beside its peers in the same run; `scripts/bench` calls it."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import capsule_routing, capsules, cpu, gpu, interleaved, pictures, report, start_up
from mnist_jax.run import tuning

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def parts_on_a_cpu(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    quick = options.quick
    parts: dict[str, Callable[[], Any]] = {
        "training": partial(cpu.training, quick),
        "evaluation": partial(cpu.evaluation, quick),
        "latency_1": partial(cpu.latency, quick, batch=1),
        "latency_32": partial(cpu.latency, quick, batch=32),
        "capsule_training": partial(capsules.training, quick),
        "capsule_evaluation": partial(capsules.evaluation, quick),
        "capsule_routing": partial(capsule_routing.part, quick),
        "pictures": partial(pictures.preparing, quick),
        "predict": partial(pictures.predicting, quick),
        "quick_start": partial(start_up.quick_start, quick),
    }
    if options.manual_dir:
        parts["mnist_start"] = partial(start_up.mnist, options.manual_dir)
    return parts


def parts_on_a_gpu(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    quick = options.quick
    parts: dict[str, Callable[[], Any]] = {
        "gpu_training": partial(gpu.training, quick),
        "gpu_sweep": partial(gpu.sweep, quick),
        "gpu_sabour": partial(gpu.sabour, quick),
    }
    if options.manual_dir:
        parts["gpu_start"] = partial(start_up.fast, quick, options.manual_dir)
        parts["gpu_time_to_accuracy"] = partial(
            gpu.time_to_accuracy, quick, options.manual_dir, options.data_dir
        )
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: a trial")
    parser.add_argument("--gpu", action="store_true", help="the parts meant for a GPU")
    parser.add_argument("--part", action="append", help="only this part; repeatable")
    parser.add_argument("--rounds", type=int, help="of each part; 20, with --gpu 5, with --quick 3")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, for parts on one thread",
    )
    parser.add_argument("--output", type=Path, default=Path("output_bench"), metavar="DIR")
    parser.add_argument(
        "--manual-dir", type=Path, help="folder with mnist/*.gz, for the parts that need MNIST"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="prepared data")
    options = parser.parse_args()
    tuning.tune(os.environ)  # the memory that is kept serves PyTorch as well
    parts = (parts_on_a_gpu if options.gpu else parts_on_a_cpu)(options)
    chosen = options.part or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"there is no part {sorted(unknown)[0]}; choose from {', '.join(parts)}")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    machine = report.describe(sys.argv[1:])
    rounds = options.rounds or (3 if options.quick else 5 if options.gpu else 20)
    results = []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        built = parts[name]()
        for part in built if isinstance(built, list) else [built]:
            if isinstance(part, interleaved.Part):
                part = interleaved.run(part, rounds, CLOCKS[options.clock])
            results.append(part)
            report.write(options.output, machine, results)  # what is there is kept
    print(report.markdown(machine, results))
    print(f"written to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
