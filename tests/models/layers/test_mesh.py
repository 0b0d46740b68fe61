"""The loops over images on two devices, in a process that has them."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from mnist_jax.models.layers.conv import convolve
from mnist_jax.models.layers.groups import in_groups

random = np.random.default_rng(0)
x = jnp.asarray(random.standard_normal((4, 8, 8, 16)), jnp.float32)
kernel = jnp.asarray(random.standard_normal((3, 3, 16, 16)), jnp.float32)

def function(x, kernel):
    y = convolve(x, kernel)
    return in_groups(lambda y, k: jnp.tanh(y / 9).sum(axis=(1, 2)) @ k[0, 0], y, kernel, group=1)

def value_and_gradients(x, kernel):
    value, pullback = jax.vjp(function, x, kernel)
    return value, *pullback(jnp.cos(value))

expected = jax.jit(value_and_gradients)(x, kernel)
mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
with jax.set_mesh(mesh):
    parts = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    compiled = jax.jit(value_and_gradients).lower(parts, kernel).compile()
    found = compiled(parts, jax.device_put(kernel, NamedSharding(mesh, PartitionSpec())))
assert "all-gather" not in compiled.as_text(), "images cross between the devices"
for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))
print("alike")
"""


def test_each_device_takes_its_part_and_the_gradients_add_up():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "NPROC": "8",  # of XLA's threads: with one a core, devices can wait for each other
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "alike\n", done.stderr
