"""The network as a StableHLO program that any JAX can load, without this package."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from mnist_jax.export.interface import BATCH_NAME
from mnist_jax.models import layers
from mnist_jax.models.network import scores

PLATFORMS = ("cpu", "cuda")


def to_bytes(model: nnx.Module, image_shape: tuple[int, int, int]) -> bytes:
    """Exports a network's scores, with the ONNX file's interface; the same weights, the same bytes.

    Args:
        model: a network, in evaluation mode.
        image_shape: height, width and channels of its images.

    Returns:
        A `jax.export` file: float32 `[batch, 1, side, side]`, grey levels 0 to 1, to float32
        `[batch, classes]`, for any batch size, on CPU and CUDA.
    """
    model = layers.plain(model)

    def scores_of_image(image):
        return scores(model, jnp.transpose(image, (0, 2, 3, 1)))

    height, width, channels = image_shape
    shape = export.symbolic_shape(f"{BATCH_NAME}, {channels}, {height}, {width}")
    # Without its source lines: they hold this machine's paths.
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        # In full float32: left to choose, a GPU takes 10 bits of mantissa for products.
        with jax.default_matmul_precision("highest"):
            exported = export.export(jax.jit(scores_of_image), platforms=PLATFORMS)(
                jax.ShapeDtypeStruct(shape, jnp.float32)
            )
        return bytes(exported.serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def from_bytes(data: bytes) -> Callable[[Any], jax.Array]:
    """Reads what `to_bytes` wrote; returns the function from images to scores."""
    return jax.jit(export.deserialize(bytearray(data)).call)
