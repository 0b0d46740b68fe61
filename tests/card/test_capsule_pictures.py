import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mnist_jax import models
from mnist_jax.card import capsule_pictures, capsule_plots
from mnist_jax.run import paths
from tests.compiling import quick_build

NAMES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def model():
    facts = models.Facts(num_classes=10, image_mean=0.0, image_std=1.0)
    return quick_build(
        lambda: models.build("mnist_efficient_capsule_v1", rngs=nnx.Rngs(0), **facts)
    )


@pytest.fixture(scope="module")
def split():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 28, 28), np.uint8)
    labels = (np.arange(40) % 7).astype(np.uint8)  # three classes have no image
    scores = np.eye(10, dtype=np.float32)[labels]
    scores[[0, 13, 25]] = np.roll(scores[[0, 13, 25]], 1, axis=1)  # three answers are wrong
    return images, labels, scores


@pytest.fixture(scope="module")
def recorded(model, split, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    capsule_pictures.record(model, *split, run_dir)
    with np.load(run_dir / paths.CAPSULES) as file:
        return run_dir, dict(file)


def test_the_first_right_answer_of_each_class_and_the_wrong_ones_are_shown(recorded, split):
    images, labels, _ = split
    _, arrays = recorded
    assert arrays["num_right"] == 7
    chosen = [7, *range(1, 7), 0, 13, 25]
    np.testing.assert_array_equal(arrays["images"], images[chosen])
    np.testing.assert_array_equal(arrays["labels"], labels[chosen])
    np.testing.assert_array_equal(arrays["answers"][7:], (labels[[0, 13, 25]] + 1) % 10)


def test_levels_from_0_to_1_give_the_same_as_pixels(recorded, model, split, tmp_path):
    images, *rest = split
    levels = images[..., None].astype(np.float32) / np.float32(255)
    capsule_pictures.record(model, levels, *rest, tmp_path)
    with np.load(tmp_path / paths.CAPSULES) as file:
        for name, expected in recorded[1].items():
            np.testing.assert_allclose(file[name], expected, atol=1e-6, err_msg=name)


def test_drawings_and_couplings_are_the_networks(recorded, model):
    _, arrays = recorded
    pixels = jnp.asarray(arrays["images"][..., None] / 255, jnp.float32)
    outputs = model(pixels)
    for name in ("label", "answer"):
        drawn = model.reconstruct(outputs, jnp.asarray(arrays[f"{name}s"]))[..., 0]
        np.testing.assert_allclose(arrays[f"drawn_from_{name}"], drawn, atol=1e-5)
    assert np.abs(arrays["drawn_from_label"] - arrays["drawn_from_answer"])[7:].max() > 1e-4
    np.testing.assert_allclose(arrays["couplings"].sum(axis=1), 1, atol=1e-5)


def test_one_dimension_of_the_own_capsule_moves_by_the_step(recorded, model):
    _, arrays = recorded
    assert arrays["perturbed"].shape == (2, 16, 11, 28, 28)
    np.testing.assert_allclose(arrays["moved_by"], np.arange(-5, 6) * 0.05, atol=1e-6)
    np.testing.assert_allclose(
        arrays["perturbed"][:, :, 5],
        arrays["drawn_from_label"][:2, None].repeat(16, axis=1),
        atol=1e-5,
    )
    pixels = jnp.asarray(arrays["images"][..., None] / 255, jnp.float32)
    moved = model(pixels).at[1, int(arrays["labels"][1]), 7].add(0.25)
    drawn = model.reconstruct(moved, jnp.asarray(arrays["labels"]))[1, ..., 0]
    np.testing.assert_allclose(arrays["perturbed"][1, 7, 10], drawn, atol=1e-5)


def test_the_same_run_gives_the_same_bytes_and_pictures(recorded, model, split, tmp_path):
    run_dir, _ = recorded
    capsule_pictures.record(model, *split, tmp_path)
    assert (tmp_path / paths.CAPSULES).read_bytes() == (run_dir / paths.CAPSULES).read_bytes()
    pictures = []
    for folder in (run_dir, tmp_path):
        capsule_plots.draw(folder, NAMES)
        plots = folder / "model_card" / "plots"
        pictures.append({path.name: path.read_bytes() for path in plots.iterdir()})
    assert set(pictures[0]) == {"reconstructions.png", "perturbations.png", "couplings.png"}
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("all_wrong", [True, False])
def test_runs_that_are_always_right_or_never_are_drawn_too(model, split, tmp_path, all_wrong):
    images, _, _ = split
    labels = (np.arange(40) % 10).astype(np.uint8)  # ten pictures, as above: nothing is compiled
    scores = np.roll(np.eye(10, dtype=np.float32)[labels], int(all_wrong), axis=1)
    capsule_pictures.record(model, images, labels, scores, tmp_path)
    capsule_plots.draw(tmp_path, ["a long name for a class"] * 10)
    drawn = {path.name for path in (tmp_path / "model_card" / "plots").iterdir()}
    always = {"reconstructions.png"}
    assert drawn == (always if all_wrong else always | {"perturbations.png", "couplings.png"})


class Squares(nnx.Module):
    """As many capsules of two below as classes; draws a square in the colour of the capsule."""

    def __init__(self, num_classes, num_channels):
        self.num_classes, self.num_channels = num_classes, num_channels

    def primary_capsules(self, images):
        return images.reshape(len(images), -1)[:, : 2 * self.num_classes].reshape(
            -1, self.num_classes, 2
        )

    def route(self, capsules):
        n = self.num_classes
        return capsules, jnp.full((len(capsules), n, n), 1 / n)

    def reconstruct(self, outputs, labels):
        own = outputs[jnp.arange(len(labels)), labels, 0]
        shape = (len(labels), 16, 16, self.num_channels)
        return jnp.broadcast_to(own.reshape(-1, 1, 1, 1), shape).at[..., 1:].multiply(0.5)


@pytest.mark.parametrize(("num_classes", "num_channels"), [(3, 3), (60, 1)])
def test_colour_and_many_classes_are_drawn(tmp_path, num_classes, num_channels):
    random, n = np.random.default_rng(0), num_classes + 1
    images = random.integers(0, 256, (n, 16, 16, num_channels), np.uint8)
    labels = (np.arange(n) % num_classes).astype(np.uint8)
    scores = np.eye(num_classes, dtype=np.float32)[labels]
    scores[-1] = np.roll(scores[-1], 1)
    capsule_pictures.record(Squares(num_classes, num_channels), images, labels, scores, tmp_path)
    with np.load(tmp_path / paths.CAPSULES) as file:
        arrays = dict(file)
    num_right = min(num_classes, capsule_pictures.NUM_RIGHT)
    assert arrays["num_right"] == num_right
    expected = images[[*range(num_right), num_classes]]
    np.testing.assert_array_equal(arrays["images"], expected.squeeze())
    own = images.reshape(n, -1)[1, 2] / 255  # the first of the two of class 1
    side, channels = (16, 16), (3,) * (num_channels > 1)
    colour = own * np.array([1, 0.5, 0.5] if channels else 1)
    np.testing.assert_allclose(
        arrays["drawn_from_label"][1], np.broadcast_to(colour, side + channels), rtol=1e-5
    )
    assert arrays["perturbed"].shape == (2, 2, 11, *side, *channels)
    capsule_plots.draw(tmp_path, [str(k) for k in range(num_classes)])
    plots = {path.name for path in (tmp_path / "model_card" / "plots").iterdir()}
    assert ("couplings.png" in plots) is (num_classes <= 20)


def test_capsules_on_a_grid_are_drawn_by_place(tmp_path):
    random = np.random.default_rng(0)
    couplings = random.random((3, 10, 1152))
    arrays = {
        "num_right": np.array(3),
        "images": random.integers(0, 256, (3, 28, 28), np.uint8),
        "labels": np.array([0, 1, 2], np.uint8),
        "couplings": couplings / couplings.sum(axis=1, keepdims=True),
        "lengths_below": random.random((3, 1152)),
    }
    figure = capsule_plots._couplings(arrays, NAMES)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) >= 3 * 11
    by_place = arrays["couplings"][1, 4].reshape(6, 6, 32)
    weights = arrays["lengths_below"][1].reshape(6, 6, 32)
    shown = maps[11 + 1 + 4].images[0].get_array()
    np.testing.assert_allclose(shown, (by_place * weights).sum(-1) / weights.sum(-1), atol=1e-6)
