import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mnist_jax.data import Split
from mnist_jax.models.network import images_to_float, take_apart
from mnist_jax.training.losses.nll import nll
from mnist_jax.training.state import first_state
from mnist_jax.training.step import (
    StepSettings,
    make_streams,
    make_train_steps,
    no_progress,
    shuffled,
)

STREAMS = make_streams(0)


class Linear(nnx.Module):
    """The smallest network, which counts its calls."""

    def __init__(self, *, rngs):
        self.dense = nnx.Linear(784, 10, rngs=rngs)
        self.calls = nnx.Variable(jnp.float32(0))

    def __call__(self, images):
        self.calls[...] = self.calls[...] + 1
        return self.dense(images.reshape(images.shape[0], -1))


def build(network=Linear, batch_size=8, **changes):
    structure, params, model_state = take_apart(network(rngs=nnx.Rngs(0)))
    settings = StepSettings(batch_size=batch_size, **changes)
    optimizer = optax.sgd(0.1)
    steps = make_train_steps(structure, optimizer, nll, settings)
    keeps_average = settings.ema_decay > 0
    return steps, first_state(params, model_state, optimizer, keeps_average=keeps_average)


@pytest.fixture(scope="module")
def built():
    return build()


@pytest.fixture
def parts(built):
    """The steps, compiled once, and a first state for them to consume."""
    steps, state = built
    return steps, jax.tree.map(jnp.copy, state)


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 28, 28), dtype=np.uint8)
    return Split(jnp.array(images), jnp.array(random.integers(0, 10, 32, dtype=np.uint8)))


def test_two_steps_are_gradient_descent_worked_out_in_numpy(parts, split):
    steps, state = parts
    images, labels = split
    order = np.random.default_rng(1).permutation(32)
    kernel, bias = (np.asarray(state.params["dense"][k], np.float64) for k in ("kernel", "bias"))
    total, correct = 0.0, 0
    for start in (0, 8):
        x = np.asarray(images)[order[start : start + 8]].reshape(8, -1) / 255.0
        y = np.asarray(labels)[order[start : start + 8]]
        logits = x @ kernel + bias
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        total -= np.log(probabilities[np.arange(8), y]).sum()
        correct += (probabilities.argmax(axis=1) == y).sum()
        error = (probabilities - np.eye(10)[y]) / 8
        gradients = x.T @ error, error.sum(axis=0)
        kernel, bias = kernel - 0.1 * gradients[0], bias - 0.1 * gradients[1]
    state, progress = steps(STREAMS, state, no_progress(), split, jnp.array(order), 0, 2)
    np.testing.assert_allclose(state.params["dense"]["kernel"], kernel, atol=1e-5)
    np.testing.assert_allclose(state.params["dense"]["bias"], bias, atol=1e-5)
    assert int(state.step) == 2
    assert float(progress.loss_sum) == pytest.approx(total, rel=1e-5)
    assert (int(progress.num_correct), int(progress.num_seen)) == (correct, 16)
    norms = [np.sqrt(sum((g**2).sum() for g in part)) for part in (gradients, (kernel, bias))]
    assert float(progress.grad_norm) == pytest.approx(norms[0], rel=1e-4)
    assert float(progress.param_norm) == pytest.approx(norms[1], rel=1e-5)
    assert float(progress.update_norm) == pytest.approx(0.1 * norms[0], rel=1e-4)


def test_a_step_with_class_weights_descends_on_the_weighted_mean(split):
    weights = np.linspace(0.5, 5, 10, dtype=np.float32)
    steps, state = build(class_weights=weights)
    x = np.asarray(split.images)[:8].reshape(8, -1) / 255.0
    y = np.asarray(split.labels)[:8]
    kernel, bias = (np.asarray(state.params["dense"][k], np.float64) for k in ("kernel", "bias"))
    logits = x @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (probabilities - np.eye(10)[y]) * (weights[y] / weights[y].sum())[:, None]
    state, progress = steps(STREAMS, state, no_progress(), split, jnp.arange(32), 0, 1)
    np.testing.assert_allclose(
        state.params["dense"]["kernel"], kernel - 0.1 * x.T @ error, atol=1e-5
    )
    # What is reported stays the plain loss.
    total = -np.log(probabilities[np.arange(8), y]).sum()
    assert float(progress.loss_sum) == pytest.approx(total, rel=1e-5)


def test_what_a_network_keeps_besides_its_parameters_is_carried_on(parts, split):
    steps, state = parts
    state, _ = steps(STREAMS, state, no_progress(), split, jnp.arange(32), 0, 4)
    assert float(state.model_state["calls"]) == 4


def test_steps_taken_in_parts_are_the_same_steps(parts, split):
    steps, state = parts
    copy = jax.tree.map(jnp.copy, state)
    order = shuffled(STREAMS.shuffle, 1, 32)
    whole, progress = steps(STREAMS, state, no_progress(), split, order, 0, 4)
    part, progress_in_parts = steps(STREAMS, copy, no_progress(), split, order, 0, 1)
    part, progress_in_parts = steps(STREAMS, part, progress_in_parts, split, order, 1, 3)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_array_equal(one, other)
    assert progress == progress_in_parts


def test_steps_in_one_dispatch_are_the_same_steps(parts, split, monkeypatch):
    steps, state = parts
    copy = jax.tree.map(jnp.copy, state)
    order = shuffled(STREAMS.shuffle, 1, 32)
    one_by_one, progress = steps(STREAMS, state, no_progress(), split, order, 1, 3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # the loop that a GPU would run
    in_one_dispatch, _ = build()
    at_once, progress_at_once = in_one_dispatch(STREAMS, copy, no_progress(), split, order, 1, 3)
    for one, other in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert int(progress.num_correct) == int(progress_at_once.num_correct)
    for name in ("grad_norm", "param_norm", "update_norm"):
        at_last = float(getattr(progress, name))
        assert at_last > 0
        assert float(getattr(progress_at_once, name)) == pytest.approx(at_last, rel=1e-4)
    assert int(at_once.step) == 3


def test_the_average_of_the_weights_is_kept_beside_them(parts, split):
    steps, state = build(ema_decay=0.9)
    plain_steps, plain = parts
    expected, total = 0.0, 0.0
    for batch in range(4):
        plain, _ = plain_steps(STREAMS, plain, no_progress(), split, jnp.arange(32), batch, 1)
        kernel = np.asarray(plain.params["dense"]["kernel"], np.float64)
        expected, total = 0.9 * expected + kernel, 0.9 * total + 1
    state, _ = steps(STREAMS, state, no_progress(), split, jnp.arange(32), 0, 4)
    np.testing.assert_allclose(state.weights["dense"]["kernel"], expected / total, atol=1e-6)
    np.testing.assert_array_equal(state.params["dense"]["kernel"], plain.params["dense"]["kernel"])
    assert plain.weights is plain.params


def test_augmentation_changes_what_is_trained_on_and_is_keyed_by_the_step(split):
    seen = []

    def blacken(key, images):
        seen.append(key)
        return 0 * images

    steps, state = build(augment=blacken)
    before = np.asarray(state.params["dense"]["kernel"])
    state, _ = steps(STREAMS, state, no_progress(), split, jnp.arange(32), 0, 2)
    assert seen
    # Black images: the kernel gets no gradient, the bias does.
    np.testing.assert_array_equal(state.params["dense"]["kernel"], before)
    assert np.abs(state.params["dense"]["bias"]).max() > 0


class Drawing(Linear):
    """Draws every image as grey."""

    def reconstruct(self, outputs, labels):
        return jnp.full((outputs.shape[0], 28, 28, 1), 0.5) + 0 * outputs[:, :1, None, None]


def test_the_reconstruction_error_is_added_with_its_weight(split):
    sums = []
    for weight in (0.0, 0.01):
        steps, state = build(Drawing, batch_size=32, reconstruction_weight=weight)
        _, progress = steps(STREAMS, state, no_progress(), split, jnp.arange(32), 0, 1)
        sums.append(float(progress.loss_sum))
    squared_error = ((np.asarray(split.images) / 255 - 0.5) ** 2).sum()
    assert sums[1] - sums[0] == pytest.approx(0.01 * squared_error, rel=1e-4)


def test_the_first_step_that_is_not_finite_is_named(parts, split):
    steps, state = parts
    state, progress = steps(STREAMS, state, no_progress(), split, jnp.arange(32), 0, 2)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
    state = state._replace(params=broken)
    _, progress = steps(STREAMS, state, progress, split, jnp.arange(32), 2, 2)
    assert int(progress.first_bad_loss) == 3
    assert int(progress.first_bad_gradient) == 3


def test_an_epoch_is_a_permutation_that_its_number_decides():
    key = STREAMS.shuffle
    first, again, second = (np.asarray(shuffled(key, epoch, 100)) for epoch in (1, 1, 2))
    assert sorted(first) == list(range(100))
    assert (first == again).all()
    assert (first != second).any()


def test_streams_differ_from_each_other_and_by_seed():
    keys = [jax.random.key_data(key).tolist() for seed in (0, 1) for key in make_streams(seed)]
    assert len({tuple(key) for key in keys}) == 8


def test_grey_levels_become_numbers_from_0_to_1():
    floats = images_to_float(
        jnp.array([[[0, 51], [255, 102]]] * 2, jnp.uint8).repeat(14, 1).repeat(14, 2)
    )
    assert floats.shape == (2, 28, 28, 1)
    np.testing.assert_allclose(np.unique(floats), [0, 0.2, 0.4, 1], rtol=1e-6)
