import hashlib
import textwrap
from pathlib import Path

import pytest

from mnist_jax.errors import UserError
from mnist_jax.run import own_code


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import neighbour\nclass Network:\n    width = neighbour.WIDTH\n")
    (tmp_path / "neighbour.py").write_text("WIDTH = 7\n")
    return path


def test_a_class_of_a_file_is_found_and_the_file_may_import_its_neighbours(file):
    network = own_code.load(f"{file}:Network", "model_id")
    assert network.width == 7
    assert own_code.load(f"{file}:Network", "model_id") is network


def test_a_name_of_a_module_that_is_installed_is_found():
    assert own_code.load("collections.abc:Mapping", "model_id").__name__ == "Mapping"


def test_home_is_written_out(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    assert own_code.load("~/mine.py:Network", "model_id").width == 7
    assert own_code.sha256("~/mine.py:Network") == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        (None, "{file}:Network", r"criterion_id names .*gone.py, which is not a file; give its"),
        (None, "~nobody-of-that-name/x.py:Network", "x.py, which is not a file; give its path"),
        ("open('no/table')", "{file}:Network", r"cannot be loaded \(FileNotFoundError: .*no/table"),
        ("1 / 0", "{file}:Network", r"cannot be loaded \(ZeroDivisionError: division by zero\)"),
        ("def (", "{file}:Network", r"cannot be loaded \(SyntaxError: invalid syntax"),
        ("exit(7)", "{file}:Network", r"cannot be loaded \(SystemExit: 7\); fix it there"),
        ("import no_such_thing", "{file}:Network", "No module named 'no_such_thing'"),
        ("x = 1", "{file}:Network", r"names 'Network', but .*gone.py defines no Network; check"),
        (None, "no_such_package.module:Loss", "No module named 'no_such_package'"),
        (None, "collections.abc:Loss", "names 'Loss', but collections.abc defines no Loss; check"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path, text, reference, message):
    path = tmp_path / "gone.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        own_code.load(reference.format(file=path), "criterion_id")
    assert "\n" not in str(caught.value)


def test_a_file_that_failed_is_read_again(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0")
    with pytest.raises(UserError):
        own_code.load(f"{path}:x", "model_id")
    path.write_text("x = 3")
    assert own_code.load(f"{path}:x", "model_id") == 3


def test_built_in_ids_are_no_references():
    assert not own_code.is_reference("mnist_cnn_v1")
    assert own_code.short_name("mnist_cnn_v1") == "mnist_cnn_v1"
    assert own_code.short_name("a/b.py:MyNet") == own_code.short_name("pkg.mod:MyNet") == "mynet"


def test_only_what_is_the_user_s_own_is_recorded_and_a_change_is_named(file):
    config = {"model_id": f"{file}:Network", "criterion_id": "nll"}
    recorded = own_code.describe(config)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert recorded == {"model_id": {"reference": f"{file}:Network", "sha256": digest}}
    own_code.check_unchanged(recorded)
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(UserError, match="has changed since the run was made: its SHA-256 was"):
        own_code.check_unchanged(recorded)
    file.unlink()
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); put it"):
        own_code.check_unchanged(recorded)


def test_the_file_of_a_module_is_what_is_hashed():
    expected = hashlib.sha256(Path(textwrap.__file__).read_bytes()).hexdigest()
    assert own_code.sha256("textwrap:dedent") == expected
