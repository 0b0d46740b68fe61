"""Runs of the program as forks of one warm process, to be killed, starved and looked at.

Importing JAX and its like takes longer than a small run does. This process imports them once, then
forks for every request, before any backend is started. A run is otherwise the real one: a process
of its own, in which the program's `main` is called with a command line; but the latency is measured
for an instant, the exported file runs on fewer images one by one, and it is asked more often within
an epoch whether a signal has come.

A line of JSON on standard input is a request; `conftest.py` writes them.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback

# What a run imports on its way, as far as that starts no backend; jax2onnx's converters would.
import jax2onnx  # noqa: F401
import matplotlib.backends.backend_agg  # noqa: F401
import sklearn.metrics  # noqa: F401
from jax._src import xla_bridge

from mnist_jax import command, pipeline, train  # noqa: F401
from mnist_jax import rerun as reproduce_release
from mnist_jax.card import capsule_plots, mistake_plot, plots  # noqa: F401
from mnist_jax.data import digits  # noqa: F401
from mnist_jax.release import latency, parity
from mnist_jax.training import fit

# What Python tells of files; what orbax does in C++ is not among it, so runs are killed by the
# clock as well.
WATCHED = {
    *("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"),
    *("tempfile.mkstemp", "tempfile.mkdtemp", "shutil.rmtree"),
}


def watch(folder: str, kill_at: int | None, counter: str) -> None:
    """Counts what is done to files in `folder`; kills this process before operation `kill_at`."""
    file, count = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in WATCHED and any(folder in str(value) for value in arguments):
            count += 1
            os.pwrite(file, f"{count}\n".encode(), 0)
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run_and_leave(request: dict) -> None:
    """Does one request in this process, and ends it with its status."""
    # Printed through a pipe: what limits the size of files would limit this one.
    with open(request["out"], "ab") as out:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=out)
    os.dup2(cat.stdin.fileno(), 1)
    os.dup2(1, 2)
    try:
        status = run(request)
    except BaseException:
        traceback.print_exc()
        status = 3
    sys.stdout.flush()
    sys.stderr.flush()
    for pipe in (1, 2, cat.stdin.fileno()):
        os.close(pipe)
    cat.wait()
    os._exit(status)


def run(request: dict) -> int:
    """Limits this process as is asked for, and calls the program."""
    signal.signal(signal.SIGTERM, command._terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in background
    os.chdir(request["cwd"])
    clock, clock_ns, offset_s = time.time, time.time_ns, request["clock_offset_s"]
    time.time = lambda: clock() + offset_s
    time.time_ns = lambda: clock_ns() + offset_s * 10**9
    if request["max_file_bytes"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, [request["max_file_bytes"]] * 2)
    else:
        watch(request["cwd"], request["kill_at"], request["counter"])
    return {"train": train.main, "reproduce": reproduce_release.main}[request["program"]](
        request["arguments"]
    )


def serve() -> None:
    """Answers each request: the process id of a run that is started, the status of one awaited."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, code = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(code)
        elif not (answer := os.fork()):
            run_and_leave(request)
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    latency.WARM_UP_S = latency.WINDOW_S = latency.MAX_MEASURING_S = 0.01
    parity.SAMPLE_SIZE = 16
    fit.SECONDS_BETWEEN_LOOKS = 0.01
    assert not xla_bridge.backends_are_initialized(), "what is forked could not compute"
    serve()
    os._exit(0)  # an orderly exit takes seconds
