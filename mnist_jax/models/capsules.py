"""What the capsule networks share: lengths and squashing, votes, the two routings, the decoder.

All of it is float32, whatever precision the convolutions before it have. A length is the root of a
sum of squares plus `EPSILON`, so that its gradient at the zero vector is zero and not NaN (which
`jnp.linalg.norm` gives by design, jax-ml/jax issue 3058).

Votes lie as `[batch, inputs, classes * dims]`, class by class: so the routing reads them, without a
transposition of its own.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer

EPSILON = 1e-12  # nothing beside a length of 0.001; in float16 it would be nothing at all


def drawn_flat(initializer: Callable[..., Array]) -> Callable[..., Array]:
    """Makes an initializer, of one deviation for every shape, draw along one axis and then fold.

    On a CPU, XLA takes seconds to compile a random draw of three axes, and 0.2 s for one.
    """

    def initialize(key, shape, dtype=jnp.float32):
        return initializer(key, (math.prod(shape),), dtype).reshape(shape)

    return initialize


def _product(left: Array | np.ndarray, right: Array) -> Array:
    """Multiplies stacks of matrices in full float32, where a GPU would round to TF32."""
    return jnp.matmul(left, right, precision="highest")


def _safe_lengths(capsules: Float[Array, "*rest dims"]) -> Float[Array, "*rest 1"]:
    return jnp.sqrt(jnp.sum(capsules * capsules, axis=-1, keepdims=True) + EPSILON)


def lengths(capsules: Float[Array, "*rest dims"]) -> Float[Array, "*rest"]:
    """Returns the Euclidean length of each capsule; 1e-6, with gradient 0, at the zero vector."""
    capsules = capsules.astype(jnp.float32)
    return jnp.sqrt(jnp.sum(capsules * capsules, axis=-1) + EPSILON)


def squash(sums: Float[Array, "*rest dims"]) -> Float[Array, "*rest dims"]:
    """Keeps each vector's direction and maps its length n to n^2 / (1 + n^2), below 1.

    Sabour, Frosst, Hinton 2017 (arXiv 1710.09829), equation 1.
    """
    sums = sums.astype(jnp.float32)
    n = _safe_lengths(sums)
    return sums * (n / (1 + n * n))


def squash_exponential(sums: Float[Array, "*rest dims"]) -> Float[Array, "*rest dims"]:
    """Keeps each vector's direction and maps its length n to 1 - exp(-n), below 1.

    The squash of Efficient-CapsNet (Mazzia, Salvetti, Chiaberge 2021, arXiv 2101.12491).
    """
    sums = sums.astype(jnp.float32)
    n = _safe_lengths(sums)
    return sums * (-jnp.expm1(-n) / n)


def cast_votes(
    capsules: Float[Array, "batch inputs input_dims"],
    weights: Float[Array, "inputs input_dims columns"],
) -> Float[Array, "batch inputs columns"]:
    """Returns what each input capsule predicts of each class capsule: a matrix of its own times it.

    Sabour et al. 2017, equation 2, on the left. `columns` is classes times dims of a class capsule.
    One product for each input, of all examples: as quick in ONNX Runtime as one for each example
    and input, quicker for many, and right in OpenCV 5, which computes products wrongly whose
    constant is to be repeated for each example.
    """
    votes = _product(jnp.swapaxes(capsules, 0, 1), weights)
    return jnp.swapaxes(votes, 0, 1)


def dynamic_routing(
    votes: Float[Array, "batch inputs columns"],
    biases: Float[Array, "classes dims"],
    *,
    num_iterations: int,
    stop_gradient: bool,
) -> tuple[Float[Array, "batch classes dims"], Float[Array, "_ classes inputs"]]:
    """Sums the votes with weights that grow where a vote agrees with the sum.

    Sabour et al. 2017, procedure 1, unrolled. The sum for a class and the agreement with a class
    are small products, one for each class; here one product computes them for all classes at
    once, and `own_columns` drops what lands in the columns of another class. That is ten times the
    arithmetic, still 2 % of the network's, and a third of the time of `einsum` in ONNX Runtime.

    Args:
        votes: of each input capsule for each class capsule; `columns` is classes times dims.
        biases: added to the weighted sums. The paper has none, its authors' code has.
        num_iterations: 1 or more; 1 weighs all votes alike.
        stop_gradient: lets the gradient through the last iteration alone, as some
            reimplementations do and the authors' code does not.

    Returns:
        The class capsules, of length below 1, and the weights of their last sums: the coupling of
        each input to the classes, which sums to one over them. After one iteration, where all
        couplings are alike, there is one row of them for the whole batch.
    """
    classes, dims = biases.shape
    own_columns = np.kron(np.eye(classes), np.ones((1, dims))).astype(np.float32)[None]
    bias_row = biases.reshape(1, 1, classes * dims)
    steering_votes = jax.lax.stop_gradient(votes) if stop_gradient else votes
    # All logits begin at zero, and a softmax of zeros is this.
    couplings = np.full((1, votes.shape[1]), 1 / classes, np.float32)
    sum_of_capsules = capsules = 0.0
    for iteration in range(num_iterations):
        if iteration > 0:
            # Procedure 1 adds the agreements with one capsule after the other to the logits.
            sum_of_capsules = sum_of_capsules + capsules
            logits = _product(steering_votes, jnp.swapaxes(sum_of_capsules, 1, 2))
            couplings = jnp.swapaxes(jax.nn.softmax(logits, axis=-1), 1, 2)  # over the classes
        is_last = iteration == num_iterations - 1
        sums = _product(couplings, votes if is_last else steering_votes)
        # Row j holds capsule j in its own columns, else zeros: [batch, classes, columns].
        capsules = squash((sums + bias_row) * own_columns)
    if isinstance(couplings, np.ndarray):  # after one iteration
        couplings = jnp.full((1, classes, votes.shape[1]), 1 / classes)
    return jnp.sum(capsules, axis=1).reshape(-1, classes, dims), couplings


def self_attention_routing(
    votes: Float[Array, "batch inputs columns"], biases: Float[Array, "inputs classes"]
) -> tuple[Float[Array, "batch classes dims"], Float[Array, "batch classes inputs"]]:
    """Sums the votes, each weighted by how much it resembles the others for the same class.

    Mazzia et al. 2021: the resemblance is the sum of a vote's dot products with all votes, over the
    root of their dims; the softmax runs over the classes; the biases are added after it. The sum
    of the products is computed as the product with the sum.

    Args:
        votes: of each input capsule for each class capsule; `columns` is classes times dims.
        biases: learned, on the weight of each vote.

    Returns:
        The class capsules, of length below 1, and the couplings of each input to the classes,
        before the biases.
    """
    inputs, classes = biases.shape
    votes = votes.reshape(-1, inputs, classes, votes.shape[-1] // classes)
    resemblance = jnp.sum(votes * jnp.sum(votes, axis=1, keepdims=True), axis=-1)
    couplings = jax.nn.softmax(resemblance / votes.shape[-1] ** 0.5, axis=-1)
    weights = (couplings + biases[None]).reshape(-1, inputs, classes, 1)
    capsules = squash_exponential(jnp.sum(weights * votes, axis=1))
    return capsules, jnp.swapaxes(couplings, 1, 2)


class Decoder(nnx.Module):
    """Draws an image from the capsule of its class: dense 512, 1024, and one for each pixel.

    Sabour et al. 2017, figure 2. It takes part in training alone and is not exported; 1,411,344
    parameters for ten capsules of 16 and images of 28x28 pixels.
    """

    def __init__(
        self, *, num_classes: int, dims: int, image_side: int, num_channels: int = 1, rngs: nnx.Rngs
    ) -> None:
        self.shape = (image_side, image_side, num_channels)
        he_normal = jax.nn.initializers.he_normal()
        self.dense1 = nnx.Linear(
            num_classes * dims, 512, kernel_init=he_normal, dtype=jnp.float32, rngs=rngs
        )
        self.dense2 = nnx.Linear(512, 1024, kernel_init=he_normal, dtype=jnp.float32, rngs=rngs)
        self.dense3 = nnx.Linear(1024, image_side**2 * num_channels, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self, capsules: Float[Array, "batch classes dims"], labels: Integer[Array, " batch"]
    ) -> Float[Array, "batch side side channels"]:
        """Returns grey levels in 0..1; every capsule but that of the label is put to zero."""
        is_label = jax.nn.one_hot(labels, capsules.shape[1])[:, :, None]
        x = (capsules * is_label).reshape(capsules.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return nnx.sigmoid(self.dense3(x)).reshape(-1, *self.shape)
