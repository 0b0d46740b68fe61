"""How others' code lays out the weights of the networks that are built in."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Where one array of a file goes."""

    ours: str | None  # None: it must be all ones, which do nothing
    theirs: str
    fit: Callable[[np.ndarray], np.ndarray] = lambda array: array


def _cnn() -> list[Place]:
    """The network of github.com/pytorch/examples, mnist/main.py."""
    names = {"conv1": "conv1", "conv2": "conv2", "dense1": "fc1", "dense2": "fc2"}
    return [
        place
        for ours, theirs in names.items()
        for place in (
            Place(f"params/{ours}/kernel", f"{theirs}.weight", from_torch),
            Place(f"params/{ours}/bias", f"{theirs}.bias"),
        )
    ]


def _sabour() -> list[Place]:
    """The port of Sabour's network in github.com/EscVM/Efficient-CapsNet."""
    return [
        Place("params/conv1/kernel", "conv2d/kernel"),
        Place("params/conv1/bias", "conv2d/bias"),
        Place("params/primary_conv/kernel", "primary_caps/kernel"),
        Place("params/primary_biases", "primary_caps/biases", np.ravel),
        Place("params/vote_weights", "digit_caps/W"),
        Place("params/class_biases", "digit_caps/biases"),
    ]


def _efficient() -> list[Place]:
    """The network of github.com/EscVM/Efficient-CapsNet; votes `[classes, inputs, dims, dims]`."""
    places = []
    for index in range(4):
        suffix = f"_{index}" if index else ""
        conv, norm = f"conv2d{suffix}", f"batch_normalization{suffix}"
        places += [
            Place(f"params/convs/{index}/kernel", f"{conv}/kernel"),
            Place(f"params/convs/{index}/bias", f"{conv}/bias"),
            Place(f"params/norms/{index}/scale", f"{norm}/gamma"),
            Place(f"params/norms/{index}/bias", f"{norm}/beta"),
            Place(f"model_state/norms/{index}/mean", f"{norm}/moving_mean"),
            Place(f"model_state/norms/{index}/var", f"{norm}/moving_variance"),
        ]
    return [
        *places,
        Place("params/primary_kernel", "primary_caps/kernel"),
        Place("params/primary_biases", "primary_caps/bias"),
        Place("params/vote_weights", "fc_caps/W", _votes_first),
        Place("params/routing_biases", "fc_caps/b", lambda b: b.reshape(b.shape[:2]).T),
    ]


def _hvc() -> list[Place]:
    """The network of github.com/AdamByerly/BMCNNwHFCs, its variables layer by layer."""
    places, number = [], 0

    def layer(weights: Place, norm: str) -> None:
        nonlocal number
        places.append(weights._replace(theirs=f"W:{number:02}:w"))
        for ours, theirs in (("params/{}/bias", "b"), ("model_state/{}/mean", "m")):
            places.append(Place(ours.format(norm), f"W:{number:02}:{theirs}"))
        places.append(Place(f"model_state/{norm}/var", f"W:{number:02}:v"))
        number += 1

    for index in range(9):
        layer(Place(f"params/convs/{index}/kernel", ""), f"norms/{index}")
        if index % 3 == 2:
            branch = index // 3
            weights = Place(f"params/branch_weights/{branch}", "", lambda w: w.transpose(2, 1, 0))
            layer(weights, f"branch_norms/{branch}")
    layer(Place(None, ""), "merge_norm")
    return places


def from_torch(array: np.ndarray) -> np.ndarray:
    """Returns a kernel as Flax has it: in, out last; of a convolution rows and columns first."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _votes_first(weights: np.ndarray) -> np.ndarray:
    classes, inputs, input_dims, dims = weights.shape
    return weights.transpose(1, 2, 0, 3).reshape(inputs, input_dims, classes * dims)


# Where what others' code saves goes, by network and layout.
LAYOUTS: dict[tuple[str, str], Callable[[], list[Place]]] = {
    ("mnist_cnn_v1", "torch"): _cnn,
    ("mnist_capsule_v1", "keras"): _sabour,
    ("mnist_efficient_capsule_v1", "keras"): _efficient,
    ("mnist_hvc_capsule_v1", "keras"): _hvc,
}
