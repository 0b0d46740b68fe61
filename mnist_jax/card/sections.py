"""The tables of the model card."""

from collections.abc import Mapping
from typing import Any

from mnist_jax.card.markdown import folded, table
from mnist_jax.config import DATASET_IDS
from mnist_jax.release.intervals import wilson
from mnist_jax.release.records import (
    Criterion,
    History,
    Metrics,
    ParityRow,
    Release,
    Verification,
)
from mnist_jax.release.shown import TITLES, majority, show_measured, show_rule

UNKNOWN = "not known"
MOST_CLASSES = 30  # of a table that is not folded
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
    return "\n".join([table("verdict|criterion|measured|rule|n|95 % interval", rows), "", *remarks])


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
    return _facts(
        {
            "model": model,
            "loss, optimizer": f"{metrics['criterion_id']}, {config['optimizer_id']}",
            "learning rate": f"{config['learning_rate']}, {config['schedule_id']}",
            "batch size, seed": f"{config['batch_size']}, {config['seed']}",
            "random changes of images": _changes(config),
            **_used(config),
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


def _changes(config: Mapping[str, Any]) -> str:
    """What a training does to images in any case; the rest is among what it can do besides."""
    if config["augment_id"] == "byerly":
        return "turned by up to 30°, shifted, squeezed and partly erased, as by Byerly et al. 2021"
    shift, degrees = config["augment_shift_px"], config["augment_rotation_degrees"]
    return f"shifted by up to {shift} px, turned by up to {degrees}°"


def _used(config: Mapping[str, Any]) -> dict[str, str]:
    """What a training can do besides, and this one did."""
    named = {
        "class_weights": "weights of the classes",
        "augment_flip": "every second image mirrored",
        "augment_cutout_px": "side of the square cut out, px",
        "augment_brightness": "random brightness, factor 1 ±",
        "augment_contrast": "random contrast, factor 1 ±",
        "augment_saturation": "random saturation, factor 1 ±",
    }
    used = [key for key in named if key in config and config[key] not in ("none", 0)]
    return {named[key]: str(config[key]) for key in used}


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
    return table(
        "property|value",
        [(name, UNKNOWN if fact is None else fact) for name, fact in facts.items()],
    )


def results(metrics: Metrics) -> str:
    """The accuracy of the whole split and of each class; many classes fold away."""
    header = "class|correct|accuracy|95 % interval (Wilson)"
    whole, *rows = [
        (
            row["class_name"],
            f"{row['num_correct']:,} of {row['num_examples']:,}",
            f"{row['accuracy']:.4f}" if row["num_examples"] else "no test image",
            _interval(wilson(row["num_correct"], row["num_examples"]))
            if row["num_examples"]
            else "",
        )
        for row in ({"class_name": "**all**", **metrics}, *metrics["per_class"])
    ]
    if len(rows) <= MOST_CLASSES:
        return table(header, [whole, *rows])
    each = folded(f"Each of {len(rows)} classes", table(header, rows))
    return f"{table(header, [whole])}\n\n{each}"


def each_class(metrics: Metrics) -> str:
    """The measures in which every class counts alike; nothing of the built-in, even data."""
    if metrics["dataset_id"] in DATASET_IDS:
        return ""
    intervals = metrics.get("intervals_95") or {}
    rows = [
        (TITLES[name], f"{metrics[name]:.4f}", _interval(intervals[name]))
        for name in TITLES
        if name in intervals
    ]
    how = "The limits of each class are put together by Zou and Donner's rule."
    means = "mean over the classes, each counting alike|measured|95 % interval"
    parts = [table(means, rows), how] if rows else []
    return "\n\n".join([*parts, f"{'. '.join(majority(metrics))}."])


def confusions(metrics: Metrics) -> str:
    """The three largest counts beside the diagonal, in words."""
    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    cells = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row)]
    errors = sorted(((count, i, j) for count, i, j in cells if i != j and count), reverse=True)
    return ", ".join(
        f"{names[i]} taken for {names[j]} ({count:,} of {sum(matrix[i]):,})"
        for count, i, j in errors[:3]
    )


def over_seeds(measured: Mapping[str, Any], *, has_means: bool) -> str:
    """What all the seeds of a run reach; with the means over the classes, if they are wanted."""
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
    means = measured.get("test_means", {}) if has_means else {}
    for which, name, figures in ((w, n, f) for w, of in means.items() for n, f in of.items()):
        low, high = figures["interval_95"]
        lines.append(
            f"| {which}: {TITLES[name]}, 0 to 1 | {figures['mean']:.4f} | {figures['std']:.4f} "
            f"| {low:.4f} to {high:.4f} |"
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
        folded(counted, table("verdict|check|what was seen", checks)),
        folded(
            f"Scores of the files against the JAX model's, in {len(parity)} comparisons",
            f"A difference of {verification['tolerance']:g} is allowed.\n\n"
            + table(
                "format|optimisation|inputs|n|batch|largest difference|other class|ties", parity
            ),
        ),
        LATENCY.format(settled=settled, **latency) if latency else "No ONNX file was timed.",
        table("format|path in the run's folder|bytes|SHA-256", files),
    ]
    return "\n\n".join(parts)


def _interval(interval_95: list[float] | None) -> str:
    return "" if interval_95 is None else f"{interval_95[0]:.4f} to {interval_95[1]:.4f}"


def _difference(row: ParityRow) -> str:
    difference = row["max_abs_difference"]
    return "not finite" if difference is None else f"{difference:.2g}"
