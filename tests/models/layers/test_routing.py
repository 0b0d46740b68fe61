from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models import capsules as plain
from mnist_jax.models.layers import routing
from tests.compiling import quick_jit


@pytest.mark.parametrize(("num_iterations", "stop_gradient"), [(1, False), (3, False), (3, True)])
def test_value_and_gradients_are_those_of_the_plain_routing(num_iterations, stop_gradient):
    random = np.random.default_rng(0)
    capsules, weights, biases = (
        jnp.asarray(random.standard_normal(shape), jnp.float32)
        for shape in ((3, 11, 4), (11, 4, 15), (5, 3))
    )
    options = {"num_iterations": num_iterations, "stop_gradient": stop_gradient}

    def expected(capsules, weights, biases):
        return plain.dynamic_routing(plain.cast_votes(capsules, weights), biases, **options)[0]

    @partial(quick_jit, static_argnums=0)
    def value_and_gradients(function):
        value, pullback = jax.vjp(function, capsules, weights, biases)
        return value, *pullback(jnp.cos(value))

    found = value_and_gradients(partial(routing.route, **options))
    for one, other in zip(found, value_and_gradients(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))


def test_votes_are_the_plain_ones():
    random = np.random.default_rng(1)
    capsules = jnp.asarray(random.standard_normal((2, 7, 4)), jnp.float32)
    weights = jnp.asarray(random.standard_normal((7, 4, 6)), jnp.float32)
    np.testing.assert_allclose(
        routing.cast_votes(capsules, weights), plain.cast_votes(capsules, weights), atol=1e-5
    )
