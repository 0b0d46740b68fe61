"""What a run records of the user's own code, and what it says once that has changed."""

import pytest

from mnist_jax.errors import UserError
from mnist_jax.files import sha256
from mnist_jax.run import own_code


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text("class MyNet: pass\n")
    return {"model_id": f"{tmp_path / 'mine.py'}:MyNet", "criterion_id": "nll"}


def test_only_own_code_is_recorded_with_its_sha256(config, tmp_path):
    recorded = own_code.describe(config)
    expected = {"reference": config["model_id"], "sha256": sha256(tmp_path / "mine.py")}
    assert recorded == {"model_id": expected}
    own_code.check_unchanged(recorded)
    assert own_code.describe({"model_id": "mnist_cnn_v1", "criterion_id": "nll"}) == {}


def test_a_file_that_has_changed_or_is_gone_is_said_in_one_line(config, tmp_path):
    recorded = own_code.describe(config)
    (tmp_path / "mine.py").write_text("class MyNet: changed = True\n")
    with pytest.raises(UserError, match=r"model_id names .*mine.py:MyNet, which has changed since"):
        own_code.check_unchanged(recorded)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(UserError, match=r"mine.py, which .*MyNet names, cannot be read"):
        own_code.check_unchanged(recorded)


def test_names_of_own_code_are_short(config):
    assert own_code.short_name(config["model_id"]) == "mynet"
    assert own_code.short_name("mnist_cnn_v1") == "mnist_cnn_v1"
