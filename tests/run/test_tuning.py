import os
import subprocess
import sys

import jaxlib.version
import pytest

from mnist_jax.run import tuning

MEASURE = """
import os, resource
from mnist_jax.run import tuning
if {is_tuned}:
    tuning.tune(os.environ)
import jax, jax.numpy as jnp
from jax import lax
x, kernel = jnp.ones((64, 22, 22, 64)), jnp.ones((3, 3, 64, 64))
convolve = jax.jit(lambda x, kernel: jnp.sum(jnp.sin(lax.conv_general_dilated(
    x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")))))
program = convolve.lower(x, kernel).compile()
lines = [line for line in program.as_text().splitlines() if "conv_general" in line]
print(any("__ynn_fusion" in line for line in lines))
for _ in range(3):
    jax.block_until_ready(program(x, kernel))
print(program(x, kernel).is_ready())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    jax.block_until_ready(program(x, kernel))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def measured(is_tuned):
    variables = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(is_tuned=is_tuned)],
        env=variables | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    uses_ynnpack, waits, num_faults = done.stdout.split()
    return uses_ynnpack == "True", waits == "True", int(num_faults)


def test_convolutions_leave_ynnpack_calls_wait_and_memory_is_kept():
    uses_ynnpack, waits, num_faults = measured(is_tuned=False)
    assert uses_ynnpack, "XLA has changed its default: is the flag still of use?"
    assert not waits, "JAX has changed its default: is the setting still of use?"
    uses_ynnpack, waits, num_faults_tuned = measured(is_tuned=True)
    assert not uses_ynnpack
    assert waits
    assert num_faults_tuned < num_faults / 4


LEAVE_MEMORY = """
import os, re
from pathlib import Path
from mnist_jax.run import tuning
tuning.tune(os.environ)
import jax, jax.numpy as jnp
tuning.SECONDS_THAT_LEAVE_MEMORY = {seconds}
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
jax.block_until_ready(jnp.ones(8))
freed = [bytearray(1 << 16) for _ in range(2048)]
above = bytearray(1 << 16)  # a heap is otherwise given back from its end
del freed
before = resident()
jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(8))
print(before - resident())
"""


@pytest.mark.parametrize(("seconds", "is_given_back"), [(0, True), (60, False)])
def test_what_a_long_compilation_frees_is_given_back(seconds, is_given_back):
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_MEMORY.format(seconds=seconds)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > 64) == is_given_back  # of 128 MB


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("", tuning.CONVOLUTIONS),
        ("--xla_dump_to=x", f"{tuning.CONVOLUTIONS} --xla_dump_to=x"),
        ("flags.txt", "flags.txt"),
        (
            "--xla_cpu_experimental_ynn_fusion_type=",
            "--xla_cpu_experimental_ynn_fusion_type=",
        ),
    ],
)
def test_flags_of_the_user_stay(theirs, expected):
    variables = {"XLA_FLAGS": theirs}
    for _ in range(2):  # in the process below, once more
        tuning.tune(variables)
        assert variables == {"XLA_FLAGS": expected}
        assert tuning.flags_of_the_user(variables) == theirs


def test_an_xla_that_may_not_know_the_flag_gets_none(monkeypatch):
    monkeypatch.setattr(jaxlib.version, "__version_info__", (0, 99, 0))
    variables = {}
    tuning.tune(variables)
    assert variables == {}
