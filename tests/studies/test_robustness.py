import json
import shutil

import numpy as np
import pytest
from scipy import ndimage

from mnist_jax import train
from mnist_jax.run import paths
from mnist_jax.studies import robustness, scoring


@pytest.fixture(scope="module")
def blob():
    """An image of 41x41 with ink in the upper middle only, so that its middle is a pixel."""
    image = np.zeros((1, 41, 41), np.uint8)
    image[0, 8:14, 19:22] = 200
    return image


def centre(image):
    return np.array(ndimage.center_of_mass(image)) - 20


@pytest.mark.parametrize(
    ("degrees", "expected"), [(0, (-9.5, 0)), (90, (0, -9.5)), (-90, (0, 9.5)), (180, (9.5, 0))]
)
def test_images_turn_counter_clockwise_about_their_middle(blob, degrees, expected):
    (turned,) = robustness.rotate(blob, degrees)
    np.testing.assert_allclose(centre(turned), expected, atol=0.05)
    assert abs(int(turned.sum()) - int(blob.sum())) < 0.02 * blob.sum()


def test_quarter_turns_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    expected = np.rot90(images, axes=(1, 2))
    np.testing.assert_array_equal(robustness.rotate(images, 90), expected)


def test_placing_moves_by_up_to_six_pixels_and_changes_nothing_else(blob):
    images = np.repeat(blob, 300, axis=0)
    placed = robustness.place(images, np.random.default_rng(0))
    moves = {tuple(np.rint(centre(image) - centre(blob[0])).astype(int)) for image in placed}
    assert {down for down, _ in moves} == {right for _, right in moves} == set(range(-6, 7))
    assert (placed.sum(axis=(1, 2)) == blob.sum()).all()


def test_distortions_stay_within_the_ranges_and_lose_no_ink():
    side = 40
    images = np.zeros((400, side, side), np.uint8)
    images[:, 10:30, 15:25] = 255  # as large as a digit
    distorted = robustness.distort(images, np.random.default_rng(0))
    areas = distorted.sum(axis=(1, 2)) / images[0].sum()
    assert 0.8**2 - 0.02 < areas.min() < 0.72 and 1.32 < areas.max() < 1.2**2 + 0.02
    edges = np.concatenate(
        [distorted[:, [0, -1]].reshape(400, -1), distorted[:, :, [0, -1]].reshape(400, -1)], axis=1
    )
    assert (edges > 0).any(axis=1).mean() < 0.4  # it may touch the frame
    starts = [np.flatnonzero(image.any(axis=1))[0] for image in distorted]
    assert min(starts) == 0 and max(starts) > 10  # and be anywhere within it


def test_an_affine_map_is_the_matrix_it_is_said_to_be():
    matrix = np.array([[1.1, 0.2], [-0.1, 0.9]])
    rows, columns = np.meshgrid(np.arange(41.0), np.arange(41.0), indexing="ij")
    spot = 255 * np.exp(-((rows - 14) ** 2 + (columns - 25) ** 2) / 8)
    (mapped,) = robustness._resample(spot[None].astype(np.uint8), matrix[None])
    np.testing.assert_allclose(centre(mapped), matrix @ [-6, 5], atol=0.1)


def test_every_model_of_a_size_gets_the_same_challenges():
    small = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    large = np.pad(small, [(0, 0), (6, 6), (6, 6)])
    assert [row["degrees"] for row, _ in robustness.challenges(small)] == list(range(-90, 91, 15))
    first, again = list(robustness.challenges(large)), list(robustness.challenges(large))
    assert [row["name"] for row, _ in first[13:]] == ["placed", "affine"]
    for (_, images), (_, images_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(images, images_again)
        assert images.dtype == np.uint8 and images.shape == large.shape


def test_counts_take_all_labels_in_any_order_and_find_disagreements():
    scores = np.array([[0.1, 0.7, 0.6], [0.5, 0.2, 0.4], [0.3, 0.3 + 1e-6, 0.9]], np.float32)
    pairs = np.array([[2, 1], [0, 1], [2, 1]])
    counts = scoring.count_right(scores, scores, pairs)
    assert (counts["num_correct"], counts["num_correct_jax"]) == (2, 2)
    assert (counts["num_near_ties"], counts["num_disagreements"]) == (1, 0)
    other = scores.copy()
    other[0], other[2] = [0.7, 0.1, 0.6], [0.3 + 1e-6, 0.3, 0.9]  # one far apart, one a near tie
    counts = scoring.count_right(other, scores, pairs)
    assert (counts["num_correct"], counts["num_correct_jax"]) == (0, 2)
    assert counts["num_disagreements"] == 1


@pytest.fixture(scope="module")
def canvas(tmp_path_factory):
    """A capsule network for a canvas of 40 pixels, of one short epoch."""
    folder = tmp_path_factory.mktemp("canvas")
    flags = [
        *("--model-id=mnist_efficient_capsule_v1", "--criterion-id=capsule_loss_v1"),
        *("--dataset-id=digits_v1", "--epochs=1", "--config.image_side=40", "-q"),
        *("--config.augment_shift_px=6", "--export_format=onnx"),
        *("--min-test-accuracy=0", "--min-per-class-accuracy=0"),
        *(f"--data-dir={folder / 'data'}", f"--output-dir={folder / 'run'}"),
    ]
    assert train.main(flags) == 0
    return folder / "run"


def measure(run, side):
    assert robustness.main([str(run), "--num-images=60"]) == 0
    figures = json.loads((run / paths.ROBUSTNESS).read_text())
    assert figures["image_side"] == side
    for row in figures["challenges"]:
        assert row["num_examples"] == 60
        assert row["num_correct"] == row["num_correct_jax"] and row["num_disagreements"] == 0
        assert row["accuracy"] == row["num_correct"] / 60
    return figures


def test_a_run_is_measured_by_file_and_by_jax_alike(released, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(released / "run", run)
    assert len(measure(run, 28)["challenges"]) == 13
    printed = capsys.readouterr().out
    assert "rotation +15°" in printed and "the ONNX file and JAX agree" in printed
    card = (run / "model_card" / "mnist_model_card.md").read_text()
    assert "plots/robustness.png" in card and "Not tested: noise, other cameras" in card
    picture = (run / "model_card" / "plots" / "robustness.png").read_bytes()
    assert robustness.main([str(run), str(run), "--num-images=60"]) == 0  # beside another
    assert (run / "model_card" / "plots" / "robustness.png").read_bytes() != picture


@pytest.mark.slow
def test_a_run_on_a_canvas_meets_all_challenges(canvas):
    assert len(measure(canvas, 40)["challenges"]) == 15


@pytest.mark.slow
def test_the_card_shows_what_the_capsules_do(canvas):
    card = (canvas / "model_card" / "mnist_model_card.md").read_text()
    for name in ("reconstructions", "perturbations", "couplings"):
        assert f"plots/{name}.png" in card
        assert (canvas / "model_card" / "plots" / f"{name}.png").is_file()
    assert "[batch, 1, 40, 40]" in card


def test_a_folder_that_is_no_finished_run_is_a_mistake(tmp_path, capsys):
    assert robustness.main([str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.parametrize("number", [0, -1])
def test_no_image_at_all_is_a_mistake(number, tmp_path, capsys):
    assert robustness.main([str(tmp_path), f"--num-images={number}"]) == 2
    assert f"--num-images is {number}, but must be from 1" in capsys.readouterr().err
