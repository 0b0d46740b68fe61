"""Several seeds in one run: what each reaches, which one is released, resuming in the middle."""

import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from mnist_jax import data, models, train
from mnist_jax.models.network import take_apart
from mnist_jax.training import seeds
from mnist_jax.training.checkpoint import load_released

TINY = Path(__file__).parent / "tiny.py"


def go(folder, name, *flags):
    return train.main(
        [
            *("-q", f"--model-id={TINY}:Tiny", "--skip-export"),
            *("--dataset-id=digits_v1", "--batch-size=32", "--epochs=2"),
            *("--skip-visualizations", "--config.num_seeds=3", "--seed=5", *flags),
            *(f"--data-dir={folder / 'data'}", f"--output-dir={folder / name}"),
        ]
    )


def results(run):
    """What `seeds.json` says, without the times."""
    measured = json.loads((run / "logs" / "seeds.json").read_text())
    del measured["contents_sha256"]
    for row in measured["seeds"]:
        for key in ("seconds", "images_per_s"):
            assert row.pop(key) > 0
    return measured


def released_arrays(run):
    """The weights that are released, as bytes."""
    network = models.build(f"{TINY}:Tiny", num_classes=10, rngs=nnx.Rngs(0))
    _, *like = take_apart(network)
    return [leaf.tobytes() for leaf in jax.tree.leaves(load_released(run, *like))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    assert go(folder, "run") == 1  # without export it is no release
    return folder


def test_every_seed_has_its_row_and_the_mean_is_theirs(folder):
    measured = results(folder / "run")
    assert [row["seed"] for row in measured["seeds"]] == [5, 6, 7]
    for which in ("selected", "last"):
        errors = [100 - row[which]["test"]["num_correct"] / 3.6 for row in measured["seeds"]]
        figures = measured["test_error_percent"][which]
        assert figures["mean"] == pytest.approx(np.mean(errors))
        assert figures["std"] == pytest.approx(np.std(errors, ddof=1))
        interval = stats.ttest_1samp(errors, 0).confidence_interval(0.95)
        assert figures["interval_95"] == pytest.approx(list(interval))
        assert figures["n"] == 3
        areas = [row[which]["test"]["auc"] for row in measured["seeds"]]
        assert all(0.5 < area <= 1 for area in areas)
        assert measured["test_means"][which]["auc"]["mean"] == pytest.approx(np.mean(areas))


def test_a_seed_reaches_what_it_reaches_alone(folder):
    assert go(folder, "alone", "--config.num_seeds=1", "--seed=6") == 1
    alone = json.loads((folder / "alone" / "logs" / "metrics.json").read_text())
    row = results(folder / "run")["seeds"][1]["selected"]
    assert row["test"]["num_correct"] == alone["num_correct"]
    for name in ("balanced_accuracy", "macro_f1", "auc"):
        assert row["test"][name] == alone[name]
    assert row["epoch"] == alone["validation"]["epoch"]
    assert row["validation"]["num_correct"] == alone["validation"]["accuracy"] * 180
    assert not (folder / "alone" / "logs" / "seeds.json").exists()


def test_the_released_seed_is_the_best_on_validation(folder):
    measured, run = results(folder / "run"), folder / "run"
    metrics, history = (
        json.loads((run / "logs" / f"{name}.json").read_text()) for name in ("metrics", "history")
    )
    (released,) = (r for r in measured["seeds"] if r["seed"] == measured["released_seed"])
    best = max(row["selected"]["validation"]["num_correct"] for row in measured["seeds"])
    assert released["selected"]["validation"]["num_correct"] == best
    assert released["selected"]["test"]["num_correct"] == metrics["num_correct"]
    assert released["selected"]["epoch"] == history["best_epoch"]
    assert json.loads((run / "logs" / "release.json").read_text())["seeds"]["seeds"]
    card = (run / "model_card" / "mnist_model_card.md").read_text()
    assert f"Of 3 seeds, number {measured['released_seed']} is released" in card
    figures = measured["test_error_percent"]["last"]
    assert f"| last | {figures['mean']:.3f} | {figures['std']:.3f} |" in card


def test_of_equals_on_validation_the_smaller_loss_then_the_smaller_seed_is_released():
    def history(accuracy, loss):
        rows = [{"validation_accuracy": accuracy, "validation_loss": loss}]
        return {"best_epoch": 1, "epochs": rows}

    assert seeds.best_on_validation([history(0.8, 1), history(0.9, 3), history(0.9, 2)]) == 2
    assert seeds.best_on_validation([history(0.8, 1), history(0.9, 2), history(0.9, 2)]) == 1


class StopAfter(logging.Handler):
    def __init__(self, line):
        super().__init__(logging.INFO)
        self.line = line

    def emit(self, record):
        if self.line in record.getMessage():
            raise KeyboardInterrupt


@pytest.mark.parametrize("line", ["seed 6: epoch 1/2", "seed 6: epoch 2/2", "test accuracy"])
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(folder, tmp_path, line, capfd):
    logger, handler = logging.getLogger("mnist_jax"), StopAfter(line)
    logger.addHandler(handler)
    try:
        assert go(tmp_path, "run") == 130
    finally:
        logger.removeHandler(handler)
    assert "interrupted; the same flags" in capfd.readouterr().err
    assert go(tmp_path, "run") == 1
    assert results(tmp_path / "run") == results(folder / "run")
    assert released_arrays(tmp_path / "run") == released_arrays(folder / "run") != []
    log = (tmp_path / "run" / "pipeline.log").read_text()
    assert "seed 5: resuming after epoch 2" in log
    assert not (tmp_path / "run" / "models" / "training").exists()


def test_the_test_split_is_read_once_after_all_training(folder, tmp_path, monkeypatch):
    log = []
    read = data.read
    monkeypatch.setattr(
        data, "read", lambda dataset, split, *side: log.append(split) or read(dataset, split, *side)
    )
    logger, handler = logging.getLogger("mnist_jax"), logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())
    logger.addHandler(handler)
    try:
        assert go(tmp_path, "run") == 1
    finally:
        logger.removeHandler(handler)
    assert log.count("test") == 1
    trainings = [index for index, line in enumerate(log) if "epoch 2/2" in line]
    assert len(trainings) == 3
    assert max(trainings) < log.index("test")
