from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mnist_jax.models.layers.max_pool import max_pool_2x2
from tests.compiling import quick_jit


def xla_max_pool(x):
    """XLA's own pooling and gradient: select_and_scatter gives all to the first maximum."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@partial(quick_jit, static_argnums=0)
def both(function, x, weights):
    """The value, and the gradient of its weighted sum."""
    return function(x), jax.grad(lambda x: (function(x) * weights).sum())(x)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(6, 4), (7, 4), (6, 5), (7, 5)]))
def test_value_and_gradient_are_xlas_ties_included(seed, size):
    random = np.random.default_rng(seed)
    x = jnp.array(random.integers(-2, 3, (2, *size, 3)).astype(np.float32))  # few values: many ties
    weights = jnp.array(random.normal(size=(2, 3, 2, 3)).astype(np.float32))
    found, expected = (both(function, x, weights) for function in (max_pool_2x2, xla_max_pool))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_tie_pays_the_first_pixel_in_row_major_order():
    x = jnp.array([[1.0, 2.0], [2.0, 2.0]])[None, :, :, None]
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(x)[0, :, :, 0]
    np.testing.assert_array_equal(gradient, [[0, 1], [0, 0]])


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_infinite_windows_keep_their_gradient(value):
    x = jnp.full((1, 2, 2, 1), value)
    assert float(jax.grad(lambda x: max_pool_2x2(x).sum())(x).sum()) == 1
