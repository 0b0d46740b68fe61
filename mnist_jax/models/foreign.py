"""Weights that were trained elsewhere, put into a network of ours: by name, or by order and shape.

Names of ours are those of the safetensors file: `params/conv1/kernel`, `model_state/image_mean`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_jax.errors import UserError
from mnist_jax.models.foreign_layouts import LAYOUTS, Place, from_torch

# `model_state/...` that says how images are normalised, which files of others do not hold.
NORMALISATION = ("model_state/image_mean", "model_state/image_std")
DECODER = "params/decoder/"  # takes part in training alone
# Dense layers of ours that read a feature map with the channels first, as PyTorch flattens it and
# Keras does not, and how many channels that is.
CHANNELS_FIRST = {("mnist_cnn_v1", "params/dense1/kernel"): 64}
# What other libraries call the last part of a name.
LAST_PARTS = {
    "weight": ("kernel", "scale"),
    "gamma": ("scale",),
    "beta": ("bias",),
    "running_mean": ("mean",),
    "moving_mean": ("mean",),
    "running_var": ("var",),
    "moving_variance": ("var",),
}


class Placed(NamedTuple):
    """A network's arrays, and where they come from."""

    params: Any
    model_state: Any
    names: dict[str, str]  # by our name, the file's
    has_decoder: bool  # False: its weights are zeros, as the file has none


def flatten(params: Any, model_state: Any) -> dict[str, Any]:
    """Returns a network's arrays by name."""
    leaves = jax.tree.leaves_with_path({"params": params, "model_state": model_state})
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def place(
    arrays: Mapping[str, np.ndarray],
    params: Any,
    model_state: Any,
    *,
    origin: str,
    model_id: str,
    is_ordered: bool = False,
    mapping: Mapping[str, Any] | None = None,
) -> Placed:
    """Puts the arrays of a file into the structure of a network.

    Args:
        arrays: by the file's names.
        params: the network's, or what `jax.eval_shape` gives, for names, shapes and dtypes.
        model_state: likewise; image mean and deviation are left as they are, but by files of ours.
        origin: whose layout they have: `torch`, `keras` or `ours`.
        model_id: the network's.
        is_ordered: whether they come in the order of the layers.
        mapping: our name to the file's, or to `{"name": ..., "channels_first": [channels, rows,
            columns]}` for a dense layer of theirs after a flattening with the channels first. Our
            names may leave out `params/` and `model_state/`.

    Raises:
        UserError: an array is left over, is missing, or has another shape.
    """
    targets = flatten(params, model_state)
    if origin != "ours":
        targets = {name: leaf for name, leaf in targets.items() if name not in NORMALISATION}
    places = _find(arrays, targets, origin, model_id, is_ordered, mapping)
    _check_complete(arrays, targets, places)
    found: dict[str, np.ndarray] = {}
    for one in places:
        array = one.fit(arrays[one.theirs])
        if one.ours is None:
            if not (array == 1).all():
                raise UserError(f"{one.theirs} is not all ones, and {model_id} has no place for it")
        elif array.shape != targets[one.ours].shape:
            raise UserError(
                f"{one.theirs} has the shape {arrays[one.theirs].shape}, so {array.shape} here, "
                f"but {one.ours} of {model_id} has {targets[one.ours].shape}; give the --model-id "
                "and the settings that it was trained with, or a --mapping"
            )
        else:
            found[one.ours] = array.astype(targets[one.ours].dtype)
    has_decoder = any(name.startswith(DECODER) for name in found)
    new = {name: found.get(name) for name in flatten(params, model_state)}

    def choose(path: Any, leaf: Any) -> Any:
        name = "/".join(str(key.key) for key in path)
        if new[name] is not None:
            return new[name]
        return np.zeros(leaf.shape, leaf.dtype) if name.startswith(DECODER) else leaf

    tree = jax.tree.map_with_path(choose, {"params": params, "model_state": model_state})
    names = {one.ours: one.theirs for one in places if one.ours is not None}
    return Placed(tree["params"], tree["model_state"], names, has_decoder)


def _find(
    arrays: Mapping[str, np.ndarray],
    targets: Mapping[str, Any],
    origin: str,
    model_id: str,
    is_ordered: bool,
    mapping: Mapping[str, Any] | None,
) -> list[Place]:
    """Returns which array goes where, by the first of: mapping, known layout, names."""
    if mapping is not None:
        return [_mapped(*entry, targets, origin, model_id) for entry in mapping.items()]
    if origin == "ours":
        return [Place(name, name) for name in arrays if name in targets]
    if (model_id, origin) in LAYOUTS:
        places = LAYOUTS[model_id, origin]()
        is_named = {one.theirs for one in places} == set(arrays)
        if not is_named and is_ordered:
            rest = list(arrays)[len(places) :]
            decoder = sorted(name for name in targets if name.startswith(DECODER))
            if len(rest) == len(decoder):  # kernel, then bias, of each layer
                order = sorted(decoder, key=lambda name: (name.split("/")[2], "bias" in name))
                places += [Place(name, "") for name in order]
            if len(places) == len(arrays):
                pairs = zip(places, arrays, strict=True)
                return [one._replace(theirs=name) for one, name in pairs]
        return places
    return _by_name(arrays, targets, origin, model_id)


def _mapped(
    name: str, theirs: Any, targets: Mapping[str, Any], origin: str, model_id: str
) -> Place:
    known = [f"{prefix}{name}" for prefix in ("", "params/", "model_state/")]
    ours = next((one for one in known if one in targets), None)
    if ours is None:
        raise UserError(
            f"the mapping names {name!r}, which the network lacks; it has {_list(targets)}"
        )
    entry = theirs if isinstance(theirs, dict) else {"name": theirs}
    if not isinstance(entry.get("name"), str) or not {*entry} <= {"name", "channels_first"}:
        raise UserError(
            f"the mapping gives {name!r} {theirs!r}; give a name of the file, or "
            '{"name": ..., "channels_first": [channels, rows, columns]}'
        )
    if "channels_first" not in entry:
        return Place(ours, entry["name"], _fit_of(ours, origin, model_id))
    fit, shape = _axes_of(ours, origin), entry["channels_first"]
    if (model_id, ours) in CHANNELS_FIRST:
        return Place(ours, entry["name"], fit)

    def reorder(array: np.ndarray) -> np.ndarray:
        array = fit(array)
        try:
            folded = array.reshape(*shape, array.shape[1])
            return folded.transpose(1, 2, 0, 3).reshape(array.shape)
        except (TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"channels_first of {name!r} is {shape!r}, which does not suit {array.shape}; give "
                "[channels, rows, columns]"
            ) from error

    return Place(ours, entry["name"], reorder)


def _axes_of(ours: str, origin: str) -> Callable[[np.ndarray], np.ndarray]:
    is_turned = origin == "torch" and ours.endswith("kernel")
    return from_torch if is_turned else lambda array: array


def _fit_of(ours: str, origin: str, model_id: str) -> Callable[[np.ndarray], np.ndarray]:
    channels = CHANNELS_FIRST.get((model_id, ours))
    if origin != "keras" or channels is None:
        return _axes_of(ours, origin)

    def reorder(array: np.ndarray) -> np.ndarray:
        side = math.isqrt(len(array) // channels) if array.ndim == 2 else 0
        if side == 0 or side * side * channels != len(array):
            return array  # of another network, which its shape says
        folded = array.reshape(side, side, channels, -1)
        return folded.transpose(2, 0, 1, 3).reshape(array.shape)

    return reorder


def _by_name(
    arrays: Mapping[str, np.ndarray], targets: Mapping[str, Any], origin: str, model_id: str
) -> list[Place]:
    """Matches `conv1.weight` or `conv1/kernel:0` with `params/conv1/kernel`."""
    plain = {name.partition("/")[2]: name for name in targets}
    places = []
    for theirs in arrays:
        *parents, last = theirs.removesuffix(":0").replace(".", "/").split("/")
        if len(parents) > 1 and parents[0] == parents[1]:  # Keras: the layer, then its variable
            parents = parents[1:]
        options = ("/".join([*parents, name]) for name in (*LAST_PARTS.get(last, ()), last))
        ours = next((plain[name] for name in options if name in plain), None)
        if ours is not None:
            places.append(Place(ours, theirs, _fit_of(ours, origin, model_id)))
    return places


def _check_complete(
    arrays: Mapping[str, np.ndarray], targets: Mapping[str, Any], places: Sequence[Place]
) -> None:
    absent = [one.theirs for one in places if one.theirs not in arrays]
    if absent:
        raise UserError(
            f"the file lacks {_list(absent)}; it holds {_list(arrays)}; give another --model-id, "
            "or a --mapping"
        )
    used = [one.theirs for one in places]
    twice = [name for name in used if used.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} of the file would go to two places; correct the --mapping")
    left = [name for name in arrays if name not in used]
    if left:
        raise UserError(
            f"{_list(left)} of the file would be left over; give another --model-id, or a --mapping"
        )
    filled = {one.ours for one in places}
    missing = [name for name in targets if name not in filled]
    if all(name.startswith(DECODER) for name in missing) and len(missing) in (
        0,
        sum(name.startswith(DECODER) for name in targets),
    ):
        return
    raise UserError(
        f"the file has nothing for {_list(missing)} of the network; give another --model-id, or a "
        "--mapping"
    )


def _list(names: Any) -> str:
    shown = list(names)
    rest = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + rest


def absorb_scale(model_id: str, params: Any, model_state: Any, scale: float) -> tuple[Any, Any]:
    """Makes a network that was trained on images 0 to `scale` take images 0 to 1.

    Args:
        model_id: the network's.
        params: as trained.
        model_state: likewise.
        scale: the level of white that it was trained with; 255/256 for pixels over 256.

    Raises:
        UserError: it is not known how, for this network.
    """
    if scale == 1:
        return params, model_state
    if model_id == "mnist_capsule_v1":
        first = params["conv1"]
        return {
            **params,
            "conv1": {**first, "kernel": first["kernel"] * np.float32(scale)},
        }, model_state
    if model_id not in ("mnist_efficient_capsule_v1", "mnist_hvc_capsule_v1"):
        raise UserError(
            f"input-divisor is {255 / scale:g}, but must be 255 for {model_id}; scale the weights "
            "of its first layer before"
        )
    first = params["convs"][0]
    kernel = first["kernel"] * np.float32(scale)
    params = {**params, "convs": {**params["convs"], 0: {**first, "kernel": kernel}}}
    if model_id == "mnist_hvc_capsule_v1":
        # Its images are 2x - 1: 2 s x - 1 = s (2x - 1) + s - 1, and the normalisation takes s - 1.
        norm = model_state["norms"][0]
        shift = (scale - 1) * first["kernel"].sum(axis=(0, 1, 2))
        norms = {**model_state["norms"], 0: {**norm, "mean": norm["mean"] - shift}}
        model_state = {**model_state, "norms": norms}
    return params, model_state
