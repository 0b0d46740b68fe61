"""What makes JAX quick on a CPU and has to be said before it starts; measured in docs/log.md."""

import ctypes
import functools
from collections.abc import MutableMapping

import jax
import jaxlib.version

# By default XLA's CPU backend convolves with YNNPACK, which takes 2 to 5 times as long as Eigen,
# its other library, at the sizes of small networks. Products of matrices stay with YNNPACK.
CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
FIRST_JAXLIB, LAST_JAXLIB = (0, 10), (0, 12)  # known to have it: XLA ends at an unknown flag
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's <malloc.h>
COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event, with the seconds it took
SECONDS_THAT_LEAVE_MEMORY = 1.0  # of compiling: hundreds of megabytes of what LLVM has freed


def tune(variables: MutableMapping[str, str]) -> None:
    """Tunes this process, unless JAX has started; what the user has set stays.

    Args:
        variables: the process environment; `XLA_FLAGS` is set.
    """
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in variables:
        # Else the host runs ahead, and each step that waits or ends holds memory for its arrays.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    theirs = flags_of_the_user(variables)
    is_known = FIRST_JAXLIB <= jaxlib.version.__version_info__[:2] <= LAST_JAXLIB
    is_a_file = theirs != "" and not theirs.startswith("-")
    if is_known and not is_a_file and CONVOLUTIONS.partition("=")[0] not in theirs:
        variables["XLA_FLAGS"] = f"{CONVOLUTIONS} {theirs}".strip()
    _keep_memory()


def flags_of_the_user(variables: MutableMapping[str, str]) -> str:
    """Returns `XLA_FLAGS` without what `tune` put there, in this process or the one above."""
    return variables.get("XLA_FLAGS", "").replace(CONVOLUTIONS, "").strip()


@functools.cache
def _keep_memory() -> None:
    """Makes glibc keep freed memory for the next allocation, but for what compiling has freed.

    XLA takes what a step needs, some hundred megabytes, from the system and gives it back after the
    step: each page is then cleared and mapped again, a quarter of the step's processor time.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for name, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        mallopt(name, value)

    def give_back(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED and duration_secs > SECONDS_THAT_LEAVE_MEMORY:
            malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(give_back)
