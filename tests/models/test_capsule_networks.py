"""What holds for every capsule network alike."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import optax
import pytest
from flax import nnx

from mnist_jax import models
from mnist_jax.config import MODELS
from mnist_jax.errors import UserError
from mnist_jax.export.onnx import to_bytes
from mnist_jax.models.efficient import EfficientCapsNet, EfficientCNN
from mnist_jax.models.hvc import HVCCapsNet
from mnist_jax.models.network import (
    call_in_training,
    num_exported_parameters,
    output_kind,
    rebuild,
    scores,
    scores_of,
    take_apart,
)
from mnist_jax.models.sabour import SabourCapsNet, SabourCNN
from mnist_jax.release.structure import ALLOWED_OPERATORS
from mnist_jax.training import losses
from mnist_jax.training.reconstruction import reconstruction_loss
from tests.compiling import quick_build, quick_jit

NETWORKS = [SabourCapsNet, EfficientCapsNet, HVCCapsNet]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.__name__)
def model(request, build):
    return build(request.param)


# `test_capsules.py` has the gradient of the routing of `SabourCapsNet` by itself.
trained_by_default = pytest.mark.parametrize(
    "model",
    [pytest.param(SabourCapsNet, marks=pytest.mark.slow), EfficientCapsNet, HVCCapsNet],
    ids=lambda network: network.__name__,
    indirect=True,
)


@pytest.fixture(scope="module")
def scores_of_model(model, compiled):
    run = compiled(model, scores)
    return lambda images: run(images)[0]


def fitting_loss(model):
    """The loss that the recipes have for a network's kind of outputs."""
    return losses.find({"capsules": "capsule_loss_v1", "logits": "nll"}[output_kind(model)])


def digits(num_images):
    """Ten patterns with noise, so that there is something to learn."""
    random = np.random.default_rng(0)
    labels = np.arange(num_images) % 10
    patterns = random.random((10, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    images = 0.8 * patterns[labels] + 0.2 * random.random((num_images, 28, 28))
    return jnp.array(images[..., None], jnp.float32), jnp.array(labels)


@pytest.fixture(scope="module")
def loss_and_gradient(model):
    """A training step's forward and backward pass on six images, compiled once."""
    structure, _, _ = take_apart(model)

    @quick_jit
    def loss_and_gradient(params, model_state, images, labels):
        def loss_fn(params):
            network, outputs, after = call_in_training(
                structure, params, model_state, images, jax.random.key(0)
            )
            of_images = fitting_loss(model)(outputs, labels)
            if hasattr(network, "reconstruct"):
                drawn = network.reconstruct(outputs, labels)
                of_images += 0.0005 * reconstruction_loss(drawn, images)
            return of_images.mean(), after

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    return loss_and_gradient


def test_scores_are_between_zero_and_one_and_far_from_saturation(scores_of_model, images):
    assert scores_of_model(images).shape == (3, 10)
    assert scores_of_model(images).min() > 0
    assert scores_of_model(images).max() < 0.5  # drawn too wide, weights put every capsule at 0.999


def test_an_image_gets_the_same_scores_in_whatever_batch(scores_of_model, images):
    alike, expected = jnp.stack([images[1]] * 3), scores_of_model(images)[jnp.array([1, 1, 1])]
    np.testing.assert_allclose(scores_of_model(alike), expected, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(SabourCapsNet, marks=pytest.mark.slow),
        EfficientCapsNet,
        pytest.param(HVCCapsNet, marks=pytest.mark.slow),
    ],
    ids=lambda network: network.__name__,
    indirect=True,
)
def test_compiled_as_in_use_it_gives_the_same_scores(model, images, scores_of_model):
    structure, *arrays = take_apart(model)
    as_in_use = jax.jit(lambda arrays, images: scores(rebuild(structure, *arrays), images))
    np.testing.assert_allclose(as_in_use(arrays, images), scores_of_model(images), atol=1e-5)


def test_half_precision_convolutions_change_little(
    model, images, scores_of_model, compiled, rebuild_with
):
    half = rebuild_with(model, dtype="bfloat16")
    of_half, _ = compiled(half, scores)(images)
    assert of_half.dtype == jnp.float32
    np.testing.assert_allclose(of_half, scores_of_model(images), atol=0.02)
    assert (
        jnp.abs(of_half - scores_of_model(images)).max() > 1e-7
    )  # it was asked for, and it was done


@trained_by_default
def test_gradients_are_finite_at_black_images_and_reach_every_parameter(model, loss_and_gradient):
    _, params, model_state = take_apart(model)
    images, labels = digits(6)
    without_biases = jax.tree.map_with_path(
        lambda path, leaf: np.zeros_like(leaf) if "bias" in str(path) else leaf, params
    )
    for weights in (params, without_biases):  # without them, all capsules are the zero vector
        _, gradient = loss_and_gradient(weights, model_state, np.zeros_like(images), labels)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    _, gradient = loss_and_gradient(params, model_state, images, labels)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@trained_by_default
def test_twenty_steps_from_the_start_lower_the_loss_by_a_fifth(model, loss_and_gradient):
    _, params, model_state = take_apart(model)
    images, labels = digits(6)
    optimizer = optax.adam(1e-3)
    opt_state = quick_jit(optimizer.init)(params)
    seen = []

    @quick_jit
    def update(gradient, opt_state, params):
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(21):
        (loss, model_state), gradient = loss_and_gradient(params, model_state, images, labels)
        params, opt_state = update(gradient, opt_state, params)
        seen.append(float(loss))
        if loss < 0.8 * seen[0]:
            return
    pytest.fail(f"the loss went from {seen[0]} to {seen[-1]}")


def operators_of(exported):
    return {node.op_type for node in onnx.load_from_string(exported).graph.node}


def broadcast_products(graph):
    """Products by a stack of constant matrices that are repeated: OpenCV 5 computes them wrongly.

    `release/runtimes.py` sees that with OpenCV itself, where it is installed.
    """
    constants = {array.name: list(array.dims) for array in graph.initializer}
    shapes = {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    for node in graph.node:
        stack = constants.get(node.input[1], []) if node.op_type == "MatMul" else []
        if len(stack) > 2 and shapes[node.input[0]][:-2] != stack[:-2]:
            yield node.name


def test_the_onnx_file_gives_the_same_scores_in_every_batch(model, images, scores_of_model):
    exported = to_bytes(model, (28, 28, 1), {})
    assert not list(broadcast_products(onnx.load_from_string(exported).graph))
    assert operators_of(exported) <= ALLOWED_OPERATORS - {"Einsum"}
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    for batch in (slice(0, 3), slice(1, 2)):
        (of_file,) = session.run(None, {"image": np.array(images[batch].transpose(0, 3, 1, 2))})
        np.testing.assert_allclose(of_file, scores_of_model(images)[batch], atol=1e-5)


@pytest.mark.parametrize("side", [28, 36, 40])
@pytest.mark.parametrize(
    ("capsules", "cnn"), [(SabourCapsNet, SabourCNN), (EfficientCapsNet, EfficientCNN)]
)
def test_the_cnns_have_the_size_of_their_capsule_networks(capsules, cnn, side):
    def size(network):
        model = nnx.eval_shape(lambda: network(num_classes=10, image_side=side, rngs=nnx.Rngs(0)))
        return num_exported_parameters(take_apart(model)[1])

    assert 0 < size(cnn) / size(capsules) - 1 < 0.011


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("model_id", MODELS)
def test_images_that_are_too_small_are_refused_and_the_smallest_are_not(model_id, num_channels):
    least = max(getattr(models.find(model_id), "min_image_side", 1), 16)

    def outputs(side):
        facts = models.Facts(num_classes=3, image_side=side, num_channels=num_channels)
        model = models.build(model_id, rngs=nnx.Rngs(0), **facts)
        return scores(model, jnp.zeros((2, side, side, num_channels)))

    assert nnx.eval_shape(lambda: outputs(least)).shape == (2, 3)
    if least > 16:
        with pytest.raises(UserError, match=f"is {least - 1}, but .* needs images of {least} pix"):
            outputs(least - 1)


SLOW_TO_COMPILE = ("mnist_capsule_v1", "mnist_hvc_capsule_v1", "mnist_sabour_cnn_v1")


@pytest.mark.parametrize(
    "model_id",
    [
        pytest.param(model_id, marks=pytest.mark.slow) if model_id in SLOW_TO_COMPILE else model_id
        for model_id in MODELS
    ],
)
def test_every_network_takes_larger_images_in_colour(model_id, compiled):
    shape = (36, 36, 3)
    facts = models.Facts(num_classes=10, image_side=36, num_channels=3)
    model = quick_build(lambda: models.build(model_id, rngs=nnx.Rngs(0), **facts))
    images = jax.random.uniform(jax.random.key(0), (2, *shape))

    def everything(network, images):
        outputs = network(images)
        labels = jnp.array([1, 2])
        again = network.reconstruct(outputs, labels) if hasattr(network, "reconstruct") else images
        return (
            scores_of(outputs, output_kind(network)),
            fitting_loss(network)(outputs, labels),
            again,
        )

    (of_jax, of_images, again), _ = compiled(model, everything)(images)
    assert (of_jax.shape, of_images.shape, again.shape) == ((2, 10), (2,), images.shape)
    file = to_bytes(model, shape, {})
    assert operators_of(file) <= ALLOWED_OPERATORS
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (of_file,) = session.run(None, {"image": np.array(images.transpose(0, 3, 1, 2))})
    np.testing.assert_allclose(of_file, of_jax, atol=1e-5)
