from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models import capsules as plain
from mnist_jax.models.layers import routing
from tests.compiling import quick_jit


@pytest.mark.parametrize(
    ("num_iterations", "stop_gradient", "classes"),
    [(1, False, 5), (2, False, 5), (3, False, 5), (3, True, 5), (3, False, 1), (3, True, 33)],
)
@pytest.mark.parametrize("images_per_group", [64, 2])
def test_value_and_gradients_are_those_of_the_plain_routing(
    num_iterations, stop_gradient, classes, images_per_group, monkeypatch
):
    monkeypatch.setattr(routing, "IMAGES_PER_GROUP", images_per_group)
    random = np.random.default_rng(0)
    capsules, weights, biases = (
        jnp.asarray(random.standard_normal(shape), jnp.float32)
        for shape in ((3, 11, 4), (11, 4, classes * 3), (classes, 3))
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
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))


def test_large_logits_do_not_overflow():
    capsules = jnp.full((2, 6, 4), 0.5)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((6, 4, 15)) * 1e3, jnp.float32)
    biases, options = jnp.zeros((5, 3)), {"num_iterations": 3, "stop_gradient": False}
    found = quick_jit(partial(routing.route, **options))(capsules, weights, biases)
    votes = plain.cast_votes(capsules, weights)
    np.testing.assert_allclose(
        found, plain.dynamic_routing(votes, biases, **options)[0], rtol=0, atol=1e-5
    )
