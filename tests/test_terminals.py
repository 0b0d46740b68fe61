"""Whatever becomes of a terminal, a command ends with the status that it earns.

Each loss is tried on each command; `slow` has the whole product, the default suite the cheap part.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mnist_jax.__main__ import MODULES
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "training" / "tiny.py"
TRAIN = ("train", f"--model-id={TINY}:Tiny", "--dataset-id=digits_v1", "--batch-size=64")
TRAIN += ("--skip-export", "--skip-visualizations")  # so never released: status 1, by a verdict

# ---- The ways to lose a terminal: each starts the program, and returns it once it is without.


def start(arguments, how=(), **options):
    command = [*how, sys.executable, "-P", "-m", "mnist_jax", *map(str, arguments)]
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **options})


def through_shell(redirections):
    def lose(arguments):
        return start(arguments, ("sh", "-c", f'exec "$@" {redirections}', "sh"))

    return lose


def reader_leaves(streams):
    def lose(arguments):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            return start(arguments, **dict.fromkeys(streams, writing))
        finally:
            os.close(writing)

    return lose


def reader_takes_one_line(arguments):
    """As `| head -1`."""
    process = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    return process


def terminal_hangs_up(arguments):
    """The window is closed once something is written in it: SIGHUP, and writing fails."""
    master, slave = pty.openpty()
    lead = (sys.executable, "-c", TAKE_TERMINAL)
    process = start(arguments, lead, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        os.read(master, 1)
    finally:
        os.close(master)
    return process


# A process group of its own, of which the terminal is the controlling one.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def slow_reader(arguments):
    """A pipe that does not block, as some parents leave it, and is full at first."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        process = start(arguments, stdout=writing, stderr=writing)
    os.close(writing)

    def drain():
        time.sleep(1)
        with open(reading, "rb") as file:
            file.read()

    threading.Thread(target=drain, daemon=True).start()
    return process


def encoding(name):
    def lose(arguments):
        return start(arguments, stdout=subprocess.DEVNULL, env={"PYTHONIOENCODING": name})

    return lose


LOSSES = {
    "nothing": start,
    "closed output": through_shell(">&-"),
    "closed error": through_shell("2>&-"),
    "all closed": through_shell("<&- >&- 2>&-"),
    "full output": through_shell(">/dev/full"),
    "full output and error": through_shell(">/dev/full 2>/dev/full"),
    "no reader of the output": reader_leaves(["stdout"]),
    "no reader of the error": reader_leaves(["stderr"]),
    "no reader of either": reader_leaves(["stdout", "stderr"]),
    "head -1": reader_takes_one_line,
    "hang-up": terminal_hangs_up,
    "a reader that is slow": slow_reader,
    "latin-1": encoding("latin-1"),
    "ascii": encoding("ascii:strict"),
}


@pytest.fixture(scope="module")
def damaged(released, tmp_path_factory):
    """A run of which one exported file is not what was verified; its name is not ASCII."""
    run = tmp_path_factory.mktemp("damaged") / "Läufe_日本"
    (run / "models").mkdir(parents=True)
    (run / "logs").mkdir()
    for name in ("logs/release.json", "models/mnist_model.onnx", "models/mnist_model.stablehlo"):
        (run / name).write_bytes((released / "run" / name).read_bytes())
    return run


def commands(released, damaged):
    """The command lines that are cheap, with the status that each earns."""
    run, data = released / "run", f"--data-dir={released / 'data'}"
    nowhere = damaged / "nowhere"
    return {
        "verify": (("verify", run), 0),
        "verify, refused": (("verify", damaged), 1),
        "verify, nothing there": (("verify", nowhere), 2),
        "train --help": (("train", "--help"), 0),
        "train, a mistake": (("train", "--epochs=0"), 2),
        "train, not ASCII": (("train", f"--config={nowhere}.py"), 2),
        "nothing": (("nothing",), 2),
        **{f"{name} --help": ((name, "--help"), 0) for name in MODULES},
        **{f"{name}, a mistake": ((name, f"--no-such-flag={nowhere}"), 2) for name in MODULES},
        "export, nothing there": (("export", nowhere, data), 2),
        "serve, nothing there": (("serve", nowhere), 2),
        "quantize, nothing there": (("quantize", nowhere, data), 2),
        "robustness, nothing there": (("robustness", nowhere, data), 2),
        "reproduce-release, nothing there": (("reproduce-release", nowhere, data), 2),
        "publish, nothing there": (("publish", nowhere, f"--repository={damaged / 'r'}"), 2),
    }


def status(loss, arguments):
    process = LOSSES[loss](arguments)
    try:
        return process.wait(timeout=HANG_S)
    finally:
        process.kill()
        process.wait()


QUICK = ("verify, refused", "train --help", "train, not ASCII")  # no JAX: well under a second each


@pytest.mark.parametrize("loss", LOSSES)
def test_a_quick_command_ends_as_it_should(loss, released, damaged):
    table = commands(released, damaged)
    for name in QUICK:
        arguments, expected = table[name]
        assert status(loss, arguments) == expected, name


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_command_ends_as_it_should(loss, released, damaged):
    for name, (arguments, expected) in commands(released, damaged).items():
        assert status(loss, arguments) == expected, name


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("export", ()),
        ("quantize", ()),
        ("robustness", ("--num-images=5",)),
        ("reproduce-release", ()),
    ],
)
def test_every_command_that_computes(loss, name, flags, released, tmp_path):
    """Copies of the run, since all but the last write into it."""
    run = tmp_path / "run"
    subprocess.run(["cp", "-a", str(released / "run"), str(run)], check=True)
    arguments = (name, run, f"--data-dir={released / 'data'}", *flags)
    expected = status("nothing", arguments)
    assert expected in (0, 1)
    assert status(loss, arguments) == expected


def verdict(run):
    return json.loads((run / "logs" / "release.json").read_text())["verdict"]


@pytest.mark.parametrize(
    "loss",
    [
        "hang-up",
        *[
            pytest.param(loss, marks=pytest.mark.slow)
            for loss in LOSSES
            if loss not in ("hang-up", "nothing")
        ],
    ],
)
def test_a_run_goes_on_to_its_verdict(loss, released, tmp_path):
    run = tmp_path / "Läufe_日本"
    places = (f"--data-dir={released / 'data'}", f"--output-dir={run}")
    assert status(loss, (*TRAIN, "--epochs=1", *places)) == 1
    assert verdict(run) == "refused"
    log = (run / "pipeline.log").read_text()
    assert "epoch 1/1" in log
    assert "refused: " in log


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_stop_after_the_reader_has_left_is_still_a_stop(number, expected, released, tmp_path):
    """As Ctrl-C with `| tee log`, which ends tee as well."""
    run = tmp_path / "run"
    places = (f"--data-dir={released / 'data'}", f"--output-dir={run}")
    # What a shell starts in the background ignores Ctrl-C, and so would the program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = reader_takes_one_line((*TRAIN, "--epochs=1000", *places))
    finally:
        signal.signal(signal.SIGINT, before)
    log = run / "pipeline.log"
    try:
        until = time.monotonic() + HANG_S
        while not (log.exists() and "epoch 1/" in log.read_text()):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=HANG_S) == expected
    finally:
        process.kill()
        process.wait()
    assert not (run / "logs" / "release.json").exists()
    assert any((run / "models" / "training").iterdir())


def test_what_a_terminal_cannot_show_is_written_escaped(damaged):
    process = start(
        ("verify", damaged),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONIOENCODING": "latin-1"},
    )
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    assert out == b""
    (line,) = err.decode("latin-1").splitlines()
    assert line.startswith("FAIL  ")
    assert r"Läufe_\u65e5\u672c" in line
