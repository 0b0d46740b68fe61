import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_jax.config import CRITERION_IDS
from mnist_jax.errors import UserError
from mnist_jax.losses import CRITERIA, check_criterion, mse, nll

LOGITS = arrays(np.float32, (4, 10), elements=st.floats(-30, 30, width=32))
LABELS = arrays(np.uint8, 4, elements=st.integers(0, 9))


def softmax64(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(LOGITS, LABELS)
def test_nll_is_minus_the_log_of_the_true_class_probability(logits, labels):
    expected = -np.log(softmax64(logits)[np.arange(4), labels])
    np.testing.assert_allclose(nll(jnp.array(logits), jnp.array(labels)), expected, 1e-5, 1e-5)


@settings(deadline=None)
@given(LOGITS, LABELS)
def test_mse_is_the_squared_distance_from_the_one_hot_truth(logits, labels):
    expected = ((softmax64(logits) - np.eye(10)[labels]) ** 2).sum(axis=1)
    np.testing.assert_allclose(mse(jnp.array(logits), jnp.array(labels)), expected, 1e-5, 1e-6)


def test_values_worked_out_by_hand():
    logits, labels = jnp.zeros((1, 4)), jnp.array([2])
    assert float(nll(logits, labels)[0]) == pytest.approx(np.log(4))
    assert float(mse(logits, labels)[0]) == pytest.approx(0.75**2 + 3 * 0.25**2)


@pytest.mark.parametrize("name", CRITERIA)
def test_gradients_are_finite_where_the_answer_is_certain_and_wrong(name):
    logits = jnp.array([[1e4, -1e4, 0.0]])
    gradient = jax.grad(lambda x: CRITERIA[name](x, jnp.array([1])).sum())(logits)
    assert jnp.isfinite(gradient).all()


def test_every_id_that_the_config_knows_is_there():
    assert tuple(CRITERIA) == CRITERION_IDS


def test_a_loss_that_does_not_fit_is_refused_with_the_remedy():
    check_criterion("nll", "mnist_cnn_v1", ("nll", "mse"))
    with pytest.raises(UserError, match=r"'margin'.*mnist_cnn_v1 takes nll or mse.*--criterion-id"):
        check_criterion("margin", "mnist_cnn_v1", ("nll", "mse"))
