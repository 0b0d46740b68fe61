"""What a capsule network that draws makes of some test images: the arrays behind its pictures."""

import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from mnist_jax.files import write_bytes
from mnist_jax.models.network import images_to_float
from mnist_jax.run import paths

NUM_WRONG = 10
# How far each dimension is moved, from -0.25 to 0.25 (Sabour et al. 2017, section 5.1).
PERTURBATIONS = np.linspace(-0.25, 0.25, 11, dtype=np.float32)
NUM_PERTURBED = 2  # images


def can_draw(model: Any, images: np.ndarray) -> bool:
    """Returns whether a network has capsules below, routing and a decoder, for grey images."""
    parts = ("primary_capsules", "route", "reconstruct")
    is_grey = images.dtype == np.uint8 and (images.ndim == 3 or images.shape[3] == 1)
    return is_grey and all(hasattr(model, part) for part in parts)


def record(
    model: Any,
    images: UInt8[np.ndarray, "n side side *channels"],
    labels: UInt8[np.ndarray, " n"],
    scores: Float[np.ndarray, "n classes"],
    run_dir: Path,
) -> None:
    """Writes `logs/capsules.npz`: the first right answer of each class and the first wrong ones.

    Args:
        model: a network for which `can_draw` holds.
        images: the test split.
        labels: its truth.
        scores: the network's.
        run_dir: the run's folder.
    """
    answers = scores.argmax(axis=1)
    is_right = answers == labels
    by_class = [np.flatnonzero(is_right & (labels == k))[:1] for k in range(scores.shape[1])]
    right = np.concatenate(by_class)
    wrong = np.flatnonzero(~is_right)[:NUM_WRONG]
    chosen = np.concatenate([right, wrong])
    if not len(chosen):
        return
    pixels = images_to_float(jnp.asarray(images[chosen]))
    capsules_below = model.primary_capsules(pixels)
    capsules, couplings = model.route(capsules_below)
    perturbed = [
        _perturb(model, capsules[index], int(labels[chosen[index]]))
        for index in range(min(len(right), NUM_PERTURBED))
    ]
    arrays = {
        "num_right": np.array(len(right)),
        "images": images[chosen].reshape(len(chosen), *images.shape[1:3]),
        "labels": labels[chosen],
        "answers": answers[chosen].astype(np.uint8),
        "scores": scores[chosen],
        "drawn_from_label": model.reconstruct(capsules, jnp.asarray(labels[chosen]))[..., 0],
        "drawn_from_answer": model.reconstruct(capsules, jnp.asarray(answers[chosen]))[..., 0],
        "perturbed": np.array(perturbed),  # image, dimension, step, row, column
        "moved_by": PERTURBATIONS,
        "couplings": couplings,  # one row for all where routing has but one iteration
        "lengths_below": jnp.sqrt((capsules_below**2).sum(axis=-1)),
    }
    contents = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(contents, **named)
    write_bytes(run_dir / paths.CAPSULES, contents.getvalue())


def _perturb(
    model: Any, capsules: Float[Any, "classes dims"], label: int
) -> Float[np.ndarray, "dims steps side side"]:
    """Draws an image with each dimension of its class capsule moved by each step."""
    classes, dims = capsules.shape
    moves = jnp.eye(dims)[:, None, :] * PERTURBATIONS[None, :, None]  # dimension, step, dims
    is_label = (jnp.arange(classes) == label)[None, :, None]
    moved = capsules[None] + moves.reshape(-1, 1, dims) * is_label
    drawn = np.asarray(model.reconstruct(moved, jnp.full(len(moved), label)))
    return drawn.reshape(dims, len(PERTURBATIONS), *drawn.shape[1:3])
