"""Batch normalisation in training with fewer passes over memory, alone and with ReLU.

In a step of a network of small convolutions it is memory that costs: the gradient that follows from
the definition reads the activations five times and writes three arrays of their size; written out,
it reads them twice and writes one.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(
    x: Float[Array, "*rest channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float,
    has_relu: bool,
) -> tuple[Float[Array, "*rest channels"], Float[Array, " channels"], Float[Array, " channels"]]:
    """Normalises each channel by its mean and variance over all other axes, as in training.

    Args:
        x: float32.
        scale: what a deviation of one becomes.
        bias: what the mean becomes.
        epsilon: added to the variance.
        has_relu: whether what is negative then becomes zero.

    Returns:
        The normalised array, and mean and (biased) variance, which have no gradient: they are for
        running averages.
    """
    return _forward(x, scale, bias, epsilon, has_relu)[0]


def _forward(x, scale, bias, epsilon, has_relu):
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    # E[x^2] - E[x]^2 in one pass with the mean, as `nnx.BatchNorm`'s fast variance.
    variance = jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0)
    inverse = lax.rsqrt(variance + epsilon)
    factor = inverse * scale
    y = (x - _over(x, mean)) * _over(x, factor) + _over(x, bias)
    y = jax.nn.relu(y) if has_relu else y
    return (y, mean, variance), (x, mean, inverse, scale, bias)


def _backward(epsilon, has_relu, residuals, grads):
    x, mean, inverse, scale, bias = residuals
    grad = grads[0]
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    factor = inverse * scale
    centred = x - _over(x, mean)
    if has_relu:
        grad = jnp.where(centred * _over(x, factor) + _over(x, bias) > 0, grad, 0)
    bias_grad = jnp.sum(grad, axes)
    scale_grad = jnp.sum(grad * centred, axes) * inverse
    # factor * (grad - mean(grad) - normalised * mean(grad * normalised))
    slope = factor * inverse * scale_grad / count
    x_grad = (
        grad * _over(x, factor) - centred * _over(x, slope) - _over(x, factor * bias_grad / count)
    )
    return x_grad, scale_grad, bias_grad


normalise.defvjp(_forward, _backward)


def _over(x: Array, channels: Array) -> Array:
    return channels.reshape((1,) * (x.ndim - 1) + (-1,))


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` over the last axis, with ReLU after it where `has_relu`.

    Evaluation, and precisions other than float32, are `nnx.BatchNorm`'s own. In training on a CPU
    the values agree with it to float32 rounding, and the running statistics are the same.
    """

    def __init__(self, num_features: int, *, has_relu: bool = False, **options) -> None:
        """Takes the options of `nnx.BatchNorm`; statistics are those of the fast variance."""
        super().__init__(num_features, **options)
        self.has_relu = has_relu

    def __call__(self, x: Array, use_running_average: bool | None = None, **options) -> Array:
        """Normalises; the arguments are `nnx.BatchNorm`'s."""
        is_evaluation = use_running_average
        if is_evaluation is None:
            is_evaluation = self.use_running_average
        is_float32 = x.dtype == jnp.float32 and self.dtype in (None, "float32", jnp.float32)
        is_plain = is_float32 and self.use_fast_variance and self.axis == -1 and not options
        if is_evaluation or not (is_plain and jax.default_backend() == "cpu"):
            y = super().__call__(x, use_running_average=use_running_average, **options)
            return nnx.relu(y) if self.has_relu else y
        ones, zeros = jnp.ones(self.num_features), jnp.zeros(self.num_features)
        scale = ones if self.scale is None else self.scale[...]
        bias = zeros if self.bias is None else self.bias[...]
        y, mean, variance = normalise(  # pyright: ignore[reportGeneralTypeIssues]
            x, scale, bias, self.epsilon, self.has_relu
        )
        rest = 1 - self.momentum
        self.mean[...] = self.momentum * self.mean[...] + rest * mean
        self.var[...] = self.momentum * self.var[...] + rest * variance
        return y
