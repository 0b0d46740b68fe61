"""A run of two processes on this machine: what one gives, and what is left when one is lost."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_jax import train
from mnist_jax.errors import UserError
from mnist_jax.training import processes as distributed
from tests.waiting import HANG_S

PROGRAM = Path(__file__).parent / "tiny_run.py"
TINY = Path(__file__).parent / "tiny.py"
FLAGS = (
    f"--model-id={TINY}:Tiny",
    *("-q", "--dataset-id=digits_v1", "--batch-size=64", "--epochs=2"),
    *("--skip-export", "--skip-visualizations"),  # never a release: status 1
)


def start(folder, name, *flags, stop_after="never"):
    arguments = [f"--stop-after={stop_after}", *FLAGS, *flags]
    folders = [f"--data-dir={folder / 'data'}", f"--output-dir={folder / name}"]
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments, *folders],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_two(folder, name, stop_second_after="never"):
    """Runs the pipeline in two processes, not quiet; returns their statuses and what each says.

    Of standard error the lines without JAX's own, of standard output all.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = (f"--config.coordinator={address}", "--config.num_processes=2", "--config.mesh=0")
    flags += ("--no-quiet",)
    first = start(folder, name, *flags)
    second = start(*(folder, "none", *flags, "--config.process_id=1"), stop_after=stop_second_after)
    try:
        said = [process.communicate(timeout=HANG_S) for process in (second, first)][::-1]
    finally:
        first.kill()
        second.kill()
    own_lines = [
        [line for line in err.splitlines() if "coordination_service" not in line] for _, err in said
    ]
    return (first.returncode, second.returncode), own_lines, [out for out, _ in said]


def history(folder, name):
    rows = json.loads((folder / name / "logs" / "history.json").read_text())["epochs"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in rows]


def test_two_processes_reach_what_one_does_although_one_was_lost_on_the_way(tmp_path, capfd):
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'alone'}"]
    assert train.main([*FLAGS, *places]) == 1
    assert capfd.readouterr() == ("", "")

    statuses, said, _ = run_two(tmp_path, "two", stop_second_after="epoch 1/2")
    assert statuses == (distributed.STATUS_LOST, -signal.SIGKILL)
    assert said[0] == [distributed.LOST]
    assert (tmp_path / "two" / "models" / "training" / "19").is_dir()  # the steps of an epoch

    statuses, said, (of_first, of_second) = run_two(tmp_path, "two")
    assert (statuses, said) == ((1, 1), [[], []])
    assert "epoch 2/2" in of_first
    # As docs/scale.md has it: nothing but errors, and a line of a library's.
    assert [line for line in of_second.splitlines() if not line.startswith("[Gloo]")] == []
    log = (tmp_path / "two" / "pipeline.log").read_text()
    assert "resuming after epoch 1" in log
    assert "on 2 x cpu" in log
    assert not (tmp_path / "none").exists()  # the second process writes nothing
    for one, two in zip(history(tmp_path, "alone"), history(tmp_path, "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_without_an_address_there_is_one_process_and_it_shares_with_itself():
    distributed.join("", 1, 0)
    assert distributed.is_writer()
    assert distributed.share({"epochs": [1]}) == {"epochs": [1]}


def test_an_environment_that_says_nothing_is_a_mistake(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    code = "from mnist_jax.training import processes; processes.join('auto', 1, 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError: coordinator is 'auto', but the processes of the run did not" in done.stderr


def test_only_a_lost_connection_is_taken_for_one():
    for text in (
        "UNKNOWN: Gloo all-reduce failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:1",
        "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited",
    ):
        assert distributed.CONNECTION_LOST.search(text)
    for text in ("Incompatible shapes: (3,) and (4,)", "Out of memory allocating 5 bytes"):
        assert not distributed.CONNECTION_LOST.search(text)


def test_the_error_of_a_step_is_not_hidden():
    with pytest.raises(UserError), distributed.watched():
        raise UserError("x")
