import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export
from jax.sharding import AxisType

from mnist_jax.models.layers import conv
from mnist_jax.models.layers.conv import choose_plan, convolve
from tests.compiling import quick_jit


def in_float64(x, kernel, grad, stride, padding):
    """The value and both gradients, as sums over windows in NumPy."""
    size = kernel.shape[0]
    pads = [(0, 0), (0, 0)]
    if padding == "SAME":
        for axis in (0, 1):
            out = math.ceil(x.shape[axis + 1] / stride)
            more = max(0, (out - 1) * stride + size - x.shape[axis + 1])
            pads[axis] = (more // 2, more - more // 2)
    x, kernel, grad = (np.asarray(array, np.float64) for array in (x, kernel, grad))
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = grad.shape[1:3]
    value, kernel_grad, x_grad = np.zeros_like(grad), np.zeros_like(kernel), np.zeros_like(padded)
    for row in range(size):
        for column in range(size):
            rows = slice(row, row + (height - 1) * stride + 1, stride)
            columns = slice(column, column + (width - 1) * stride + 1, stride)
            value += padded[:, rows, columns] @ kernel[row, column]
            kernel_grad[row, column] = np.einsum("bhwc,bhwf->cf", padded[:, rows, columns], grad)
            x_grad[:, rows, columns] += grad @ kernel[row, column].T
    inner = (slice(low, low + n) for (low, _), n in zip(pads, x.shape[1:3], strict=True))
    return value, x_grad[:, *inner], kernel_grad


def check(batch, height, width, channels, features, size, stride, padding):
    random = np.random.default_rng(batch * size)
    x = jnp.asarray(random.standard_normal((batch, height, width, channels)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((size, size, channels, features)), jnp.float32)

    @quick_jit
    def value_and_gradients(x, kernel):
        def ours(x, kernel):
            return convolve(x, kernel, strides=stride, padding=padding)

        value, pullback = jax.vjp(ours, x, kernel)
        grad = jnp.cos(value)
        return grad, (value, *pullback(grad))

    grad, found = value_and_gradients(x, kernel)
    exact = in_float64(x, kernel, grad, stride, padding)
    for one, truth in zip(found, exact, strict=True):
        assert one.shape == truth.shape and one.dtype == jnp.float32
        largest = max(np.abs(truth).max(), 1e-6)
        assert np.abs(one - truth).max() <= 1e-4 * largest


@settings(deadline=None, max_examples=12)
@given(
    st.integers(1, 7),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([1, 3, 48, 49]),
    st.sampled_from([1, 48, 50]),
    st.integers(2, 9),
    st.sampled_from([1, 2]),
    st.sampled_from(["VALID", "SAME"]),
)
def test_values_and_gradients_are_those_of_float64(
    batch, more_rows, more_columns, channels, features, size, stride, padding
):
    check(batch, size + more_rows, size + more_columns, channels, features, size, stride, padding)


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [((5, 11, 11, 48), 3, 1), ((3, 9, 9, 48), 5, 1), ((3, 13, 12, 48), 9, 2)],
)
def test_winograd_is_right(shape, size, stride):
    assert choose_plan("cpu", shape, (size, size, shape[-1], 48), stride, 2) is not None
    check(*shape, 48, size, stride, "VALID")


def test_what_lax_is_as_fast_at_passes_to_it():
    kernel = (3, 3, 64, 64)
    assert choose_plan("cpu", (8, 20, 20, 64), kernel, 1, 2) is not None
    assert choose_plan("gpu", (8, 20, 20, 64), kernel, 1, 2) is None
    assert choose_plan("cpu", (8, 2, 20, 64), kernel, 1, 2) is None  # nothing comes out
    for stride in (2, 3):
        assert choose_plan("cpu", (8, 20, 20, 64), kernel, stride, 2) is None
    for size in (1, 2, 6, 7):
        assert choose_plan("cpu", (8, 20, 20, 64), (size, size, 64, 64), 1, 2) is None
    assert choose_plan("cpu", (8, 20, 20, 64), (3, 5, 64, 64), 1, 2) is None
    assert choose_plan("cpu", (8, 20, 20, 32), (3, 3, 32, 64), 1, 2) is None
    x = jnp.ones((2, 6, 6, 48), jnp.bfloat16)
    assert convolve(x, jnp.ones((3, 3, 48, 48))).dtype == jnp.bfloat16


def test_a_plan_covers_the_batch_with_little_padding():
    for batch in (1, 2, 7, 60, 64, 250, 257, 1000):
        plan = choose_plan("cpu", (batch, 22, 22, 64), (3, 3, 64, 64), 1, 2)
        assert plan is not None
        assert (plan.group == batch) == (batch <= 64)  # 0.46 MB an image
        groups = math.ceil(batch / (plan.lanes * plan.group))
        assert 0 <= groups * plan.lanes * plan.group - batch < groups * plan.lanes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "VALID"},
        {"strides": 2},
        {"padding": [(0, 0), (0, 0)]},
        {"padding": [(1, 0), (0, 1)]},
        {"feature_group_count": 2},
        {"kernel_dilation": 2},
        {"strides": (1, 2)},
        {"dtype": jnp.bfloat16},
    ],
)
def test_a_layer_of_nnx_takes_it(options):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 9, 48)), jnp.float32)
    plain = nnx.Conv(48, 48, (3, 3), rngs=nnx.Rngs(0), **options)
    expected = quick_jit(plain)(x)
    plain.conv_general_dilated = conv.conv_general_dilated
    found = quick_jit(plain)(x)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_seeds_side_by_side():
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((3, 2, 8, 8, 48)), jnp.float32)
    kernels = jnp.asarray(random.standard_normal((3, 3, 3, 48, 48)), jnp.float32)
    found = quick_jit(jax.vmap(convolve))(x, kernels)
    alone = quick_jit(convolve)
    for seed in range(3):
        np.testing.assert_allclose(found[seed], alone(x[seed], kernels[seed]), atol=1e-3)


def test_under_a_mesh_of_one_device():
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    x, kernel = jnp.ones((2, 8, 8, 48)), jnp.ones((3, 3, 48, 48))
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(jax.jit(convolve)(x, kernel), 432.0, rtol=1e-5)


def test_an_export_for_any_batch_size_holds_the_one_operation():
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 9, 9, 48), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 48, 48), jnp.float32)
    exported = export.export(jax.jit(convolve))(images, kernel).mlir_module()
    assert "stablehlo.convolution" in exported and "stablehlo.while" not in exported


def test_direct_forms_keep_the_digits_that_winograd_loses():
    random = np.random.default_rng(0)
    for size, stride in ((5, 1), (9, 2)):
        x = jnp.asarray(random.standard_normal((2, 13, 13, 64)), jnp.float32)
        kernel = jnp.asarray(random.standard_normal((size, size, 64, 48)), jnp.float32)
        fast = convolve(x, kernel, strides=stride)
        with conv.direct_forms():
            direct = convolve(x, kernel, strides=stride)
        exact, _, _ = in_float64(x, kernel, fast, stride, "VALID")
        assert np.abs(direct - exact).max() < 2e-6 * np.abs(exact).max()
        assert (
            np.abs(direct - exact).max() < np.abs(fast - exact).max() < 1e-4 * np.abs(exact).max()
        )
