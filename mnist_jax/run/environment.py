"""What a run stood on: versions, machine, source."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import jax

from mnist_jax.errors import UserError, first_line
from mnist_jax.run import tuning

PACKAGES = (
    *("mnist-jax", "jax", "jaxlib", "flax", "optax", "numpy"),
    *("orbax-checkpoint", "jax2onnx", "onnx", "onnx-ir", "onnxruntime", "tensorflow-datasets"),
    *("scikit-learn", "matplotlib"),
)
# What JAX can be told from outside that changes numbers.
JAX_SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion"),
    *("jax_default_prng_impl", "jax_threefry_partitionable", "jax_disable_jit"),
)


def start_jax(variables: MutableMapping[str, str], join: Callable[[], None] = lambda: None) -> None:
    """Makes sure that JAX can work in these surroundings, before anything else is asked of it.

    Args:
        variables: the process environment; `XLA_FLAGS` is set (`tuning`).
        join: what must happen before JAX looks for devices: meeting the run's other processes.

    Raises:
        UserError: a variable asks JAX or XLA for what they cannot do, or this program cannot bear.
    """
    for name in sorted(variables):
        if name.startswith("JAX_TRANSFER_GUARD") and variables[name].startswith("disallow"):
            raise UserError(
                f"{name} is {variables[name]!r}, but a run moves arrays to and from the device; "
                "unset it"
            )
    if flags := tuning.flags_of_the_user(variables):
        _check_xla_flags(variables, flags)
    tuning.tune(variables)
    join()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for a platform that is known
        name = next((n for n in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if variables.get(n)), None)
        if name is None:
            raise UserError(
                f"JAX cannot use the devices of this machine ({first_line(error)}); set "
                "JAX_PLATFORMS=cpu to do without them"
            ) from error
        raise UserError(
            f"{name} is {variables[name]!r}, but JAX finds no such device here "
            f"({first_line(error)}); unset it, or set JAX_PLATFORMS=cpu"
        ) from error


def _check_xla_flags(variables: Mapping[str, str], flags: str) -> None:
    """Lets another process read XLA_FLAGS: XLA ends the one that has a mistake in them.

    Raises:
        UserError: there is one.
    """
    others = {name: value for name, value in variables.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import jax; jax.devices()"],
        env={**others, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )
    if done.returncode:
        fatal = re.search(r"^F.*?\] (.*)", done.stderr, re.MULTILINE)
        reason = fatal[1] if fatal else f"XLA ends with status {done.returncode}"
        raise UserError(
            f"XLA_FLAGS is {flags!r}, which XLA refuses ({reason}); correct or unset it"
        )


def describe() -> dict[str, Any]:
    """Returns the environment as it goes into `config.json`."""
    # A repository around an installed package, as of the project that uses it, is another's.
    is_checkout = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git("rev-parse", "HEAD") if is_checkout else None
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device_kind": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "cpu": cpu_name(),
        "num_cpus": num_cpus(),
        "xla_flags": tuning.flags_of_the_user(os.environ),
        "jax_settings": {name: jax.config.values[name] for name in JAX_SETTINGS},
        "git_commit": commit,
        "git_clean": None if commit is None else _git("status", "--porcelain") == "",
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that can change a result."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def num_cpus() -> int:
    """Returns how many processors there are for this process.

    XLA divides sums among as many threads, and so changes their last digits.
    """
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """Returns the processor's name as the kernel gives it."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cpu_features() -> str:
    """Returns the names of what the processor can do beyond the basics; empty where unknown."""
    return _cpu_info("flags") or _cpu_info("Features")  # the latter on ARM


def _cpu_info(key: str) -> str:
    """Returns what Linux says of the first processor; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""  # not Linux
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(values, "")


def _git(*arguments: str) -> str | None:
    """Asks git in the folder of this file; None where it fails."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
