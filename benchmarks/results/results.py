"""From the JSON files of runs to `docs/results.json`, and from there to `docs/results.md`.

`docs/results.json` keeps of each run what the document needs, so that anyone can write it again
without the runs. Published numbers stand in `docs/published.json`, with their sources.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_jax.config import Changes, default, keys_that_change, load_recipe
from mnist_jax.errors import UserError
from mnist_jax.files import read_json
from mnist_jax.run import folder as run_folder
from mnist_jax.run import paths

MULTI_MNIST = "logs/multi_mnist.json"
SEEDS = "logs/seeds.json"  # of a run with several seeds
# Keys of a configuration that tell nothing about how the network was trained.
NOT_TRAINING = (
    *keys_that_change(Changes.PLACE, Changes.OUTPUT, Changes.VERDICT),
    "seed",
    "num_seeds",
    "data",  # a path; what it holds is the data set's id
)
TEST_DATA = {"mnist_v1": "MNIST", "fashion_mnist_v1": "Fashion-MNIST", "kmnist_v1": "KMNIST"}
TEST_DATA |= {"digits_v1": "Embedded digits"}


def of_run(run_dir: Path) -> list[dict[str, Any]]:
    """Returns what the document needs of a run: a row for each seed, and what else was measured.

    Raises:
        UserError: the folder holds no finished run.
    """
    if (run_dir / MULTI_MNIST).is_file():
        figures = read_json(run_dir / MULTI_MNIST)
        run = figures["run"]
        kept = ("num_examples", "num_correct", "num_correct_jax", "num_disagreements")
        row = {"kind": "multi_mnist", **{key: figures[key] for key in kept}}
        epochs = figures["epochs"]
        row |= {"num_parameters": figures["num_parameters"], "onnx_bytes": None, "p90_ms": None}
        return [row | _trained(run, epochs)]
    if not run_folder.is_finished(run_dir):
        raise UserError(f"{run_dir} holds no finished run; name the folders of finished ones")
    release = read_json(run_dir / paths.RELEASE)
    history = read_json(run_dir / paths.HISTORY)
    metrics, verification = release["metrics"], release["verification"]
    latency = (verification or {"latency": None})["latency"]
    file = (verification or {"files": {}})["files"].get("onnx")
    common = {
        "num_parameters": metrics["num_parameters"],
        "onnx_bytes": file["size_bytes"] if file else None,
        "p50_ms": latency["p50_ms"] if latency else None,
        "p90_ms": latency["p90_ms"] if latency else None,
        **_trained(release["run"], history["epochs"]),
    }
    rows = []
    if (run_dir / SEEDS).is_file():
        for of_seed in read_json(run_dir / SEEDS)["seeds"]:
            counts = {
                f"num_correct{suffix}": of_seed[which]["test"]["num_correct"]
                for which, suffix in (("selected", ""), ("last", "_last_epoch"))
            }
            rows.append(
                {
                    "kind": "training",
                    **common,
                    "seed": of_seed["seed"],
                    "num_examples": metrics["num_examples"],
                    **counts,
                    "seconds_per_epoch": of_seed["seconds"] / of_seed["last"]["epoch"],
                }
            )
    else:
        # Of a single run the test split is read once: for the epoch chosen, which can be the last.
        is_last = history["best_epoch"] == len(history["epochs"])
        last = metrics["num_correct"] if is_last else None
        counts = {"num_correct": metrics["num_correct"], "num_correct_last_epoch": last}
        rows.append(
            {"kind": "training", **common, "num_examples": metrics["num_examples"], **counts}
        )
    if (run_dir / paths.ROBUSTNESS).is_file():
        measured = read_json(run_dir / paths.ROBUSTNESS)["challenges"]
        rows.append({"kind": "robustness", **common, "challenges": measured})
    return rows


def _trained(run: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what was trained, on what machine and for how long."""
    config, environment = {**default().to_dict(), **run["config"]}, run["environment"]
    is_cpu = environment["device_kind"].lower() == "cpu"
    # Of the user's own pictures the configuration has a path alone.
    dataset_id = run["dataset"]["dataset_id"] if config["data"] else config["dataset_id"]
    devices = f"{environment['num_devices']} x {environment['device_kind']}"
    return {
        "model_id": config["model_id"],
        "dataset_id": dataset_id,
        "config": {
            **{key: config[key] for key in config if key not in NOT_TRAINING},
            "dataset_id": dataset_id,
        },
        "seed": config["seed"],
        "num_epochs": len(epochs),
        "seconds_per_epoch": statistics.median(row["seconds"] for row in epochs),
        "machine": environment["cpu"] if is_cpu else devices,
        "jax": environment["versions"]["jax"],
        "onnxruntime": environment["versions"]["onnxruntime"],
        "git_commit": environment["git_commit"],
        "config_hash": run["config_hash"],
    }


def with_recipes(rows: Iterable[Mapping[str, Any]], recipes_dir: Path) -> list[dict[str, Any]]:
    """Adds to each row the recipe that is nearest to its run: `recipe`, `changes`.

    It is found when the document is written, since a recipe may have changed after the run. The
    nearest is of the same network, of the same data, and has the fewest keys to change, in this
    order; `changes` are these, as the run had them. A key newer than the run has its default.
    """
    recipes = {path.name: load_recipe(path).to_dict() for path in sorted(recipes_dir.glob("*.py"))}
    found = []
    for row in rows:
        config = {**default().to_dict(), **row["config"]}
        is_own = row["dataset_id"] not in TEST_DATA
        differences = {
            name: {
                key: config[key]
                for key, value in recipe.items()
                if key not in NOT_TRAINING
                and config[key] != value
                # A recipe for pictures of the user's own names no data set.
                and not (key == "dataset_id" and is_own and recipe["data"])
            }
            for name, recipe in recipes.items()
        }

        def distance(name: str, differences: Mapping[str, Any] = differences) -> tuple[Any, ...]:
            changed = differences[name]
            return "model_id" in changed, "dataset_id" in changed, len(changed), name

        nearest = min(differences, key=distance)
        found.append({**row, "recipe": nearest, "changes": differences[nearest]})
    return sorted(found, key=_order)


def merge(known: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds new rows; one of the same configuration and machine takes the older one's place."""

    def identity(row):
        # With the defaults: what a newer key does by default, an older run has done without it.
        config = {**default().to_dict(), **row["config"]}
        trained = sorted((key, config[key]) for key in config if key not in NOT_TRAINING)
        return row["kind"], str(trained), row["machine"], row["seed"]

    rows = {identity(row): row for row in [*known, *new]}
    return [rows[key] for key in sorted(rows)]


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    datasets = tuple(TEST_DATA)
    is_known = row["dataset_id"] in datasets
    return (
        row["kind"],
        datasets.index(row["dataset_id"]) if is_known else len(datasets),
        row["dataset_id"],
        row["model_id"],
        len(row["changes"]),
        str(row["changes"]),
        row["machine"],
        row["seed"],
    )


def groups(rows: Iterable[Mapping[str, Any]], kind: str) -> list[list[Mapping[str, Any]]]:
    """Puts together the rows that differ in nothing but the seed."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == kind:
            names = ("model_id", "dataset_id", "recipe", "changes", "machine")
            found.setdefault(str([row[name] for name in names]), []).append(row)
    return list(found.values())


def mean_error(rows: Sequence[Mapping[str, Any]], count: str = "num_correct") -> str:
    """Returns the error in % over seeds: mean, and standard deviation where there are several."""
    if any(row[count] is None for row in rows):
        return ""
    errors = [100 * (1 - row[count] / row["num_examples"]) for row in rows]
    mean = f"{statistics.fmean(errors):.2f}"
    return f"{mean} ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else mean


def say_recipe(row: Mapping[str, Any]) -> str:
    """Names a recipe, and what was changed in it."""
    changes = ", ".join(f"{key} {value}" for key, value in row["changes"].items())
    return f"`configs/{row['recipe']}`" + (f" with {changes}" if changes else "")


def table(header: str, rows: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table; the columns of the header are parted by bars."""
    lines = [header.split("|"), ["---"] * (header.count("|") + 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
