import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import nnx

from mnist_jax.export.onnx import to_bytes
from mnist_jax.models.layers import plain
from mnist_jax.models.network import num_parameters, rebuild, scores, take_apart
from mnist_jax.models.sabour import SabourCapsNet
from tests.compiling import quick_jit


@pytest.fixture(scope="module")
def model(build):
    return build(SabourCapsNet)


@pytest.fixture(scope="module")
def weights(model, reference):
    return reference.float64(take_apart(model)[1])


@pytest.fixture(scope="module")
def primary(weights, reference, images):
    """The primary capsules in the paper's words: 32 types of 8 dims at each of 6x6 places."""
    x = np.float64(images[:2])
    x = np.maximum(reference.convolve(x, weights["conv1"]["kernel"]) + weights["conv1"]["bias"], 0)
    assert x.shape == (2, 20, 20, 256)
    x = reference.convolve(x, weights["primary_conv"]["kernel"], stride=2) / 32
    x = x + weights["primary_biases"]
    assert x.shape == (2, 6, 6, 256)
    return np.array(
        [
            [
                reference.squash(example[row, column, 8 * kind : 8 * kind + 8])
                for row in range(6)
                for column in range(6)
                for kind in range(32)
            ]
            for example in x
        ]
    )


def test_parameters_are_counted_as_in_the_paper(model):
    _, params, model_state = take_apart(model)
    decoder = num_parameters(params["decoder"])
    class_biases = params["class_biases"].size
    assert class_biases == 160
    assert num_parameters(params) - decoder - class_biases == 6_804_224
    assert num_parameters(params) - class_biases == 8_215_568
    assert not model_state


@pytest.fixture(scope="module")
def outputs(model, images, compiled):
    """Everything that the network computes from two images; the labels are 3 and 8."""

    def everything(network, images):
        capsules = network(images)
        return {
            "primary": network.primary_capsules(images),
            "primary_exported": plain(network).primary_capsules(images),
            "capsules": capsules,
            "scores": scores(network, images),
            "drawn": network.reconstruct(capsules, jnp.array([3, 8])),
        }

    return compiled(model, everything)(images[:2])[0]


def test_primary_capsules_are_the_papers(outputs, primary):
    np.testing.assert_allclose(outputs["primary"], primary, atol=1e-5)
    np.testing.assert_allclose(outputs["primary_exported"], primary, atol=1e-5)
    assert outputs["primary"].min() < 0  # a ReLU before the squash would leave none


def test_class_capsules_and_scores_are_the_papers(outputs, primary, weights, reference):
    votes = [reference.cast_votes(c, weights["vote_weights"], 16) for c in primary]
    expected = np.array([reference.dynamic_routing(v, weights["class_biases"], 3) for v in votes])
    np.testing.assert_allclose(outputs["capsules"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["scores"], np.linalg.norm(expected, axis=-1), atol=1e-5)


def test_the_drawing_is_the_decoders(outputs, weights, reference):
    for index, label in enumerate((3, 8)):
        capsules = np.float64(outputs["capsules"][index])
        expected = reference.decode(capsules, label, weights["decoder"])
        np.testing.assert_allclose(outputs["drawn"][index], expected, atol=1e-5)


def test_the_primary_factor_changes_the_speed_of_learning_and_not_the_start(model, images):
    paper = SabourCapsNet(num_classes=10, rngs=nnx.Rngs(0), primary_factor=1.0)
    kernel, kernel_of_paper = model.primary_conv.kernel[...], paper.primary_conv.kernel[...]
    np.testing.assert_allclose(kernel_of_paper, kernel / 32, atol=1e-8)

    def gradient(network):
        structure, params, model_state = take_apart(network)

        @quick_jit
        def gradient(params, kernel, images):
            def sum_of_capsules(kernel):
                changed = {**params, "primary_conv": {"kernel": kernel}}
                network = rebuild(structure, changed, model_state)
                return network.primary_capsules(images).sum()

            return jax.grad(sum_of_capsules)(kernel)

        return gradient(params, params["primary_conv"]["kernel"], images)

    np.testing.assert_allclose(gradient(paper), 32 * gradient(model), rtol=1e-3, atol=1e-3)


def test_the_number_of_iterations_is_chosen(model, images, compiled, rebuild_with, outputs):
    once = rebuild_with(model, routing_iterations=1)
    of_once, _ = compiled(once, scores)(images[:2])
    assert jnp.abs(of_once - outputs["scores"]).max() > 1e-4


def test_class_biases_can_be_left_out():
    network = nnx.eval_shape(
        lambda: SabourCapsNet(num_classes=10, rngs=nnx.Rngs(0), has_class_biases=False)
    )
    _, params, model_state = take_apart(network)
    assert num_parameters(params) == 8_215_568
    assert set(model_state) == {"class_biases"}


def test_the_file_holds_no_decoder_and_transposes_votes_once(model):
    exported = to_bytes(model, (28, 28, 1), {})
    assert 27.0 < len(exported) / 1e6 < 27.5
    graph = onnx.load_from_string(exported).graph
    sizes = {
        value.name: np.prod([size.dim_value or 1 for size in value.type.tensor_type.shape.dim])
        for value in graph.value_info
    }
    transposed = [sizes[node.input[0]] for node in graph.node if node.op_type == "Transpose"]
    *others, votes = sorted(transposed)
    assert votes == 1152 * 160 and max(others) < 1152 * 16
