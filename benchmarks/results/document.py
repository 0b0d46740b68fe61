"""`docs/results.md` and the table of the README, written from `docs/results.json`."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results.results import TEST_DATA, groups, mean_error, say_recipe, table
from mnist_jax.config import load_recipe

Row = Mapping[str, Any]

RUN_ALL = "scripts/reproduce --run all --output-dir RUNS"
RUN_ROBUSTNESS = "scripts/reproduce --run robustness --output-dir RUNS"
HEAD = f"""\
# Results

Written by `scripts/reproduce` from the JSON files of runs, by way of
[results.json](results.json), and from [published.json](published.json), which names its sources.
Nothing here is typed by hand.

Error in % of the test split: mean ± standard deviation over n seeds. The test split is read once,
after the epoch was chosen on a validation slice of the train set ("chosen"); "last" is the last
epoch, which needs no choice. Where a published number was chosen on the test set, it is too good
by about 0.06 points on MNIST, as the logs of one group of authors show. One standard error of
10,000 test images at 0.25 % is 0.05 points.

Seconds and latencies are the runs' own, and other work may have shared their machine; what an idle
one does is among the [benchmarks](benchmarks.md).

All full recipes, in one command: `{RUN_ALL}`. What capsules are for: `{RUN_ROBUSTNESS}`.
The recipes for pictures of your own are measured in [own.md](own.md).
"""
NOT_RUN = """\
**Not yet run in full**: {names}. What was run instead stands below, with what was changed in the
recipe.
"""
README_BEGIN = "<!-- written by scripts/reproduce, from docs/results.json -->"
README_END = "<!-- end of what scripts/reproduce writes -->"


def render(
    rows: Sequence[Row],
    published: Mapping[str, Sequence[Mapping[str, str]]],
    choices: Mapping[str, Any] | None,
    recipes_dir: Path,
) -> str:
    """Returns `docs/results.md`.

    Args:
        rows: of `docs/results.json`.
        published: `docs/published.json`.
        choices: `docs/capsule_choices.json`, if there is one.
        recipes_dir: `configs/`.
    """
    parts = [HEAD]
    complete = {row["recipe"] for row in rows if row["kind"] == "training" and not row["changes"]}
    of_published_data = [
        path.name for path in sorted(recipes_dir.glob("*.py")) if not load_recipe(path).data
    ]
    missing = [name for name in of_published_data if name not in complete]
    if missing:
        parts.append(NOT_RUN.format(names=", ".join(f"`{name}`" for name in missing)))
    for dataset_id, title in TEST_DATA.items():
        part = [group for group in groups(rows, "training") if group[0]["dataset_id"] == dataset_id]
        if part:
            parts.append(f"## {title}\n\n{_training(part, published)}\n")
    parts.append(_robustness(groups(rows, "robustness")))
    parts.append(_multi_mnist(groups(rows, "multi_mnist")))
    if choices is not None:
        parts.append(_choices(choices))
    return "\n".join(part for part in parts if part)


def _training(
    part: Iterable[Sequence[Row]], published: Mapping[str, Sequence[Mapping[str, str]]]
) -> str:
    """One line for each recipe as it was run, and below them what others have published."""
    lines, numbers = [], {}
    for group in part:
        first = group[0]
        numbers[f"{first['model_id']} on {first['dataset_id']}"] = None
        lines.append(
            (
                *(first["model_id"], say_recipe(first), mean_error(group)),
                *(mean_error(group, "num_correct_last_epoch"), len(group), first["num_epochs"]),
                f"{statistics.median(row['seconds_per_epoch'] for row in group):,.1f}",
                f"{first['num_parameters']:,}",
                *_file(group),
                first["machine"],
            )
        )
    header = (
        "model|recipe|error %, chosen|last|n|epochs|s an epoch|parameters|ONNX, MB|p50, ms|p90, ms"
        "|machine"
    )
    parts = [table(header, lines)]
    others = [
        (name.partition(" on ")[0], *(row[key] for key in ("error_percent", "selection", "source")))
        for name in numbers
        if name in published
        for row in published[name]
    ]
    if others:
        parts.append("Published:\n\n" + table("model|error %|how it was chosen|source", others))
    return "\n\n".join(parts)


def _file(group: Sequence[Row]) -> tuple[str, str, str]:
    """Returns the size and the latencies of the ONNX files; medians over the seeds."""

    def median(key: str, scale: float, digits: int) -> str:
        values = [row[key] for row in group if row[key] is not None]
        return f"{scale * statistics.median(values):.{digits}f}" if values else ""

    return median("onnx_bytes", 1e-6, 2), median("p50_ms", 1.0, 2), median("p90_ms", 1.0, 2)


def _size_and_p90(group: Sequence[Row]) -> tuple[tuple[str, str], tuple[str, str]]:
    size, _, p90 = _file(group)
    return (size, "MB"), (p90, "ms")


def _robustness(measured: Iterable[Sequence[Row]]) -> str:
    """Accuracy under each challenge; a model beside its CNN of matched size."""
    lines = []
    for group in measured:
        row = group[0]
        by_angle = {c["degrees"]: c["accuracy"] for c in row["challenges"] if "degrees" in c}
        by_name = {c["name"]: c["accuracy"] for c in row["challenges"]}
        turned = [f"{by_angle[a]:.3f} / {by_angle[-a]:.3f}" for a in (15, 30, 45, 60, 90)]
        others = [f"{by_name[n]:.3f}" if n in by_name else "" for n in ("placed", "affine")]
        n = row["challenges"][0]["num_examples"]
        wrong = sum(challenge["num_disagreements"] for challenge in row["challenges"])
        lines.append(
            (
                *(
                    row["model_id"],
                    say_recipe(row),
                    row["num_epochs"],
                    f"{row['num_parameters']:,}",
                ),
                *(f"{n:,}", f"{by_angle[0]:.3f}", *turned, *others, "no" if wrong else "yes"),
            )
        )
    if not lines:
        return ""
    header = (
        "model|recipe|epochs|parameters|n|upright|±15°|±30°|±45°|±60°|±90°|placed|affine"
        "|file as JAX"
    )
    return f"""\
## Turned and distorted digits

`scripts/robustness RUN_DIR`. Accuracy on test images that are turned counter-clockwise /
clockwise; on a canvas of 40x40 pixels also at random places, as in training, and under random
affine transformations with affNIST's ranges, which training did not show. n images; the 95 %
interval of 0.95 is ± 0.004 at 10,000. Efficient-CapsNet's and the homogeneous vector capsules' own
recipes turn digits by up to 30 degrees in training: turns compare architectures only where the
recipes agree in that.

{table(header, lines)}
"""


def _multi_mnist(measured: Iterable[Sequence[Row]]) -> str:
    lines = [
        (
            *(group[0]["model_id"], say_recipe(group[0]), mean_error(group), len(group)),
            *(group[0]["num_epochs"], f"{group[0]['num_parameters']:,}"),
            f"{group[0]['num_examples']:,}",
            "no" if any(row["num_disagreements"] for row in group) else "yes",
        )
        for group in measured
    ]
    if not lines:
        return ""
    header = "model|recipe|error %|n|epochs|parameters|pairs|file as JAX"
    return f"""\
## Overlapping digits (MultiMNIST)

`scripts/multimnist`. An answer is right where both labels are. Sabour et al. report 5.2 % for 3
routing iterations and 8.1 % for a CNN (from memory, not checked against the text), after far
longer training.

{table(header, lines)}
"""


def _choices(choices: Mapping[str, Any]) -> str:
    """What the choices of `mnist_capsule_v1` do in the first steps."""
    num = choices["num_validation"]
    lines = []
    for choice in choices["choices"]:
        runs = choice["runs"]
        if not runs:
            continue
        by_epoch = zip(*(run["num_wrong"] for run in runs), strict=True)
        errors = [[100 * wrong / num for wrong in epoch] for epoch in by_epoch]
        shown = [
            f"{statistics.fmean(epoch):.1f}"
            + (f" ± {statistics.stdev(epoch):.1f}" if len(runs) > 1 else "")
            for epoch in errors
        ]
        lines.append((choice["name"], len(runs), *shown))
    num_epochs = len(choices["choices"][0]["runs"][0]["num_wrong"])
    header = "choice|n|" + "|".join(f"epoch {epoch}" for epoch in range(1, num_epochs + 1))
    return f"""\
## The choices of `mnist_capsule_v1`

`{choices["command"]}`. One choice at a time departs from the default. Error in % on {num:,}
validation images, mean ± standard deviation over n seeds, after each pass over
{choices["num_train"]:,} images of MNIST ({choices["num_steps"]} steps of {choices["batch_size"]}
in all). This shows how fast learning begins and that each choice trains; it cannot tell which of
them ends lower, which is a matter of tenths of a point after a hundred epochs.

{table(header, lines)}
"""


def readme_table(rows: Sequence[Row]) -> str:
    """Returns the README's table: recipes run as they are on built-in data, the best first."""

    def place(group: Sequence[Row]) -> tuple[int, float]:
        accuracies = [row["num_correct"] / row["num_examples"] for row in group]
        return list(TEST_DATA).index(group[0]["dataset_id"]), -statistics.fmean(accuracies)

    full = [
        group
        for group in groups(rows, "training")
        if not group[0]["changes"] and group[0]["dataset_id"] in TEST_DATA
    ]
    lines = [
        (
            say_recipe(group[0]),
            mean_error(group),
            len(group),
            f"{group[0]['num_examples']:,}",
            *(" ".join(value) for value in _size_and_p90(group)),
        )
        for group in sorted(full, key=place)
    ]
    header = "recipe|test error, %|seeds|test images|ONNX file|p90 of one image, one thread"
    return table(header, lines)


def with_table(readme: str, rows: Sequence[Row]) -> str:
    """Returns the README with its table written again."""
    before, _, rest = readme.partition(README_BEGIN)
    _, _, after = rest.partition(README_END)
    return f"{before}{README_BEGIN}\n\n{readme_table(rows)}\n\n{README_END}{after}"
