import pytest

from mnist_jax import config, run_folder
from mnist_jax.errors import UserError
from mnist_jax.files import write_json

CONFIG = config.default().to_dict()


def enter(folder, values=CONFIG):
    with run_folder.claim(folder, values):
        pass


def unfinished(folder, **changes):
    values = {key: run_folder.jsonable(value) for key, value in {**CONFIG, **changes}.items()}
    write_json(folder / run_folder.CONFIG, {"config": values})


def test_a_new_and_an_empty_folder_are_free(tmp_path):
    enter(tmp_path)
    enter(tmp_path / "a" / "new")
    assert (tmp_path / "a" / "new").is_dir()


def test_an_unfinished_run_of_the_same_configuration_is_taken_up(tmp_path):
    unfinished(tmp_path, data_dir="elsewhere", quiet=True)
    enter(tmp_path)
    assert (tmp_path / run_folder.CONFIG).is_file()


def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path):
    unfinished(tmp_path, epochs=7)
    with pytest.raises(UserError, match=r"unfinished run with epochs 7, not 5; give another"):
        enter(tmp_path)
    assert (tmp_path / run_folder.CONFIG).is_file()


def test_a_finished_run_is_never_touched(tmp_path):
    unfinished(tmp_path)
    write_json(tmp_path / run_folder.RELEASE, {})
    with pytest.raises(UserError, match=r"holds a finished run; give another --output-dir"):
        enter(tmp_path)


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty and holds no run"):
        enter(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"is a file, not a folder"):
        enter(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot make the folder .*Not a directory"):
        enter(tmp_path / "file" / "run")


def test_an_early_failure_leaves_no_folder_behind(tmp_path):
    with pytest.raises(UserError), run_folder.claim(tmp_path / "run", CONFIG):
        (tmp_path / "run" / "pipeline.log").write_text("started")
        raise UserError("no data")
    assert not (tmp_path / "run").exists()


def test_a_failure_after_a_saved_epoch_leaves_the_run(tmp_path):
    with pytest.raises(KeyboardInterrupt), run_folder.claim(tmp_path / "run", CONFIG):
        (tmp_path / "run" / "models" / "training" / "1").mkdir(parents=True)
        raise KeyboardInterrupt
    assert (tmp_path / "run" / "models" / "training" / "1").is_dir()


def test_a_failure_never_removes_what_was_there_before(tmp_path):
    unfinished(tmp_path)
    with pytest.raises(UserError), run_folder.claim(tmp_path, CONFIG):
        raise UserError("no data")
    assert (tmp_path / run_folder.CONFIG).is_file()
