"""The error of the images that a network with a decoder draws again."""

from jaxtyping import Array, Float

# What one unit of the drawing's error weighs beside one of the margin loss. The authors' code
# divides the margin loss by 20 (a half of it, and the mean over ten classes instead of the sum) and
# keeps the 0.0005; Adam ignores the common factor, so only the ratio of the two makes a difference.
RECONSTRUCTION_WEIGHT_OF_PAPER = 0.0005
RECONSTRUCTION_WEIGHT_OF_CODE = 0.01


def reconstruction_loss(
    drawn: Float[Array, "batch height width channels"],
    images: Float[Array, "batch height width channels"],
) -> Float[Array, " batch"]:
    """Returns the squared error summed over all levels of each image (not their mean)."""
    return ((drawn - images) ** 2).sum(axis=(1, 2, 3))
