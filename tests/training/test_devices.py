"""Several devices give what one does: virtual devices of the CPU, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mnist_jax.errors import UserError
from mnist_jax.training.devices import make_mesh

STEPS = Path(__file__).parent / "device_steps.py"
DROPPING = f"{STEPS.with_name('tiny.py')}:Dropping"
EIGHT_DEVICES = {
    # On a busy machine a device may be waited for longer than the 40 s after which XLA gives up.
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    "NPROC": "32",  # threads: with fewer than devices, XLA's wait for each other for ever
    "JAX_PLATFORMS": "cpu",
}


# By default two devices are those of two processes, in test_processes.py.
@pytest.mark.parametrize(
    ("model_id", "numbers"),
    [
        (DROPPING, [1, 8]),
        pytest.param(DROPPING, [1, 2], marks=pytest.mark.slow),
        pytest.param("mnist_cnn_v1", [1, 2, 8], marks=pytest.mark.slow),
        pytest.param("mnist_efficient_capsule_v1", [1, 2, 8], marks=pytest.mark.slow),
    ],
    ids=["dense-8", "dense-2", "cnn", "capsules"],
)
def test_50_steps_on_many_devices_are_those_on_one(model_id, numbers):
    done = subprocess.run(
        [sys.executable, str(STEPS), model_id, *map(str, numbers)],
        capture_output=True,
        text=True,
        env={**os.environ, **EIGHT_DEVICES},
    )
    assert done.returncode == 0, done.stderr
    one, *others = map(json.loads, done.stdout.splitlines())
    assert [one["devices"], *(row["devices"] for row in others)] == numbers
    assert one["num_correct"] > 0.12 * one["num_seen"] > 0
    for row in others:
        assert row["difference"] < 0.003  # of the way that the weights have gone
        assert row["loss_sum"] == pytest.approx(one["loss_sum"], rel=1e-5)
        assert row["num_correct"] == pytest.approx(one["num_correct"], abs=1)
        for norm in ("grad_norm", "param_norm", "update_norm"):
            assert row[norm] == pytest.approx(one[norm], rel=1e-3)


def test_what_the_devices_cannot_do_is_refused(monkeypatch):
    assert make_mesh(1, 64) is None
    with pytest.raises(UserError, match="mesh is 2, but there are 1 devices; give"):
        make_mesh(2, 64)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    for num_devices in (8, 0):
        with pytest.raises(UserError, match=r"100, but must be a multiple of the 8 .*-size=104,"):
            make_mesh(num_devices, 100)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="mesh is 4, but a run of 2 processes takes all of their 8"):
        make_mesh(4, 64)
