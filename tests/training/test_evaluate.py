import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, recall_score

from mnist_jax import models
from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.models import predict
from mnist_jax.models.network import take_apart
from mnist_jax.models.predict import Predictor
from mnist_jax.training import evaluate
from mnist_jax.training.losses.capsule_loss_v1 import capsule_loss_v1
from mnist_jax.training.losses.nll import nll

CLASS_NAMES = tuple("abcdefghij")


DROPPING = f"{Path(__file__).parent / 'tiny.py'}:Dropping"


@pytest.fixture(scope="module")
def network():
    model = models.build(
        DROPPING, num_classes=10, image_mean=0.13, image_std=0.31, rngs=nnx.Rngs(0)
    )
    return take_apart(model)


def random_split(num_images, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (num_images, 28, 28), dtype=np.uint8)
    return Split(images, random.integers(0, 10, num_images, dtype=np.uint8))


@pytest.mark.parametrize("batch", [1, 7, 50, 64])
def test_every_image_counts_whatever_the_batch(network, batch, monkeypatch):
    structure, *arrays = network
    split = random_split(50)
    score = evaluate.make_score(Predictor(structure), nll)
    whole, whole_losses = score(*arrays, split)
    monkeypatch.setattr(predict, "CPU_BATCH", batch)
    scores, losses = score(*arrays, split)
    assert scores.shape == (50, 10)
    assert losses.shape == (50,)
    np.testing.assert_allclose(scores, whole, atol=1e-6)
    np.testing.assert_allclose(losses, whole_losses, rtol=1e-4)
    first, second = (evaluate.summarise(some, losses, split.labels) for some in (scores, whole))
    assert first == second


def test_what_is_not_finite_is_not_measured(network):
    structure, *arrays = network
    split = random_split(50)

    def infinite(outputs, labels):
        return jnp.where(jnp.arange(50) == 7, jnp.inf, nll(outputs, labels))

    score = evaluate.make_score(Predictor(structure), infinite)
    with pytest.raises(UserError, match="losses of 1 of 50 images are not finite"):
        score(*arrays, split)
    params, model_state = arrays
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    with pytest.raises(UserError, match="scores of 50 of 50 images are not finite"):
        evaluate.make_score(Predictor(structure), nll)(params, model_state, split)


class Pairs(nnx.Module):
    """Ten capsules of two, from the first twenty pixels."""

    outputs = "capsules"

    def __call__(self, images):
        return images.reshape(len(images), -1)[:, :20].reshape(-1, 10, 2)


def test_scores_are_of_the_kind_that_the_network_says():
    structure, *arrays = take_apart(Pairs())
    split = random_split(5)
    scores, _ = evaluate.make_score(Predictor(structure), capsule_loss_v1)(*arrays, split)
    capsules = split.images.reshape(5, -1)[:, :20].reshape(5, 10, 2) / 255
    np.testing.assert_allclose(scores, np.linalg.norm(capsules, axis=2), rtol=1e-5)


def test_a_summary_is_counts_accuracy_and_mean_loss():
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    losses, labels = np.float32([1, 2, 3, 10]), np.uint8([0, 1, 2, 2])
    expected = {"num_examples": 4, "num_correct": 3, "accuracy": 0.75, "loss": 4.0}
    assert evaluate.summarise(scores, losses, labels) == expected


def test_every_metric_of_a_split_worked_out_by_hand():
    scores = np.float32([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.4, 0.6, 0]])
    labels = np.uint8([0, 1, 1, 1])
    metrics = evaluate.measure(scores, np.float32([1, 2, 3, 4]), labels[:4], ("a", "b"))
    assert metrics == {
        "num_examples": 4,
        "num_correct": 3,
        "accuracy": 0.75,
        "loss": 2.5,
        # 0.8 twice, right both times; 0.6 twice, right once.
        "expected_calibration_error": pytest.approx((2 * 0.2 + 2 * 0.1) / 4),
        "calibration_bins": 15,
        "class_names": ["a", "b"],
        "per_class": [
            {"class_name": "a", "num_examples": 1, "num_correct": 1, "accuracy": 1.0},
            {"class_name": "b", "num_examples": 3, "num_correct": 2, "accuracy": 2 / 3},
        ],
        "confusion_matrix": [[1, 0], [1, 2]],
    }


def test_a_class_without_an_image_is_right_in_none_of_none():
    scores, labels = np.float32([[0.8, 0.2, 0], [0.6, 0.4, 0]]), np.uint8([0, 1])
    metrics = evaluate.measure(scores, np.float32([1, 2]), labels, ("a", "b", "c"))
    assert metrics["per_class"][2] == {
        "class_name": "c",
        "num_examples": 0,
        "num_correct": 0,
        "accuracy": 0.0,
    }


def test_metrics_are_scikit_learns():
    random = np.random.default_rng(3)
    scores = random.dirichlet(np.full(10, 1.0), 500).astype(np.float32)
    labels = random.integers(0, 10, 500).astype(np.uint8)
    losses = -np.log(scores[np.arange(500), labels].astype(np.float64))
    metrics = evaluate.measure(scores, losses.astype(np.float32), labels, CLASS_NAMES)
    predicted = scores.argmax(axis=1)
    assert metrics["accuracy"] == accuracy_score(labels, predicted)
    assert metrics["num_correct"] == (labels == predicted).sum()
    recalls = recall_score(labels, predicted, average=None)
    np.testing.assert_allclose([row["accuracy"] for row in metrics["per_class"]], recalls)
    assert [row["num_examples"] for row in metrics["per_class"]] == np.bincount(labels).tolist()
    assert np.array(metrics["confusion_matrix"])[labels[0], predicted[0]] > 0
    assert np.array(metrics["confusion_matrix"]).sum() == 500
    np.testing.assert_allclose(
        metrics["loss"], log_loss(labels, scores / scores.sum(axis=1, keepdims=True)), rtol=1e-5
    )


def test_calibration_error_worked_out_by_hand():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]], np.float32)
    labels = np.array([0, 1, 1, 1], np.uint8)  # 0.9: half right; 0.7: all right
    expected = (2 * abs(0.9 - 0.5) + 2 * abs(0.7 - 1.0)) / 4
    assert evaluate.calibration_error(scores, labels) == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_calibration_error_is_the_definition(seed):
    random = np.random.default_rng(seed)
    scores = random.dirichlet(np.full(10, 0.2), 60).astype(np.float32)
    labels = random.integers(0, 10, 60).astype(np.uint8)
    confidence, right = scores.max(axis=1).astype(float), scores.argmax(axis=1) == labels
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert evaluate.calibration_error(scores, labels) == pytest.approx(expected, abs=1e-9)
    assert 0 <= expected <= 1
