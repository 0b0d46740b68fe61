"""Compiled programs, kept in the user's cache folder for the next start."""

import hashlib
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import jax
import jaxlib.version

from mnist_jax.run import environment

LOGGER = logging.getLogger("mnist_jax")
MAX_BYTES = 500_000_000  # what was used longest ago is deleted beyond this


def use(variables: Mapping[str, str]) -> None:
    """Makes JAX keep what it compiles, and read it at the next start instead of compiling again.

    Nothing is kept, and a line says so, where the folder is not safe or cannot be made. Where the
    user has told JAX what to do, that holds.

    Args:
        variables: the process environment; `XDG_CACHE_HOME`, `HOME` and JAX's own are read.
    """
    if "JAX_COMPILATION_CACHE_DIR" in variables or "JAX_ENABLE_COMPILATION_CACHE" in variables:
        return
    base = variables.get("XDG_CACHE_HOME") or str(Path(variables.get("HOME", "/")) / ".cache")
    folder = Path(base).absolute() / "mnist_jax" / f"xla_{machine()}"
    try:
        for place in (*reversed(folder.parents), folder):
            if not place.exists():
                place.mkdir(mode=0o700, exist_ok=True)
        problem = what_is_unsafe(folder)
    except OSError as error:
        problem = f"{error.filename} cannot be made ({error.strerror})"
    if problem:
        LOGGER.warning(
            "compiling again at every start: %s; fix that or set XDG_CACHE_HOME", problem
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    # A start runs some eighty small programs: reading one takes a tenth of compiling it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def machine() -> str:
    """Returns a short name for the processors and the compiler, which XLA's key leaves out.

    A home folder may be shared by machines: a program for another processor can end in an illegal
    instruction (jax-ml/jax issue 38445), and one for another number of them gives other last
    digits than a program compiled here.
    """
    facts = (
        *(jaxlib.version.__version__, environment.num_cpus()),
        *(environment.cpu_name(), environment.cpu_features()),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def what_is_unsafe(folder: Path) -> str | None:
    """Names who else could put programs into a folder, which would run as the user; else None.

    As with the keys of OpenSSH, the folder and all above it must be the user's or root's, and no
    one else may write there, except where the sticky bit keeps others' entries safe.
    """
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents):
        found = place.stat()
        if found.st_uid not in ((os.geteuid(),) if place == resolved else (os.geteuid(), 0)):
            return f"{place} belongs to another user"
        others_can_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others_can_write and (place == resolved or not found.st_mode & stat.S_ISVTX):
            return f"other users can write to {place}"
    return None
