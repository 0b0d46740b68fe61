"""Taking a network apart and putting it together again, for any module of Flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mnist_jax.models.network import (
    call_in_training,
    images_to_float,
    num_exported_parameters,
    output_kind,
    rebuild,
    scores,
    take_apart,
)


class Everything(nnx.Module):
    """Parameters, statistics, two streams of random numbers, and a decoder."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(12, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)
        self.first, self.second = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.decoder = nnx.Linear(3, 12, rngs=rngs)

    def __call__(self, images):
        x = self.norm(self.dense(images.reshape(len(images), -1)))
        return jnp.stack([self.first(jnp.ones_like(x)), self.second(jnp.ones_like(x)), x])


class Weak(nnx.Module):
    def __init__(self) -> None:
        self.bias = nnx.Param(jnp.full(3, 0.1))
        self.steps = nnx.Variable(jnp.full((), 0))

    def __call__(self, images):
        return images + self.bias


@pytest.fixture
def model():
    return Everything(nnx.Rngs(0))


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(5), (40, 2, 2, 3))


def test_a_network_that_was_taken_apart_computes_what_it_did(model, images):
    structure, params, model_state = take_apart(model)
    again = rebuild(structure, params, model_state)
    np.testing.assert_array_equal(again(images), model(images))  # both in evaluation mode
    assert (again(images)[0] == 1).all()


def test_parameters_and_other_arrays_are_apart_and_random_streams_in_neither(model):
    _, params, model_state = take_apart(model)
    assert sorted(params) == ["decoder", "dense", "norm"]
    assert sorted(params["norm"]) == ["bias", "scale"]
    assert sorted(model_state) == ["norm"] and sorted(model_state["norm"]) == ["mean", "var"]
    assert num_exported_parameters(params) == 12 * 3 + 3 + 3 + 3  # none of the decoder's 48


def test_in_training_statistics_move_and_the_arrays_that_were_given_do_not(model, images):
    structure, params, model_state = take_apart(model)
    before = jax.tree.map(np.array, (params, model_state))
    _, _, after = call_in_training(structure, params, model_state, images, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, (params, model_state), before)
    kernel, bias = (np.asarray(params["dense"][name]) for name in ("kernel", "bias"))
    x = np.asarray(images).reshape(40, -1) @ kernel + bias
    np.testing.assert_allclose(after["norm"]["mean"], 0.5 * x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(after["norm"]["var"], 0.5 + 0.5 * x.var(axis=0), atol=1e-6)


def test_the_key_alone_decides_what_is_random_and_no_two_layers_draw_alike(model, images):
    structure, params, model_state = take_apart(model)

    def drawn(seed):
        key = jax.random.key(seed)
        return call_in_training(structure, params, model_state, images, key)[1][:2] > 0

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert 0.3 < float(drawn(1).mean()) < 0.7
    assert 0.3 < float((drawn(1) != drawn(2)).mean()) < 0.7
    assert 0.3 < float((drawn(1)[0] != drawn(1)[1]).mean()) < 0.7


def test_a_network_that_asks_for_rngs_when_it_is_called_gets_them(images):
    class Asks(nnx.Module):
        def __call__(self, images, *, rngs: nnx.Rngs | None = None):
            return jnp.zeros(3) if rngs is None else jax.random.normal(rngs.dropout(), (3,))

    structure, params, model_state = take_apart(Asks())
    assert structure.takes_rngs
    assert (rebuild(structure, params, model_state)(images) == 0).all()
    draw = [
        call_in_training(structure, params, model_state, images, jax.random.key(seed))[1]
        for seed in (1, 1, 2)
    ]
    assert (draw[0] == draw[1]).all() and (draw[0] != draw[2]).all()


def test_scores_are_softmax_of_logits_and_lengths_of_capsules(images):
    class Gives(nnx.Module):
        def __init__(self, outputs, kind=None):
            self.given = nnx.Variable(outputs)
            if kind is not None:
                self.outputs = kind

        def __call__(self, images):
            return self.given[...]

    logits = Gives(jnp.log(jnp.array([[1.0, 3.0]])))
    assert output_kind(logits) == "logits"
    np.testing.assert_allclose(scores(logits, images[:1]), [[0.25, 0.75]], rtol=1e-6)
    capsules = Gives(jnp.array([[[0.3, 0.4], [0.0, -0.2]]]), "capsules")
    np.testing.assert_allclose(scores(capsules, images[:1]), [[0.5, 0.2]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 5, 5, 1), (2, 5, 5, 3)])
def test_levels_become_floats_from_0_to_1_with_an_axis_of_channels(shape):
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    levels.flat[:2] = 0, 255
    floats = images_to_float(levels)
    assert floats.dtype == np.float32 and floats.shape == (*shape[:3], *(shape[3:] or (1,)))
    np.testing.assert_array_equal(np.rint(floats * 255).reshape(shape), levels)
    assert floats.min() == 0 and floats.max() == 1


def test_arrays_of_pythons_numbers_are_typed_as_what_a_training_step_makes_of_them():
    model = Weak()
    assert model.bias[...].weak_type
    _, *trees = take_apart(model)
    assert [(leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(trees)] == [
        (jnp.float32, False),
        (jnp.int32, False),
    ]
