"""`scripts/reproduce`: runs the recipes, and writes docs/results.md from what runs have measured.

    scripts/reproduce                            docs/results.md and the README's table, again
    scripts/reproduce RUN_DIR ...                with the figures of these runs added
    scripts/reproduce --run all --output-dir D   every recipe of published data in full, into D,
                                                 and then both
    scripts/reproduce --run robustness --output-dir D   what capsules are for
    scripts/reproduce --run all --output-dir D -- --epochs 1   with flags for every training

A training that has finished before is not made again.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import document as results_document
from benchmarks.results import results
from mnist_jax import command
from mnist_jax.config import load_recipe
from mnist_jax.errors import UserError
from mnist_jax.files import read_json, write_json, write_text
from mnist_jax.run import folder as run_folder

ROOT = Path(__file__).parents[2]
RESULTS, PUBLISHED = ROOT / "docs" / "results.json", ROOT / "docs" / "published.json"
CHOICES, DOCUMENT = ROOT / "docs" / "capsule_choices.json", ROOT / "docs" / "results.md"
README, RECIPES = ROOT / "README.md", ROOT / "configs"

# A model, its recipe and, beside it, a CNN of its size.
ROUTED = {
    "mnist_capsule_v1": "mnist_sabour_cnn_v1",
    "mnist_efficient_capsule_v1": "mnist_efficient_cnn_v1",
}
ON_CANVAS = (
    *("--config.image_side=40", "--config.augment_id=shift_and_rotate"),
    *("--config.augment_shift_px=6", "--epochs=20"),
)


def trainings(what: str, num_seeds: int) -> dict[str, tuple[str, ...]]:
    """Returns the trainings of a plan: a folder's name to a command and its flags."""
    seeds = (f"--config.num_seeds={num_seeds}",) if num_seeds > 1 else ()
    if what == "all":
        return {
            path.stem: ("train", f"--config={path}", *seeds)
            for path in sorted(RECIPES.glob("*.py"))
            if not load_recipe(path).data  # pictures of the user's own may not be there
        }
    plan = {}
    for model_id, cnn_id in ROUTED.items():
        recipe = f"--config={RECIPES / model_id}.py"
        as_cnn = (f"--model-id={cnn_id}", "--criterion-id=nll")
        for name, flags in ((model_id, ()), (cnn_id, as_cnn)):
            plan[f"canvas_{name}"] = ("train", recipe, *ON_CANVAS, *flags)
            plan[f"pairs_{name}"] = ("multimnist", recipe, "--epochs=20", *flags)
    return plan


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the documents are written, 2 on a mistake."""
    parser = command.Parser("scripts/reproduce", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("rest", nargs="*", help="folders of runs; with --run: flags, after --")
    parser.add_argument("--run", choices=("all", "robustness"), help="what to train first")
    parser.add_argument("--output-dir", "--output_dir", type=Path, help="where trainings go")
    parser.add_argument("--num-seeds", "--num_seeds", type=int, default=5, help="of each recipe")
    return command.run(parser, arguments, _act)


def _act(options: argparse.Namespace) -> int:
    if options.run is not None:
        if options.output_dir is None:
            raise UserError("--run needs --output-dir, the folder that the runs go into; give one")
        folders = run_all(options.run, options.num_seeds, options.output_dir, options.rest)
    else:
        folders = [Path(name) for name in options.rest]
    rows = read_json(RESULTS)["rows"] if RESULTS.exists() else []
    new = [row for folder in folders for row in results.of_run(folder)]
    rows = results.merge(rows, new)
    if new:
        write_json(RESULTS, {"rows": rows})
    rows = results.with_recipes(rows, RECIPES)
    choices = read_json(CHOICES) if CHOICES.exists() else None
    text = results_document.render(rows, read_json(PUBLISHED), choices, RECIPES)
    write_text(DOCUMENT, text)
    write_text(README, results_document.with_table(README.read_text(encoding="utf-8"), rows))
    print(f"{len(new)} rows added, {len(rows)} in all; wrote {DOCUMENT} and the table of {README}")
    return 0


def run_all(what: str, num_seeds: int, output_dir: Path, flags: Sequence[str]) -> list[Path]:
    """Trains what is not there yet, one after another, each in a process; returns the folders.

    Raises:
        UserError: a training or a measurement ends with a mistake.
    """
    folders, start = [], time.perf_counter()
    for name, (called, *arguments) in trainings(what, num_seeds).items():
        folder = output_dir / name
        folders.append(folder)
        if run_folder.is_finished(folder) or (folder / results.MULTI_MNIST).is_file():
            continue
        _call(called, *arguments, f"--output-dir={folder}", *flags)
        print(f"{name}: done {time.perf_counter() - start:,.0f} s after the start", flush=True)
    for folder in folders:
        if what == "robustness" and run_folder.is_finished(folder):
            _call("robustness", str(folder))
    return folders


def _call(name: str, *arguments: str) -> None:
    """Runs a command of this package; a refused release is a result like any other."""
    done = subprocess.run([sys.executable, "-P", "-m", "mnist_jax", name, *arguments])
    if done.returncode not in (0, 1):
        given = " ".join([name, *arguments])
        raise UserError(f"{given} ended with status {done.returncode}; see above, and begin again")


if __name__ == "__main__":
    command.run_as_program(main)
