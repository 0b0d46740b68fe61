"""The model card: Markdown for people and metadata for the Hugging Face Hub, from JSON alone."""

import html
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mnist_jax.config import PLACES, default
from mnist_jax.errors import UserError, first_line, printable
from mnist_jax.files import write_text
from mnist_jax.models.network import SCORES
from mnist_jax.release.criteria import show_measured, show_rule
from mnist_jax.release.intervals import wilson
from mnist_jax.release.records import (
    Criterion,
    FileFacts,
    History,
    Metrics,
    ParityRow,
    Release,
    Verification,
    read_history,
    read_release,
)

CARD = "model_card/mnist_model_card.md"
# What is made of the trained model; a later export of the same run can choose otherwise.
ABOUT_OUTPUT = ("export_format", "skip_export", "skip_visualizations")
UNKNOWN = "not known"
LIMITATIONS = "Pictures of another kind, or prepared in another way, are another task."
PLOTS = {
    "confusion_matrix": "Confusion matrix of the test split: true class by row, answer by column",
    "per_class_accuracy": "Test accuracy by class, with Wilson 95 % intervals and the criterion",
    "training_accuracy": "Accuracy by epoch on the train and validation splits, kept epoch marked",
    "training_loss": "Loss by epoch on the train and validation splits, kept epoch marked",
    "reconstructions": "Test images drawn again by the decoder, from right and from wrong answers",
    "perturbations": "What each of the 16 dimensions of a class capsule changes in the drawing",
    "couplings": "How the routing couples the primary capsules to the class capsules",
    "robustness": "Accuracy on rotated and distorted test images",
}
LATENCY = """\
Latency of the ONNX file, batch {batch_size}, {threads} thread: p50 {p50_ms:.3f} ms,
p90 {p90_ms:.3f} ms, p99 {p99_ms:.3f} ms over {num_runs:,} runs; the timing {settled}. Loading takes
{load_ms:.3f} ms, the first call {first_call_ms:.3f} ms. Machine: {cpu}, ONNX Runtime
{onnxruntime}."""


def write(run_dir: Path) -> None:
    """Writes `model_card/mnist_model_card.md` from `release.json` and, if any, `history.json`.

    Every measurement in it is one of theirs or, as an interval is, computed from their counts.
    Plots are embedded where they lie beside the card. What is not known is said to be so.

    Raises:
        UserError: one of the two files is missing or damaged, or the card cannot be written.
    """
    raw = read_release(run_dir)
    try:
        history = None if raw["training"] is None else read_history(run_dir)
        card = _card(raw, history, (run_dir / CARD).parent)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run_dir / 'logs'} holds a release.json or history.json that no run has written "
            f"({first_line(error)}); run again"
        ) from error
    write_text(run_dir / CARD, card)


def _card(raw: Release, history: History | None, folder: Path) -> str:
    """The card's text; `folder` is where it goes."""
    plots = [name for name in PLOTS if (folder / "plots" / f"{name}.png").is_file()]
    release: Release = _escaped(raw)
    run, metrics = release["run"], release["metrics"]
    dataset, config = run["dataset"], raw["run"]["config"]
    title = dataset.get("title")
    text = _template("model_card").format(
        metrics=metrics,
        metadata=_metadata(raw).to_yaml(),
        verdict_and_reasons=_verdict(release),
        criteria_table=_criteria(release["criteria"]),
        pictures=f"*{title}*" if title else "the test images",
        class_names=", ".join(metrics["class_names"]),
        data=_data(dataset),
        how_read=""
        if metrics["validation"] is None
        else "The validation split chose the epoch; the test split was read only afterwards.",
        training=_training(release, history),
        results=_results(metrics),
        confusions=_confusions(metrics) or "none",
        over_seeds=_over_seeds(raw["seeds"]) if "seeds" in raw else "",
        plots="\n\n".join(f"![{PLOTS[name]}](plots/{name}.png)" for name in plots),
        verification_report=_verification(release["verification"]),
        limitations=dataset.get("limitations") or LIMITATIONS,
        loading=_loading(raw),
        provenance=_provenance(release),
        again="" if config is None else _again(config),
    )
    return str(ModelCard(text))


def _template(name: str) -> str:
    return (
        resources.files("mnist_jax.card")
        .joinpath(f"{name}.md.template")
        .read_text(encoding="utf-8")
    )


def _metadata(release: Release) -> ModelCardData:
    """What the Hub reads: licence, library, tags, and the results as its `model-index`."""
    metrics, dataset = release["metrics"], release["run"]["dataset"]
    hub_id = dataset.get("hub_id")
    result = EvalResult(
        task_type="image-classification",
        dataset_type=hub_id or metrics["dataset_id"],
        dataset_name=dataset.get("title") or metrics["dataset_id"],
        dataset_split=metrics["split"],
        metric_type="accuracy",
        metric_name=f"test accuracy, n = {metrics['num_examples']}",
        metric_value=metrics["accuracy"],
    )
    is_ours = release["run"]["config"] is not None and "own_code" not in release["run"]
    return ModelCardData(
        license="apache-2.0" if is_ours else None,
        library_name="onnx" if _onnx_file(release) else "flax",
        pipeline_tag="image-classification",
        tags=["image-classification", "jax", "flax", metrics["model_id"], release["verdict"]],
        datasets=[hub_id] if hub_id else None,
        metrics=["accuracy"],
        model_name=f"{metrics['model_id']} on {metrics['dataset_id']}",
        eval_results=[result],
    )


def _verdict(release: Release) -> str:
    if release["verdict"] == "released":
        return f"> **RELEASED.** All {len(release['criteria'])} criteria passed."
    reasons = "".join(f"\n> - {reason}" for reason in release["reasons"])
    return f"> **REFUSED: do not use this model as a release.**\n>{reasons}"


def _criteria(criteria: list[Criterion]) -> str:
    rows = [
        (
            "pass" if row["passed"] else "**FAIL**",
            row["name"],
            show_measured(row),
            show_rule(row),
            "" if row["n"] is None else f"{row['n']:,}",
            _interval(row["interval_95"]),
            row["detail"] if row["passed"] else "",  # a failure's is among the reasons
        )
        for row in sorted(criteria, key=lambda row: row["passed"])
    ]
    return _table("verdict|criterion|measured|rule|n|95 % interval|remark", rows)


def _data(dataset: Mapping[str, Any]) -> str:
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


def _training(release: Release, history: History | None) -> str:
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


def _provenance(release: Release) -> str:
    run = release["run"]
    environment = run["environment"]
    commit = environment["git_commit"] or "not known: no git checkout"
    if environment["git_clean"] is False:
        commit += ", with changes that were not committed"
    facts = {"git commit": commit, "SHA-256 of the configuration": run["config_hash"]}
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
    """A table without a header; what is None is not known."""
    return _table("|", [(name, UNKNOWN if fact is None else fact) for name, fact in facts.items()])


def _results(metrics: Metrics) -> str:
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


def _confusions(metrics: Metrics) -> str:
    """The three largest counts beside the diagonal, in words."""
    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    cells = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row)]
    errors = sorted(((count, i, j) for count, i, j in cells if i != j and count), reverse=True)
    return ", ".join(
        f"{names[i]} taken for {names[j]} ({count:,} of {sum(matrix[i]):,})"
        for count, i, j in errors[:3]
    )


def _over_seeds(measured: Mapping[str, Any]) -> str:
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


def _verification(verification: Verification | None) -> str:
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
    parts = [
        _table("verdict|check|what was seen", checks),
        "Scores of the files against the JAX model's, where a difference of "
        f"{verification['tolerance']:g} is allowed:",
        _table("format|optimisation|inputs|n|batch|largest difference|other class|ties", parity),
        _table("format|path in the run's folder|bytes|SHA-256", files),
        LATENCY.format(settled=settled, **latency) if latency else "No ONNX file was timed.",
    ]
    return "\n\n".join(parts)


def _loading(release: Release) -> str:
    onnx_file, metrics = _onnx_file(release), release["metrics"]
    if onnx_file is None:
        return "This run has no ONNX file."
    config = {**default(), **(release["run"]["config"] or {})}
    # What runs of earlier versions do not say: they had grey images, and most had logits.
    _, side, num_channels = metrics.get("image_shape", [0, config["image_side"], 1])
    is_grey = num_channels == 1
    return Template(_template("loading").rstrip("\n")).substitute(
        num_classes=len(metrics["class_names"]),
        side=side,
        num_channels=num_channels,
        levels=f"{'grey ' if is_grey else ''}levels 0 to 1, "
        + ("light on black" if is_grey else "red, green, blue"),
        orientation=", light on black" if is_grey else "",
        pixels="grey" if is_grey else "colours",
        mode="L" if is_grey else "RGB",
        picture="(1 - grey if np.median(grey) > 0.5 else grey)[np.newaxis]"
        if is_grey
        else "colours.transpose(2, 0, 1)",
        class_names=metrics["class_names"],
        path=repr(onnx_file["path"]),
        scores=SCORES[metrics["outputs"]] if "outputs" in metrics else UNKNOWN,
    )


def _onnx_file(release: Release) -> FileFacts | None:
    verification = release["verification"]
    return None if verification is None else verification["files"].get("onnx")


def _again(config: Mapping[str, Any]) -> str:
    """How to train it once more, with every key that can change the model."""
    values = {key: config[key] for key in config if key not in (*PLACES, *ABOUT_OUTPUT)}
    settings = {f"network.{name}": value for name, value in values.pop("network", {}).items()}
    arguments = [
        f"--config.{key}={shlex.quote(str(value))}" for key, value in (values | settings).items()
    ]
    command = " \\\n  ".join(["scripts/train", *arguments])
    return (
        "The same training again (add `--data-dir` or `--manual-dir` where your data lies "
        f"elsewhere):\n\n```sh\n{command}\n```"
    )


def _interval(interval_95: list[float] | None) -> str:
    return "" if interval_95 is None else f"{interval_95[0]:.4f} to {interval_95[1]:.4f}"


def _difference(row: ParityRow) -> str:
    difference = row["max_abs_difference"]
    return "not finite" if difference is None else f"{difference:.2g}"


def _table(header: str, rows: Iterable[Sequence[Any]]) -> str:
    lines = [header.split("|"), ["---"] * (header.count("|") + 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _escaped(tree: Any) -> Any:
    """A copy of JSON in which Markdown shows every string as it is, on one line, in a cell too."""
    if isinstance(tree, dict):
        return {key: _escaped(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_escaped(value) for value in tree]
    if not isinstance(tree, str):
        return tree
    line = printable(" ".join(tree.split()))
    # "<" and "&" only where a tag or an entity could begin, so that "<= 10 MB" stays as it is.
    line = re.sub(r"<(?=[A-Za-z/!?])|&(?=[A-Za-z#])", lambda match: html.escape(match[0]), line)
    return re.sub(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", line)
