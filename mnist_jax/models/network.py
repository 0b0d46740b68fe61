"""What a network is to this program, and the one place where it is taken apart into arrays."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8

from mnist_jax.errors import UserError, first_line
from mnist_jax.models.capsules import lengths

OutputKind = Literal["logits", "capsules"]
# What each kind of scores is, in the words of the model card.
SCORES = {
    "logits": "probabilities, which sum to one",
    "capsules": "lengths of capsules, from 0 to 1, which do not sum to one",
}
COUNTS_PER_STREAM = 2**16  # keys that one random stream may draw in a step


class Network(Protocol):
    """A network, built in or the user's own: a `flax.nnx.Module` as Flax's documentation has them.

    There is no base class of ours. The constructor gets, by name, those of these that it asks for:

    * `num_classes`: how many classes there are;
    * `image_side`: height and width of the images, in pixels;
    * `num_channels`: 1 for grey, 3 for colour (red, green, blue);
    * `image_mean`, `image_std`: mean and standard deviation of the train split's pixels, 0 to 1. A
      network that normalises its images keeps them as `nnx.Variable`; one that does not ask for
      them gets the images as they are;
    * `rngs`: an `nnx.Rngs` with the streams `params` and `dropout`;
    * what `--config.network.NAME=VALUE` sets.

    `model(images)` takes float32 `[batch, side, side, channels]`, 0 to 1, and returns logits,
    float32 `[batch, classes]`. If it has an argument `rngs`, it gets an `nnx.Rngs` with the stream
    `dropout` while it trains. `nnx.Dropout` and `nnx.BatchNorm` are switched by `model.train()` and
    `model.eval()`. Optional attributes:

    * `outputs = "capsules"`: `model(images)` returns class capsules, `[batch, classes, dims]`,
      whose lengths are the scores. Default: `"logits"`, whose softmax is;
    * `min_image_side`: the least height and width that its layers leave something of, in pixels;
    * `reconstruct(outputs, labels)`: draws the images again, `[batch, side, side, channels]`, 0 to
      1; the squared error is added to the loss. What only it uses belongs in `self.decoder`, which
      is not counted as exported.
    """

    def __call__(self, images: Float[Array, "batch side side channels"]) -> Array:
        """Returns logits or, where `outputs` says so, class capsules."""
        ...


class Structure(NamedTuple):
    """A network without its arrays; static."""

    training: Any  # graphdef after model.train()
    evaluation: Any  # graphdef after model.eval()
    streams: Any  # a nested dictionary: where it keeps random streams
    outputs: OutputKind
    takes_rngs: bool  # when it is called


def output_kind(network: Any) -> OutputKind:
    """Returns what a network, or its class, says its outputs are."""
    return getattr(network, "outputs", "logits")


def take_apart(model: nnx.Module) -> tuple[Structure, Any, Any]:
    """Splits a network into its structure, its parameters and its other state (nested arrays).

    Random streams are in neither: each training step gives them keys of its own. The network is
    left in evaluation mode.
    """
    model.train()
    training = nnx.split(model)[0]
    model.eval()
    evaluation, params, streams, model_state = nnx.split(model, nnx.Param, nnx.RngState, ...)
    structure = Structure(
        training,
        evaluation,
        jax.tree.map(lambda leaf: leaf.dtype, nnx.to_pure_dict(streams)),
        output_kind(model),
        "rngs" in inspect.signature(type(model).__call__).parameters,
    )
    return structure, _strong(nnx.to_pure_dict(params)), _strong(nnx.to_pure_dict(model_state))


def _strong(tree: Any) -> Any:
    """Gives arrays made of Python's numbers, as by `jnp.full(8, 0.1)`, a type like any other's.

    JAX calls theirs weak, and compiles a training step again for those that come out of the first.
    """
    return jax.tree.map(
        lambda leaf: (
            jax.lax.convert_element_type(leaf, leaf.dtype) if isinstance(leaf, jax.Array) else leaf
        ),
        tree,
    )


def rebuild(structure: Structure, params: Any, model_state: Any) -> Any:
    """Puts a network together again, in evaluation mode."""
    streams = _keyed(structure.streams, jax.random.key(0))
    return nnx.merge(structure.evaluation, params, streams, model_state)


def call_in_training(
    structure: Structure,
    params: Any,
    model_state: Any,
    images: Float[Array, "batch side side channels"],
    key: PRNGKeyArray,
) -> tuple[Any, Array, Any]:
    """Calls a network in training mode.

    Args:
        structure: from `take_apart`.
        params: its parameters.
        model_state: its other arrays.
        images: 0 to 1.
        key: decides all that is random.

    Returns:
        The network, its outputs, and its other arrays after the call.

    Raises:
        UserError: it fails, or returns something else than an array.
    """
    model = nnx.merge(structure.training, params, _keyed(structure.streams, key), model_state)
    arguments = {"rngs": nnx.Rngs(dropout=key)} if structure.takes_rngs else {}
    name = type(model).__name__
    try:
        outputs = model(images, **arguments).astype(jnp.float32)
    except Exception as error:  # the user's code can raise anything
        if type(model).__module__.startswith("mnist_jax."):
            raise  # a fault of this program
        raise UserError(
            f"{name} fails in training on images {images.shape} ({first_line(error)}); fix it, or "
            "what model.train() switches in it"
        ) from error
    _, _, _, model_state = nnx.split(model, nnx.Param, nnx.RngState, ...)
    return model, outputs, nnx.to_pure_dict(model_state)


def reconstruct(
    model: Any,
    outputs: Float[Array, "batch classes *dims"],
    labels: Integer[Array, " batch"],
    images: Float[Array, "batch side side channels"],
) -> Float[Array, "batch side side channels"]:
    """Lets a network draw images again, in the shape of those that it was given.

    Raises:
        UserError: it fails, or draws another shape.
    """
    name = type(model).__name__
    try:
        drawn = model.reconstruct(outputs, labels)
    except Exception as error:  # the user's code can raise anything
        raise UserError(f"{name}.reconstruct fails ({first_line(error)}); fix it there") from error
    if getattr(drawn, "shape", None) != images.shape:
        raise UserError(
            f"{name}.reconstruct returns {getattr(drawn, 'shape', type(drawn).__name__)}, but must "
            f"return the shape of its images, {images.shape}"
        )
    return drawn


def _keyed(streams: Mapping[str, Any], key: PRNGKeyArray) -> Any:
    """Gives every random stream the one key, and counts of its own to fold into it."""
    leaves, structure = jax.tree.flatten(streams, is_leaf=lambda leaf: not isinstance(leaf, dict))
    num_keys, values = 0, []
    # A stream is a count and a key, in this order.
    for dtype in leaves:
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            values.append(key)
        else:
            values.append(jnp.uint32(num_keys * COUNTS_PER_STREAM))
            num_keys += 1
    return jax.tree.unflatten(structure, values)


def scores_of(outputs: Array, kind: OutputKind) -> Float[Array, "batch classes"]:
    """Turns outputs into one number per class, the largest being the answer."""
    return lengths(outputs) if kind == "capsules" else jax.nn.softmax(outputs)


def scores(
    model: Any, images: Float[Array, "batch side side channels"]
) -> Float[Array, "batch classes"]:
    """Returns a network's scores: what is exported."""
    return scores_of(model(images), output_kind(model))


def images_to_float(
    images: UInt8[Array, "batch side side *channels"]
    | UInt8[np.ndarray, "batch side side *channels"],
) -> Any:
    """Turns stored pixels into what networks take: float32, 0 to 1, with an axis of channels."""
    if images.ndim == 3:
        images = images[..., None]
    return images.astype(np.float32) / 255


def num_parameters(params: Any) -> int:
    """Counts the trainable numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def num_exported_parameters(params: Mapping[str, Any]) -> int:
    """Counts the trainable numbers without a decoder, which is not exported."""
    return num_parameters({key: params[key] for key in params if key != "decoder"})
