"""Dynamic routing on a CPU without votes, of which the published network has 0.7 MB an image.

The sum for a class and the agreement with it are linear in the input capsules u and their weights,

    sum_j = sum_i c_ij W_ij u_i    and    (W_ij u_i) . v_j = u_i . (W_ij^T v_j),

so a product of matrices for each class, over inputs and dims of the whole batch, takes the place of
the votes. Images are the last axis, along which all that is between products is computed at once.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mnist_jax.models.capsules import cast_votes, dynamic_routing, squash
from mnist_jax.models.layers.groups import in_groups

IMAGES_PER_GROUP = 64  # of which the published network's couplings times capsules have 24 MB
MAX_CLASSES = 32  # a sum over classes is written out term by term, which takes time to compile


def route(
    capsules: Float[Array, "batch inputs input_dims"],
    weights: Float[Array, "inputs input_dims columns"],
    biases: Float[Array, "classes dims"],
    *,
    num_iterations: int,
    stop_gradient: bool,
) -> Float[Array, "batch classes dims"]:
    """Returns the class capsules of `dynamic_routing` for the votes of the capsules.

    Args:
        capsules: below the routing; float32.
        weights: what turns each into its votes; `columns` is classes times dims.
        biases: see `dynamic_routing`, as for what follows.
        num_iterations: 1 or more.
        stop_gradient: whether the last iteration alone has a gradient.
    """
    by_votes = partial(_by_votes, num_iterations, stop_gradient)
    if jax.default_backend() != "cpu" or not isinstance(capsules.shape[0], int):
        # An accelerator, or an export: the graph says what is meant, in plain products.
        return by_votes(capsules, weights, biases)
    if len(biases) > MAX_CLASSES:
        return in_groups(by_votes, capsules, weights, biases, group=1)
    without_votes = partial(_without_votes, num_iterations, stop_gradient)
    return in_groups(without_votes, capsules, weights, biases, group=IMAGES_PER_GROUP)


def _by_votes(num_iterations, stop_gradient, capsules, weights, biases):
    votes = cast_votes(capsules, weights)
    return dynamic_routing(
        votes, biases, num_iterations=num_iterations, stop_gradient=stop_gradient
    )[0]


def _without_votes(num_iterations, stop_gradient, capsules, weights, biases):
    classes, dims = biases.shape
    images, inputs, input_dims = capsules.shape
    weights = weights.reshape(inputs * input_dims, classes, dims).transpose(1, 0, 2)
    # By a product with the identity, since XLA repeats a transposition wherever it is read.
    capsules = jnp.einsum("gn,gh->nh", capsules.reshape(images, -1), np.eye(images, dtype="f4"))
    capsules = capsules.reshape(inputs, input_dims, images)
    steering = weights, capsules
    if stop_gradient:
        steering = jax.lax.stop_gradient(steering)
    sum_of_capsules = class_capsules = jnp.zeros((classes, 1, dims))
    for iteration in range(num_iterations):
        is_last = iteration == num_iterations - 1
        w, u = (weights, capsules) if is_last else steering
        if iteration == 0:  # all couplings are alike
            sums = jnp.einsum("jnd,ng->jgd", w, u.reshape(-1, images)) / classes
        else:
            # Procedure 1 adds the agreements with one capsule after the other to the logits.
            sum_of_capsules += class_capsules
            directions = jnp.einsum("jnd,jgd->jng", steering[0], sum_of_capsules)
            directions = directions.reshape(classes, inputs, input_dims, images)
            couplings = _softmax(_agreements(directions, steering[1]))
            coupled = _couple(couplings, u).reshape(classes, -1, images)
            sums = jnp.einsum("jnd,jng->jgd", w, coupled)
        class_capsules = squash(sums + biases[:, None])
    return class_capsules.transpose(1, 0, 2)


# What stands between the products, each with a gradient in the form that XLA's CPU backend computes
# well: sums over a leading axis written out, and a product with a constant where a sum has several
# readers, since every operation that reads a sum computes it again, and a product is computed once.

Couplings = Float[Array, "classes inputs images"]
Capsules = Float[Array, "inputs input_dims images"]
Directions = Float[Array, "classes inputs input_dims images"]


def _sum(terms):
    return reduce(jnp.add, terms)


def _product_over_classes(constant, x):
    return jnp.matmul(constant.astype(np.float32), x.reshape(len(x), -1)).reshape(x.shape)


def _dot_over_dims(directions, capsules):
    terms = [directions[:, :, dim] * capsules[None, :, dim] for dim in range(capsules.shape[1])]
    return _product_over_classes(np.eye(len(directions)), _sum(terms))


def _dot_over_classes(couplings, directions):
    return _sum([c[:, None] * d for c, d in zip(couplings, directions, strict=True)])


def _sum_over_classes(x):
    return _product_over_classes(np.ones((len(x), len(x))), x)


@jax.custom_vjp
def _agreements(directions: Directions, capsules: Capsules) -> Couplings:
    return _dot_over_dims(directions, capsules)


_agreements.defvjp(
    lambda directions, capsules: (_dot_over_dims(directions, capsules), (directions, capsules)),
    lambda saved, grad: (grad[:, :, None] * saved[1][None], _dot_over_classes(grad, saved[0])),
)


@jax.custom_vjp
def _couple(couplings: Couplings, capsules: Capsules) -> Directions:
    return couplings[:, :, None] * capsules[None]


_couple.defvjp(
    lambda couplings, capsules: (couplings[:, :, None] * capsules[None], (couplings, capsules)),
    lambda saved, grad: (_dot_over_dims(grad, saved[1]), _dot_over_classes(saved[0], grad)),
)


@jax.custom_vjp
def _softmax(logits: Couplings) -> Couplings:
    powers = jnp.exp(logits - reduce(jnp.maximum, list(logits))[None])
    return powers / _sum_over_classes(powers)


def _softmax_forward(logits):
    couplings = _softmax(logits)
    return couplings, couplings


_softmax.defvjp(
    _softmax_forward,
    lambda couplings, grad: (couplings * (grad - _sum_over_classes(couplings * grad)),),
)
