"""The error of the images that a network with a decoder draws again."""

from jaxtyping import Array, Float


def reconstruction_loss(
    drawn: Float[Array, "batch height width channels"],
    images: Float[Array, "batch height width channels"],
) -> Float[Array, " batch"]:
    """Returns the squared error summed over all levels of each image (not their mean).

    The paper weighs it 0.0005 beside the margin loss. So does the authors' code, but that divides
    the margin loss by 20, which Adam ignores: 0.01 here is what the code does.
    """
    return ((drawn - images) ** 2).sum(axis=(1, 2, 3))
