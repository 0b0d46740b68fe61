"""Several seeds in one run: what each reaches, which one is released, going on in the middle."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from mnist_jax import data, train
from mnist_jax import models
from mnist_jax.config import MODELS
from mnist_jax.training import seeds
from mnist_jax.models import network as network_module
from mnist_jax.training import state as state_module
from mnist_jax.training.checkpoint import load_released
from mnist_jax.training import losses
from mnist_jax.training.optimizers import make_optimizer
from mnist_jax.training.step import make_streams, make_train_steps, no_progress, shuffled


class Tiny(nnx.Module):
    """A network with the face of the others that compiles at once."""

    criteria = ("nll",)

    def __init__(self, *, num_classes, image_mean, image_std, image_side, rngs, dtype=None):
        self.dense = nnx.Linear(784, num_classes, rngs=rngs)

    def __call__(self, images, rngs=None):
        return self.dense(images.reshape(images.shape[0], -1))

    def scores_of(self, outputs):
        return jax.nn.softmax(outputs)


def go(folder, name, *flags):
    return train.main(
        [
            *("-q", "--dataset-id=digits_v1", "--batch-size=32", "--epochs=2", "--skip-export"),
            *("--skip-visualizations", "--config.num_seeds=3", "--seed=5", *flags),
            *(f"--data-dir={folder / 'data'}", f"--output-dir={folder / name}"),
        ]
    )


def results(run):
    """What `seeds.json` says, without the times."""
    measured = json.loads((run / "logs" / "seeds.json").read_text())
    del measured["contents_sha256"]
    for row in measured["seeds"]:
        for key in ("seconds", "images_per_s", "seeds_side_by_side"):
            assert row.pop(key) > 0
    return measured


def released_arrays(run):
    """The weights that are released, as bytes."""
    network = Tiny(num_classes=10, image_mean=0.0, image_std=1.0, image_side=28, rngs=nnx.Rngs(0))
    _, *like = network_module.take_apart(network)
    return [leaf.tobytes() for leaf in jax.tree.leaves(load_released(run, *like))]


@pytest.fixture(autouse=True)
def tiny(request, monkeypatch):
    if "real_networks" not in request.keywords:
        monkeypatch.setitem(MODELS, "mnist_cnn_v1", Tiny)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "mnist_cnn_v1", Tiny)
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


def test_a_seed_reaches_what_it_reaches_alone(folder):
    assert go(folder, "alone", "--config.num_seeds=1", "--seed=6") == 1
    alone = json.loads((folder / "alone" / "logs" / "metrics.json").read_text())
    row = results(folder / "run")["seeds"][1]["selected"]
    assert row["test"]["num_correct"] == alone["num_correct"]
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
    assert "go on" in capfd.readouterr().err
    assert go(tmp_path, "run") == 1
    assert results(tmp_path / "run") == results(folder / "run")
    assert released_arrays(tmp_path / "run") == released_arrays(folder / "run") != []
    log = (tmp_path / "run" / "pipeline.log").read_text()
    assert "seed 5: going on after epoch 2" in log
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


def test_side_by_side_the_seeds_reach_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # what a GPU would run
    assert go(tmp_path, "run") == 1
    assert results(tmp_path / "run") == results(folder / "run")
    log = (tmp_path / "run" / "pipeline.log").read_text()
    assert "seeds 5 to 7: epoch 2/2" in log


def test_on_a_gpu_seeds_train_in_groups_and_elsewhere_alone(monkeypatch):
    def groups(seed, num_seeds, mesh=1):
        return seeds.groups({"seed": seed, "num_seeds": num_seeds, "mesh": mesh})

    assert groups(3, 2) == [range(3, 4), range(4, 5)]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert groups(0, 35) == [range(16), range(16, 32), range(32, 35)]
    assert groups(3, 2, mesh=4) == [range(3, 4), range(4, 5)]
    assert seeds.describe(range(16, 32)) == "seeds 16 to 31"


@pytest.mark.real_networks
@pytest.mark.parametrize(
    "model_id",
    [
        "mnist_cnn_v1",
        pytest.param("mnist_efficient_capsule_v1", marks=pytest.mark.slow),
        pytest.param("mnist_hvc_capsule_v1", marks=pytest.mark.slow),
        pytest.param("mnist_capsule_v1", marks=pytest.mark.slow),
    ],
)
def test_steps_side_by_side_are_each_seeds_own_steps(model_id, monkeypatch):
    random = np.random.default_rng(0)
    images = jnp.array(random.integers(0, 256, (8, 28, 28), dtype=np.uint8))
    labels = jnp.array(random.integers(0, 10, 8, dtype=np.uint8))
    optimizer = make_optimizer("sgd", lambda _: 0.01, weight_decay=0.0, momentum=0.9)
    criterion = losses.find(MODELS[model_id).criteria[0]]
    settings = {"batch_size": 4, "augment": None, "reconstruction_weight": 0.001, "ema_decay": 0.5}

    def start(seed):
        streams = make_streams(seed)
        network = models.build(model_id, num_classes=10, image_mean=0.1, image_std=0.3, rngs=nnx.Rngs(params=streams.init)
        )
        graphdef, *arrays = network_module.take_apart(network)
        state = state_module.first_state(*arrays, optimizer, keeps_average=True)
        return graphdef, state, streams, shuffled(streams.shuffle, 1, 8)

    starts = [start(seed) for seed in (0, 1)]
    graphdef, (states, streams, orders) = (
        starts[0][0],
        (state_module.stack(column) for column in list(zip(*starts, strict=True))[1:]),
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    together = make_train_steps(graphdef, optimizer, criterion, streams, **settings)
    states, progress = together(states, no_progress((2,)), images, labels, orders, 0, 2)
    monkeypatch.undo()
    for index, (graphdef, state, streams, order) in enumerate(starts):
        alone = make_train_steps(graphdef, optimizer, criterion, streams, **settings)
        state, progress_alone = alone(state, no_progress(), images, labels, order, 0, 2)
        for one, other in zip(
            jax.tree.leaves((state, progress_alone)),
            jax.tree.leaves(state_module.pick((states, progress), index)),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)
