"""Strictness for every test, and the few fixtures that several files share."""

import os
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the published MNIST files, which no repository may hold."""
    folder = Path(os.environ.get("MNIST_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        pytest.skip("no published MNIST files: MNIST_JAX_TEST_DATA names no folder with mnist/*.gz")
    return folder
