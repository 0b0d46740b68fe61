from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_jax.models.capsules import (
    Decoder,
    cast_votes,
    dynamic_routing,
    lengths,
    self_attention_routing,
    squash,
    squash_exponential,
)
from tests.compiling import quick_build, quick_jit

VECTORS = arrays(np.float32, (3, 5, 8), elements=st.floats(-30, 30, width=32))
BATCH, INPUTS, CLASSES, DIMS = 3, 12, 4, 5


def random(seed, *shape, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def routing(votes, biases, num_iterations=3, stop_gradient=False):
    """Routes votes `[batch, inputs, classes, dims]`."""
    columns = jnp.asarray(votes).reshape(*votes.shape[:2], -1)
    options = {"num_iterations": num_iterations, "stop_gradient": stop_gradient}
    return dynamic_routing(columns, jnp.asarray(biases), **options)[0]


def einsum_routing(votes, biases, num_iterations, stop_gradient=False):
    """The paper's form, and the reimplementations' way to stop the gradient."""
    frozen = jax.lax.stop_gradient(votes) if stop_gradient else votes
    logits = jnp.zeros(votes.shape[:3])
    for iteration in range(num_iterations):
        couplings = jax.nn.softmax(logits, axis=2)
        summands = votes if iteration == num_iterations - 1 else frozen
        capsules = squash(jnp.einsum("bij,bijd->bjd", couplings, summands) + biases[None])
        logits += jnp.einsum("bijd,bjd->bij", frozen, capsules)
    return capsules


route = quick_jit(routing, static_argnums=(2, 3))


@settings(deadline=None)
@given(VECTORS)
def test_both_squashes_and_the_lengths_are_the_papers(reference, vectors):
    flat = vectors.reshape(-1, 8).astype(np.float64)
    for ours, theirs in (
        (squash, reference.squash),
        (squash_exponential, reference.squash_exponential),
        (lengths, np.linalg.norm),
    ):
        result = ours(jnp.array(vectors))
        expected = np.array([theirs(vector) for vector in flat]).reshape(result.shape)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("function", [squash, squash_exponential])
def test_a_squash_works_along_the_last_axis_keeps_the_direction_and_stays_below_one(function):
    vectors, function = random(0, 2, 3, 4, scale=5.0), quick_jit(function)
    squashed = np.asarray(function(vectors))
    one_by_one = [[function(v) for v in row] for row in vectors]
    np.testing.assert_allclose(squashed, one_by_one, atol=1e-6)
    of_squashed, of_vectors = (np.linalg.norm(v, axis=-1) for v in (squashed, vectors))
    assert (of_squashed < 1).all()
    cosines = (squashed * vectors).sum(-1) / of_squashed / of_vectors
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("function", [squash, squash_exponential, lengths])
def test_value_and_gradient_at_the_zero_vector_are_finite(function, dtype):
    zeros = np.zeros((2, 8), dtype)
    value, gradient = quick_jit(jax.value_and_grad(lambda x: function(x).sum()))(zeros)
    assert jax.eval_shape(function, zeros).dtype == jnp.float32
    assert abs(value) < 1e-5
    assert np.isfinite(np.float32(gradient)).all()


def test_the_naive_norm_would_fail_that_test():
    naive = jax.grad(lambda x: (x / (jnp.linalg.norm(x) + 1e-7)).sum())(jnp.zeros(8))
    assert jnp.isnan(naive).all()


def test_votes_are_one_matrix_times_one_capsule_each(reference):
    capsules, weights = random(1, BATCH, INPUTS, 8), random(2, INPUTS, 8, CLASSES * DIMS)
    votes = quick_jit(cast_votes)(capsules, weights)
    expected = [reference.cast_votes(c, weights, DIMS) for c in reference.float64(capsules)]
    np.testing.assert_allclose(votes.reshape(BATCH, INPUTS, CLASSES, DIMS), expected, atol=1e-5)


def test_votes_of_many_capsules_do_not_depend_on_compilation():
    """A jaxlib miscompiled products of this many rows on a CPU (jax-ml/jax issue 39103)."""
    capsules, weights = jnp.array(random(3, 40, 1152, 8)), jnp.array(random(4, 1152, 8, 160))
    squashed_votes = lambda c, w: squash(cast_votes(c, w).reshape(40, 1152, 10, 16))  # noqa: E731
    expected = np.einsum("bik,ikn->bin", np.float64(capsules), np.float64(weights))
    expected = expected.reshape(40, 1152, 10, 16)
    norms = np.linalg.norm(expected, axis=-1, keepdims=True)
    expected *= norms / (1 + norms**2)
    np.testing.assert_allclose(jax.jit(squashed_votes)(capsules, weights), expected, atol=1e-5)


@pytest.mark.parametrize("num_iterations", [1, 2, 3, 5])
def test_routing_is_the_papers_procedure(reference, num_iterations):
    votes, biases = random(5, BATCH, INPUTS, CLASSES, DIMS), random(6, CLASSES, DIMS)
    routed = route(votes, biases, num_iterations)
    expected = [
        reference.dynamic_routing(v, biases, num_iterations) for v in reference.float64(votes)
    ]
    np.testing.assert_allclose(routed, expected, atol=1e-5)
    of_einsum = quick_jit(einsum_routing, static_argnums=2)(votes, biases, num_iterations)
    np.testing.assert_allclose(routed, of_einsum, atol=1e-5)


def test_routing_weights_of_one_input_add_up_to_one_over_the_classes():
    """Not over the inputs: where all classes get the same vote, each gets its share of the sum."""
    vote = random(7, DIMS)
    votes = np.broadcast_to(vote, (1, INPUTS, CLASSES, DIMS))
    expected = squash(jnp.array(INPUTS / CLASSES * vote))
    for num_iterations in (1, 3):
        capsules = route(votes, np.zeros((CLASSES, DIMS), np.float32), num_iterations)
        np.testing.assert_allclose(capsules[0], jnp.tile(expected, (CLASSES, 1)), atol=1e-6)


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_the_couplings_are_those_of_the_sums(num_iterations):
    votes, biases = random(19, BATCH, INPUTS, CLASSES, DIMS), random(20, CLASSES, DIMS)
    columns = votes.reshape(BATCH, INPUTS, -1)
    options = {"num_iterations": num_iterations, "stop_gradient": False}
    capsules, couplings = quick_jit(partial(dynamic_routing, **options))(columns, biases)
    np.testing.assert_allclose(couplings.sum(axis=1), 1, atol=1e-6)
    sums = np.einsum("bji,bijd->bjd", np.broadcast_to(couplings, (BATCH, CLASSES, INPUTS)), votes)
    np.testing.assert_allclose(capsules, squash(jnp.array(sums + biases)), atol=1e-5)
    assert (couplings.std() > 1e-3) == (num_iterations > 1)


def test_an_example_is_routed_alike_in_whatever_batch():
    votes, biases = random(8, 5, INPUTS, CLASSES, DIMS), random(9, CLASSES, DIMS)
    together, alone = route(votes, biases), route(votes[2:3], biases)
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_the_gradient_of_routing_goes_where_it_is_said_to_go(stop_gradient):
    votes, biases = random(10, BATCH, INPUTS, CLASSES, DIMS), random(11, CLASSES, DIMS)
    cotangent = random(12, BATCH, CLASSES, DIMS)

    def gradient(function):
        return quick_jit(jax.grad(lambda v: (function(v) * cotangent).sum()))(votes)

    ours = gradient(lambda v: routing(v, biases, 3, stop_gradient))
    expected = gradient(lambda v: einsum_routing(v, biases, 3, stop_gradient))
    other = gradient(lambda v: einsum_routing(v, biases, 3, not stop_gradient))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert jnp.abs(ours - other).max() > 1e-3


def test_the_gradient_of_routing_is_that_of_finite_differences(reference):
    votes, biases = random(13, 1, 4, 3, 2), random(14, 3, 2)
    direction, cotangent = random(15, 4, 3, 2), random(16, 3, 2)
    gradient = quick_jit(jax.grad(lambda v: (routing(v, biases)[0] * cotangent).sum()))(votes)
    step = 1e-6
    there, back = (
        (reference.dynamic_routing(v, biases, 3) * cotangent).sum()
        for v in (votes[0] + step * np.float64(direction), votes[0] - step * np.float64(direction))
    )
    np.testing.assert_allclose(
        (gradient[0] * direction).sum(), (there - back) / (2 * step), rtol=1e-4
    )


def test_self_attention_is_the_papers(reference):
    votes, biases = random(17, BATCH, INPUTS, CLASSES, DIMS), random(18, INPUTS, CLASSES)
    columns = votes.reshape(BATCH, INPUTS, -1)
    routed, couplings = map(np.asarray, quick_jit(self_attention_routing)(columns, biases))
    expected = [reference.self_attention_routing(v, biases) for v in reference.float64(votes)]
    np.testing.assert_allclose(routed, expected, atol=1e-5)
    np.testing.assert_allclose(couplings.sum(axis=1), 1, atol=1e-6)
    weights = np.swapaxes(couplings, 1, 2)[..., None] + biases[None, :, :, None]
    sums = (weights * votes).sum(axis=1)
    np.testing.assert_allclose(routed, squash_exponential(jnp.array(sums)), atol=1e-5)


@pytest.fixture(scope="module")
def decoder():
    return quick_build(lambda: Decoder(image_side=28, num_classes=10, dims=16, rngs=nnx.Rngs(0)))


def test_the_decoder_reads_the_labels_capsule_and_no_other(decoder, reference):
    capsules, labels = random(19, 3, 10, 16), np.array([4, 0, 9])
    drawn = quick_jit(decoder)(capsules, labels)
    weights = reference.float64(nnx.to_pure_dict(nnx.state(decoder)))
    for index, label in enumerate(labels):
        expected = reference.decode(np.float64(capsules[index]), label, weights)
        np.testing.assert_allclose(drawn[index], expected, atol=1e-5)
    longest = np.linalg.norm(capsules, axis=-1).argmax(axis=-1)
    assert (longest != labels).any()  # so a mask by prediction would have drawn something else


def test_the_decoder_takes_all_capsules_and_draws_grey_levels(decoder):
    assert decoder.dense1.kernel.shape == (160, 512)  # one capsule alone would be 16
    drawn = quick_jit(decoder)(random(20, 3, 10, 16, scale=50.0), np.array([1, 2, 3]))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
