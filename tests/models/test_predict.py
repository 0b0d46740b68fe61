import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_jax.models.network import images_to_float, take_apart
from mnist_jax.models.predict import Predictor, Trained, in_batches, one_copy, to_scores


class Linear(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(len(images), -1))


@pytest.fixture(scope="module")
def trained():
    structure, params, model_state = take_apart(Linear(nnx.Rngs(0)))
    return Trained(Predictor(structure), params, model_state)


def levels(num_images):
    return np.random.default_rng(0).integers(0, 256, (num_images, 4, 4), np.uint8)


@pytest.mark.parametrize("num_images", [1, 3, 250, 251, 600])
def test_scores_are_numpys_whatever_is_left_for_the_last_batch(trained, num_images):
    images = levels(num_images)
    kernel, bias = (np.float64(trained.params["dense"][name]) for name in ("kernel", "bias"))
    exponentials = np.exp(images.reshape(num_images, -1) / 255 @ kernel + bias)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trained.scores(images), expected, atol=1e-6)


def test_levels_and_their_floats_are_the_same_images(trained):
    images = levels(5)
    of_levels = trained.scores(images)
    of_floats = trained.scores(images_to_float(images))  # another program: another last bit
    np.testing.assert_allclose(of_floats, of_levels, atol=1e-6)
    np.testing.assert_array_equal(trained.scores(jnp.asarray(images)), of_levels)


def test_one_program_serves_all_weights_and_all_numbers_of_images(trained):
    predictor = Predictor(trained.predictor.structure)
    others = jax.tree.map(lambda leaf: -leaf, trained.params)
    for params in (trained.params, others):
        for num_images in (251, 300, 600):
            predictor.scores(params, trained.model_state, levels(num_images))
    assert predictor._predict_batch._cache_size() == 1


@pytest.mark.parametrize(("num_images", "batch_size"), [(1, 1), (1, 5), (10, 5), (11, 5), (14, 5)])
def test_arrays_of_jax_are_cut_alike(num_images, batch_size):
    check_batches(num_images, batch_size, jnp.asarray)


@given(num_images=st.integers(1, 40), batch_size=st.integers(1, 17))
def test_batches_have_one_size_and_every_image_one_row_in_order(num_images, batch_size):
    check_batches(num_images, batch_size, np.asarray)


def check_batches(num_images, batch_size, asarray):
    images = np.arange(2 * num_images).reshape(num_images, 2)
    sizes = []

    def predict(batch):
        sizes.append(len(batch))
        return 10 * batch

    rows = in_batches(predict, asarray(images), batch_size)
    np.testing.assert_array_equal(rows, 10 * images)
    assert set(sizes) == {batch_size} and len(sizes) == -(-num_images // batch_size)


def test_arrays_of_several_devices_are_taken_once_and_others_left_alone():
    mesh = Mesh(np.array(jax.devices()[:1]), ("x",))
    alone = jax.device_put(jnp.arange(3), NamedSharding(mesh, PartitionSpec()))
    tree = {"jax": alone, "numpy": np.arange(2)}
    taken = one_copy(tree)
    assert taken["jax"] is alone and taken["numpy"] is tree["numpy"]


def test_scores_of_outputs_are_of_their_kind():
    capsules = np.array([[[3.0, 4.0], [0.0, 1.0]]], np.float32)
    np.testing.assert_allclose(to_scores(capsules, "capsules"), [[5, 1]], rtol=1e-6)
    np.testing.assert_allclose(to_scores(np.zeros((1, 4), np.float32), "logits"), [[0.25] * 4])
