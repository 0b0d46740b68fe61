"""A browser, and the digits that are drawn in it."""

import json
import os
import runpy
from pathlib import Path

import pytest

from mnist_jax import train

HERE = Path(__file__).parent
BROWSER = runpy.run_path(str(HERE / "browser.py"))


@pytest.fixture(scope="session")
def strokes():
    """One drawing of each digit: lists of points on a field of 280x280."""
    return json.loads((HERE.parent / "strokes.json").read_text())


@pytest.fixture(scope="session")
def make_browser():
    """Opens a window: `with make_browser(width=320) as browser`."""
    pytest.importorskip("selenium", reason="no selenium: the page is not tested in a browser")
    for name, found in (("Chromium", BROWSER["CHROMIUM"]), ("chromedriver", BROWSER["DRIVER"])):
        if found is None:
            pytest.skip(
                f"no {name} on the PATH: the page is not tested in a browser "
                "(apt-get install chromium chromium-driver)"
            )
    return BROWSER["Browser"]


@pytest.fixture(scope="module")
def browser(make_browser):
    """A window that a module's tests share."""
    with make_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def mnist_run(request, tmp_path_factory):
    """A run on MNIST: what MNIST_JAX_TEST_RUN names, or one of a single epoch."""
    if folder := os.environ.get("MNIST_JAX_TEST_RUN"):
        return Path(folder)
    manual_dir = request.getfixturevalue("real_data")
    folder = tmp_path_factory.mktemp("mnist")
    flags = ["--epochs=1", "--skip-visualizations", "--export_format=onnx", "-q"]
    places = {"data": folder / "data", "output": folder / "run", "manual": manual_dir}
    status = train.main([*flags, *(f"--{name}-dir={path}" for name, path in places.items())])
    assert status in (0, 1)  # one epoch need not please the criteria
    return folder / "run"
