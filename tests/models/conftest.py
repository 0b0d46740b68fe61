"""The capsule networks' parts once more: float64 NumPy, from the papers, slow and plain."""

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from mnist_jax.models import layers
from mnist_jax.models.network import rebuild, take_apart
from tests.compiling import quick_build, quick_jit


def float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def convolve(images, kernel, stride=1):
    """One output pixel at a time; no padding."""
    size = kernel.shape[0]
    side = (images.shape[1] - size) // stride + 1
    rows = [
        [
            np.tensordot(
                images[:, p * stride : p * stride + size, q * stride : q * stride + size], kernel, 3
            )
            for q in range(side)
        ]
        for p in range(side)
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


def softmax(logits):
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def squash(s):
    """Sabour et al. 2017, equation 1, for one vector."""
    length = np.linalg.norm(s)
    return length**2 / (1 + length**2) * s / length if length > 0 else np.zeros_like(s)


def squash_exponential(s):
    """Mazzia et al. 2021, for one vector."""
    length = np.linalg.norm(s)
    return (1 - 1 / np.exp(length)) * s / length if length > 0 else np.zeros_like(s)


def cast_votes(capsules, weights, dims):
    """One matrix and one input capsule at a time: `[inputs, classes, dims]` of one example."""
    inputs, _, columns = weights.shape
    matrices = weights.reshape(inputs, -1, columns // dims, dims)
    return np.array(
        [[matrices[i, :, j].T @ capsules[i] for j in range(columns // dims)] for i in range(inputs)]
    )


def dynamic_routing(votes, biases, num_iterations):
    """Sabour et al. 2017, procedure 1, for the votes `[inputs, classes, dims]` of one example."""
    inputs, classes, _ = votes.shape
    logits = np.zeros((inputs, classes))
    capsules = np.zeros(votes.shape[1:])
    for _ in range(num_iterations):
        couplings = np.array([softmax(row) for row in logits])
        for j in range(classes):
            capsules[j] = squash((couplings[:, j, None] * votes[:, j]).sum(axis=0) + biases[j])
        logits = logits + np.array(
            [[v @ c for v, c in zip(row, capsules, strict=True)] for row in votes]
        )
    return capsules


def self_attention_routing(votes, biases):
    """Mazzia et al. 2021, with the whole matrix of dot products, for one example."""
    inputs, classes, dims = votes.shape
    attention = np.einsum("ijd,kjd->jik", votes, votes) / np.sqrt(dims)
    couplings = np.array([softmax(attention.sum(axis=2)[:, i]) for i in range(inputs)])
    weights = couplings + biases
    return np.array(
        [
            squash_exponential((weights[:, j, None] * votes[:, j]).sum(axis=0))
            for j in range(classes)
        ]
    )


def decode(capsules, label, decoder):
    """The drawing from one example's capsules."""
    masked = np.zeros_like(capsules)
    masked[label] = capsules[label]
    x = masked.reshape(-1)
    x = np.maximum(x @ decoder["dense1"]["kernel"] + decoder["dense1"]["bias"], 0)
    x = np.maximum(x @ decoder["dense2"]["kernel"] + decoder["dense2"]["bias"], 0)
    x = x @ decoder["dense3"]["kernel"] + decoder["dense3"]["bias"]
    return (1 / (1 + np.exp(-x))).reshape(28, 28, 1)


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(
        float64=float64,
        convolve=convolve,
        softmax=softmax,
        squash=squash,
        squash_exponential=squash_exponential,
        cast_votes=cast_votes,
        dynamic_routing=dynamic_routing,
        self_attention_routing=self_attention_routing,
        decode=decode,
    )


@pytest.fixture(scope="session")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))


@pytest.fixture(scope="session")
def build() -> Callable[[type], Any]:
    """Builds a network of ten classes as it is trained; each kind once, which takes seconds."""

    @cache
    def build_once(network):
        model = quick_build(lambda: network(num_classes=10, rngs=nnx.Rngs(0)))
        layers.quicken(model)
        return model

    return build_once


@pytest.fixture(scope="session")
def compiled() -> Callable[..., Any]:
    """Compiles `function(network, *arrays)` into a function of the arrays.

    It returns what `function` does, and the network's other state as it is then; the network itself
    stays as it was.
    """

    def compiled(model, function):
        structure, params, model_state = take_apart(model)

        @quick_jit
        def run(params, model_state, *arrays):
            network = rebuild(structure, params, model_state)
            return function(network, *arrays), take_apart(network)[2]

        return partial(run, params, model_state)

    return compiled


@pytest.fixture(scope="session")
def rebuild_with() -> Callable[..., Any]:
    """Builds a network that is made with other arguments but has the given one's weights."""

    def rebuild_with(model, dtype="float32", **arguments):
        arguments = {"num_classes": 10, **arguments}
        other = nnx.eval_shape(lambda: type(model)(**arguments, rngs=nnx.Rngs(0)))
        layers.compute_in(other, dtype)
        _, params, model_state = take_apart(model)
        return rebuild(take_apart(other)[0], params, model_state)

    return rebuild_with


@pytest.fixture(scope="session")
def shake() -> Callable[[Any], Any]:
    """Moves every weight and every statistic a little, since zeros and ones hide mistakes."""

    def shake(model):
        random = np.random.default_rng(0)
        structure, params, model_state = take_apart(model)
        params = jax.tree.map(
            lambda leaf: leaf + 0.05 * random.standard_normal(leaf.shape, np.float32), params
        )
        model_state = jax.tree.map(
            lambda leaf: leaf + 0.1 * random.random(leaf.shape, np.float32), model_state
        )
        return rebuild(structure, params, model_state)

    return shake
