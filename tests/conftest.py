"""Strictness for every test, and the few fixtures that several files share."""

import fcntl
import gc
import os
import re
import signal
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from unittest import mock

# What one test compiles, those after it read: in the workers and in all that they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="mnist_jax_compiled_")  # until this process ends
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
        "JAX_COMPILATION_CACHE_MAX_SIZE": "2000000000",  # with a limit, JAX locks what it writes
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

import jax
import numpy as np
import pytest
from hypothesis import Phase, settings
from jaxtyping import _import_hook

from mnist_jax import command, train
from mnist_jax.release import latency, parity
from mnist_jax.run import tuning

ROOT = Path(__file__).parents[1]

tuning.tune(os.environ)
jax.config.update("jax_numpy_rank_promotion", "raise")

# How long an example takes says more about the machine than about the code. The same examples each
# time, so that a commit passes or fails by what it changes; --hypothesis-profile=new looks further.
settings.register_profile("new", deadline=None, max_examples=1_000)
settings.register_profile("unhurried", deadline=None, derandomize=True)
settings.load_profile("unhurried")
# For scripts/mutate: the same examples for every mutant, and no time spent on making them smaller.
settings.register_profile(
    "mutants",
    settings.get_profile("unhurried"),
    derandomize=True,
    database=None,
    max_examples=50,
    phases=[Phase.explicit, Phase.generate],
)


def pytest_configure():
    """Has libraries read from their compiled files, also where a module of ours imports them.

    While one is loading, jaxtyping's loader looks for the compiled files of all that it imports by
    a name that none has, and each worker compiled them. Now it does so for our modules alone.
    """
    loader = _import_hook._JaxtypingLoader
    loader.exec_module, loader.get_code = SourceFileLoader.exec_module, _get_code


def _get_code(loader, name):
    name_of = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with mock.patch("importlib._bootstrap_external.cache_from_source", name_of):
        return SourceFileLoader.get_code(loader, name)


# The files that take longest, first: else one worker has the last of them and the other nothing.
LONGEST = (
    *("models/test_capsule_networks.py", "serve/test_server.py", "crash/test_storage.py"),
    *("test_surroundings.py", "page/test_page.py", "training/test_processes.py"),
    *("export/test_onnx.py", "serve/test_predict.py", "test_terminals.py"),
    *("serve/test_stopping.py", "crash/test_kill.py", "test_pipeline.py"),
    *("card/test_capsule_pictures.py", "release/test_verify.py", "test_own_data.py"),
)


def pytest_collection_modifyitems(items):
    """Refuses names that differ from process to process; puts what takes longest first."""
    for item in items:
        if re.search(r" at 0x[0-9a-f]+", item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} has an address in its name; give it an id")
    items.sort(key=lambda item: not str(item.path).endswith(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Looks for no garbage meanwhile, nor later in what has come by then: most of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def signals_of_the_program():
    """SIGTERM and Ctrl-C as `command.run_as_program` has them."""
    before = signal.signal(signal.SIGTERM, command._terminate)
    # What a shell starts in the background ignores it.
    before_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)
    signal.signal(signal.SIGINT, before_interrupt)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the published MNIST files, which no repository may hold."""
    folder = Path(os.environ.get("MNIST_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        pytest.skip("no published MNIST files: MNIST_JAX_TEST_DATA names no folder with mnist/*.gz")
    return folder


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """An IDX writer that owes nothing to the reader's code."""

    def write(array):
        sizes = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
        return sizes + array.tobytes()

    return write


LINEAR_NETWORK = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, image_side, num_channels, rngs):
        self.dense = nnx.Linear(image_side**2 * num_channels, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(images.shape[0], -1))
"""


@pytest.fixture(scope="session")
def linear_network(tmp_path_factory) -> str:
    """The smallest network of a user's own: what `--model-id` takes."""
    path = tmp_path_factory.mktemp("linear") / "net.py"
    path.write_text(LINEAR_NETWORK)
    return f"{path}:Net"


@pytest.fixture(autouse=True, scope="session")
def hurry():
    """Times exported files for an instant, and runs them on 16 images one by one, not on 256.

    `test_latency.py` alone takes the time that it takes. No test cuts the power, so that none need
    wait for the disk. What runs in a process of its own does all of it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "WARM_UP_S", 0.01)
        patch.setattr(latency, "WINDOW_S", 0.01)
        patch.setattr(latency, "MAX_MEASURING_S", 0.1)
        patch.setattr(parity, "SAMPLE_SIZE", 16)
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder that all workers share: `made_once(name, make)`; not to be changed."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def made_once(name: str, make: Callable[[Path], None]) -> Path:
        with (shared / f"{name}.made").open("a") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)  # until it is closed
            if os.fstat(mark.fileno()).st_size == 0:  # as it is now, with the lock
                (shared / name).mkdir()
                make(shared / name)
                mark.write("whole")
        return shared / name

    return made_once


@pytest.fixture(scope="session")
def trained_once(made_once) -> Callable[..., Path]:
    """Trains once for all workers: `trained_once(name, *flags)` returns a folder.

    It holds `run`, which is released, and `data`; not to be changed.
    """

    def trained_once(name: str, *flags: str) -> Path:
        def make(folder):
            places = [f"--data-dir={folder / 'data'}", f"--output-dir={folder / 'run'}"]
            assert train.main([*flags, *places, "-q", "--min-test-accuracy=0.1"]) == 0

        return made_once(name, make)

    return trained_once


@pytest.fixture(scope="session")
def released(trained_once) -> Path:
    """A folder with `run`, a released run on the embedded digits, and `data`; not to be changed."""
    flags = ["--dataset-id=digits_v1", "--batch-size=32", "--epochs=2"]
    flags += ["--config.augment_shift_px=1", "--min-per-class-accuracy=0"]
    return trained_once("released", *flags, "--max-inference-time-ms=1000")
