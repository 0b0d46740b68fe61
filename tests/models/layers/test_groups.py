import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mnist_jax.models.layers.groups import in_groups
from tests.compiling import quick_jit


def outer(images, weight, bias):
    return jnp.tanh(images[:, :, None] * weight[None] + bias[None, None]).sum(axis=1) ** 2


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize("group", [1, 3])
def test_value_and_gradients_are_those_of_the_function(batch, group):
    random = np.random.default_rng(batch)
    images = jnp.asarray(random.standard_normal((batch, 5)), jnp.float32)
    weight = jnp.asarray(random.standard_normal((5, 3)), jnp.float32)
    bias = jnp.asarray(random.standard_normal(3), jnp.float32)

    def value_and_gradients(function):
        value, pullback = jax.vjp(function, images, weight, bias)
        return value, *pullback(jnp.cos(value))

    expected = quick_jit(lambda: value_and_gradients(outer))()
    found = quick_jit(
        lambda: value_and_gradients(lambda *args: in_groups(outer, *args, group=group))
    )()
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_an_export_for_any_batch_size_holds_the_function_as_it_stands():
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 4), jnp.float32)

    def function(images):
        return in_groups(lambda images: 2 * images, images, group=1)

    assert "stablehlo.while" not in export.export(jax.jit(function))(images).mlir_module()
