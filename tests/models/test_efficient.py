import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mnist_jax.models.efficient import EfficientCapsNet
from mnist_jax.models.network import num_parameters, scores, take_apart


@pytest.fixture(scope="module")
def model(build, shake):
    return shake(build(EfficientCapsNet))


def primary_capsules(model, images, reference, *, is_training):
    params, model_state = reference.float64(take_apart(model)[1:])
    x = np.float64(images)
    for index, stride in enumerate((1, 1, 1, 2)):
        conv, norm = params["convs"][index], params["norms"][index]
        x = np.maximum(reference.convolve(x, conv["kernel"], stride) + conv["bias"], 0)
        statistics = model_state["norms"][index]
        mean, variance = statistics["mean"], statistics["var"]
        if is_training:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        x = (x - mean) / np.sqrt(variance + 1e-3) * norm["scale"] + norm["bias"]
    assert x.shape[1:] == (9, 9, 128)
    capsules = [
        [(example[..., f] * params["primary_kernel"][..., 0, f]).sum() for f in range(128)]
        for example in x
    ] + params["primary_biases"]
    return np.array(
        [[reference.squash_exponential(c) for c in example.reshape(16, 8)] for example in capsules]
    )


def test_it_has_the_published_number_of_parameters(model):
    _, params, model_state = take_apart(model)
    decoder = num_parameters(params["decoder"])
    assert num_parameters(params) - decoder == 161_824
    assert decoder == 1_411_344
    assert num_parameters(model_state) == 576  # the running statistics: 162,400 in all


@pytest.fixture(scope="module")
def outputs(model, images, compiled):
    """Everything that the network computes, and its running statistics after one training step."""

    def everything(network, images):
        results = {
            "primary": network.primary_capsules(images),
            "capsules": network(images),
            "scores": scores(network, images),
        }
        network.train()
        return {**results, "primary_in_training": network.primary_capsules(images)}

    results, model_state = compiled(model, everything)(images)
    return {**results, "statistics": model_state}


def test_primary_capsules_are_the_papers(model, images, outputs, reference):
    expected = primary_capsules(model, images, reference, is_training=False)
    np.testing.assert_allclose(outputs["primary"], expected, atol=1e-5)
    assert outputs["primary"].min() < 0
    expected = primary_capsules(model, images, reference, is_training=True)
    np.testing.assert_allclose(outputs["primary_in_training"], expected, atol=1e-5)


def test_class_capsules_and_scores_are_the_papers(model, images, outputs, reference):
    params = reference.float64(take_apart(model)[1])
    primary = primary_capsules(model, images, reference, is_training=False)
    votes = [reference.cast_votes(c, params["vote_weights"], 16) for c in primary]
    expected = np.array(
        [reference.self_attention_routing(v, params["routing_biases"]) for v in votes]
    )
    np.testing.assert_allclose(outputs["capsules"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["scores"], np.linalg.norm(expected, axis=-1), atol=1e-5)


def test_training_moves_the_running_statistics_by_a_hundredth(model, images, outputs):
    before = take_apart(model)[2]["norms"][0]
    after = outputs["statistics"]["norms"][0]
    x = nnx.relu(model.convs[0](images))
    for name, statistic in (("mean", x.mean(axis=(0, 1, 2))), ("var", x.var(axis=(0, 1, 2)))):
        np.testing.assert_allclose(after[name], 0.99 * before[name] + 0.01 * statistic, atol=1e-6)


def test_initial_weights_are_as_wide_as_the_authors(build):
    network = build(EfficientCapsNet)
    assert float(network.vote_weights[...].std()) == pytest.approx((2 / 1280) ** 0.5, rel=0.05)
    assert float(jnp.abs(network.primary_kernel[...]).max()) < (6 / (81 + 81 * 128)) ** 0.5
