import errno
import os
import subprocess
import sys

import pytest

from mnist_jax import config
from mnist_jax.errors import StoppedError, Terminated, UserError
from mnist_jax.files import write_json
from mnist_jax.run import folder as run_folder
from mnist_jax.run import paths

CONFIG = config.default().to_dict()


def enter(folder, values=CONFIG):
    with run_folder.claim(folder, values):
        pass


def unfinished(folder, **changes):
    values = {key: run_folder.jsonable(value) for key, value in {**CONFIG, **changes}.items()}
    write_json(folder / paths.CONFIG, {"config": values})


def test_a_new_and_an_empty_folder_are_free(tmp_path):
    enter(tmp_path)
    enter(tmp_path / "a" / "new")
    assert (tmp_path / "a" / "new").is_dir()


def test_an_unfinished_run_of_the_same_configuration_is_taken_up(tmp_path):
    unfinished(tmp_path, data_dir="elsewhere", quiet=True)
    enter(tmp_path)
    assert (tmp_path / paths.CONFIG).is_file()


def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path):
    unfinished(tmp_path, epochs=7)
    with pytest.raises(UserError, match=r"unfinished run with epochs 7, not 5; give another"):
        enter(tmp_path)
    assert (tmp_path / paths.CONFIG).is_file()


def test_a_finished_run_is_never_touched(tmp_path):
    unfinished(tmp_path)
    write_json(tmp_path / paths.RELEASE, {})
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
    with (
        pytest.raises(
            StoppedError, match=r"same flags and --output-dir .*run resume it"
        ) as stopped,
        run_folder.claim(tmp_path / "run", CONFIG),
    ):
        (tmp_path / "run" / "models" / "training" / "1").mkdir(parents=True)
        raise KeyboardInterrupt
    assert stopped.value.status == 130
    assert (tmp_path / "run" / "models" / "training" / "1").is_dir()


def test_a_stop_before_leaves_the_disk_as_it_was(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "p" / "q" / "r"):
        with (
            pytest.raises(StoppedError, match="nothing is left") as stopped,
            run_folder.claim(folder, CONFIG),
        ):
            unfinished(folder)
            raise Terminated
        assert stopped.value.status == 143
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_failure_at_the_very_end_leaves_the_finished_run(tmp_path):
    with pytest.raises(StoppedError), run_folder.claim(tmp_path / "run", CONFIG):
        unfinished(tmp_path / "run")
        write_json(tmp_path / "run" / paths.HISTORY, {})
        write_json(tmp_path / "run" / paths.RELEASE, {})
        raise KeyboardInterrupt
    assert run_folder.is_finished(tmp_path / "run")


def test_a_run_without_its_card_is_not_finished(tmp_path):
    unfinished(tmp_path)
    write_json(tmp_path / paths.RELEASE, {})
    (tmp_path / paths.TRAINING / "1").mkdir(parents=True)
    assert not run_folder.is_finished(tmp_path)
    enter(tmp_path)
    run_folder.finish(tmp_path)
    assert run_folder.is_finished(tmp_path)
    assert not (tmp_path / paths.TRAINING).exists()


def test_two_processes_never_share_a_run(tmp_path):
    code = f"""
import pathlib, sys
from mnist_jax import config
from mnist_jax.run import folder as run_folder
with run_folder.claim(pathlib.Path({str(tmp_path / "run")!r}), config.default().to_dict()):
    print('in', flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="in use by another process; wait for it"):
            enter(tmp_path / "run")
        other.communicate("")
    enter(tmp_path / "run")


def test_a_configuration_that_no_run_wrote_is_named(tmp_path):
    write_json(tmp_path / paths.CONFIG, {"config": 3})
    with pytest.raises(UserError, match=r"config\.json is not what a run writes; it is damaged"):
        enter(tmp_path)


def test_a_failure_never_removes_what_was_there_before(tmp_path):
    unfinished(tmp_path)
    with pytest.raises(UserError), run_folder.claim(tmp_path, CONFIG):
        raise UserError("no data")
    assert (tmp_path / paths.CONFIG).is_file()


@pytest.fixture(params=["claim", "lent", "lock"])
def refused(request):
    """What becomes of an error of the system in a run, in a proof, and in a later command."""

    def refuse(folder, error):
        if request.param == "lock":
            folder.mkdir(parents=True, exist_ok=True)
        arguments = [CONFIG] if request.param == "claim" else []
        with (
            pytest.raises(Exception) as raised,
            getattr(run_folder, request.param)(folder, *arguments),
        ):
            raise error
        return raised.value

    return refuse


def error_at(number, path=None):
    return OSError(number, os.strerror(number), *([] if path is None else [str(path)]))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_the_system_refuses_in_the_folder_is_the_folders(refused, tmp_path, number):
    error = refused(tmp_path / "run", error_at(number, tmp_path / "run" / "logs" / "x.json"))
    assert isinstance(error, UserError)
    assert f"cannot work in {tmp_path / 'run'}: {os.strerror(number)}; make room" in str(error)


def test_a_folder_that_is_reached_through_a_link_is_the_same(refused, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    error = refused(tmp_path / "link" / "run", error_at(errno.EACCES, tmp_path / "there/run/x"))
    assert "cannot work in" in str(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_disk_that_is_full_names_no_path(refused, tmp_path, number):
    assert "make room" in str(refused(tmp_path / "run", error_at(number)))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_another_path_is_named_and_the_folder_is_not_blamed(refused, tmp_path, number):
    error = refused(tmp_path / "run", error_at(number, "/dev/shm/sem.x"))
    assert isinstance(error, UserError)
    assert str(error).startswith(f"cannot use /dev/shm/sem.x: {os.strerror(number)}; ")
    assert "make room" not in str(error)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_limit_of_the_process_is_not_the_folders(refused, tmp_path, number):
    error = refused(tmp_path / "run", error_at(number, tmp_path / "run" / "x"))
    assert "raise it (ulimit -a shows them)" in str(error)
    assert "make room" not in str(error)


@pytest.mark.parametrize("error", [error_at(errno.EACCES), error_at(errno.ENOSYS), OSError("why")])
def test_what_nobody_can_place_is_a_fault_of_the_program(refused, tmp_path, error):
    """As where a library may not use /dev/shm: the traceback names it."""
    assert refused(tmp_path / "run", error) is error
