"""What a benchmark leaves behind: JSON with every figure, a Markdown table, a plot."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks.interleaved import OURS, best_peer, rows
from mnist_jax.files import write_bytes, write_json
from mnist_jax.run import environment


def describe(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the machine, versions and flags, and how busy the machine was at the start."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "arguments": list(arguments),
        "commit": commit or None,
        "cpu": environment.cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "jax_device": jax.devices()[0].device_kind,
        "load_average_before": os.getloadavg()[0],
        "torch_threads": torch.get_num_threads(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "versions": environment.versions() | {"torch": torch.__version__},
    }


def markdown(machine: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> str:
    """Returns one table for each part."""
    lines = ["# Benchmarks", "", _sentence(machine), ""]
    for part in parts:
        lines += [f"## {part['title']}", ""]
        is_compared = OURS in part["seconds"] and len(part["seconds"]) > 1
        ratio = f" {OURS} is faster by |" if is_compared else ""
        lines += [
            f"| | n | {part['unit']} |{ratio}",
            "| --- | --- | --- |" + " --- |" * bool(ratio),
        ]
        for row in rows(part):
            line = f"| {row['name']} | {row['n']} | {_figure(row)} |"
            if ratio:
                line += f" {_figure(row['ratio'])} |" if "ratio" in row else " |"
            lines.append(line)
        if (peer := best_peer(part)) is not None:
            best = f"Over the best peer, {peer['name']}: {peer['ratio']['median']:.2f} times."
            lines += ["", best]
        lines += ["", *(f"- {note}" for note in part["notes"]), ""]
    lines.append("Medians, and quartiles in brackets; ratios are taken within a round.")
    return "\n".join(lines) + "\n"


def _figure(row: Mapping[str, Any]) -> str:
    digits = 0 if row["median"] >= 100 else 2
    median, low, high = (f"{row[k]:,.{digits}f}" for k in ("median", "quartile_1", "quartile_3"))
    return f"{median} ({low} to {high})"


def _sentence(machine: Mapping[str, Any]) -> str:
    place = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    packages = ("jax", "flax", "torch", "onnxruntime")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in packages)
    flags = f"; XLA_FLAGS {machine['xla_flags']}" if machine["xla_flags"] else ""
    return (
        f"{place}; load {machine['load_average_before']:.1f} before; {versions}{flags}; "
        f"commit {machine['commit']}; `scripts/bench {' '.join(machine['arguments'])}`."
    ).replace(" `.", "`.")


def plot(parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws every part as bars with their quartiles, ours in colour."""
    heights = [0.9 + 0.32 * len(part["seconds"]) for part in parts]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    axes = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for part, axis in zip(parts, axes, strict=True):
        table = rows(part)[::-1]
        medians = [row["median"] for row in table]
        errors = [
            [row["median"] - row["quartile_1"] for row in table],
            [row["quartile_3"] - row["median"] for row in table],
        ]
        colours = ["#1f6f8b" if row["name"] == OURS else "#b8c4cc" for row in table]
        names = [row["name"] for row in table]
        bars = axis.barh(names, medians, xerr=errors, color=colours, ecolor="#555555", capsize=2)
        axis.bar_label(bars, [f" {_figure(row).split(' ')[0]}" for row in table], fontsize=8)
        axis.set_title(part["title"], loc="left", fontsize=10)
        better = "more is better" if part["unit"] == "images/s" else "less is better"
        axis.set_xlabel(f"{part['unit']}, {better}", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def write(folder: Path, machine: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> None:
    """Writes `benchmarks.json`, `.md` and `.png`; each appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmarks.json", {"machine": dict(machine), "parts": list(parts)})
    write_bytes(folder / "benchmarks.md", markdown(machine, parts).encode())
    with matplotlib.rc_context({"svg.hashsalt": "mnist_jax"}):
        plot(parts).savefig(folder / "benchmarks.png", dpi=120)
