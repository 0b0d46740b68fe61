"""The package as pip installs it: what a wheel holds, and what it does away from the checkout."""

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from mnist_jax.__main__ import MODULES
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by what pyproject.toml names, of a copy: a build leaves files behind."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("mnist_jax", "tests", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    command = [sys.executable, "-c", BUILD]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    (path,) = (checkout / "dist").iterdir()
    return path


def test_it_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"mnist_jax-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = f"mnist_jax-{VERSION}.dist-info"
        entry_points = archive.read(f"{about}/entry_points.txt").decode()
        assert "License-Expression: Apache-2.0" in archive.read(f"{about}/METADATA").decode()
    assert "mnist-jax = mnist_jax.__main__:program" in entry_points
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mnist_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == there


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of an environment that has the wheel, and this one's libraries."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    variables = {"base": str(place), "platbase": str(place)}
    site = Path(sysconfig.get_path("purelib", "venv", variables))
    # A path from a .pth file adds what lies there, but not the editable install, a .pth itself.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = place / "bin" / "python"
    pip = [sys._base_executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    offline = ["--no-index", "--disable-pip-version-check", wheel]
    done = subprocess.run([*pip, *offline], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    return place / "bin"


def run(installed, folder, *arguments, program=("mnist-jax",)):
    """Runs a command in a folder that knows nothing of the checkout."""
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
    command = [installed / program[0], *program[1:], *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_S
    )


@pytest.mark.slow
def test_every_command_helps_in_the_same_form_and_at_once(installed, tmp_path):
    """In less than a second of the processors' time, which other work does not lengthen."""
    told = run(installed, tmp_path, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    same = run(installed, tmp_path, "--help", program=("python", "-m", "mnist_jax"))
    assert same.stdout == told.stdout
    for name in MODULES:
        assert f"\n  {name} " in told.stdout
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        done = run(installed, tmp_path, name, "--help")
        seconds = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
        assert (done.returncode, done.stderr) == (0, ""), name
        assert done.stdout.startswith(f"usage: mnist-jax {name} "), name
        assert seconds < 1, name


@pytest.mark.slow
def test_an_empty_folder_gets_a_release_that_is_served(installed, tmp_path):
    flags = ("--dataset-id=digits_v1", "--epochs=2", "--batch-size=32", "--output-dir=run")
    easy = ("--min-test-accuracy=0.5", "--min-per-class-accuracy=0")
    done = run(installed, tmp_path, "train", *flags, *easy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run", "data"}
    assert run(installed, tmp_path, "verify", "run").returncode == 0
    command = [installed / "mnist-jax", "serve", "run", "--port=0", "--grpc-port=0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(
                word.rstrip(",") for line in server.stdout for word in line.split() if "://" in word
            )
            with urllib.request.urlopen(f"{address}/v2/health/ready") as answer:
                assert answer.status == 200
            with urllib.request.urlopen(f"{address}/") as answer:
                assert b"<canvas" in answer.read()
        finally:
            server.terminate()
            server.communicate(timeout=HANG_S)
    assert server.returncode == 0
