from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mnist_jax.models.layers.convolution import convolve


def xla_convolution(x, kernel, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=layout)


def normal(random, *shape):
    return jnp.array(random.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"),
    [(9, 9, 3, 1), (10, 13, 4, 2), (11, 9, 2, 3), (7, 7, 7, 2)],
)
def test_value_and_gradients_are_xlas(height, width, size, stride):
    random = np.random.default_rng(0)
    x, kernel = normal(random, 2, height, width, 3), normal(random, size, size, 3, 5)
    new_height, new_width = (height - size) // stride + 1, (width - size) // stride + 1
    cotangent = normal(random, 2, new_height, new_width, 5)

    @partial(jax.jit, static_argnums=0)
    def value_and_gradients(convolve, x, kernel, cotangent):
        value, backward = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)
        return value, *backward(cotangent)

    ours = value_and_gradients(convolve, x, kernel, cotangent)
    expected = value_and_gradients(xla_convolution, x, kernel, cotangent)
    for array, expected_array in zip(ours, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, atol=1e-4)


def test_half_precision_is_summed_in_float32():
    random = np.random.default_rng(1)
    x, kernel = normal(random, 2, 9, 9, 8), normal(random, 3, 3, 8, 4)
    rounded = [jnp.asarray(a, jnp.bfloat16).astype(jnp.float32) for a in (x, kernel)]
    ours = convolve(x.astype(jnp.bfloat16), kernel, 2)
    np.testing.assert_allclose(ours, xla_convolution(*rounded, 2), atol=1e-4)
