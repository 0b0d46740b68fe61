"""Random changes to training images: pure, keyed, jittable."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, PRNGKeyArray


def shift_and_rotate(
    key: PRNGKeyArray,
    images: Float[Array, "batch height width 1"],
    max_shift_px: int,
    max_rotation_degrees: float,
) -> Float[Array, "batch height width 1"]:
    """Turns each image about its centre, then moves it; bilinear, black outside.

    Args:
        key: one key for the batch.
        images: grey levels.
        max_shift_px: whole pixels along each axis, drawn uniformly from -max to max.
        max_rotation_degrees: drawn uniformly from -max to max.
    """
    batch = images.shape[0]
    shift_key, angle_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (batch, 2), -max_shift_px, max_shift_px + 1)
    limit = jnp.deg2rad(max_rotation_degrees)
    angles = jax.random.uniform(angle_key, (batch,), minval=-limit, maxval=limit)
    return jax.vmap(_transform)(images[..., 0], shifts, angles)[..., None]


def _transform(
    image: Float[Array, "height width"], shift: Array, angle: Array
) -> Float[Array, "height width"]:
    """Reads each pixel of the result from where it was in `image`."""
    height, width = image.shape
    centre_row, centre_column = (height - 1) / 2, (width - 1) / 2
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    rows = rows - shift[0] - centre_row
    columns = columns - shift[1] - centre_column
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    sources = [
        cosine * rows - sine * columns + centre_row,
        sine * rows + cosine * columns + centre_column,
    ]
    return map_coordinates(image, sources, order=1, mode="constant", cval=0.0)
