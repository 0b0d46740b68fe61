import jax
import numpy as np
import pytest

from mnist_jax.models.hvc import HVCCapsNet
from mnist_jax.models.network import num_parameters, scores, take_apart


@pytest.fixture(scope="module")
def model(build, shake):
    return shake(build(HVCCapsNet))


def normalise(x, offset, statistics, is_training):
    axes = tuple(range(x.ndim - 1))
    mean, variance = statistics["mean"], statistics["var"]
    if is_training:
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
    return (x - mean) / np.sqrt(variance + 1e-3) + offset["bias"]


def reference_outputs(model, images, reference, *, is_training):
    """The class capsules of each branch and the logits, in float64."""
    params, model_state = reference.float64(take_apart(model)[1:])
    x = 2 * (np.float64(images) - 0.5)
    branches = []
    for index in range(9):
        x = reference.convolve(x, params["convs"][index]["kernel"])
        x = normalise(x, params["norms"][index], model_state["norms"][index], is_training)
        x = np.maximum(x, 0)
        if index in (2, 5, 8):
            branch = index // 3
            weights = params["branch_weights"][branch]  # dims, places, classes
            places = x.reshape(len(x), -1, x.shape[-1])
            sums = np.array(
                [
                    [(example * weights[:, :, k].T).sum(axis=0) for k in range(10)]
                    for example in places
                ]
            )
            branch_offset, statistics = (
                tree["branch_norms"][branch] for tree in (params, model_state)
            )
            branches.append(np.maximum(normalise(sums, branch_offset, statistics, is_training), 0))
    stacked = np.stack([np.linalg.norm(capsules, axis=-1) for capsules in branches], axis=-1)
    merged = normalise(stacked, params["merge_norm"], model_state["merge_norm"], is_training)
    return branches, merged.sum(axis=-1)


def test_it_has_the_published_number_of_parameters(model):
    _, params, model_state = take_apart(model)
    assert num_parameters(params) == 1_513_683
    assert num_parameters(params["convs"]) == 756_000
    assert num_parameters(params["branch_weights"]) == 756_480
    assert num_parameters(model_state) == 2 * (864 + 336 + 3)


@pytest.fixture(scope="module")
def outputs(model, images, compiled):
    """Everything that the network computes, and its running statistics after one training step."""

    def everything(network, images):
        results = {
            "branches": network.class_capsules(images),
            "logits": network(images),
            "scores": scores(network, images),
        }
        network.train()
        return {
            **results,
            "branches_in_training": network.class_capsules(images),
            "logits_in_training": network(images),
        }

    results, model_state = compiled(model, everything)(images)
    return {**results, "statistics": model_state}


@pytest.mark.parametrize("suffix", ["", "_in_training"])
def test_capsules_and_logits_are_the_papers(model, images, outputs, reference, suffix):
    branches, logits = reference_outputs(model, images, reference, is_training=bool(suffix))
    assert [capsules.shape for capsules in branches] == [(3, 10, 64), (3, 10, 112), (3, 10, 160)]
    # Eight convolutions in a row, by Winograd's forms, each of a digit or two less than float32.
    for ours, expected in zip(outputs["branches" + suffix], branches, strict=True):
        assert (expected > 0).mean() > 0.1  # where all are dead, all are alike
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["logits" + suffix], logits, rtol=1e-4, atol=1e-4)
    if not suffix:
        probabilities = [reference.softmax(row) for row in logits]
        np.testing.assert_allclose(outputs["scores"], probabilities, atol=1e-5)


def test_training_moves_the_running_statistics_of_every_normalisation(model, outputs):
    _, _, before = take_apart(model)
    has_moved = jax.tree.map(lambda b, a: (b != a).any(), before, outputs["statistics"])
    assert all(jax.tree.leaves(has_moved))
