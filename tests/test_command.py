import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_jax import command
from mnist_jax.__main__ import MODULES
from mnist_jax.errors import StoppedError, Terminated, UserError


def parser():
    made = command.Parser("scripts/thing", "Does a thing.")
    made.add_argument("--number", type=int)
    return made


def act(result):
    def run(options):
        if isinstance(result, BaseException):
            raise result
        return result

    return run


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_is_that_of_the_act(status):
    assert command.run(parser(), [], act(status)) == status


def test_a_mistake_is_one_line_and_status_2(capfd):
    assert command.run(parser(), [], act(UserError("3 is not 4; give 4"))) == 2
    assert capfd.readouterr() == ("", "error: 3 is not 4; give 4\n")


@pytest.mark.parametrize("arguments", [["--number=x"], ["--nothing"], ["--num=3"]])
def test_arguments_that_are_not_understood_are_a_mistake(arguments, capfd):
    assert command.run(parser(), arguments, act(0)) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and err.endswith("; see scripts/thing --help\n")


def test_an_interruption_says_so(capfd):
    assert command.run(parser(), [], act(KeyboardInterrupt())) == 130
    assert "interrupted" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("stop", "status", "said"),
    [
        (Terminated(), 143, "interrupted; the same command begins again"),
        (StoppedError("stopped; resume so", 130), 130, "stopped; resume so"),
        (StoppedError("another is lost", 4), 4, "another is lost"),
    ],
)
def test_a_stop_has_its_own_status(stop, status, said, capfd):
    assert command.run(parser(), [], act(stop)) == status
    assert capfd.readouterr().err == f"{said}\n"


def test_home_and_variables_are_expanded_in_paths_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = command.Parser("scripts/thing", None)
    made.add_argument("run_dir", type=Path)
    made.add_argument("more", type=Path, nargs="*")
    made.add_argument("--data-dir", type=Path)
    made.add_argument("--reason")
    seen = []
    arguments = ["~/run", "$HOME/a", "${HOME}/b", "c", "--data-dir=~/d", "--reason=~ $HOME"]
    assert command.run(made, arguments, lambda options: seen.append(options) or 0) == 0
    assert seen[0].run_dir == tmp_path / "run"
    assert seen[0].more == [tmp_path / "a", tmp_path / "b", Path("c")]
    assert seen[0].data_dir == tmp_path / "d"
    assert seen[0].reason == "~ $HOME"


def test_a_home_that_nobody_has_is_a_mistake(capfd):
    made = command.Parser("scripts/thing", None)
    made.add_argument("run_dir", type=Path)
    assert command.run(made, ["~no-such-user/run"], lambda options: 0) == 2
    assert "is '~no-such-user/run', but there is no user of that name" in capfd.readouterr().err


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_a_mistake_breaks_between_words(columns, capsys, monkeypatch):
    message = f"/a/{'long/' * 30}path is not a folder; name a folder that this program can read"
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert command.run(parser(), [], act(UserError(message))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert " ".join(lines).split() == f"error: {message}".split()
    assert all(len(line) <= columns or " " not in line for line in lines)


def test_the_program_is_named_as_it_was_called(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/mnist-jax", "verify"])
    assert command.Parser("scripts/verify", None).prog == "mnist-jax verify"
    monkeypatch.setattr("sys.argv", ["/checkout/mnist_jax/__main__.py", "verify"])
    assert command.Parser("scripts/verify", None).prog == "scripts/verify"


@pytest.mark.parametrize(
    ("text", "installed"),
    [
        ("run scripts/export a again", "run mnist-jax export a again"),
        ("`scripts/train` or scripts/import", "`mnist-jax train` or mnist-jax import"),
        ("run scripts/install publish", "run pip install 'mnist-jax[publish]'"),
        (
            "/a/scripts/train and ./scripts/x are files",
            "/a/scripts/train and ./scripts/x are files",
        ),
    ],
)
def test_a_remedy_names_commands_that_are_there(text, installed, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["/usr/bin/mnist-jax", "verify"])
    assert command.run(parser(), [], act(UserError(text))) == 2
    assert capfd.readouterr().err == f"error: {installed}\n"
    monkeypatch.setattr("sys.argv", ["/checkout/mnist_jax/__main__.py", "verify"])
    assert command.as_called(text) == text
    monkeypatch.setattr(command, "PACKAGE", Path("/site-packages/mnist_jax"))  # python -m mnist_jax
    assert command.as_called(text) == installed


def test_help_begins_with_what_a_command_does():
    assert command.about("`scripts/thing RUN`: does a\nthing.") == "Does a\nthing."
    assert command.about("Does a\nthing `x`: so.") == "Does a\nthing `x`: so."
    assert command.about(None) == ""


NEEDS_NO_EXTRA = """
import importlib, importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in %r:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from mnist_jax import __main__ as program

for name in program.MODULES:
    try:
        assert program.main([name, "--help"]) == 0, name
    except SystemExit as stop:
        assert not stop.code, name
assert "jax" not in sys.modules
"""
OF_EXTRAS = (
    *("grpc", "grpc_health", "grpc_reflection", "httptools", "orjson", "prometheus_client"),
    *("starlette", "tritonclient", "uvicorn", "uvloop", "h5py", "onnxscript", "torch"),
    *("torchvision", "cv2", "openvino", "tract", "model_signing", "OpenSSL"),
)


def test_help_needs_no_extra():
    done = subprocess.run(
        [sys.executable, "-c", NEEDS_NO_EXTRA % (OF_EXTRAS,)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: ") == len(MODULES)  # one each


@pytest.mark.parametrize(
    ("program", "remedy"),
    [("/venv/bin/mnist-jax", "pip install 'mnist-jax[serve"), ("/x/__main__.py", "remove .venv")],
)
def test_a_library_that_is_not_there_is_installed_as_the_command_was(program, remedy, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, "serve"])
    with pytest.raises(UserError, match=r"no_such_library") as caught, command.loading():
        importlib.import_module("no_such_library")
    assert remedy in str(caught.value)
