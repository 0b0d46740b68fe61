import functools
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from rich.console import Console

from mnist_jax import command, models
from mnist_jax.data import Split
from mnist_jax.errors import Terminated, UserError
from mnist_jax.models.network import take_apart
from mnist_jax.models.predict import Predictor
from mnist_jax.run.stopwatch import Phases
from mnist_jax.training import fit as fit_module
from mnist_jax.training.augment import Amounts, make_augment
from mnist_jax.training.checkpoint import TrainingCheckpoints, load_released, save_released
from mnist_jax.training.evaluate import make_score, summarise
from mnist_jax.training.fit import Functions, Outputs
from mnist_jax.training.losses.nll import nll
from mnist_jax.training.optimizers import make_optimizer
from mnist_jax.training.reporter import Reporter
from mnist_jax.training.signals import deferred
from mnist_jax.training.state import first_state
from mnist_jax.training.step import StepSettings, make_streams, make_train_steps, shuffled


def stripes(num_images, seed):
    """Ten classes that a network tells apart in a few steps: a bright row each, on noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, num_images, dtype=np.uint8)
    images = random.integers(0, 60, (num_images, 28, 28), dtype=np.uint8)
    images[np.arange(num_images), 2 * labels + 4] = 255
    return Split(images, labels)


TRAIN, VALIDATION = stripes(100, 0), stripes(60, 1)
DROPPING = f"{Path(__file__).parent / 'tiny.py'}:Dropping"


@functools.cache
def made(learning_rate, ema_decay):
    """The first state and the functions of a training, compiled once for all of its runs."""
    streams = make_streams(0)
    model = models.build(
        DROPPING,
        num_classes=10,
        image_mean=0.2,
        image_std=0.3,
        rngs=nnx.Rngs(params=streams.init, dropout=streams.dropout),
    )
    structure, params, model_state = take_apart(model)
    schedule = optax.constant_schedule(learning_rate)
    optimizer = make_optimizer("adam", schedule, weight_decay=0.0, momentum=0.0)
    settings = StepSettings(
        batch_size=16,
        augment=make_augment("shift_and_rotate", (28, 28, 1), Amounts(flip=True)),
        ema_decay=ema_decay,
    )
    steps = make_train_steps(structure, optimizer, nll, settings)
    score = make_score(Predictor(structure), nll)
    start = first_state(params, model_state, optimizer, keeps_average=ema_decay > 0)
    return streams, start, schedule, steps, score


def run(folder, epochs, learning_rate=0.001, ema_decay=0.0, signalled_at=None, **more):
    streams, start, schedule, steps, score = made(learning_rate, ema_decay)

    def train_steps(state, *others):
        state, progress = steps(streams, state, *others)
        if signalled_at and int(state.step) >= signalled_at[0]:
            signal.raise_signal(signalled_at[1])
        return state, progress

    def validate(weights):
        measured = summarise(*score(*weights, VALIDATION), VALIDATION.labels)
        return measured["accuracy"], measured["loss"]

    functions = Functions(
        train_steps=train_steps,
        order=lambda epoch: shuffled(streams.shuffle, epoch, len(TRAIN.labels)),
        validate=validate,
        schedule=schedule,
    )
    reporter = Reporter(Console(quiet=True), Phases(), tensorboard=folder / "tensorboard")
    with (
        TrainingCheckpoints(folder / "training") as checkpoints,
        reporter,
        deferred(is_wanted=True) as stop,
    ):
        return fit_module.fit(
            jax.tree.map(jnp.copy, start),  # a step takes the arrays of its state for its own
            TRAIN,
            functions,
            Outputs(checkpoints, reporter, stop),
            epochs=epochs,
            batch_size=16,
            **more,
        )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run(folder, 3), folder


def without_times(history):
    return [
        {key: value for key, value in row.items() if key not in ("seconds", "images_per_s")}
        for row in history["epochs"]
    ]


def arrays(fitted):
    return fitted.best, fitted.last


def test_it_learns_and_writes_down_how(uninterrupted):
    fitted, folder = uninterrupted
    rows = fitted.history["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["validation_accuracy"] > 0.5
    assert all(row["images_per_s"] > 0 for row in rows)
    assert rows[0]["learning_rate"] == pytest.approx(0.001)
    assert list((folder / "tensorboard").glob("events.*"))


def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    run(tmp_path, 1)
    resumed = run(tmp_path, 3)
    assert without_times(resumed.history) == without_times(whole.history)
    for one, other in zip(
        jax.tree.leaves(arrays(whole)), jax.tree.leaves(arrays(resumed)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_patience_ends_a_training_that_no_longer_gets_better(tmp_path, monkeypatch, caplog):
    """With a training whose second epoch is the best; the same when it resumes after its end."""
    accuracies = (0.5, 0.7, 0.6, 0.65, 0.9)
    caplog.set_level("INFO", "mnist_jax")
    with monkeypatch.context() as patched:
        patched.setattr(fit_module, "quality", lambda row: accuracies[row["epoch"] - 1])
        fitted = run(tmp_path, 5, patience=2)
        again = run(tmp_path, 5, patience=2)
    for one in (fitted, again):
        assert len(one.history["epochs"]) == 4 and one.history["best_epoch"] == 2
    said = "stopping after epoch 4: none of the last 2 was better on validation"
    assert caplog.messages.count(said) == 2


@pytest.mark.usefixtures("signals_of_the_program")
@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 6),
        pytest.param(signal.SIGINT, 12, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 15, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_run_after_its_step_and_nothing_is_trained_twice(
    uninterrupted, tmp_path, monkeypatch, caplog, number, step
):
    """Six steps an epoch: within one, at the end of one, and in the last step of all but one."""
    monkeypatch.setattr(fit_module, "SECONDS_BETWEEN_LOOKS", 1e-9)  # after every step
    caplog.set_level("INFO", "mnist_jax")
    whole, _ = uninterrupted
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(tmp_path, 3, signalled_at=(step, number))
    assert signal.getsignal(signal.SIGTERM) is command._terminate
    assert isinstance(stopped.value, Terminated) == (number == signal.SIGTERM)
    resumed = run(tmp_path, 3)
    place = f"epoch {step // 6}" if step % 6 == 0 else f"step {step % 6} of epoch {step // 6 + 1}"
    assert f"resuming after {place}" in caplog.messages
    assert (f"stopping after {place}" in caplog.messages) == (step % 6 > 0)
    assert without_times(resumed.history) == without_times(whole.history)
    for one, other in zip(
        jax.tree.leaves(arrays(whole)), jax.tree.leaves(arrays(resumed)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_kept_weights_are_the_best_epochs(uninterrupted, tmp_path):
    fitted, _ = uninterrupted
    rows, best = fitted.history["epochs"], fitted.history["best_epoch"]
    top = max(row["validation_accuracy"] for row in rows)
    assert rows[best - 1]["validation_accuracy"] == top
    up_to_best = run(tmp_path, best)
    for one, other in zip(
        jax.tree.leaves(fitted.best), jax.tree.leaves(up_to_best.best), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [([0.1, 0.9, 0.8], [1, 1, 1], 2), ([0.9, 0.9], [1, 0.5], 2), ([0.9, 0.9], [1, 1], 1)],
)
def test_the_best_epoch_is_by_accuracy_then_loss_then_age(accuracies, losses, best):
    rows = [
        {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": loss}
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), start=1)
    ]
    assert max(rows, key=fit_module.quality)["epoch"] == best


def test_a_run_that_diverges_stops_and_names_the_step(tmp_path):
    with pytest.raises(UserError, match=r"of step \d+ is not finite.*--learning-rate"):
        run(tmp_path, 2, learning_rate=1e30)


def test_released_weights_come_back_bit_for_bit(uninterrupted, tmp_path):
    fitted, _ = uninterrupted
    save_released(tmp_path, fitted.best.params, fitted.best.model_state)
    params, model_state = load_released(tmp_path, fitted.best.params, fitted.best.model_state)
    for one, other in zip(
        jax.tree.leaves((params, model_state)), jax.tree.leaves(fitted.best), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_missing_a_damaged_and_a_foreign_checkpoint_are_refused(uninterrupted, tmp_path):
    fitted, _ = uninterrupted
    with pytest.raises(UserError, match="does not exist; name the folder of a finished run"):
        load_released(tmp_path, fitted.best.params, fitted.best.model_state)
    save_released(tmp_path, fitted.best.params, fitted.best.model_state)
    with pytest.raises(UserError, match="damaged or of another model"):
        load_released(tmp_path, {"other": fitted.best.params["dense1"]}, fitted.best.model_state)
    for part in (tmp_path / "models" / "checkpoint").rglob("*"):
        if part.is_file() and part.parent.name == "d":
            part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be restored"):
        load_released(tmp_path, fitted.best.params, fitted.best.model_state)
