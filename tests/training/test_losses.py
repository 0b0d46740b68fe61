import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_jax import config
from mnist_jax.config import CRITERION_IDS
from mnist_jax.errors import UserError
from mnist_jax.training import losses
from mnist_jax.training.losses.capsule_loss_v1 import capsule_loss_v1
from mnist_jax.training.losses.mse import mse
from mnist_jax.training.losses.nll import nll
from mnist_jax.training.reconstruction import reconstruction_loss
from tests.compiling import quick_jit

LOGITS = arrays(np.float32, (4, 10), elements=st.floats(-30, 30, width=32))
LABELS = arrays(np.uint8, 4, elements=st.integers(0, 9))
quick_nll, quick_mse, quick_capsule_loss = map(quick_jit, (nll, mse, capsule_loss_v1))


def softmax64(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(LOGITS, LABELS)
def test_nll_is_minus_the_log_of_the_true_class_probability(logits, labels):
    expected = -np.log(softmax64(logits)[np.arange(4), labels])
    np.testing.assert_allclose(quick_nll(logits, labels), expected, 1e-5, 1e-5)


@settings(deadline=None)
@given(LOGITS, LABELS)
def test_mse_is_the_squared_distance_from_the_one_hot_truth(logits, labels):
    expected = ((softmax64(logits) - np.eye(10)[labels]) ** 2).sum(axis=1)
    np.testing.assert_allclose(quick_mse(logits, labels), expected, 1e-5, 1e-6)


def test_values_worked_out_by_hand():
    logits, labels = np.zeros((1, 4), np.float32), np.array([2])
    assert float(quick_nll(logits, labels)[0]) == pytest.approx(np.log(4))
    assert float(quick_mse(logits, labels)[0]) == pytest.approx(0.75**2 + 3 * 0.25**2)


@pytest.mark.parametrize("name", ["nll", "mse"])
def test_gradients_are_finite_where_the_answer_is_certain_and_wrong(name):
    logits, labels = np.float32([[1e4, -1e4, 0.0]]), np.array([1])
    loss = losses.find(name)
    gradient = quick_jit(jax.grad(lambda x, labels: loss(x, labels).sum()))(logits, labels)
    assert np.isfinite(gradient).all()


def test_every_id_that_the_config_knows_is_there():
    assert set(losses.IDS) == set(CRITERION_IDS)
    assert [losses.find(name).__name__ for name in losses.IDS] == list(losses.IDS)


def test_a_loss_that_does_not_fit_is_refused_with_the_remedy():
    losses.check_fit("nll", "mnist_cnn_v1", "logits", 10)
    losses.check_fit("capsule_loss_v1", "mnist_capsule_v1", "capsules", 10)
    with pytest.raises(
        UserError,
        match=r"'capsule_loss_v1', which takes capsules, but mnist_cnn_v1 gives logits; use "
        r"--criterion-id=mse or nll",
    ):
        losses.check_fit("capsule_loss_v1", "mnist_cnn_v1", "logits", 10)
    with pytest.raises(UserError, match="use --criterion-id=capsule_loss_v1"):
        losses.check_fit("mse", "mnist_capsule_v1", "capsules", 10)


@pytest.mark.parametrize("num_classes", [2, 256, 300])
def test_a_loss_of_one_s_own_is_tried_on_the_classes_of_the_data(num_classes, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        f"import jax.numpy as jnp\nWEIGHTS = jnp.ones((1, {num_classes}))\n"
        "def loss(logits, labels): return ((logits * WEIGHTS).sum(1) + labels).astype('float32')\n"
    )
    losses.check_fit(f"{path}:loss", "mnist_cnn_v1", "logits", num_classes)
    with pytest.raises(UserError, match=rf"fails on logits \[2, {num_classes + 1}\]"):
        losses.check_fit(f"{path}:loss", "mnist_cnn_v1", "logits", num_classes + 1)


CAPSULES = arrays(np.float32, (4, 10, 3), elements=st.floats(-1, 1, width=32))
LABELS = arrays(np.uint8, 4, elements=st.integers(0, 9))


@settings(deadline=None)
@given(CAPSULES, LABELS)
def test_the_capsule_loss_is_the_margin_loss_of_the_paper(capsules, labels):
    expected = []
    for example, label in zip(np.float64(capsules), labels, strict=True):
        loss = 0.0
        for k, capsule in enumerate(example):
            length = np.linalg.norm(capsule)
            loss += max(0, 0.9 - length) ** 2 if k == label else 0.5 * max(0, length - 0.1) ** 2
        expected.append(loss)
    np.testing.assert_allclose(quick_capsule_loss(capsules, labels), expected, atol=1e-5)


def test_a_capsule_loss_worked_out_by_hand():
    capsules = np.float32([[[0.4, 0.0], [0.0, 0.6], [0.05, 0.0]]])
    loss = quick_capsule_loss(capsules, np.array([0]))
    assert float(loss[0]) == pytest.approx(0.5**2 + 0.5 * 0.5**2)  # squares, and none for 0.05


def test_the_capsule_loss_has_a_finite_gradient_at_the_zero_vector():
    capsules, labels = np.zeros((1, 10, 16), np.float32), np.array([1])
    gradient_of = quick_jit(jax.grad(lambda c, labels: capsule_loss_v1(c, labels).sum()))
    gradient = gradient_of(capsules, labels)
    assert np.isfinite(gradient).all()
    assert losses.find("capsule_loss_v1") is capsule_loss_v1


def test_the_reconstruction_loss_is_a_sum_over_pixels_and_not_a_mean():
    images = np.zeros((2, 28, 28, 1), np.float32)
    drawn = images + np.float32([0.5, 1.0]).reshape(2, 1, 1, 1)
    errors = quick_jit(reconstruction_loss)(drawn, images)
    np.testing.assert_allclose(errors, [196.0, 784.0])
    # The 0.392 of the reimplementations is on the mean over the 784 pixels.
    assert pytest.approx(0.392) == 784 * config.default()["reconstruction_weight"]


def test_the_weight_of_the_code_is_that_of_its_loss():
    """The code's loss is a 20th of ours with a weight of 0.01; Adam ignores such factors."""
    random = np.random.default_rng(0)
    capsules, labels = random.normal(size=(8, 10, 16)) * 0.2, random.integers(0, 10, 8)
    drawn, images = random.random((2, 8, 28, 28, 1))
    logits, is_label = np.linalg.norm(capsules, axis=-1) - 0.5, np.eye(10)[labels]
    positive_cost = is_label * (logits < 0.4) * (logits - 0.4) ** 2
    negative_cost = (1 - is_label) * (logits > -0.4) * (logits + 0.4) ** 2
    of_code = (0.5 * positive_cost + 0.5 * 0.5 * negative_cost).mean()
    of_code += 0.0005 * ((drawn - images) ** 2).sum(axis=(1, 2, 3)).mean()
    errors = quick_jit(reconstruction_loss)(np.float32(drawn), np.float32(images))
    ours = np.asarray(quick_capsule_loss(np.float32(capsules), labels)) + 0.01 * np.asarray(errors)
    assert float(ours.mean()) / 20 == pytest.approx(of_code, rel=1e-5)
