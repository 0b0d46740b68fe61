"""The model card: Markdown for people and metadata for the Hugging Face Hub, from JSON alone."""

import html
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mnist_jax.config import Changes, default, keys_that_change
from mnist_jax.errors import UserError, first_line, printable
from mnist_jax.files import read_json, write_text
from mnist_jax.release.criteria import show_measured, show_rule, wilson
from mnist_jax.training import seeds

HUB_IDS = {"mnist_v1": "ylecun/mnist", "fashion_mnist_v1": "zalando-datasets/fashion_mnist"}
# What a model that knows only one data set cannot do.
LIMITATIONS = {
    "digits_v1": """The digits were scanned at 8 x 8 pixels and are enlarged, smoother than a real
  28 x 28 scan: expect less on other pictures, MNIST's among them. The same people wrote the train
  and the test digits, and the test split is small: trust the intervals, not the last decimals.""",
    "mnist_v1": """The digits fill 20 x 20 pixels, with their centre of mass in the middle. Digits
  prepared in another way, drawn with thin strokes or written as in another country (1, 7) are
  recognised less often. Decades of research have been tuned on this test split.""",
    "fashion_mnist_v1": """The pictures are cut-out, centred product photographs of one shop; people
  who wear the clothes are another task. Shirts, T-shirts, pullovers and coats look alike at 28 x 28
  pixels, and some labels are doubtful: see the confusions.""",
    "kmnist_v1": """A class holds several historical shapes of one character; modern print and
  handwriting are another task.""",
}
PLOTS = {
    "confusion_matrix": "Confusion matrix of the test split: true class by row, answer by column",
    "per_class_accuracy": "Test accuracy by class, with Wilson 95 % intervals and the criterion",
    "training_accuracy": "Accuracy by epoch on the train and validation splits, kept epoch marked",
    "training_loss": "Loss by epoch on the train and validation splits, kept epoch marked",
    "reconstructions": "Test images drawn again by the decoder, from right and from wrong answers",
    "perturbations": "What each of the 16 dimensions of a class capsule changes in the drawing",
    "couplings": "How the routing couples the primary capsules to the class capsules",
    "robustness": "Accuracy on turned and distorted test images",
}
CARD = """\
---
{metadata}
---

# {metrics[model_id]} on {metrics[dataset_id]}

{verdict_and_reasons}

{criteria_table}

The measured value is what is compared; the interval (Wilson, 95 %) says how sure it is. That of
the worst class is wider (exact, Bonferroni), since it was picked for being the worst.
Accuracies run from 0 to 1.
`metrics_consistent` holds if the numbers of the test split agree with one another; `verified` if
every check of the exported files passed and the ONNX file gets as many test images right as JAX.

## Intended use

Sorting pictures like those of *{dataset[title]}* into the
classes {class_names}.

Meant for teaching, for benchmarks and as an example of a release that is proven before it ships.

Out of scope: decisions about people, money or safety, and any other kind of picture. The model
always answers with one of its classes, also where none is right, and a high score is no proof.

## Data

| | |
| --- | --- |
| data set | {dataset[title]} |
| source | {dataset[source]} |
| licence | {dataset[license]} |
| citation | {dataset[citation]} |
| train images | {dataset[num_train]:,} |
| validation images | {dataset[num_validation]:,} |
| test images | {dataset[num_test]:,} |
| grey levels of train, 0 to 1 | {dataset[image_mean]:.4f} ± {dataset[image_std]:.4f} |
| SHA-256 of the arrays | {dataset[data_hash]} |

The validation split chose the epoch; the test split was read only afterwards.

## Training

| | |
| --- | --- |
| model | {metrics[model_id]}, {metrics[num_parameters]:,} parameters |
| loss, optimizer | {config[criterion_id]}, {config[optimizer_id]} |
| learning rate | {config[learning_rate]}, {config[schedule_id]} |
| batch size, seed | {config[batch_size]}, {config[seed]} |
| random shifts, turns | up to {config[augment_shift_px]} px, {config[augment_rotation_degrees]}° |
| epochs | {training[num_epochs]}, of which epoch {training[best_epoch]} was kept |
| train, during that epoch | loss {best[train_loss]:.4f}, accuracy {best[train_accuracy]:.4f} |
| validation, after it | loss {validation[loss]:.4f}, accuracy {validation[accuracy]:.4f} |
| time | {training[seconds]:,.1f} s; {training[images_per_s]:,.0f} images/s, median over epochs |
| hardware | {environment[num_devices]} x {environment[device_kind]}; CPU {environment[cpu]} |

## Results on the test split

{results}

Mean loss ({metrics[criterion_id]}): {metrics[loss]:.4f}. Calibration: the largest score and the
accuracy differ by {metrics[expected_calibration_error]:.4f} on average (expected calibration error,
{metrics[calibration_bins]} bins; 0 is perfect).

Most frequent confusions: {confusions}.
{over_seeds}
{plots}

## Verification of the exported files

{verification_report}

## Limitations

- {limitations}
- The intervals cover the choice of test images, not the luck of training.
- Not tested: noise, rotation, other cameras and pens, and inputs made to deceive.

## How to load it

{loading}

## Provenance

| | |
| --- | --- |
| git commit | {commit} |
| SHA-256 of the configuration | {run[config_hash]} |
| Python, platform | {environment[python]}, {environment[platform]} |
| XLA_FLAGS | {environment[xla_flags]} |
| packages | {packages} |

The same training again (add `--data-dir` or `--manual-dir` where your data lies elsewhere):

```sh
{command}
```
"""
LATENCY = """\
Latency of the ONNX file, batch {batch_size}, {threads} thread: p50 {p50_ms:.3f} ms,
p90 {p90_ms:.3f} ms, p99 {p99_ms:.3f} ms over {num_runs:,} runs; the timing {settled}. Loading takes
{load_ms:.3f} ms, the first call {first_call_ms:.3f} ms. Machine: {cpu}, ONNX Runtime
{onnxruntime}."""
SNIPPET = Template('''\
Input `image`: float32 `[batch, 1, $side, $side]`, grey levels 0 to 1, light on black; normalisation
is inside the graph. Output `scores`: float32 `[batch, $num_classes]`, one number per class, of
which the largest wins: $scores.

After `pip install onnxruntime pillow`, in the run's folder, with paths of pictures as arguments:

```python
import sys

import numpy as np
import onnxruntime

CLASS_NAMES = $class_names


def read_picture(path):
    """Reads one picture as float32 [1, $side, $side], light on black."""
    from PIL import Image

    grey = np.asarray(Image.open(path).convert("L").resize(($side, $side)), np.float32) / 255
    return (1 - grey if np.median(grey) > 0.5 else grey)[np.newaxis]


session = onnxruntime.InferenceSession($path, providers=["CPUExecutionProvider"])
# Without arguments: one black picture, which shows that the file loads.
black = np.zeros((1, $side, $side), np.float32)
pictures = [read_picture(path) for path in sys.argv[1:]] or [black]
(scores,) = session.run(["scores"], {"image": np.stack(pictures)})
for row in scores:
    print(f"{CLASS_NAMES[row.argmax()]}: {row.max():.4f}")
```''')


def write(run_dir: Path) -> None:
    """Writes `model_card/mnist_model_card.md` from `logs/release.json` and `logs/history.json`.

    Every measurement in it is one of theirs or, as an interval is, computed from their counts.
    Plots are embedded where they lie beside the card.

    Raises:
        UserError: one of the two files is missing or damaged, or the card cannot be written.
    """
    raw = read_json(run_dir / "logs" / "release.json")
    history = read_json(run_dir / "logs" / "history.json")
    try:
        card = _card(raw, history, run_dir / "model_card")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run_dir / 'logs'} holds a release.json or history.json that no run has written "
            f"({first_line(error)}); run again"
        ) from error
    write_text(run_dir / "model_card" / "mnist_model_card.md", card)


def _card(raw: dict, history: dict, folder: Path) -> str:
    """The card's text; `folder` is where it goes."""
    plots = [name for name in PLOTS if (folder / "plots" / f"{name}.png").is_file()]
    release = _escaped(raw)
    run, metrics = release["run"], release["metrics"]
    commit = run["environment"]["git_commit"] or "not known: no git checkout"
    if run["environment"]["git_clean"] is False:
        commit += ", with changes that were not committed"
    text = CARD.format(
        **run | release,
        metadata=_metadata(raw).to_yaml(),
        verdict_and_reasons=_verdict(release),
        criteria_table=_criteria(release["criteria"]),
        class_names=", ".join(metrics["class_names"]),
        validation=metrics["validation"],
        best=history["epochs"][history["best_epoch"] - 1],
        results=_results(metrics),
        confusions=_confusions(metrics) or "none",
        over_seeds=seeds.markdown(raw["seeds"]) if "seeds" in raw else "",
        plots="\n\n".join(f"![{PLOTS[name]}](plots/{name}.png)" for name in plots),
        verification_report=_verification(release["verification"]),
        limitations=LIMITATIONS[raw["metrics"]["dataset_id"]],
        loading=_loading(raw),
        commit=commit,
        packages=", ".join(" ".join(item) for item in run["environment"]["versions"].items()),
        command=_command(raw["run"]["config"]),
    )
    return str(ModelCard(text))


def _metadata(release: dict) -> ModelCardData:
    """What the Hub reads: licence, library, tags, and the results as its `model-index`."""
    metrics = release["metrics"]
    hub_id = HUB_IDS.get(metrics["dataset_id"])
    result = EvalResult(
        task_type="image-classification",
        dataset_type=hub_id or metrics["dataset_id"],
        dataset_name=release["run"]["dataset"]["title"],
        dataset_split=metrics["split"],
        metric_type="accuracy",
        metric_name=f"test accuracy, n = {metrics['num_examples']}",
        metric_value=metrics["accuracy"],
    )
    return ModelCardData(
        license="apache-2.0",
        library_name="onnx" if _onnx_file(release) else "flax",
        pipeline_tag="image-classification",
        tags=["image-classification", "jax", "flax", metrics["model_id"], release["verdict"]],
        datasets=[hub_id] if hub_id else None,
        metrics=["accuracy"],
        model_name=f"{metrics['model_id']} on {metrics['dataset_id']}",
        eval_results=[result],
    )


def _verdict(release: dict) -> str:
    if release["verdict"] == "released":
        return f"> **RELEASED.** All {len(release['criteria'])} criteria passed."
    reasons = "".join(f"\n> - {reason}" for reason in release["reasons"])
    return f"> **REFUSED: do not use this model as a release.**\n>{reasons}"


def _criteria(criteria: list[dict]) -> str:
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


def _results(metrics: dict) -> str:
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


def _confusions(metrics: dict) -> str:
    """The three largest counts beside the diagonal, in words."""
    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    cells = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row)]
    errors = sorted(((count, i, j) for count, i, j in cells if i != j and count), reverse=True)
    return ", ".join(
        f"{names[i]} taken for {names[j]} ({count:,} of {sum(matrix[i]):,})"
        for count, i, j in errors[:3]
    )


def _verification(verification: dict | None) -> str:
    if verification is None:
        return "Export was skipped: there is no file, and nothing was verified or timed."
    checks = [
        ("pass" if row["passed"] else "**FAIL**", row["name"], row["detail"])
        for row in verification["checks"]
    ]
    parity = [
        (
            *(row["format"], row["optimization"] or "", row["inputs"]),
            *(f"{row['num_examples']:,}", row["batch_size"], _difference(row)),
            *(row["num_class_disagreements"], row["num_ties"]),
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


def _loading(release: dict) -> str:
    onnx_file, names = _onnx_file(release), release["metrics"]["class_names"]
    if onnx_file is None:
        return "This run has no ONNX file."
    return SNIPPET.substitute(
        num_classes=len(names),
        side={**default(), **release["run"]["config"]}["image_side"],
        class_names=names,
        path=repr(onnx_file["path"]),
        scores=_scores(release["metrics"]["model_id"]),
    )


def _scores(model_id: str) -> str:
    """What a network's scores are."""
    # The one capsule network that ends in a softmax.
    if "capsule" not in model_id or model_id == "mnist_hvc_capsule_v1":
        return "probabilities, which sum to one"
    return "lengths of capsules, from 0 to 1, which do not sum to one"


def _onnx_file(release: dict) -> dict[str, Any] | None:
    return (release["verification"] or {"files": {}})["files"].get("onnx")


def _command(config: dict) -> str:
    """Every key that can change the model, so that it stands when a default changes."""
    arguments = [
        f"--config.{key}={shlex.quote(str(value))}"
        for key, value in config.items()
        if key not in keys_that_change(Changes.PLACE, Changes.OUTPUT)
    ]
    return " \\\n  ".join(["scripts/train", *arguments])


def _interval(interval_95: list[float] | None) -> str:
    return "" if interval_95 is None else f"{interval_95[0]:.4f} to {interval_95[1]:.4f}"


def _difference(row: dict) -> str:
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
