import argparse

import pytest

from mnist_jax import run_data
from mnist_jax.errors import UserError
from mnist_jax.run_folder import read_run


@pytest.fixture
def run(released):
    return read_run(released / "run")


def options(*arguments):
    parser = argparse.ArgumentParser()
    run_data.add_flags(parser)
    return parser.parse_args(arguments)


def test_the_data_is_where_it_was(released, run):
    dataset = run_data.prepare_data(run, options())
    assert dataset.folder.is_relative_to(released / "data")
    assert dataset.data_hash == run["dataset"]["data_hash"]


def test_it_is_prepared_again_where_one_says(run, tmp_path):
    dataset = run_data.prepare_data(run, options(f"--data_dir={tmp_path}"))
    assert dataset.folder.is_relative_to(tmp_path)


def test_what_prepared_data_was_made_from_may_be_gone(released, run):
    config = {**run["config"], "manual_dir": "/nowhere"}
    assert run_data.prepare_data({**run, "config": config}, options()).num_test == 360
    with pytest.raises(UserError, match="manual_dir /nowhere is not a folder"):
        run_data.prepare_data(run, options("--manual-dir=/nowhere"))


def test_other_data_is_refused(run):
    dataset = {**run["dataset"], "data_hash": "0" * 64}
    with pytest.raises(UserError, match="is not what the run was trained on; give the --data-dir"):
        run_data.prepare_data({**run, "dataset": dataset}, options())
