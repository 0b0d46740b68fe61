"""Random changes for photographs, grey or in colour: mirrored, other colours, a part cut out.

Each takes a key and a batch of levels 0 to 1, draws for each image by itself, and gives levels 0 to
1 of the same shape; pure and jittable.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Images = Float[Array, "batch height width channels"]
# Of red, green and blue in a grey level: ITU-R BT.601, as Pillow and torchvision have it.
LUMA = (0.299, 0.587, 0.114)


def flip(key: PRNGKeyArray, images: Images) -> Images:
    """Mirrors every image, left to right, with probability 1/2."""
    is_mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(is_mirrored, images[:, :, ::-1], images)


def brightness(key: PRNGKeyArray, images: Images, amount: float) -> Images:
    """Multiplies each image by a factor drawn from 1 - amount to 1 + amount.

    The three changes of colour are those of torchvision's `ColorJitter`, in a fixed order.
    """
    return _blend(images, jnp.zeros_like(images), _factors(key, images, amount))


def contrast(key: PRNGKeyArray, images: Images, amount: float) -> Images:
    """Moves each image away from, or towards, its mean grey by such a factor."""
    mean = _grey(images).mean(axis=(1, 2, 3), keepdims=True)
    return _blend(images, mean, _factors(key, images, amount))


def saturation(key: PRNGKeyArray, images: Images, amount: float) -> Images:
    """Moves each pixel away from, or towards, its own grey by such a factor; grey ones stay."""
    return _blend(images, _grey(images), _factors(key, images, amount))


def cutout(key: PRNGKeyArray, images: Images, amount: int) -> Images:
    """Blackens a square of `amount` pixels a side, anywhere within each image.

    DeVries and Taylor 2017 (arXiv 1708.04552), with the whole square inside the image.

    Args:
        key: one for the batch.
        images: at least `amount` pixels high and wide.
        amount: side of the square in pixels.
    """
    batch, height, width, _ = images.shape
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (batch, 1), 0, height - amount + 1)
    left = jax.random.randint(column_key, (batch, 1), 0, width - amount + 1)
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    is_row = (rows >= top) & (rows < top + amount)
    is_column = (columns >= left) & (columns < left + amount)
    is_cut = is_row[:, :, None, None] & is_column[:, None, :, None]
    return jnp.where(is_cut, 0.0, images)


def _factors(key: PRNGKeyArray, images: Images, amount: float) -> Float[Array, "batch 1 1 1"]:
    shape = (len(images), 1, 1, 1)
    return jax.random.uniform(key, shape, minval=1 - amount, maxval=1 + amount)


def _grey(images: Images) -> Float[Array, "batch height width 1"]:
    if images.shape[-1] == 1:
        return images
    return (images * jnp.array(LUMA, images.dtype).reshape(1, 1, 1, 3)).sum(axis=-1, keepdims=True)


def _blend(images: Images, others: Array, factors: Array) -> Images:
    """Returns factor * image + (1 - factor) * other, within 0 to 1."""
    return jnp.clip(factors * images + (1 - factors) * others, 0, 1)
