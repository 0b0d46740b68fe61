"""`scripts/robustness RUN_DIR`: accuracy of a finished run on rotated and distorted digits.

Every image of the test split is rotated by fixed angles. A model for a canvas of 40 pixels or more
is also shown each digit at a random place, as it was in training, and under a random affine
transformation with the ranges of affNIST (T. Tieleman, www.cs.toronto.edu/~tijmen/affNIST), which
it was not. What is random is seeded: every model gets the same images. The images are scored with
the ONNX file and with JAX.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from rich.console import Console

from mnist_jax import command, data
from mnist_jax.errors import UserError
from mnist_jax.files import read_json, write_json
from mnist_jax.release import inputs
from mnist_jax.release.records import read_history
from mnist_jax.run import folder as run_folder
from mnist_jax.run import own_code, paths
from mnist_jax.studies import scoring

ANGLES = tuple(range(-90, 91, 15))  # degrees, counter-clockwise
CANVAS_SIDE = 40  # pixels; room for a digit under every transformation below
MAX_PLACING_SHIFT_PX = 6
MAX_ROTATION_DEGREES, MAX_SHEAR, MAX_SCALE_CHANGE = 20.0, 0.2, 0.2  # affNIST's
SEED = 0

Images = UInt8[np.ndarray, "n side side"]


def rotate(images: Images, degrees: int) -> Images:
    """Rotates each image counter-clockwise about its centre; bilinear, black outside."""
    return _resample(images, np.stack([_rotation(degrees)] * len(images)))


def place(images: Images, generator: np.random.Generator) -> Images:
    """Moves each image by up to 6 whole pixels along each axis."""
    shifts = generator.integers(
        -MAX_PLACING_SHIFT_PX, MAX_PLACING_SHIFT_PX, (len(images), 2), endpoint=True
    )
    return _shift(images, shifts)


def distort(images: Images, generator: np.random.Generator) -> Images:
    """Rotates, shears and scales each image at random, then moves it to where no ink is lost."""
    n = len(images)
    angles = generator.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES, n)
    shears = generator.uniform(-MAX_SHEAR, MAX_SHEAR, n)
    scales = generator.uniform(1 - MAX_SCALE_CHANGE, 1 + MAX_SCALE_CHANGE, (n, 2))
    matrices = np.array(
        [
            _rotation(angle) @ [[1, shear], [0, 1]] @ np.diag(scale)
            for angle, shear, scale in zip(angles, shears, scales, strict=True)
        ]
    )
    distorted = _resample(images, matrices)
    shifts = [_shift_range(image > 0) for image in distorted]
    low, high = np.array(shifts).transpose(1, 0, 2)
    return _shift(distorted, generator.integers(low, high, endpoint=True))


def _rotation(degrees: int | float) -> Float[np.ndarray, "2 2"]:
    """Returns the matrix that rotates (row, column) counter-clockwise, as seen on a screen."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def _resample(images: Images, matrices: Float[np.ndarray, "n 2 2"]) -> Images:
    """Maps each image about its centre by a matrix on (row, column); bilinear, black outside."""
    from scipy import ndimage

    centre = (np.array(images.shape[1:]) - 1) / 2
    mapped = [
        # The library wants to know where a pixel of the result comes from: the inverse.
        ndimage.affine_transform(image.astype(np.float32), back, centre - back @ centre, order=1)
        for image, back in zip(images, np.linalg.inv(matrices), strict=True)
    ]
    return np.rint(mapped).astype(np.uint8)


def _shift(images: Images, shifts: np.ndarray) -> Images:
    """Moves each image down and right by whole pixels; black comes in."""
    moved = np.zeros_like(images)
    side = images.shape[1]
    for image, result, (down, right) in zip(images, moved, shifts, strict=True):
        from_row, to_row = max(0, -down), max(0, down)
        from_column, to_column = max(0, -right), max(0, right)
        rows, columns = side - abs(down), side - abs(right)
        result[to_row : to_row + rows, to_column : to_column + columns] = image[
            from_row : from_row + rows, from_column : from_column + columns
        ]
    return moved


def _shift_range(has_ink: np.ndarray) -> tuple[list[int], list[int]]:
    """Returns by how much an image may move, up and left (negative), and down and right."""
    low, high = [], []
    for axis in (1, 0):
        inked = np.flatnonzero(has_ink.any(axis=axis))
        first, last = (inked[0], inked[-1]) if len(inked) else (0, len(has_ink) - 1)
        low.append(-int(first))
        high.append(len(has_ink) - 1 - int(last))
    return low, high


def challenges(images: Images) -> Iterator[tuple[dict[str, Any], Images]]:
    """Yields what each challenge is, and its images: the same for every model of that size."""
    for degrees in ANGLES:
        yield {"name": "rotation", "degrees": degrees}, rotate(images, degrees)
    if images.shape[1] >= CANVAS_SIDE:
        yield {"name": "placed"}, place(images, np.random.default_rng(SEED))
        yield {"name": "affine"}, distort(images, np.random.default_rng(SEED))


def measure(
    images: Images,
    labels: UInt8[np.ndarray, " n"],
    score_with_file: Callable[[Images], np.ndarray],
    score_with_jax: Callable[[Images], np.ndarray],
) -> list[dict[str, Any]]:
    """Counts what is right under each challenge, by the file and by the network."""
    return [
        described
        | scoring.count_right(score_with_file(changed), score_with_jax(changed), labels[:, None])
        for described, changed in challenges(images)
    ]


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where file and network agree, 1 where they do not, 2 on a mistake."""
    parser = command.Parser("scripts/robustness", __doc__)
    parser.add_argument("run_dir", type=Path, help="the folder of a finished run")
    help_beside = "folders of measured runs, drawn into the same picture"
    parser.add_argument("beside", type=Path, nargs="*", help=help_beside)
    parser.add_argument("--num-images", "--num_images", type=int, help="only the first so many")
    inputs.add_flags(parser)
    return command.run(parser, arguments, _act)


def _act(options: argparse.Namespace) -> int:
    if options.num_images is not None and options.num_images < 1:
        raise UserError(f"--num-images is {options.num_images}, but must be from 1")
    # Imported here, so that --help and a mistaken flag answer without loading JAX.
    with command.loading():
        from mnist_jax import pipeline
        from mnist_jax.card import model_card, plots
        from mnist_jax.models.network import num_exported_parameters
        from mnist_jax.release import compare
        from mnist_jax.run import environment

    environment.start_jax(os.environ)
    run_dir = options.run_dir
    run = run_folder.read_run(run_dir)
    config, file = run["config"], inputs.find_onnx(run_dir)
    others = [read_json(folder / paths.ROBUSTNESS) for folder in options.beside]
    with run_folder.lock(run_dir):
        dataset = inputs.prepare_data(run, options)
        if dataset.num_channels != 1:
            raise UserError(f"{run_dir} has images in colour; name a run of grey ones")
        trained = pipeline.load_trained(config, dataset, run_dir)
        test = data.read(dataset, "test")
        images, labels = (array[: options.num_images] for array in test)
        figures = {
            "model_id": own_code.short_name(config["model_id"]),
            "dataset_id": dataset.dataset_id,
            "image_side": dataset.image_side,
            "num_parameters": num_exported_parameters(trained.params),
            "epochs": None if "imported" in run else len(read_history(run_dir)["epochs"]),
            "seed": SEED,
            "challenges": measure(
                images,
                labels,
                partial(compare.score, file),
                trained.scores,
            ),
        }
        write_json(run_dir / paths.ROBUSTNESS, figures)
        plots.draw_robustness([figures, *others], run_dir / paths.ROBUSTNESS_PLOT)
        model_card.write(run_dir)
    return _report(figures, Console())


def _report(figures: dict[str, Any], console: Console) -> int:
    """Prints a line for each challenge; returns the exit status."""
    for row in figures["challenges"]:
        name = f"{row['name']} {row['degrees']:+d}°" if "degrees" in row else row["name"]
        low, high = row["interval_95"]
        console.print(
            f"{name:14} {row['num_correct']:>6,} of {row['num_examples']:,} right, "
            f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f})",
            highlight=False,
        )
    wrong = sum(row["num_disagreements"] for row in figures["challenges"])
    agree = "the ONNX file and JAX agree" if not wrong else f"FILE AND JAX DISAGREE on {wrong}"
    console.print(agree)
    return 1 if wrong else 0


if __name__ == "__main__":
    command.run_as_program(main)
