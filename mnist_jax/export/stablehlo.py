"""The network as a StableHLO program that any JAX can load, without this package."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from mnist_jax.export.interface import BATCH_NAME
from mnist_jax.export.onnx import image_shape

PLATFORMS = ("cpu", "cuda")


def to_bytes(model: nnx.Module) -> bytes:
    """Exports `model.scores` with the ONNX file's interface; the same weights give the same bytes.

    Returns:
        A `jax.export` file: float32 `[batch, 1, side, side]`, grey levels 0 to 1, to float32
        `[batch, classes]`, for any batch size, on CPU and CUDA.
    """

    def scores(image):
        return model.scores(jnp.transpose(image, (0, 2, 3, 1)))  # pyright: ignore

    height, width, channels = image_shape(model)
    shape = export.symbolic_shape(f"{BATCH_NAME}, {channels}, {height}, {width}")
    # Without its source lines: they hold this machine's paths.
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        # In full float32: left to choose, a GPU takes 10 bits of mantissa for products.
        with jax.default_matmul_precision("highest"):
            exported = export.export(jax.jit(scores), platforms=PLATFORMS)(
                jax.ShapeDtypeStruct(shape, jnp.float32)
            )
        return bytes(exported.serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def from_bytes(data: bytes) -> Callable[[Any], jax.Array]:
    """Reads what `to_bytes` wrote; returns the function from images to scores."""
    return jax.jit(export.deserialize(bytearray(data)).call)
