import json

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_jax.data import Split
from mnist_jax.studies import multi_mnist, overlapping
from mnist_jax.training.losses.capsule_loss_v1 import capsule_loss_v1

NO_DIGITS = jnp.zeros((2, 1, 36, 36, 1))
LABELS_3_AND_7 = jnp.array([[3], [7]], jnp.uint8)
LABELS = arrays(np.uint8, 12, elements=st.integers(0, 3)).filter(
    lambda labels: len(set(labels)) > 1
)


@settings(deadline=None, max_examples=30)
@given(LABELS, st.integers(0, 2**31))
def test_a_partner_is_of_another_class(labels, seed):
    partners = overlapping.sort_by_class(labels, 4)
    drawn = overlapping.draw_partners(jax.random.key(seed), jnp.asarray(labels), partners)
    assert (labels[np.asarray(drawn)] != labels).all()


def settings(criterion_id, weight=0.0):
    return {"criterion_id": criterion_id, "reconstruction_weight": weight}


def test_every_example_of_another_class_is_as_likely():
    labels = np.array([0, 1, 1, 0, 2, 1, 0], np.uint8)
    partners = overlapping.sort_by_class(labels, 3)
    asked = jnp.ones(40_000, jnp.uint8)
    drawn = overlapping.draw_partners(jax.random.key(0), asked, partners)
    shares = np.bincount(drawn, minlength=7) / len(asked)
    np.testing.assert_allclose(shares, np.where(labels == 1, 0, 1 / 4), atol=0.01)


@pytest.fixture(scope="module")
def split():
    """Digits that fill their 28x28 pixels to the last, in the middle of 36x36."""
    random = np.random.default_rng(0)
    images = np.zeros((30, 36, 36), np.uint8)
    images[:, 4:32, 4:32] = random.integers(1, 256, (30, 28, 28))
    return Split(images, (np.arange(30) % 10).astype(np.uint8))


def test_a_pair_is_two_digits_moved_and_added_up_to_white(split):
    partners = overlapping.sort_by_class(split.labels, 10)
    digits, labels = overlapping.make_pairs(
        jax.random.key(1), jnp.arange(30), *map(jnp.asarray, split), partners
    )
    seen_shifts = set()
    for one in range(2):
        for digit, label in zip(np.asarray(digits[one, ..., 0]), labels[one], strict=True):
            rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
            assert len(rows) == len(columns) == 28  # no ink is lost
            moved = digit[rows[0] : rows[0] + 28, columns[0] : columns[0] + 28]
            is_it = [np.allclose(moved, image[4:32, 4:32] / 255) for image in split.images]
            assert split.labels[is_it.index(True)] == label
            seen_shifts |= {int(rows[0]) - 4, int(columns[0]) - 4}
    assert seen_shifts == set(range(-4, 5))
    assert (labels[0] != labels[1]).all()
    expected = np.minimum(np.asarray(digits[0]) + np.asarray(digits[1]), 1)
    np.testing.assert_allclose(overlapping.overlay(digits), expected)


def test_the_test_pairs_are_the_same_each_time_and_hold_each_digit(split):
    (images, labels), (again, labels_again) = (overlapping.fixed_pairs(split, 10) for _ in range(2))
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, labels_again)
    np.testing.assert_array_equal(labels[:, 0], split.labels)
    assert images.shape == (30, 36, 36) and images.dtype == np.uint8


def test_the_margin_loss_of_a_pair_wants_both_capsules_long():
    lengths = np.full((1, 10), 0.05)
    lengths[0, [3, 7]] = 0.95, 0.4
    capsules = jnp.asarray(lengths[..., None] * np.eye(1, 16), jnp.float32)
    labels = jnp.array([[3], [7]], jnp.uint8)
    loss = overlapping.loss_of_pairs(None, capsules, NO_DIGITS, labels, settings("capsule_loss_v1"))
    np.testing.assert_allclose(loss, (0.9 - 0.4) ** 2, rtol=1e-5)
    single = capsule_loss_v1(capsules, labels[0])
    np.testing.assert_allclose(single, 0.5 * (0.4 - 0.1) ** 2, rtol=1e-5)


def test_the_loss_of_a_pair_counts_the_drawing_of_each_digit_from_its_own_capsule():
    class Draws(nnx.Module):
        def reconstruct(self, outputs, labels):
            return jnp.zeros((1, 36, 36, 1)) + labels.reshape(-1, 1, 1, 1) / 10

    digits = jnp.stack([jnp.full((1, 36, 36, 1), 0.3), jnp.full((1, 36, 36, 1), 0.8)])
    labels = jnp.array([[3], [7]], jnp.uint8)
    capsules = jnp.zeros((1, 10, 16))
    with_drawing, without = (
        overlapping.loss_of_pairs(
            Draws(), capsules, digits, labels, settings("capsule_loss_v1", weight)
        )
        for weight in (0.01, 0.0)
    )
    # The digit of class 3 is drawn without error; that of class 7 is 0.1 off everywhere.
    np.testing.assert_allclose(with_drawing - without, 0.01 * 36 * 36 * 0.1**2, rtol=1e-3)


def test_other_networks_get_the_mean_of_both_losses():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 10)), jnp.float32)
    loss = overlapping.loss_of_pairs(None, logits, NO_DIGITS, LABELS_3_AND_7, settings("nll"))
    expected = -jax.nn.log_softmax(logits)[0, jnp.array([3, 7])].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.slow  # 30 s
def test_the_command_trains_exports_and_counts(tmp_path, capsys):
    run_dir = tmp_path / "run"
    flags = [
        *("--model-id=mnist_efficient_cnn_v1", "--dataset-id=digits_v1", "--epochs=1"),
        *(f"--data-dir={tmp_path / 'data'}", f"--output-dir={run_dir}"),
    ]
    assert multi_mnist.main(flags) == 0
    figures = json.loads((run_dir / overlapping.FIGURES).read_text())
    assert figures["num_examples"] == 360 and figures["num_disagreements"] == 0
    assert figures["num_correct"] == figures["num_correct_jax"]
    assert figures["run"]["config"]["image_side"] == 36
    file = run_dir / "models" / "mnist_model.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, 36, 36]
    assert "both digits right" in capsys.readouterr().out
    assert multi_mnist.main(flags) == 2  # the folder is taken
    assert "error:" in capsys.readouterr().err


def test_a_loss_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, capsys):
    flags = ["--model-id=mnist_efficient_cnn_v1", "--dataset-id=digits_v1"]
    folders = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}"]
    assert multi_mnist.main([*flags, *folders, "--criterion-id=capsule_loss_v1"]) == 2
    assert "use --criterion-id=mse or nll" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert multi_mnist.main(["--help"]) == 0


def test_own_pictures_are_refused_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(overlapping, "run", None)  # which cannot be called
    assert multi_mnist.main([f"--data={tmp_path}"]) == 2
    assert "leave --data out and give --dataset-id" in capsys.readouterr().err
