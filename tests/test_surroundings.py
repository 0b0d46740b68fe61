"""What a command finds around it: other programs' variables, stray files, half an environment."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbclient
import nbformat
import pytest

from mnist_jax import command
from mnist_jax.__main__ import MODULES
from mnist_jax.errors import UserError
from mnist_jax.run import environment
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[1]
DIGITS = ("--dataset-id=digits_v1", "--batch-size=64", "--epochs=1", "-q")
EASY = ("--min-test-accuracy=0.1", "--min-per-class-accuracy=0", "--max-inference-time-ms=10000")


def run(arguments, cwd, program=(sys.executable, "-P", "-m", "mnist_jax"), **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [*program, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


# ---- Variables that ask for what cannot be done: status 2 and one line that names them

REFUSED = {
    "no such platform": {"JAX_PLATFORMS": "gpu"},
    "capitals": {"JAX_PLATFORMS": "CPU"},
    "a platform without a device": {"JAX_PLATFORMS": "cuda"},
    "the old name": {"JAX_PLATFORMS": "", "JAX_PLATFORM_NAME": "gpu"},
    "an unknown flag": {"XLA_FLAGS": "--xla_no_such_flag=1"},
    "a wrong value": {"XLA_FLAGS": "--xla_force_host_platform_device_count=many"},
    "a file of flags that is not there": {"XLA_FLAGS": "/nowhere/flags"},
    "no transfers": {"JAX_TRANSFER_GUARD": "disallow"},
    "no transfers one way": {"JAX_TRANSFER_GUARD_HOST_TO_DEVICE": "disallow_explicit"},
    "neither true nor false": {"JAX_ENABLE_X64": "maybe"},
    "no such precision": {"JAX_DEFAULT_MATMUL_PRECISION": "high-ish"},
    "a number of words": {"JAX_NUM_CPU_DEVICES": "many"},
    "a protobuf that is not there": {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "cpp"},
}
BY_DEFAULT = ("no such platform", "neither true nor false")


def assert_refused(done, variables):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    name = next(name for name, value in variables.items() if value)
    assert name in line
    assert "unset" in line


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in BY_DEFAULT else pytest.mark.slow) for c in REFUSED]
)
def test_a_variable_that_asks_for_the_impossible_is_a_mistake(case, tmp_path):
    places = (f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}")
    assert_refused(run(("train", *DIGITS, *places), tmp_path, **REFUSED[case]), REFUSED[case])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["an unknown flag", "a wrong value", "no transfers one way"])
def test_and_it_is_one_before_jax_starts(case):
    ((name, value),) = REFUSED[case].items()
    with pytest.raises(UserError, match=f"{name} is .*{value}.*unset it"):
        environment.start_jax({**os.environ, **REFUSED[case]})


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["export", "robustness", "reproduce-release", "multimnist"])
def test_and_so_it_is_for_every_command_that_uses_jax(name, case, released, tmp_path):
    arguments = (name, released / "run", f"--data-dir={released / 'data'}")
    if name == "multimnist":
        arguments = (name, *DIGITS, f"--data-dir={tmp_path}", f"--output-dir={tmp_path / 'run'}")
    assert_refused(run(arguments, tmp_path, **REFUSED[case]), REFUSED[case])
    assert list(tmp_path.iterdir()) == []


# ---- Variables that other programs have left: nothing of them shows

# A backend as Jupyter exports its own, what makes JAX strict, what makes a library's warning an
# error, and places that are not there.
LEFT_BEHIND = {
    "MPLBACKEND": "module://of_another_environment.backend",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "PYTHONWARNINGS": "error",
    "MPLCONFIGDIR": "/proc/nowhere",
    "MATPLOTLIBRC": "/nowhere",
    "XDG_CACHE_HOME": "/proc/nowhere",
    "HOME": "/nowhere",
    "TERM": "no-such-terminal",
    "COLUMNS": "1",
    "LC_ALL": "no_SUCH",
    "TZ": "No/Such",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "export", "quantize", "robustness", "publish", "verify"])
def test_what_other_programs_have_exported_changes_nothing(name, released, tmp_path):
    copy, data = tmp_path / "copy", f"--data-dir={released / 'data'}"
    shutil.copytree(released / "run", copy, symlinks=True)
    more = {
        "train": (*DIGITS, *EASY, f"--output-dir={tmp_path / 'run'}", data),
        "publish": (copy, f"--repository={tmp_path / 'repository'}", data),
        "robustness": (copy, data, "--num-images=5"),
        "verify": (copy,),
    }
    done = run((name, *more.get(name, (copy, data))), tmp_path, **LEFT_BEHIND)
    assert done.returncode == (1 if name == "quantize" and "FAIL" in done.stdout else 0), (
        done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["JAX_DISABLE_JIT", "JAX_ENABLE_X64", "JAX_DEBUG_NANS"])
def test_what_changes_only_how_jax_computes_is_the_users_to_choose(variable, tmp_path):
    places = (f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}")
    done = run(("train", *DIGITS, *EASY, *places), tmp_path, **{variable: "1"})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_without_shared_memory(tmp_path):
    """A process that may not use /dev/shm cannot make a semaphore."""
    code = (
        "import _multiprocessing, runpy, sys\n"
        "def refuse(*_, **__): raise PermissionError(13, 'Permission denied')\n"
        "_multiprocessing.SemLock = refuse\n"
        "runpy.run_module('mnist_jax', run_name='__main__', alter_sys=True)"
    )
    places = (f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}")
    program = (sys.executable, "-P", "-c", code)
    done = run(("train", *DIGITS, *EASY, *places), tmp_path, program)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "run" / "logs" / "tensorboard").glob("events.out.tfevents.*"))


# ---- Imports that fail


@pytest.mark.parametrize(
    ("code", "is_theirs"),
    [
        ("import no_such_library", True),
        ("from json import no_such_name", True),
        ("import json; json.loads('{')", True),
        ("from mnist_jax import no_such_module", False),
        ("import mnist_jax.no_such_module", False),
        ("from mnist_jax.errors import no_such_name", False),
    ],
)
def test_a_failing_import_is_a_mistake_unless_it_is_ours(code, is_theirs, monkeypatch):
    monkeypatch.setenv("JAX_SOMETHING", "1")
    expected = UserError if is_theirs else ImportError
    with pytest.raises(expected) as error, command.loading():
        exec(code)
    if is_theirs:
        assert "unset " in str(error.value) and "JAX_SOMETHING" in str(error.value)
        assert "remove .venv" in str(error.value)


@pytest.mark.parametrize("name", MODULES)
def test_a_library_that_is_broken_is_never_a_verdict(name, tmp_path):
    """numpy stands for all: every command needs it, or none of its modules."""
    (tmp_path / "numpy.py").write_text("raise OSError('no such shared object')")
    (tmp_path / "jax.py").write_text("raise RuntimeError('needs another version of jaxlib')")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = run((name, "nowhere"), tmp_path, PYTHONPATH=path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


# ---- Whose code runs

STRAY = (
    "from pathlib import Path\nPath(__file__).with_suffix('.executed').touch()\nraise SystemExit(1)"
)
NAMES = ("onnx", "random", "numpy", "types", "typing", "rich", "jax", "sitecustomize")


@pytest.fixture
def hostile(tmp_path):
    """A folder with files of the names of libraries, and another checkout of this project."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(STRAY)
    (tmp_path / "mnist_jax").mkdir()
    for name in ("__init__", "__main__", "train", "command"):
        (tmp_path / "mnist_jax" / f"{name}.py").write_text(STRAY)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text(STRAY)
    yield tmp_path
    assert list(tmp_path.rglob("*.executed")) == []


def scripts():
    """Every script that runs a command of the package, or one beside it."""
    return sorted(
        path.name for path in (ROOT / "scripts").iterdir() if '/run" ' in path.read_text()
    )


def test_every_command_has_its_script():
    assert set(scripts()) >= set(MODULES)


@pytest.mark.parametrize(
    ("name", "path"),
    [("train", ""), *((n, ":") for n in scripts() if n not in ("bench", "screenshots"))],
)
def test_the_callers_folder_does_not_choose_the_code(name, path, hostile):
    """With an empty entry in PYTHONPATH, which is no less than an empty PYTHONPATH."""
    done = run(("--help",), hostile, (str(ROOT / "scripts" / name),), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_script_is_found_through_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train").symlink_to(ROOT / "scripts" / "train")
    (tmp_path / "b").symlink_to("a/train")
    (tmp_path / "folder").symlink_to(ROOT / "scripts")
    for program in ("./a/train", "./b", "./folder/train"):
        done = run(("--epochs=0",), tmp_path, (program,))
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith("error: epochs is 0")


@pytest.mark.parametrize("variable", ["PYTHONHOME", "PYTHONHASHSEED", "PYTHONIOENCODING"])
def test_a_python_that_does_not_start_is_a_mistake(variable, tmp_path):
    program = (str(ROOT / "scripts" / "train"),)
    done = run(("--help",), tmp_path, program, **{variable: "nonsense"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and variable in line


# ---- scripts/install

FAKE_PIP = """#!/bin/sh
case "$*" in
*" - "* | *" -") exec {python} "$@" ;; # the check of the version
esac
env | grep -E "^(PIP_|PYTHON)" | sort >"{calls}.environment"
echo "$*" >>"{calls}"
echo "Collecting jaxlib==0.10.2"
echo "  Downloading http://mirror.example/jaxlib-0.10.2-cp311-manylinux.whl (81.2 MB)"
echo "Using cached rich-14.0-py3-none-any.whl (243 kB)"
echo "Installing collected packages: jaxlib, rich"
echo "ERROR: no space" >&2
exit {status}
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what installing needs, whose .venv is the environment of the tests.

    Returns it with a function that gives it a pip that ends so, which notes what it is told.
    """
    root, calls = tmp_path / "checkout", tmp_path / "calls"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (root / ".venv" / "bin" / "python").chmod(0o755)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)

    def install(*extras, status=0, how=(), **variables):
        fake = tmp_path / "python3"
        fake.write_text(FAKE_PIP.format(python=sys.executable, calls=calls, status=status))
        fake.chmod(0o755)
        program = (*how, str(root / "scripts" / "install"))
        done = run(extras, tmp_path, program, PYTHON=str(fake), **variables)
        return done, calls.read_text().splitlines() if calls.exists() else []

    return root, install


def not_installed(root):
    """Has the project ask for what nobody has."""
    path = root / "pyproject.toml"
    path.write_text(path.read_text().replace("bench = [", 'bench = ["no-such-package",'))


def test_what_is_there_is_not_installed_again(checkout):
    """More than was asked for counts, and what was asked for by another name."""
    root, install = checkout
    for extras in ((), ("dev",), ("serve",), ("publish", "sign"), ("publish",)):
        done, calls = install(*extras)
        assert (done.returncode, done.stdout, done.stderr, calls) == (0, "", "", [])
    (stamp,) = root.glob(".venv/.whole-*")
    assert {"base", "dev", "publish", "serve"} <= set(stamp.read_text().split())


def test_a_changed_pin_is_installed(checkout):
    root, install = checkout
    assert install("dev")[1] == []
    path = root / "constraints.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join("rich==0.0.1" if x.startswith("rich==") else x for x in lines))
    assert len(install("dev")[1]) == 1


def test_progress_is_shown_and_pips_own_settings_do_not_lead_it_away(checkout):
    root, install = checkout
    not_installed(root)
    hostile = {"PIP_USER": "1", "PIP_TARGET": "/nowhere", "PIP_DRY_RUN": "1", "PYTHONHOME": "/x"}
    done, calls = install("bench", **hostile)
    assert done.returncode == 0
    assert done.stdout == ""
    assert "jaxlib-0.10.2-cp311-manylinux.whl (81.2 MB)" in done.stderr
    assert "mirror.example" not in done.stderr
    assert "installing the packages" in done.stderr
    assert len(calls) == 1
    assert calls[0].endswith(f"--editable {root}[bench]")
    told = (root.parent / "calls.environment").read_text()
    assert "PIP_USER=0" in told
    assert not any(name in told for name in ("PIP_TARGET", "PIP_DRY_RUN", "PYTHONHOME"))


@pytest.mark.parametrize("redirection", ["", "2>&-", "2>/dev/full", "2>&1 | true"])
def test_an_installation_that_fails_is_status_2_whoever_looks_on(checkout, redirection):
    root, install = checkout
    not_installed(root)
    # The status of the first of a pipeline goes by a file, as POSIX shells know no other way.
    mark = root / "status"
    line = f'{{ "$@"; echo $? >{mark}; }} {redirection}'
    for status, expected in ((1, 2), (0, 0)):
        install("bench", status=status, how=("sh", "-c", line, "sh"))
        assert int(mark.read_text()) == expected


WAITING_PIP = """#!/bin/sh
case "$*" in
*" - "* | *" -") exec {python} "$@" ;; # the check of the version
esac
echo called >>"{calls}"
while [ ! -e "{end}" ]; do sleep 0.05; done
"""


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock, of util-linux, is not here")
def test_of_two_installations_the_second_waits_and_finds_all_there(checkout, tmp_path):
    root, _ = checkout
    calls, end, pip = (tmp_path / name for name in ("calls", "end", "python3"))
    pip.write_text(WAITING_PIP.format(python=sys.executable, calls=calls, end=end))
    pip.chmod(0o755)
    found = f"import os; print('base\\ncuda' if os.path.exists({str(end)!r}) else '')"
    (root / "scripts" / "installed").write_text(found)

    def install():
        program, variables = root / "scripts" / "install", {**os.environ, "PYTHON": str(pip)}
        return subprocess.Popen([program], env=variables, stderr=subprocess.PIPE, text=True)

    with install() as first:
        try:
            while not calls.exists():
                assert first.poll() is None
                time.sleep(0.05)
            with install() as second:
                try:
                    said = second.stderr.readline()
                finally:
                    end.touch()
                assert said == "waiting for another scripts/install to end ...\n"
                assert second.stderr.read() == ""
        finally:
            end.touch()
    assert first.returncode == second.returncode == 0
    assert calls.read_text() == "called\n"


# ---- Notebooks


def test_a_cell_of_a_notebook_trains(tmp_path, monkeypatch):
    """With a real kernel, which exports MPLBACKEND for its own environment."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JAX_NUMPY_DTYPE_PROMOTION", "strict")
    script, places = (
        ROOT / "scripts" / "train",
        f"--data-dir={tmp_path}/d --output-dir={tmp_path}/r",
    )
    network = f"--model-id={ROOT / 'tests' / 'training' / 'tiny.py'}:Tiny"
    flags = " ".join((network, *DIGITS[:-1], *EASY, "--export_format=onnx"))
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("import os; print(os.environ['MPLBACKEND'])"),
            # The kernel's own backend is not in the .venv of those who have not installed `dev`.
            nbformat.v4.new_code_cell("os.environ['MPLBACKEND'] = 'module://not_there.backend'"),
            nbformat.v4.new_code_cell(f"!{script} {flags} {places}"),
            nbformat.v4.new_code_cell("print('status', _exit_code)"),
        ]
    )
    nbclient.NotebookClient(notebook, timeout=HANG_S, kernel_name="python3").execute()
    said = ["".join(out.text for out in cell.outputs if "text" in out) for cell in notebook.cells]
    assert "matplotlib_inline" in said[0]
    assert "status 0" in said[3], said[2]
    assert "RELEASED" in said[2]
    release = json.loads((tmp_path / "r" / "logs" / "release.json").read_text())
    assert release["verdict"] == "released"
    assert list((tmp_path / "r" / "model_card" / "plots").glob("*.png"))
