import argparse
import random
import shutil

import pytest

from mnist_jax.errors import UserError
from mnist_jax.files import read_json
from mnist_jax.release import inputs as run_data
from mnist_jax.repository import audit
from mnist_jax.run.folder import read_run
from mnist_jax.run.paths import EXPORTED


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


def test_the_file_that_was_exported_is_found(released, tmp_path):
    path = run_data.find_onnx(released / "run")
    assert path == released / "run" / "models" / "mnist_model.onnx"
    with pytest.raises(UserError, match=r"has no mnist_model.onnx; run scripts/export .* first"):
        run_data.find_onnx(tmp_path)


def test_damage_to_an_exported_file_is_noticed_and_named(released, tmp_path, capfd):
    """Cut and with single bits flipped at random places, in every format."""
    run_dir, rng = tmp_path / "run", random.Random(0)
    shutil.copytree(released / "run", run_dir)
    described = read_json(run_dir / "logs" / "verification.json")["files"]
    assert set(described) == {"onnx", "safetensors", "stablehlo"}
    for name in described:
        path = run_dir / EXPORTED[name]
        content = path.read_bytes()
        for attempt in range(12):
            position = rng.randrange(len(content))
            flipped = bytes([content[position] ^ 1 << rng.randrange(8)])
            end = b"" if attempt < 3 else flipped + content[position + 1 :]
            path.write_bytes(content[:position] + end)
            assert audit.main([str(run_dir)]) == 1
            assert f"FAIL  {path} is not what was verified" in capfd.readouterr().err
            if name == "onnx":
                with pytest.raises(UserError, match=r"mnist_model.onnx is not the file that was"):
                    run_data.find_onnx(run_dir)
        path.write_bytes(content)
    assert audit.main([str(run_dir)]) == 0
