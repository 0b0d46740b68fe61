"""Dynamic routing whose votes, 0.7 MB an image in the published network, stay in the cache."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mnist_jax.models import capsules as capsules_module
from mnist_jax.models.capsules import dynamic_routing
from mnist_jax.models.layers.groups import in_groups

IMAGES_PER_GROUP = 1


@jax.custom_vjp
def cast_votes(
    capsules: Float[Array, "batch inputs input_dims"],
    weights: Float[Array, "inputs input_dims columns"],
) -> Float[Array, "batch inputs columns"]:
    """Returns what `capsules.cast_votes` does: for few images, sums are faster than products."""
    terms = [capsules[:, :, dim, None] * weights[None, :, dim] for dim in range(capsules.shape[-1])]
    return sum(terms[1:], terms[0])


def _forward(capsules, weights):
    return cast_votes(capsules, weights), (capsules, weights)


def _backward(residuals, grad):
    capsules, weights = residuals
    capsules_grad = jnp.einsum("bic,ikc->bik", grad, weights)
    return capsules_grad, jnp.einsum("bic,bik->ikc", grad, capsules)


cast_votes.defvjp(_forward, _backward)


def route(
    capsules: Float[Array, "batch inputs input_dims"],
    weights: Float[Array, "inputs input_dims columns"],
    biases: Float[Array, "classes dims"],
    *,
    num_iterations: int,
    stop_gradient: bool,
) -> Float[Array, "batch classes dims"]:
    """Returns the class capsules of `dynamic_routing` for the votes of the capsules.

    On a CPU it goes image by image, and the gradient computes the votes again.

    Args:
        capsules: below the routing; float32.
        weights: what turns each into its votes; `columns` is classes times dims.
        biases: see `dynamic_routing`, as for what follows.
        num_iterations: 1 or more.
        stop_gradient: whether the last iteration alone has a gradient.
    """
    if jax.default_backend() != "cpu" or not isinstance(capsules.shape[0], int):
        # An accelerator, or an export: the graph says what is meant, in plain products.
        votes = capsules_module.cast_votes(capsules, weights)
        return dynamic_routing(
            votes, biases, num_iterations=num_iterations, stop_gradient=stop_gradient
        )[0]
    function = partial(_route, num_iterations, stop_gradient)
    return in_groups(function, capsules, weights, biases, group=IMAGES_PER_GROUP)


def _route(num_iterations, stop_gradient, capsules, weights, biases):
    votes = cast_votes(capsules, weights)
    classes, _ = dynamic_routing(
        votes, biases, num_iterations=num_iterations, stop_gradient=stop_gradient
    )
    return classes
