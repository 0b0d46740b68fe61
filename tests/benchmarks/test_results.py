"""The results that the documents show come from figures of runs, and are up to date."""

import json
import shutil
import statistics
from pathlib import Path

import pytest

from benchmarks.results import __main__ as reproduce
from benchmarks.results import document as results_document
from benchmarks.results import results
from mnist_jax import config
from mnist_jax.config.flags import parse
from mnist_jax.files import read_json

ROOT = Path(__file__).parents[2]
ROWS = results.with_recipes(read_json(reproduce.RESULTS)["rows"], reproduce.RECIPES)


def training(seed=0, num_correct=9900, **changed):
    """A row as `of_run` gives it."""
    row = {
        "kind": "training",
        "model_id": "mnist_cnn_v1",
        "dataset_id": "mnist_v1",
        "recipe": "mnist_cnn_v1.py",
        "changes": {},
        "seed": seed,
        "num_epochs": 5,
        "num_examples": 10_000,
        "num_correct": num_correct,
        "num_correct_last_epoch": None,
        "seconds_per_epoch": 30.0,
        "num_parameters": 1_199_882,
        "machine": "a CPU",
        "onnx_bytes": 4_800_000,
        "p50_ms": 0.3,
        "p90_ms": 0.4,
        "config": {},
    }
    return row | changed


def test_the_document_is_what_the_figures_make_of_it():
    choices = read_json(reproduce.CHOICES) if reproduce.CHOICES.exists() else None
    published = read_json(reproduce.PUBLISHED)
    text = results_document.render(ROWS, published, choices, reproduce.RECIPES)
    assert reproduce.DOCUMENT.read_text(encoding="utf-8") == text, "run scripts/reproduce"


def test_the_readmes_table_is_what_the_figures_make_of_it():
    readme = reproduce.README.read_text(encoding="utf-8")
    assert results_document.with_table(readme, ROWS) == readme, "run scripts/reproduce"
    assert results_document.readme_table(ROWS) in readme


def test_recipes_quote_the_accuracy_that_was_measured():
    for group in results.groups(ROWS, "training"):
        if not group[0]["changes"] and len(group) > 1:
            accuracies = [row["num_correct"] / row["num_examples"] for row in group]
            mean, std = statistics.fmean(accuracies), statistics.stdev(accuracies)
            recipe = (reproduce.RECIPES / group[0]["recipe"]).read_text()
            assert f"{mean:.4f} ± {std:.4f} ({len(group)} seeds" in recipe


def test_every_published_number_names_its_source_and_a_model_that_is_here():
    for name, numbers in read_json(reproduce.PUBLISHED).items():
        model_id, dataset_id = name.split(" on ")
        assert model_id in config.MODELS and dataset_id in config.DATASET_IDS
        for row in numbers:
            assert set(row) == {"error_percent", "selection", "source"} and all(row.values())


def test_a_run_on_own_pictures_is_its_recipes_wherever_they_lay():
    recipe = config.load_recipe(reproduce.RECIPES / "sign_language_digits.py").to_dict()
    environment = {"device_kind": "cpu", "num_devices": 1, "cpu": "a CPU", "git_commit": None}
    environment["versions"] = {"jax": "1", "onnxruntime": "2"}
    run = {
        "config": {**recipe, "data": "elsewhere/hands"},
        "config_hash": "ab",
        "dataset": {"dataset_id": "own_hands"},
        "environment": environment,
    }
    row = training() | results._trained(run, [{"seconds": 1.0}])
    (found,) = results.with_recipes([row], reproduce.RECIPES)
    assert (found["recipe"], found["changes"]) == ("sign_language_digits.py", {})
    assert found["dataset_id"] == "own_hands"
    assert "sign_language_digits" not in reproduce.trainings("all", 1)
    assert "digits_cnn_v1" in reproduce.trainings("all", 1)


def test_mean_and_deviation_are_over_seeds():
    rows = [training(0, 9900), training(1, 9920), training(2, 9940)]
    assert results.mean_error(rows) == "0.80 ± 0.20"
    assert results.mean_error(rows[:1]) == "1.00"
    assert results.mean_error(rows, "num_correct_last_epoch") == ""


def test_a_run_made_again_takes_the_place_of_the_older_one():
    old, new = training(0, 9900), training(0, 9950)
    merged = results.merge([old, training(1)], [new])
    assert len(merged) == 2 and new in merged and old not in merged
    newer_keys = training(0, 9960, config={"image_side": 0, "seed": 7})
    assert len(results.merge(merged, [newer_keys])) == 2
    assert len(results.merge(merged, [training(0, config={"image_side": 40})])) == 3
    elsewhere = training(0, 9950, machine="a GPU")
    assert len(results.merge(merged, [elsewhere])) == 3
    assert len(results.groups([*merged, elsewhere], "training")) == 2


def test_shortened_runs_say_what_was_changed():
    short = training(recipe="mnist_cnn_v1.py", changes={"epochs": 1})
    text = results_document.render([short], {}, None, reproduce.RECIPES)
    assert "**Not yet run in full**" in text and "`mnist_cnn_v1.py`" in text
    assert "`pneumonia_mnist.py`" not in text  # docs/own.md has it
    full = [training(recipe=path.name) for path in reproduce.RECIPES.glob("*.py")]
    assert "Not yet run" not in results_document.render(full, {}, None, reproduce.RECIPES)


def test_the_readme_has_full_runs_alone_the_best_of_each_data_set_first():
    rows = [
        training(recipe="digits_cnn_v1.py", dataset_id="digits_v1", num_correct=9990),
        training(recipe="mnist_cnn_fast_v1.py", num_correct=9900),
        training(recipe="mnist_capsule_v1.py", num_correct=9950, changes={"epochs": 1}),
        training(num_correct=9910),
        training(recipe="sign_language_digits.py", dataset_id="own_hands"),
    ]
    named = [line.split("`")[1] for line in results_document.readme_table(rows).splitlines()[2:]]
    recipes = ("mnist_cnn_v1.py", "mnist_cnn_fast_v1.py", "digits_cnn_v1.py")
    assert named == [f"configs/{recipe}" for recipe in recipes]


def test_a_run_is_compared_with_the_recipe_that_is_nearest():
    run = {**config.default().to_dict(), "epochs": 1, "seed": 3, "output_dir": "elsewhere"}
    before_a_key_was_there = {key: run[key] for key in run if key != "image_side"}
    as_published = {"batch_size": 128, "schedule_id": "exponential", "augment_shift_px": 2}
    capsules = {**run, "model_id": "mnist_capsule_v1", **as_published}
    rows = [training(config=of_run) for of_run in (run, before_a_key_was_there, capsules)]
    found = results.with_recipes(rows, reproduce.RECIPES)
    named = [(row["recipe"], row["changes"]) for row in found]
    assert named[:2] == [("mnist_cnn_v1.py", {"epochs": 1})] * 2
    assert named[2][0] == "mnist_capsule_v1.py" and named[2][1]["epochs"] == 1


def test_several_seeds_of_one_run_become_a_row_each(tmp_path):
    environment = {
        "device_kind": "NVIDIA H200",
        "num_devices": 1,
        "cpu": "c",
        "git_commit": None,
        "versions": {"jax": "1", "onnxruntime": "2"},
    }
    run = {"config": config.default().to_dict(), "config_hash": "h", "environment": environment}
    counts = [(9_950, 9_940), (9_960, 9_970)]
    seeds = [
        {
            "seed": seed,
            "seconds": 100.0,
            "selected": {"test": {"num_correct": selected, "num_examples": 10_000}},
            "last": {"epoch": 5 - seed, "test": {"num_correct": last, "num_examples": 10_000}},
        }
        for seed, (selected, last) in enumerate(counts)
    ]
    files = {
        "release": {
            "run": run,
            "metrics": {"num_parameters": 7, "num_examples": 10_000, "num_correct": 9_960},
            "verification": None,
        },
        "history": {"best_epoch": 1, "epochs": [{"seconds": 50.0}] * 5},
        "seeds": {"seeds": seeds},
    }
    (tmp_path / "logs").mkdir()
    for name, contents in files.items():
        (tmp_path / "logs" / f"{name}.json").write_text(json.dumps(contents))
    rows = results.of_run(tmp_path)
    assert [row["seed"] for row in rows] == [0, 1]
    assert results.mean_error(rows) == "0.45 ± 0.07"
    assert results.mean_error(rows, "num_correct_last_epoch") == "0.45 ± 0.21"
    assert rows[0]["seconds_per_epoch"] == 20.0  # 100 s, 5 epochs
    assert rows[1]["seconds_per_epoch"] == 25.0  # of 4, after which patience ended it
    assert rows[0]["num_epochs"] == 5
    assert rows[0]["machine"] == "1 x NVIDIA H200"


@pytest.mark.parametrize("what", ["all", "robustness"])
def test_every_training_of_a_plan_has_flags_that_are_understood(what):
    from datetime import datetime

    plan = reproduce.trainings(what, num_seeds=1)
    for module, *flags in plan.values():
        settings = parse([*flags, "--output-dir=x"], {}, datetime.now())
        assert module in ("train", "multimnist") and settings is not None
    if what == "all":
        recipes = {path: config.load_recipe(path) for path in reproduce.RECIPES.glob("*.py")}
        assert set(plan) == {path.stem for path, recipe in recipes.items() if not recipe.data}


@pytest.mark.slow  # 20 s
def test_one_command_trains_measures_and_writes_the_documents(tmp_path, monkeypatch, capsys):
    recipes, docs = tmp_path / "configs", tmp_path / "docs"
    recipes.mkdir()
    docs.mkdir()
    shutil.copy(ROOT / "configs" / "digits_cnn_v1.py", recipes)
    shutil.copy(ROOT / "docs" / "published.json", docs)
    shutil.copy(ROOT / "README.md", tmp_path)
    for name in ("RESULTS", "PUBLISHED", "CHOICES", "DOCUMENT"):
        monkeypatch.setattr(reproduce, name, docs / getattr(reproduce, name).name)
    monkeypatch.setattr(reproduce, "README", tmp_path / "README.md")
    monkeypatch.setattr(reproduce, "RECIPES", recipes)
    flags = [f"--data-dir={tmp_path / 'data'}", "--epochs=1", "--skip-visualizations", "-q"]
    arguments = ["--run=all", "--num-seeds=1", f"--output-dir={tmp_path / 'runs'}", "--", *flags]
    assert reproduce.main(arguments) == 0
    metrics = read_json(tmp_path / "runs" / "digits_cnn_v1" / "logs" / "metrics.json")
    (row,) = read_json(docs / "results.json")["rows"]
    assert (row["num_correct"], row["num_examples"]) == (metrics["num_correct"], 360)
    assert row["config"]["epochs"] == 1 and row["num_parameters"] == 1_199_882
    assert (
        row["onnx_bytes"]
        == (tmp_path / "runs/digits_cnn_v1/models/mnist_model.onnx").stat().st_size
    )
    error = f"{100 * (1 - metrics['accuracy']):.2f}"
    line = f"`configs/digits_cnn_v1.py` with epochs 1 | {error}"
    assert line in (docs / "results.md").read_text()
    assert line not in (tmp_path / "README.md").read_text()  # it is not the full recipe
    before = (docs / "results.md").read_bytes()
    assert reproduce.main(arguments) == 0  # nothing is trained twice
    assert (docs / "results.md").read_bytes() == before


def test_a_plan_without_a_place_and_a_folder_without_a_run_are_mistakes(tmp_path, capsys):
    assert reproduce.main(["--run=all"]) == 2
    assert "--output-dir" in capsys.readouterr().err
    assert reproduce.main([str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
