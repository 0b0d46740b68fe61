"""What a capsule network that draws makes of some test images: the arrays behind its pictures."""

import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, UInt8

from mnist_jax.files import write_bytes
from mnist_jax.models.network import images_to_float
from mnist_jax.run import paths

NUM_RIGHT, NUM_WRONG = 20, 10  # images at most
# How far each dimension is moved, from -0.25 to 0.25 (Sabour et al. 2017, section 5.1).
PERTURBATIONS = np.linspace(-0.25, 0.25, 11, dtype=np.float32)
NUM_PERTURBED = 2  # images


def can_draw(model: Any) -> bool:
    """Returns whether a network has capsules below, routing and a decoder."""
    return all(hasattr(model, part) for part in ("primary_capsules", "route", "reconstruct"))


def record(
    model: Any,
    images: UInt8[np.ndarray, "n side side *channels"] | Float[np.ndarray, "n side side channels"],
    labels: UInt8[np.ndarray, " n"],
    scores: Float[np.ndarray, "n classes"],
    run_dir: Path,
) -> None:
    """Writes `logs/capsules.npz`: the first right answers, one of each class, and wrong ones.

    Args:
        model: a network for which `can_draw` holds.
        images: the test split; floats from 0 to 1.
        labels: its truth.
        scores: the network's.
        run_dir: the run's folder.
    """
    answers = scores.argmax(axis=1)
    is_right = answers == labels
    by_class = [np.flatnonzero(is_right & (labels == k))[:1] for k in range(scores.shape[1])]
    right = np.concatenate(by_class)[:NUM_RIGHT]
    wrong = np.flatnonzero(~is_right)[:NUM_WRONG]
    chosen = np.concatenate([right, wrong])
    if not len(chosen):
        return
    pixels = jnp.asarray(images[chosen])
    if pixels.dtype == jnp.uint8:
        pixels = images_to_float(pixels)
    capsules_below = model.primary_capsules(pixels)
    capsules, couplings = model.route(capsules_below)
    perturbed = [
        _perturb(model, capsules[index], int(labels[chosen[index]]))
        for index in range(min(len(right), NUM_PERTURBED))
    ]
    drawn = _draw(model, capsules, labels[chosen])
    arrays = {
        "num_right": np.array(len(right)),
        "images": jnp.rint(255 * pixels).astype(jnp.uint8).reshape(drawn.shape),
        "labels": labels[chosen],
        "answers": answers[chosen],
        "scores": scores[chosen],
        "drawn_from_label": drawn,
        "drawn_from_answer": _draw(model, capsules, answers[chosen]),
        "perturbed": np.array(perturbed),  # image, dimension, step, row, column(, channel)
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
) -> Float[np.ndarray, "dims steps side side *channels"]:
    """Draws an image with each dimension of its class capsule moved by each step."""
    classes, dims = capsules.shape
    moves = jnp.eye(dims)[:, None, :] * PERTURBATIONS[None, :, None]  # dimension, step, dims
    is_label = (jnp.arange(classes) == label)[None, :, None]
    moved = capsules[None] + moves.reshape(-1, 1, dims) * is_label
    drawn = _draw(model, moved, np.full(len(moved), label))
    return drawn.reshape(dims, len(PERTURBATIONS), *drawn.shape[1:])


def _draw(
    model: Any, capsules: Float[Any, "n classes dims"], labels: Integer[np.ndarray, " n"]
) -> Float[np.ndarray, "n side side *channels"]:
    """Draws images as plots take them: grey ones without an axis of channels."""
    drawn = np.asarray(model.reconstruct(capsules, jnp.asarray(labels)))
    return drawn[..., 0] if drawn.shape[-1] == 1 else drawn
