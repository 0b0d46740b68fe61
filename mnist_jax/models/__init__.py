"""The networks: found by id or by reference, built, and checked before anything is trained."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict, Unpack

import jax.numpy as jnp
from flax import nnx

from mnist_jax.config import MODELS
from mnist_jax.errors import UserError, first_line
from mnist_jax.models import layers
from mnist_jax.models.network import images_to_float, output_kind
from mnist_jax.run import own_code

# What a network returns, by the kind of its outputs.
RULES = {"logits": "[batch, classes]", "capsules": "[batch, classes, dims]"}


def find(model_id: str) -> type[nnx.Module]:
    """Returns the class of a network.

    Args:
        model_id: a key of `config.MODELS`, or a reference to the user's own.

    Raises:
        UserError: there is no such class, it is not a `flax.nnx.Module`, or its outputs are of no
            known kind.
    """
    network = own_code.load(MODELS.get(model_id, model_id), "model_id")
    if not (isinstance(network, type) and issubclass(network, nnx.Module)):
        raise UserError(
            f"model_id names {model_id}, which is not a class derived from flax.nnx.Module; "
            "write the network as one"
        )
    kind = getattr(network, "outputs", "logits")
    if kind not in RULES:
        raise UserError(f"{model_id}.outputs is {kind!r}, but must be {' or '.join(RULES)}")
    return network


class Facts(TypedDict):
    """What a network can ask for about the data."""

    num_classes: int
    image_side: NotRequired[int]  # pixels; 28 unless given
    num_channels: NotRequired[int]  # 1: grey, unless given; 3: colour
    image_mean: NotRequired[float]  # of the train split's pixels, 0 to 1; 0 unless given
    image_std: NotRequired[float]  # likewise; 1 unless given


def build(
    model_id: str,
    *,
    rngs: nnx.Rngs,
    settings: Mapping[str, Any] = MappingProxyType({}),
    dtype: str = "float32",
    **facts: Unpack[Facts],
) -> nnx.Module:
    """Builds a network with its first weights, in evaluation mode.

    The constructor gets what it asks for by name; see `network.Network`.

    Args:
        model_id: see `find`.
        rngs: the random streams `params` and `dropout`.
        settings: what else a recipe tells the constructor, by name.
        dtype: what its layers compute in, but for those that are told their own.
        facts: about the data.

    Raises:
        UserError: the images are too small for it, or the constructor fails, asks for something
            else, or does not take a setting.
    """
    network = find(model_id)
    defaults = {"image_side": 28, "num_channels": 1, "image_mean": 0.0, "image_std": 1.0}
    offered = {**defaults, **facts, "rngs": rngs}
    asked = inspect.signature(network.__init__).parameters
    _check_asked(model_id, asked, offered, settings)
    if (side := offered["image_side"]) < (least := getattr(network, "min_image_side", 1)):
        raise UserError(
            f"image_side is {side}, but {model_id} needs images of {least} pixels or more; "
            f"set --image-side={least}, or choose another network"
        )
    arguments = {name: offered[name] for name in asked if name in offered}
    try:
        model = network(**arguments, **settings)
    except UserError:
        raise
    except Exception as error:  # the user's code can raise anything
        side, channels = offered["image_side"], offered["num_channels"]
        raise UserError(
            f"{model_id} cannot be built for images of {side}x{side} pixels and {channels} "
            f"channels ({first_line(error)}); fix its constructor"
        ) from error
    layers.quicken(model)
    if dtype != "float32" and not layers.compute_in(model, dtype):
        raise UserError(
            f"compute_dtype is {dtype!r}, but {model_id} has no layer of Flax's that could compute "
            "in it; use float32"
        )
    model.eval()
    return model


def _check_asked(
    model_id: str,
    asked: Mapping[str, inspect.Parameter],
    offered: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Refuses settings that a constructor does not take, and what nobody can give it."""
    own = sorted(set(asked) - {"self", *offered})
    for name in settings:
        if name not in own:
            raise UserError(
                f"network.{name} is set, but {model_id} takes {', '.join(own) or 'no settings'}; "
                "leave it out"
            )
    for name in own:
        parameter = asked[name]
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and name not in settings and not is_variadic:
            raise UserError(
                f"{model_id} asks for {name}, but is offered {', '.join(sorted(offered))}; give "
                f"{name} a default, or --config.network.{name}=VALUE"
            )


def check(
    model: nnx.Module, model_id: str, *, num_classes: int, image_shape: tuple[int, ...]
) -> None:
    """Refuses a network whose outputs are not what they must be.

    Args:
        model: in evaluation mode.
        model_id: its name, for messages.
        num_classes: of the data.
        image_shape: side, side, channels.

    Raises:
        UserError: it fails on two images, or its outputs have another shape, dtype, or values that
            are not finite.
    """
    images = images_to_float(jnp.zeros((2, *image_shape), jnp.uint8))
    try:
        outputs = model(images)  # pyright: ignore[reportCallIssue]
    except Exception as error:  # the user's code can raise anything
        or_grey = ", or make grey images: --config.channels=1" if image_shape[2] == 3 else ""
        raise UserError(
            f"{model_id} fails on images {images.shape} ({first_line(error)}); it must take "
            f"float32 [batch, side, side, channels]{or_grey}"
        ) from error
    kind = output_kind(model)
    shape = getattr(outputs, "shape", ())
    num_axes = 2 if kind == "logits" else 3
    if len(shape) != num_axes or shape[:2] != (2, num_classes):
        raise UserError(
            f"{model_id} returns {shape or type(outputs).__name__} for two "
            f"images of {num_classes} classes, but must return {kind} {RULES[kind]}; change its "
            "last layer"
        )
    if outputs.dtype != jnp.float32:
        raise UserError(f"{model_id} returns {outputs.dtype}, but must return float32; convert it")
    if not bool(jnp.isfinite(outputs).all()):
        raise UserError(
            f"{model_id} returns numbers that are not finite for black images; check its first "
            "weights and divisions"
        )
