"""Compiling for tests that ask what a program computes, not how fast."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx

from mnist_jax.models.network import rebuild, take_apart

# XLA's own passes all run; LLVM, which takes most of the time, only translates what they give.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def quick_build(make: Callable[[], Any]) -> Any:
    """Builds the network that a function makes, its first weights drawn by one program."""
    structure, _, _ = take_apart(nnx.eval_shape(make))
    return rebuild(structure, *quick_jit(lambda: take_apart(make())[1:])())
