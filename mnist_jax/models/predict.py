"""The one way to predict in JAX: a function compiled once for a network, batch by batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mnist_jax.models.layers import direct_forms
from mnist_jax.models.network import OutputKind, Structure, images_to_float, rebuild, scores_of

CPU_BATCH, ACCELERATOR_BATCH = 250, 1_000  # images; for memory and speed, results are the same


class Predictor:
    """What a network makes of images, for any of its weights; compiled once, batch by batch.

    Images are uint8, `[n, side, side]` or with channels, or floats from `images_to_float`. There is
    one row for every image: the last batch is filled up, and the filling is cut off again. Weights
    that several devices hold are taken from the first.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure

        @jax.jit
        def predict_batch(params, model_state, images):
            model = rebuild(structure, params, model_state)
            if images.dtype == jnp.uint8:
                images = images_to_float(images)
            # In full float32: left to choose, a GPU takes 10 bits of mantissa for products.
            # And without forms that lose digits: files are compared with this to 1e-5.
            with jax.default_matmul_precision("highest"), direct_forms():
                return model(images)

        self._predict_batch = predict_batch

    def outputs(self, params: Any, model_state: Any, images: Any) -> np.ndarray:
        """Returns what losses take: logits `[n, classes]`, or capsules `[n, classes, dims]`."""
        params, model_state = one_copy((params, model_state))
        return in_batches(lambda batch: self._predict_batch(params, model_state, batch), images)

    def scores(self, params: Any, model_state: Any, images: Any) -> Float[np.ndarray, "n classes"]:
        """Returns one number per class, the largest being the answer: what exported files give."""
        return to_scores(self.outputs(params, model_state, images), self.structure.outputs)


def one_copy(tree: Any) -> Any:
    """Takes arrays that several devices hold alike as they lie on this process's first device."""

    def take(leaf: Any) -> Any:
        is_spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
        return leaf.addressable_data(0) if is_spread else leaf

    return jax.tree.map(take, tree)


class Trained(NamedTuple):
    """A network with its weights."""

    predictor: Predictor
    params: Any
    model_state: Any

    def model(self) -> Any:
        """Returns the network itself, in evaluation mode."""
        return rebuild(self.predictor.structure, self.params, self.model_state)

    def scores(self, images: Any) -> Float[np.ndarray, "n classes"]:
        """Returns its scores of images; see `Predictor`."""
        return self.predictor.scores(self.params, self.model_state, images)


def in_batches(
    predict: Callable[[Any], Any], images: Any, batch_size: int | None = None
) -> np.ndarray:
    """Predicts in batches of one size, for which JAX compiles once; zeros fill up the last.

    Args:
        predict: images to what is wanted of them, an array with a row for each.
        images: `[n, ...]`, NumPy's or JAX's.
        batch_size: None: what suits the device.
    """
    if batch_size is None:
        wanted = CPU_BATCH if jax.default_backend() == "cpu" else ACCELERATOR_BATCH
        batch_size = min(wanted, len(images))
    results = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        if missing := batch_size - len(batch):
            pad = jnp.pad if isinstance(batch, jax.Array) else np.pad
            batch = pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))
        results.append(predict(batch))
    return np.concatenate(jax.device_get(results))[: len(images)]


def to_scores(outputs: np.ndarray, kind: OutputKind) -> Float[np.ndarray, "n classes"]:
    """Returns the scores of outputs, on the host."""
    return np.asarray(_scores(outputs, kind))


_scores = jax.jit(scores_of, static_argnames="kind")
