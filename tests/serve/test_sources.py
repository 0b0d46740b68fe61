"""What is there to serve, and when it has changed."""

import os
import shutil
from pathlib import Path

import pytest

from mnist_jax.errors import UserError
from mnist_jax.run import paths
from mnist_jax.serve import sources


@pytest.mark.parametrize("name", [paths.VERIFICATION, paths.RELEASE, paths.CONFIG])
def test_a_run_has_changed_where_what_describes_it_has(name, released, tmp_path):
    for folder in ("logs", "models"):
        shutil.copytree(released / "run" / folder, tmp_path / folder)
    source = sources.find_source(tmp_path)
    before = source.listings()
    assert source.listings() == before
    os.utime(tmp_path / name, (0, 0))
    assert source.listings() != before


def test_a_path_that_the_system_refuses_is_a_mistake():
    with pytest.raises(UserError, match="is not a folder; name a model repository"):
        sources.find_source(Path("x" * 300))  # as one that must not be entered
    with pytest.raises(UserError, match="File name too long; name a run"):
        sources.find_model(Path("x" * 300))
