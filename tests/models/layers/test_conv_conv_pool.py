import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from mnist_jax.models.layers.conv_conv_pool import _INPUT, _KERNEL, _OUTPUT
from mnist_jax.models.layers.conv_conv_pool import _fused as conv_conv_pool
from tests.compiling import quick_jit


def layer_after_layer(images, kernel1, bias1, kernel2, bias2):
    """The same function as XLA's convolutions and pooling compute it."""

    def conv(x, kernel, bias):
        layout = ("NHWC", "HWIO", "NHWC")
        out = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)
        return nnx.relu(out + bias[None, None, None])

    x = conv(conv(images, kernel1, bias1), kernel2, bias2)
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def arguments(batch_size, seed=0):
    random = np.random.default_rng(seed)
    shapes = (batch_size, 28, 28, 1), (3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,)
    scales = 1.0, 0.3, 0.1, 0.06, 0.1
    return [
        jnp.array(scale * random.normal(size=shape), jnp.float32)
        for scale, shape in zip(scales, shapes, strict=True)
    ]


def value_and_gradients(function, weights, args, jit=quick_jit):
    @jit
    def both(args):  # as in training: the value comes with what its gradients need
        value, backward = jax.vjp(function, *args)
        return value, backward(jnp.broadcast_to(weights, value.shape).astype(value.dtype))

    value, gradients = both(args)
    return np.asarray(value), [np.asarray(gradient) for gradient in gradients]


@pytest.mark.parametrize("batch_size", [1, 8, 21])  # 21: the last group is filled up
def test_it_is_the_layers_one_after_another_in_float64(batch_size):
    args = arguments(batch_size)
    weights = np.random.default_rng(1).normal(size=(batch_size, 12, 12, 64)).astype(np.float32)
    value, gradients = value_and_gradients(conv_conv_pool, weights, args)
    with jax.enable_x64(True):
        exact = [jnp.asarray(arg, jnp.float64) for arg in args]
        # Loops, as Eigen has no convolutions in float64: LLVM makes them ten times as fast.
        expected, expected_gradients = value_and_gradients(
            layer_after_layer, weights, exact, jax.jit
        )
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    for gradient, truth in zip(gradients, expected_gradients, strict=True):
        assert np.abs(gradient - truth).max() < 1e-4 * np.abs(truth).max()


def test_a_training_does_not_pay_for_the_gradient_of_the_images():
    def flops(argnums):
        gradient = jax.grad(lambda *args: conv_conv_pool(*args).sum(), argnums)
        return jax.jit(gradient).lower(*arguments(8)).compile().cost_analysis()["flops"]

    weights, images_too = flops((1, 2, 3, 4)), flops((0, 1, 2, 3, 4))
    products = 2 * 8 * 36 * (36 * 32 * 10 + 360 * 65)  # to the patches, and on to the pixels
    assert images_too - weights > 0.9 * products


def test_flat_images_pay_the_first_of_equal_outputs():
    images, *weights = arguments(2)
    images = jnp.ones_like(images)  # every window of the pooling is a tie
    value, gradients = value_and_gradients(conv_conv_pool, 1.0, [images, *weights])
    expected, truths = value_and_gradients(layer_after_layer, 1.0, [images, *weights])
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    # The images' aside: rounding breaks ties, and only they can tell which place was taken.
    for gradient, truth in zip(gradients[1:], truths[1:], strict=True):
        assert np.abs(gradient - truth).max() < 1e-4 * np.abs(truth).max()


def test_the_matrices_are_winograds_identity():
    # A^T ((G g) * (B^T d)) correlates six inputs with three taps: Lavin and Gray, section 4.
    random = np.random.default_rng(0)
    data, taps = random.normal(size=6), random.normal(size=3)
    product = (_KERNEL @ taps) * (_INPUT @ data)
    np.testing.assert_allclose(_OUTPUT @ product, np.correlate(data, taps, "valid"), rtol=1e-5)
