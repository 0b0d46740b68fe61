"""The test split is read once, after the epoch was chosen, and nothing before depends on it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mnist_jax import data, pipeline, train
from mnist_jax.data import arrays
from mnist_jax.training import checkpoint

FLAGS = [
    f"--model-id={Path(__file__).parent / 'training' / 'tiny.py'}:Tiny",
    *("-q", "--dataset-id=digits_v1", "--epochs=2", "--batch-size=64"),
    *("--skip-export", "--skip-visualizations"),  # so the accuracy refuses nothing: exit status 1
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The digits on disk, as a run before has left them."""
    folder = tmp_path_factory.mktemp("data")
    return SimpleNamespace(folder=folder, dataset=data.prepare("digits_v1", folder, None))


def go(folder, data_dir):
    assert train.main([*FLAGS, f"--data-dir={data_dir}", f"--output-dir={folder / 'run'}"]) == 1
    return folder / "run"


def logged(run, name):
    return json.loads((run / "logs" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def watched(prepared, tmp_path_factory):
    """A run, and the order in which it decoded arrays of the test split and chose its epoch."""
    test, events = data.read(prepared.dataset, "test"), []
    real_load, real_save = np.load, checkpoint.save_released

    def load(*arguments, **options):
        """Knows the test split by what it holds, whoever reads it and from where."""
        array = real_load(*arguments, **options)
        for kind, of_test in test._asdict().items():
            if np.array_equal(array, of_test):
                events.append(f"test {kind}")
        return array

    def save_released(*arguments, **options):
        events.append("epoch chosen")
        return real_save(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "load", load)
        patch.setattr(checkpoint, "save_released", save_released)
        run = go(tmp_path_factory.mktemp("watched"), prepared.folder)
    return SimpleNamespace(run=run, events=events)


def test_the_test_split_is_read_once_and_after_the_choice(watched):
    assert watched.events == ["epoch chosen", "test images", "test labels"]


def with_another_test_split(prepared, folder):
    """The same train and validation split, and noise for a test split."""
    shutil.copytree(prepared.folder, folder / "data")
    place = folder / "data" / prepared.dataset.folder.relative_to(prepared.folder)
    splits = {name: data.read(prepared.dataset, name) for name in ("train", "validation", "test")}
    random, num_test = np.random.default_rng(0), len(splits["test"].labels)
    splits["test"] = data.Split(
        random.integers(0, 256, (num_test, 28, 28), np.uint8),
        random.permutation(splits["test"].labels),
    )
    shutil.rmtree(place)
    arrays.write(place, splits)
    return folder / "data"


def weights(run, dataset):
    trained = pipeline.load_trained(logged(run, "config")["config"], dataset, run)
    return jax.tree.leaves((trained.params, trained.model_state))


def history(run):
    rows = logged(run, "history")["epochs"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in rows]


def test_another_test_split_changes_no_weight_and_no_epoch(watched, prepared, tmp_path):
    run = go(tmp_path, with_another_test_split(prepared, tmp_path))
    assert logged(run, "metrics")["accuracy"] < 0.3 < logged(watched.run, "metrics")["accuracy"]
    assert history(run) == history(watched.run)
    pairs = zip(*(weights(where, prepared.dataset) for where in (run, watched.run)), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
