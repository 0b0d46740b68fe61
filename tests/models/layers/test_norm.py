import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mnist_jax.models.layers.norm import BatchNorm


def make(norm, use_scale, **options):
    layer = norm(5, use_scale=use_scale, epsilon=1e-3, rngs=nnx.Rngs(0), **options)
    layer.bias[...] = jnp.linspace(-1, 1, 5)
    if use_scale:
        layer.scale[...] = jnp.linspace(0.5, -2, 5)
    return layer


@pytest.mark.parametrize("has_relu", [False, True])
@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 6, 5), (7, 5)])
def test_training_is_that_of_nnx(shape, use_scale, has_relu):
    x = jnp.asarray(3 + 2 * np.random.default_rng(0).standard_normal(shape), jnp.float32)

    @nnx.jit
    def step(layer):
        def loss(layer, x):
            y = layer(x)
            y = nnx.relu(y) if has_relu else y
            return jnp.sum(jnp.sin(y) * jnp.cos(x)), y

        (_, y), grads = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, x)
        return y, nnx.state(layer, nnx.BatchStat), grads

    options = {"has_relu": has_relu}
    found = step(make(BatchNorm, use_scale, **options))
    expected = step(make(nnx.BatchNorm, use_scale))
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))


def test_evaluation_uses_the_running_statistics():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
    ours, plain = make(BatchNorm, True, has_relu=True), make(nnx.BatchNorm, True)
    for layer in (ours, plain):
        layer(x)
        layer.eval()
    np.testing.assert_array_equal(ours(x), nnx.relu(plain(x)))


@pytest.mark.parametrize("dtype", [None, "float32", jnp.float32], ids=["none", "name", "type"])
def test_in_float32_however_it_is_named_training_takes_the_quick_form(dtype):
    structure, state = nnx.split(make(BatchNorm, True, dtype=dtype))
    program = jax.make_jaxpr(lambda state, x: nnx.merge(structure, state)(x))(
        nnx.to_pure_dict(state), jnp.ones((4, 5))
    )
    assert "custom_vjp" in str(program)


@pytest.mark.parametrize("options", [{"use_fast_variance": False}, {"dtype": jnp.bfloat16}])
def test_what_is_not_covered_is_computed_by_nnx(options):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
    found, expected = make(BatchNorm, True, **options)(x), make(nnx.BatchNorm, True, **options)(x)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
