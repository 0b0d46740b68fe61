import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from mnist_jax.config.class_weights import inlined
from mnist_jax.errors import UserError
from mnist_jax.training import losses
from mnist_jax.training.class_weights import of_classes
from mnist_jax.training.step import weighted_mean
from tests.compiling import quick_jit

NAMES = ("cat", "dog", "owl")
LABELS = np.uint8([0] * 10 + [1] * 3 + [2])
ON_DEVICE = jnp.asarray(LABELS)


def test_none_has_no_weights_and_balanced_is_scikit_learns():
    assert of_classes("none", LABELS, NAMES) is None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(of_classes("balanced", LABELS, NAMES), expected, rtol=1e-6)


def test_a_class_that_train_lacks_has_no_balanced_weight():
    with pytest.raises(UserError, match=r"'balanced', but train has no picture of class 'owl'"):
        of_classes("balanced", LABELS[:-1], NAMES)


def test_a_file_gives_the_weights_by_name_and_is_kept_in_the_configuration(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text('{"owl": 5, "cat": 0.5, "dog": 2.0}')
    kept = inlined(str(path))
    path.unlink()
    assert of_classes(kept, LABELS, NAMES).tolist() == [0.5, 2, 5]
    assert inlined(kept) == kept and json.loads(kept) == {"cat": 0.5, "dog": 2.0, "owl": 5}
    assert [inlined(value) for value in ("none", "balanced")] == ["none", "balanced"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "holds no object"),
        ("{}", "holds no object"),
        ('{"cat": 1, "cat": 2}', "a class is named twice"),
        ('{"cat": 0}', "gives 'cat' the weight 0, but must give a number from 1e-06 to"),
        ('{"cat": -1.5}', "the weight -1.5"),
        ('{"cat": NaN}', "the weight NaN"),
        ('{"cat": Infinity}', "the weight Infinity"),
        ('{"cat": 1' + "0" * 400 + "}", "the weight 1000"),
        ('{"cat": true}', "the weight true"),
        ('{"cat": "1"}', 'the weight "1"'),
        ('{"ca\\nt": null}', "the weight null"),
    ],
)
def test_each_fault_of_a_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        inlined(str(path))
    assert message in str(raised.value) and "write {" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"class_weights is '.*nowhere', but must be none, bal"):
        inlined(str(tmp_path / "nowhere"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not JSON"):
        inlined(str(tmp_path / "bytes"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cat": 1, "dog": 1}', "class_weights lacks class 'owl'; name each of cat, dog, owl"),
        ('{"cat": 1, "dog": 1, "owl": 1, "pig": 1}', "class_weights names 'pig', not a class"),
    ],
)
def test_every_class_is_named_and_no_other(text, message):
    with pytest.raises(UserError, match=message):
        of_classes(text, LABELS, NAMES)


def squared(logits, labels):
    """A loss of the user's own."""
    return (logits[jnp.arange(len(labels)), labels] - 1) ** 2


@pytest.mark.parametrize("criterion", ["nll", "mse", "capsule_loss_v1", squared])
def test_the_weighted_mean_is_numpys_for_every_loss_and_so_is_its_gradient(criterion):
    criterion = criterion if callable(criterion) else losses.find(criterion)
    shape = (14, 3, 4) if losses.takes(criterion) == "capsules" else (14, 3)
    outputs = np.random.default_rng(0).normal(size=shape)
    outputs = np.float32(outputs)
    weights = np.float32([0.2, 1.5, 7])
    losses_of = np.float64(quick_jit(criterion)(outputs, ON_DEVICE))
    expected = np.average(losses_of, weights=weights[LABELS])
    mean, gradient = quick_jit(
        jax.value_and_grad(
            lambda outputs: weighted_mean(criterion(outputs, ON_DEVICE), ON_DEVICE, weights)
        )
    )(outputs)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    # Each example's share of the gradient is its weight's share of the sum.
    alone = quick_jit(jax.grad(lambda outputs: criterion(outputs, ON_DEVICE).sum()))(outputs)
    share = (weights[LABELS] / weights[LABELS].sum()).reshape(-1, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(gradient, alone * share, rtol=1e-4, atol=1e-7)


def test_the_weighted_mean_of_nll_is_scikit_learns_log_loss():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(14, 3)), jnp.float32)
    weights = np.float32([0.2, 1.5, 7])
    found = weighted_mean(losses.find("nll")(logits, ON_DEVICE), ON_DEVICE, weights)
    scores = np.asarray(jax.nn.softmax(logits), np.float64)
    scores /= scores.sum(axis=1, keepdims=True)
    expected = log_loss(LABELS, scores, sample_weight=weights[LABELS])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_weights_the_mean_is_the_mean():
    values = jnp.float32([1, 2, 6])
    assert weighted_mean(values, jnp.uint8([0, 1, 2]), None) == values.mean()
