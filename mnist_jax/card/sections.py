"""The tables of the model card."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mnist_jax.release.intervals import wilson
from mnist_jax.release.records import (
    Criterion,
    History,
    Metrics,
    ParityRow,
    Release,
    Verification,
)
from mnist_jax.release.shown import show_measured, show_rule

UNKNOWN = "not known"
LATENCY = """\
Latency of the ONNX file, batch {batch_size}, {threads} thread: p50 {p50_ms:.3f} ms,
p90 {p90_ms:.3f} ms, p99 {p99_ms:.3f} ms over {num_runs:,} runs; the timing {settled}. Loading takes
{load_ms:.3f} ms, the first call {first_call_ms:.3f} ms. Machine: {cpu}, ONNX Runtime
{onnxruntime}."""


def criteria(criteria: list[Criterion]) -> str:
    """The criteria, failures first, and below them what is to be said of those that passed."""
    criteria = sorted(criteria, key=lambda row: row["passed"])
    rows = [
        (
            "pass" if row["passed"] else "**FAIL**",
            row["name"],
            show_measured(row),
            show_rule(row),
            "" if row["n"] is None else f"{row['n']:,}",
            _interval(row["interval_95"]),
        )
        for row in criteria
    ]
    # A failure's detail is among the reasons.
    remarks = [f"- {r['name']}: {r['detail']}" for r in criteria if r["passed"] and r["detail"]]
    return "\n".join(
        [_table("verdict|criterion|measured|rule|n|95 % interval", rows), "", *remarks]
    )


def data(dataset: Mapping[str, Any]) -> str:
    """The data set: what is known of it."""

    def count(split):
        number = dataset.get(f"num_{split}")
        return None if number is None else f"{number:,}"

    mean, std = dataset.get("image_mean"), dataset.get("image_std")
    return _facts(
        {
            "data set": dataset.get("title"),
            "source": dataset.get("source"),
            "licence": dataset.get("license"),
            "citation": dataset.get("citation"),
            "train images": count("train"),
            "validation images": count("validation"),
            "test images": count("test"),
            "grey levels of train, 0 to 1": None if mean is None else f"{mean:.4f} ± {std:.4f}",
            "SHA-256 of the arrays": dataset.get("data_hash"),
        }
    )


def training(release: Release, history: History | None) -> str:
    """How the network was trained."""
    metrics, environment = release["metrics"], release["run"]["environment"]
    model = f"{metrics['model_id']}, {metrics['num_parameters']:,} parameters"
    config, training = release["run"]["config"], release["training"]
    validation = metrics["validation"]
    if config is None or training is None or history is None or validation is None:
        return _facts({"model": model, "training": None})
    best = history["epochs"][history["best_epoch"] - 1]
    machine = f"{environment['num_devices']} x {environment['device_kind']}"
    shift, degrees = config["augment_shift_px"], config["augment_rotation_degrees"]
    return _facts(
        {
            "model": model,
            "loss, optimizer": f"{metrics['criterion_id']}, {config['optimizer_id']}",
            "learning rate": f"{config['learning_rate']}, {config['schedule_id']}",
            "batch size, seed": f"{config['batch_size']}, {config['seed']}",
            "random shifts, turns": f"up to {shift} px, {degrees}°",
            "epochs": f"{training['num_epochs']}, of which epoch {training['best_epoch']} was kept",
            "train, during that epoch": f"loss {best['train_loss']:.4f}, "
            f"accuracy {best['train_accuracy']:.4f}",
            "validation, after it": f"loss {validation['loss']:.4f}, "
            f"accuracy {validation['accuracy']:.4f}",
            "time": f"{training['seconds']:,.1f} s; {training['images_per_s']:,.0f} images/s, "
            "median over epochs",
            "hardware": f"{machine}; CPU {environment['cpu']}",
        }
    )


def provenance(release: Release) -> str:
    """What the run stood on."""
    run = release["run"]
    environment = run["environment"]
    commit = environment["git_commit"] or "not known: no git checkout"
    if environment["git_clean"] is False:
        commit += ", with changes that were not committed"
    facts = {"git commit": commit, "SHA-256 of the configuration": run["config_hash"]}
    if imported := run.get("imported"):
        facts |= {
            "weights imported from": f"{imported['file']}, SHA-256 {imported['sha256']}",
            "source of the weights": imported["source"],
            "licence of the weights": imported["licence"],
        }
    for key, code in run.get("own_code", {}).items():
        facts[f"{key}: {code['reference']}"] = f"SHA-256 {code['sha256']}"
    return _facts(
        {
            **facts,
            "Python, platform": f"{environment['python']}, {environment['platform']}",
            "XLA_FLAGS": environment["xla_flags"],
            "packages": ", ".join(" ".join(item) for item in environment["versions"].items()),
        }
    )


def _facts(facts: Mapping[str, str | None]) -> str:
    """A table of two columns; what is None is not known."""
    return _table(
        "property|value",
        [(name, UNKNOWN if fact is None else fact) for name, fact in facts.items()],
    )


def results(metrics: Metrics) -> str:
    """The accuracy of the whole split and of each class."""
    rows = [
        (
            row["class_name"],
            f"{row['num_correct']:,} of {row['num_examples']:,}",
            f"{row['accuracy']:.4f}",
            _interval(wilson(row["num_correct"], row["num_examples"])),
        )
        for row in ({"class_name": "**all**", **metrics}, *metrics["per_class"])
    ]
    return _table("class|correct|accuracy|95 % interval (Wilson)", rows)


def confusions(metrics: Metrics) -> str:
    """The three largest counts beside the diagonal, in words."""
    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    cells = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row)]
    errors = sorted(((count, i, j) for count, i, j in cells if i != j and count), reverse=True)
    return ", ".join(
        f"{names[i]} taken for {names[j]} ({count:,} of {sum(matrix[i]):,})"
        for count, i, j in errors[:3]
    )


def over_seeds(measured: Mapping[str, Any]) -> str:
    """What all the seeds of a run reach."""
    lines = [
        "",
        f"Of {measured['num_seeds']} seeds, number {measured['released_seed']} is released: with",
        "its epoch, the best on validation. Error on the test split over all seeds, in %:",
        "",
        "| epoch | mean | standard deviation | 95 % interval of the mean (t) |",
        "| --- | --- | --- | --- |",
    ]
    for which, figures in measured["test_error_percent"].items():
        low, high = figures["interval_95"]
        lines.append(
            f"| {which} | {figures['mean']:.3f} | {figures['std']:.3f} | {low:.3f} to {high:.3f} |"
        )
    return "\n".join([*lines, ""])


def verification(verification: Verification | None) -> str:
    """What was checked of the exported files."""
    if verification is None:
        return "Export was skipped: there is no file, and nothing was verified or timed."
    checks = [
        ("pass" if row["passed"] else "**FAIL**", row["name"], row["detail"])
        for row in verification["checks"]
    ]
    parity = [
        (
            row["format"],
            row["optimization"] or "",
            row["inputs"],
            f"{row['num_examples']:,}",
            row["batch_size"],
            _difference(row),
            row["num_class_disagreements"],
            row["num_ties"],
        )
        for row in verification["parity"]
    ]
    files = [
        (name, file["path"], f"{file['size_bytes']:,}", file["sha256"])
        for name, file in verification["files"].items()
    ]
    latency = verification["latency"]
    settled = "settled" if latency and latency["stable"] else "did not settle"
    num_passed = sum(row["passed"] for row in verification["checks"])
    counted = f"{num_passed} of {len(checks)} checks passed"
    parts = [
        folded(counted, _table("verdict|check|what was seen", checks)),
        folded(
            f"Scores of the files against the JAX model's, in {len(parity)} comparisons",
            f"A difference of {verification['tolerance']:g} is allowed.\n\n"
            + _table(
                "format|optimisation|inputs|n|batch|largest difference|other class|ties", parity
            ),
        ),
        LATENCY.format(settled=settled, **latency) if latency else "No ONNX file was timed.",
        _table("format|path in the run's folder|bytes|SHA-256", files),
    ]
    return "\n\n".join(parts)


def folded(summary: str, body: str) -> str:
    """What is opened by who wants it; `summary` is text without markup."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _interval(interval_95: list[float] | None) -> str:
    return "" if interval_95 is None else f"{interval_95[0]:.4f} to {interval_95[1]:.4f}"


def _difference(row: ParityRow) -> str:
    difference = row["max_abs_difference"]
    return "not finite" if difference is None else f"{difference:.2g}"


def _table(header: str, rows: Iterable[Sequence[Any]]) -> str:
    lines = [header.split("|"), ["---"] * (header.count("|") + 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
