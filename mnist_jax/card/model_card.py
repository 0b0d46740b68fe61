"""The model card: Markdown, metadata for the Hugging Face Hub and a page, from JSON alone."""

import html
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image

from mnist_jax.card import data_page, sections
from mnist_jax.card import html as html_card
from mnist_jax.card.markdown import escaped, folded
from mnist_jax.config import Changes, keys_that_change
from mnist_jax.data.report import DataReport
from mnist_jax.errors import UserError, first_line
from mnist_jax.export.interface import INK, rule_of
from mnist_jax.files import read_json, write_text
from mnist_jax.models.network import SCORES
from mnist_jax.release.records import (
    FileFacts,
    History,
    Release,
    read_history,
    read_release,
)
from mnist_jax.run import paths

CARD = "model_card/mnist_model_card.md"
PAGE = "model_card/model_card.html"
MAX_WIDTH = 720  # pixels of a picture in the card
UNKNOWN_TRAINING = (
    "The weights were trained elsewhere. What they were trained on is not known, nor whether the "
    "test split had a part in it."
)
LIMITATIONS = "Pictures of another kind, or prepared in another way, are another task."
# Lines of the snippet that reads a picture, by how pictures become squares.
SQUARES = {
    "pad": """
    longer = max(levels.shape[:2])
    before = [(longer - size) // 2 for size in levels.shape[:2]]
    margins = [(n, longer - size - n) for n, size in zip(before, levels.shape)]
    levels = np.pad(levels, [*margins, (0, 0)])""",
    "crop": """
    shorter = min(levels.shape[:2])
    top, left = ((size - shorter) // 2 for size in levels.shape[:2])
    levels = levels[top : top + shorter, left : left + shorter]""",
}
GREY = """
    levels = (levels @ [299, 587, 114] + 500)[:, :, None] // 1000"""
NEEDS = {
    True: "It needs `pip install onnxruntime pillow` and `mnist_jax/serve/preprocess.py`, which "
    "imports NumPy alone: from the checkout, or copied",
    False: "It needs `pip install onnxruntime pillow`",
}
PLOTS = {
    "confusion_matrix": "Confusion matrix of the test split: true class by row, answer by column",
    "per_class_accuracy": "Test accuracy by class, with Wilson 95 % intervals and the criterion",
    "training_accuracy": "Accuracy by epoch on the train and validation splits, kept epoch marked",
    "training_loss": "Loss by epoch on the train and validation splits, kept epoch marked",
    "mistakes": "Test images with wrong answers, most confident first; mistakes.csv lists them all",
    "reconstructions": "Test images drawn again by the decoder, from right and from wrong answers",
    "perturbations": "What each of the 16 dimensions of a class capsule changes in the drawing",
    "couplings": "How the routing couples the primary capsules to the class capsules",
    "robustness": "Accuracy on rotated and distorted test images",
}


def write(run_dir: Path) -> None:
    """Writes the card as Markdown and as a page, from `release.json` and what else there is.

    That is `history.json` of a training, and `data_report.json` of the user's own pictures.

    Every measurement in it is one of theirs or, as an interval is, computed from their counts.
    Plots are embedded where they lie beside the card. What is not known is said to be so.

    Raises:
        UserError: one of these files is missing or damaged, or the card cannot be written.
    """
    raw = read_release(run_dir)
    try:
        history = None if raw["training"] is None else read_history(run_dir)
        path = run_dir / paths.DATA_REPORT
        report = read_json(path) if path.is_file() else None
        card = _card(raw, history, report, (run_dir / CARD).parent)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run_dir / 'logs'} holds a release.json or history.json that no run has written "
            f"({first_line(error)}); run again"
        ) from error
    write_text(run_dir / CARD, card)
    is_released = raw["verdict"] == "released"
    folder = (run_dir / PAGE).parent
    write_text(run_dir / PAGE, html_card.page(card, folder, is_released=is_released))


def _card(raw: Release, history: History | None, report: DataReport | None, folder: Path) -> str:
    """The card's text; `folder` is where it goes."""
    plots = [name for name in PLOTS if (folder / "plots" / f"{name}.png").is_file()]
    release: Release = escaped(raw)
    run, metrics = release["run"], release["metrics"]
    dataset, config = run["dataset"], raw["run"]["config"]
    title = dataset.get("title")
    text = _template("model_card").format(
        metrics=metrics,
        metadata=_metadata(raw).to_yaml(),
        verdict_and_reasons=_verdict(release),
        criteria_table=sections.criteria(release["criteria"]),
        pictures=f"*{title}*" if title else "the test images",
        class_names=", ".join(metrics["class_names"]),
        data=sections.data(dataset),
        data_page=data_page.page(report, raw["metrics"]["class_names"]) if report else "",
        how_read=_how_read(release, is_own=report is not None),
        training=sections.training(release, history),
        results=sections.results(metrics),
        each_class=sections.each_class(metrics),
        confusions=sections.confusions(metrics) or "none",
        over_seeds=sections.over_seeds(raw["seeds"], has_means=report is not None)
        if "seeds" in raw
        else "",
        plots="\n\n".join(_picture(name, folder) for name in plots),
        verification_report=sections.verification(release["verification"]),
        limitations=dataset.get("limitations") or LIMITATIONS,
        untested="noise" if "robustness" in plots else "noise, rotation",
        loading=_loading(raw),
        provenance=sections.provenance(release),
        again="" if config is None or "imported" in run else _again(config),
    )
    return str(ModelCard(text))


def _picture(name: str, folder: Path) -> str:
    """A plot at half its pixels, as screens with two for each show it sharp."""
    path = f"plots/{name}.png"
    with Image.open(folder / path) as picture:
        width = min(picture.width // 2, MAX_WIDTH)
    return f'<img src="{path}" width="{width}" alt="{html.escape(PLOTS[name])}">'


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
    imported = release["run"].get("imported")
    is_ours = release["run"]["config"] is not None and "own_code" not in release["run"]
    return ModelCardData(
        license=imported["licence"].lower() if imported else "apache-2.0" if is_ours else None,
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


def _how_read(release: Release, *, is_own: bool) -> str:
    """When the test split was read; of the user's own pictures, which were compared, by what."""
    if "imported" in release["run"]:
        return UNKNOWN_TRAINING
    if release["metrics"]["validation"] is None:
        return ""
    read = "the network met the test split" if is_own else "the test split was read"
    return f"The validation split chose the epoch; {read} only afterwards."


def _loading(release: Release) -> str:
    onnx_file, metrics = _onnx_file(release), release["metrics"]
    if onnx_file is None:
        return "This run has no ONNX file."
    # What runs of earlier versions do not say: they had grey images, and most had logits.
    _, side, num_channels = metrics.get("image_shape", [28, 28, 1])
    is_grey = num_channels == 1
    rule = rule_of(onnx_file.get("metadata", {}), side, num_channels)
    is_ink = rule == INK
    facts = {
        "num_classes": len(metrics["class_names"]),
        "side": side,
        "num_channels": num_channels,
        "levels": f"{'grey ' if is_grey else ''}levels 0 to 1, "
        + ("light on black" if is_ink else "black to white" if is_grey else "red, green, blue"),
        "class_names": metrics["class_names"],
        "path": repr(onnx_file["path"]),
        "scores": SCORES[metrics["outputs"]] if "outputs" in metrics else sections.UNKNOWN,
        "square": SQUARES.get(rule, ""),
        "grey": GREY if is_grey else "",
    }
    reading = Template(_template("read_ink" if is_ink else "read_own")).substitute(facts)
    loading = Template(_template("loading").rstrip("\n"))
    return loading.substitute(facts, reading=reading.rstrip("\n"), needs=NEEDS[is_ink])


def _onnx_file(release: Release) -> FileFacts | None:
    verification = release["verification"]
    return None if verification is None else verification["files"].get("onnx")


def _again(config: Mapping[str, Any]) -> str:
    """How to train it again, with every key that can change the model."""
    left_out = keys_that_change(Changes.PLACE, Changes.OUTPUT)
    values = {key: config[key] for key in config if key not in left_out}
    settings = {f"network.{name}": value for name, value in values.pop("network", {}).items()}
    arguments = [
        f"--config.{key}={shlex.quote(str(value))}" for key, value in (values | settings).items()
    ]
    command = " \\\n  ".join(["scripts/train", *arguments])
    return folded(
        "The same training again",
        "Add `--data-dir` or `--manual-dir` where your data lies elsewhere.\n\n"
        f"```sh\n{command}\n```",
    )
