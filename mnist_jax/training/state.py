"""What training changes, and the one place where a network is taken apart into arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """Everything that a training step reads and writes; a pytree."""

    step: Int[Array, ""]
    params: Any
    average: Any  # of the params over the steps, exponentially weighted; None where none is kept
    model_state: Any  # what a network keeps besides: normalisation, running statistics
    opt_state: Any

    @property
    def weights(self) -> Any:
        """What is evaluated and released: the average where one is kept, else the params."""
        return self.params if self.average is None else self.average


def take_apart(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Splits a network into its structure (static), its parameters and its other state (arrays)."""
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def rebuild(graphdef: Any, params: Any, model_state: Any) -> Any:
    """Puts a network together again."""
    return nnx.merge(graphdef, params, model_state)


def first_state(
    params: Any,
    model_state: Any,
    optimizer: optax.GradientTransformation,
    *,
    keeps_average: bool = False,
) -> TrainState:
    """Returns the state before the first step."""
    average = jax.tree.map(jnp.zeros_like, params) if keeps_average else None
    return TrainState(jnp.int32(0), params, average, model_state, optimizer.init(params))


def num_parameters(params: Any) -> int:
    """Counts the trainable numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def stack(trees: Sequence[Any]) -> Any:
    """Puts the arrays of several seeds side by side, along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def pick(stacked: Any, index: int) -> Any:
    """Takes one seed's arrays out of a stack."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)
