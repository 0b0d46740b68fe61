"""Small runs, quickly: what the tests of this folder share."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from mnist_jax import rerun

SECRET = "hunter2-Tr0ub4dor"
ROOT = Path(__file__).parents[2]
# Small and short, but the whole way: three epochs that are saved, every format, plots and card.
FLAGS = (
    f"--model-id={Path(__file__).with_name('small.py')}:SmallNetwork",
    *("-q", "--dataset-id=digits_v1", "--batch-size=64", "--epochs=3"),
    *("--min-test-accuracy=0.1", "--min-per-class-accuracy=0", "--max-inference-time-ms=10000"),
)


class Server:
    """Starts runs; see `server.py`."""

    def __init__(self, cache: Path, **variables: str) -> None:
        self.cache = cache  # compiled once for all runs, as for all epochs of one
        caching = {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "A_SECRET_TOKEN": SECRET,
                **caching,
                **variables,
            },
        )

    def _ask(self, request: dict) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(
        self,
        folder,
        *flags,
        kill_at=None,
        max_file_bytes=None,
        clock_offset_s=0,
        run="run",
        data="data",
        out="out",
        program="train",
        arguments=None,
    ) -> int:
        """Starts a run in `folder`; what it prints is added to `out` there.

        Args:
            folder: made if need be; holds the run and its data.
            flags: besides `FLAGS`.
            kill_at: the operation on a file in `folder` before which it is killed.
            max_file_bytes: no file may grow beyond; stands for a disk that is full.
            clock_offset_s: how wrong its clock is.
            run: the run's folder.
            data: where the data is.
            out: the file for all that is printed.
            program: `train` or `reproduce`.
            arguments: in place of `FLAGS`, `flags` and the folders.

        Returns:
            Its process id.
        """
        folder.mkdir(exist_ok=True)
        places = [f"--output-dir={folder / run}", f"--data-dir={folder / data}"]
        request = {"arguments": arguments or [*FLAGS, *places, *flags], "cwd": str(folder)}
        request["program"] = program
        request |= {"out": str(folder / out), "counter": str(folder / "operations")}
        request |= {"kill_at": kill_at, "max_file_bytes": max_file_bytes}
        request["clock_offset_s"] = clock_offset_s
        return self._ask(request)

    def wait(self, process: int) -> int:
        """Waits for a run; returns its exit status, below 0 where a signal ended it."""
        return self._ask({"wait": process})

    def run(self, folder, *flags, **limits) -> int:
        """Starts a run and waits for it."""
        return self.wait(self.start(folder, *flags, **limits))

    def close(self) -> None:
        """Ends the server."""
        with self._process:  # closes its pipes, at which it ends
            pass


@pytest.fixture(scope="session")
def new_server(tmp_path_factory):
    """Starts a server with more variables in its environment; each has a cache of its own."""
    with ExitStack() as servers:

        def start(**variables):
            server = Server(tmp_path_factory.mktemp("compiled"), **variables)
            servers.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="session")
def server(made_once):
    """The server of most tests; those of all workers have one cache."""
    server = Server(made_once("compiled_for_crashes", lambda folder: None))
    yield server
    server.close()


@pytest.fixture
def secret():
    """A value in the environment of every run that nothing must write."""
    return SECRET


@pytest.fixture(scope="session")
def whole(server, made_once):
    """A run that nothing disturbed, in a folder of its own; not to be changed."""

    def make(folder):
        assert server.run(folder) == 0, (folder / "out").read_text()
        assert (folder / "out").read_text() == ""

    return made_once("whole", make)


@pytest.fixture
def new_folder(tmp_path):
    """Makes a new folder each time it is called."""
    numbers = itertools.count()
    return lambda: tmp_path / str(next(numbers))


def everything_in(run_dir):
    """Names of all files of a run, but for those that carry a time or a random name in it."""
    return {
        path.relative_to(run_dir)
        for path in run_dir.rglob("*")
        if not {"tensorboard", "d"} & set(path.parts)
    }


@pytest.fixture
def assert_same(whole):
    """Holds a run against the undisturbed one: every byte, every file, and nothing left over."""

    def check(folder, run="run", data="data"):
        rows = rerun.compare(whole / "run", folder / run)
        assert len(rows) > 10
        assert [row for row in rows if row.then != row.now or row.then is None] == []
        assert everything_in(folder / run) == everything_in(whole / "run")
        assert [path.name for path in (folder / data).iterdir()] == ["digits_v1"]

    return check
