"""Compiling for tests that ask what a program computes, not how fast."""

from functools import partial

import jax

# XLA's own passes all run; LLVM, which takes most of the time, only translates what they give.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
