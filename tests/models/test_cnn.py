import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate

from mnist_jax import models
from mnist_jax.models.network import call_in_training, num_parameters, rebuild, scores, take_apart
from mnist_jax.training.losses.nll import nll
from tests.compiling import quick_build, quick_jit


@pytest.fixture(scope="module")
def model():
    facts = models.Facts(num_classes=10, image_mean=0.13, image_std=0.31)
    return quick_build(lambda: models.build("mnist_cnn_v1", rngs=nnx.Rngs(0), **facts))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))


def reference(params, images):
    """The network in float64 NumPy and SciPy, from its description in the documentation."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def convolve(image, layer):  # (height, width, in) -> (height - 2, width - 2, out)
        kernel, bias = p[layer]["kernel"], p[layer]["bias"]
        maps = [
            sum(
                correlate(image[..., i], kernel[..., i, o], "valid") for i in range(kernel.shape[2])
            )
            for o in range(kernel.shape[3])
        ]
        return np.maximum(np.stack(maps, axis=-1) + bias, 0)

    logits = []
    for image in np.asarray(images, np.float64):
        x = convolve(convolve((image - 0.13) / 0.31, "conv1"), "conv2")
        x = x.reshape(12, 2, 12, 2, 64).max(axis=(1, 3))
        x = x.transpose(2, 0, 1).reshape(-1)  # channel by channel
        x = np.maximum(x @ p["dense1"]["kernel"] + p["dense1"]["bias"], 0)
        logits.append(x @ p["dense2"]["kernel"] + p["dense2"]["bias"])
    return np.array(logits)


def test_it_has_the_documented_number_of_parameters(model):
    _, params, model_state = take_apart(model)
    assert num_parameters(params) == 1_199_882
    assert set(model_state) == {"image_mean", "image_std"}


def test_it_computes_what_its_description_says(model, images):
    _, params, _ = take_apart(model)
    expected = reference(params, images)
    logits, probability = quick_jit(lambda images: (model(images), scores(model, images)))(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    exponentials = np.exp(expected - expected.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probability, probabilities, atol=1e-6)


@pytest.fixture(scope="module")
def logits(model, images):
    """The logits of a call in evaluation."""
    return quick_jit(lambda images: model(images))(images)


@pytest.fixture(scope="module")
def in_training(model, images):
    """The logits of a call in training, by its key."""
    structure, params, model_state = take_apart(model)
    return jax.jit(lambda key: call_in_training(structure, params, model_state, images, key)[1])


def test_dropout_runs_in_training_and_only_then(model, images, logits, in_training):
    np.testing.assert_allclose(model(images), logits, atol=1e-5)
    first, again, other = (in_training(jax.random.key(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert not jnp.allclose(first, other)
    assert not jnp.allclose(first, logits)


def test_dropout_keeps_the_mean(logits, in_training):
    drawn = np.stack([in_training(jax.random.key(seed)) for seed in range(300)])
    spread = drawn.std(axis=0) / 300**0.5
    # A ReLU stands behind the first dropout, so the mean is kept only about, not exactly.
    assert (np.abs(drawn.mean(axis=0) - logits) < 6 * spread + 0.1).all()


def test_every_gradient_is_finite_and_none_is_zero(model, images):
    structure, params, model_state = take_apart(model)

    def loss(params):
        logits = rebuild(structure, params, model_state)(images)
        return nll(logits, jnp.array([1, 2, 3])).mean()

    for path, gradient in jax.tree.leaves_with_path(quick_jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
