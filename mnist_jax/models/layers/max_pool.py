"""2x2 max-pooling whose gradient is cheap on a CPU."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


@jax.custom_vjp
def max_pool_2x2(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//2 width//2 channels"]:
    """Takes the largest value of each 2x2 window; stride 2; an odd last row or column is left out.

    The value is `nnx.max_pool`'s, and so is the gradient: all of it goes to the first maximum of a
    window in row-major order. XLA computes that with `select_and_scatter`, on a CPU a scalar loop,
    thirty times slower than the comparisons below (docs/log.md).
    """
    return nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))


def _forward(x):
    pooled = max_pool_2x2(x)
    return pooled, (x, pooled)


def _backward(residuals, grad_pooled):
    x, pooled = residuals
    batch, height, width, channels = pooled.shape
    taken = jnp.zeros(pooled.shape, bool)
    rows = []
    for row in (0, 1):
        columns = []
        for column in (0, 1):
            window = x[:, row : 2 * height : 2, column : 2 * width : 2]
            is_first_max = (window == pooled) & ~taken
            taken |= is_first_max
            columns.append(jnp.where(is_first_max, grad_pooled, 0))
        rows.append(jnp.stack(columns, axis=3))  # [batch, height, width, 2, channels]
    grad = jnp.stack(rows, axis=2)  # [batch, height, 2, width, 2, channels]
    grad = grad.reshape(batch, 2 * height, 2 * width, channels)
    left_out = [(0, whole - used) for whole, used in zip(x.shape, grad.shape, strict=True)]
    return (jnp.pad(grad, left_out),)


max_pool_2x2.defvjp(_forward, _backward)
