"""kill -9 at any moment, and the same command again: nothing is lost, and every byte is the same.

Half of the kills come by the clock, half just before an operation on a file that is drawn at
random, so that short stages get their share. `scripts/test -m slow -s tests/crash/test_kill.py`
prints where they hit.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from mnist_jax import rerun as reproduce_release
from mnist_jax.run import folder as run_folder
from mnist_jax.run import paths
from tests.waiting import HANG_S

STAGES = {  # by the last line of the log
    "": "data",
    "run folder": "data",
    "checking that": "export check",
    "training": "epoch",
    "epoch": "epoch",
    "time:": "end",
    "resuming after": "epoch",
    "keeping epoch": "released weights, evaluation",
    "test accuracy": "export",
    "verifying": "verification, card, end",
    "released:": "end",
}

# Without an ONNX file it is not a release: status 1.
WEIGHTS_ALONE = ("--export_format=safetensors", "--skip-visualizations")
A_RUN_S = 4  # about; a kill by the clock may come after the end
AUGMENTED = ("--config.augment_id=shift_and_rotate", "--config.augment_shift_px=1")


def stage_of(folder):
    """Where a run was, in words."""
    log = folder / "run" / paths.LOG
    last = log.read_text().splitlines()[-1].split(" ", 3)[3] if log.is_file() else ""
    stage = max((start for start in STAGES if last.startswith(start)), key=len)
    if STAGES[stage] == "epoch" and any((folder / "run" / "models").rglob("*tmp*")):
        return "checkpoint"
    if STAGES[stage] == "verification, card, end" and (folder / "run/model_card").is_dir():
        return "card, end"
    return STAGES[stage]


def last_operation(folder):
    return int((folder / "operations").read_text().split()[0])


def kill(handle):
    """Kills the process behind a handle, which cannot come to mean another one as an id can."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def kill_until_done(server, folder, num_kills, total_s, num_operations, rng):
    """Runs the command again and again, killing it `num_kills` times, till it ends by itself.

    Returns where the kills hit.
    """
    hits = []
    while True:
        by_clock = rng.random() < 0.5
        kill_at = None if by_clock else rng.randrange(1, num_operations + 1)
        is_to_die = len(hits) < num_kills
        process = server.start(folder, kill_at=kill_at if is_to_die else None)
        if is_to_die and by_clock:
            handle = os.pidfd_open(process)
            clock = threading.Timer(rng.random() * total_s, kill, [handle])
            clock.start()
            status = server.wait(process)
            clock.cancel()
            clock.join()
            os.close(handle)
        else:
            status = server.wait(process)
        if status == 0:
            return hits
        assert status == -signal.SIGKILL, (folder / "out").read_text()
        hits.append(stage_of(folder))
        if run_folder.is_finished(folder / "run"):
            assert server.run(folder) == 2  # it was killed after its end, and says so
            assert "holds a finished run" in (folder / "out").read_text()
            (folder / "out").unlink()
            return hits


def harness(server, whole, new_folder, assert_same, num_kills, kills_a_run, seed):
    """Kills at least `num_kills` times; returns how often in which stage."""
    num_operations, start = last_operation(whole), time.perf_counter()
    folder = new_folder()
    assert server.run(folder) == 0
    assert_same(folder)
    total_s, hits, rng = time.perf_counter() - start, [], random.Random(seed)
    while len(hits) < num_kills:
        folder = new_folder()
        hits += kill_until_done(server, folder, kills_a_run, total_s, num_operations, rng)
        assert_same(folder)
    return Counter(hits)


def test_a_few_kills(server, whole, new_folder, assert_same):
    folder, num_operations = new_folder(), last_operation(whole)
    assert kill_until_done(server, folder, 2, A_RUN_S, num_operations, random.Random(0))
    assert_same(folder)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_within_an_epoch_loses_no_step(server, tmp_path, number, status):
    folders, flags = (
        (tmp_path / "undisturbed", tmp_path / "stopped"),
        ("--batch-size=4", "--epochs=4", *AUGMENTED, *WEIGHTS_ALONE),
    )
    assert server.run(folders[0], *flags) == 1
    process = server.start(folders[1], *flags)
    log = folders[1] / "run" / paths.LOG
    end = time.monotonic() + HANG_S
    while not (log.is_file() and "epoch 1/4" in log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.001)
    time.sleep(0.01)  # into the next epoch; those after it are for a machine that is slow to signal
    os.kill(process, number)
    assert server.wait(process) == status
    assert (folders[1] / "out").read_text().startswith("interrupted; the same flags and --output")
    assert "stopping after step" in log.read_text()
    (folders[1] / "out").unlink()
    assert server.run(folders[1], *flags) == 1
    assert "resuming after step" in log.read_text()
    rows = reproduce_release.compare(*(folder / "run" for folder in folders))
    assert [row for row in rows if row.then != row.now or row.then is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_many_kills(server, whole, new_folder, assert_same, seed):
    hits = harness(server, whole, new_folder, assert_same, num_kills=16, kills_a_run=8, seed=seed)
    print(f"\n{hits.total()} kills: {dict(hits.most_common())}; nothing lost")
    assert len(hits) >= 3, "the kills did not spread over the stages"
