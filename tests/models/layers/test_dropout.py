import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models.layers.dropout import dropout


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_it_drops_the_share_asked_for_and_scales_the_rest(rate):
    x = jnp.full((3, 100_001), 2.0)  # not a multiple of four
    y = np.asarray(dropout(x, rate, jax.random.key(0)))
    assert abs((y == 0).mean() - rate) < 5 * 0.5 / x.size**0.5
    np.testing.assert_allclose(y[y != 0], 2 / (1 - rate), rtol=1e-6)


def test_neighbours_are_independent():
    # Four elements share a random word, so look at pairs that do and pairs that do not.
    kept = np.asarray(dropout(jnp.ones(400_000), 0.5, jax.random.key(0))) != 0
    for lag in (1, 2, 3, 4, 8):
        assert abs(np.corrcoef(kept[:-lag], kept[lag:])[0, 1]) < 0.01


def test_the_key_decides():
    x = jnp.ones(1000)
    first, again, other = (dropout(x, 0.5, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_gradient_is_the_mask():
    x = jnp.ones(1000)
    gradient = jax.grad(lambda x: dropout(x, 0.25, jax.random.key(0)).sum())(x)
    np.testing.assert_array_equal(gradient, dropout(x, 0.25, jax.random.key(0)))


@pytest.mark.parametrize("rate", [0.3, 1.0, -0.25])
def test_a_rate_that_bytes_cannot_say_is_refused(rate):
    with pytest.raises(ValueError, match=f"dropout rate {rate} is not a multiple of 1/256"):
        dropout(jnp.ones(4), rate, jax.random.key(0))
