"""Every change of a repository, cut off at every point."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_jax.errors import UserError
from mnist_jax.repository import layout, store

sys.path.insert(0, str(Path(__file__).parent))
from publisher import check, files, publish

from tests.waiting import HANG_S


def test_the_first_is_the_champion_and_numbers_grow(tmp_path):
    repository = tmp_path / "new" / "repository"
    assert [publish(repository, is_better=False) for _ in range(3)] == [1, 2, 3]
    assert check(repository) == {"digits": 1}
    assert publish(repository) == 4
    assert check(repository) == {"digits": 4}
    store.promote(repository, "digits", 2)
    assert check(repository) == {"digits": 2}
    assert layout.list_versions(repository, "digits") == (1, 2, 3, 4)
    assert sorted(path.name for path in repository.iterdir()) == ["digits"]


def test_a_folder_with_a_number_is_never_written_to(tmp_path):
    publish(tmp_path)
    (tmp_path / "digits" / "7").mkdir()
    assert publish(tmp_path) == 8


def test_others_can_read_what_was_published(tmp_path):
    publish(tmp_path)
    publish(tmp_path)
    for path in (tmp_path / "digits", *(tmp_path / "digits").rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_manifest_and_sums_say_what_is_there(tmp_path):
    publish(tmp_path)
    folder = tmp_path / "digits" / "1"
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder)
    assert done.returncode == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["verdict"] == "released"
    assert {path: x["size_bytes"] for path, x in manifest["files"].items()} == {
        path: len(content) for path, content in files(1).items()
    }


# For n = 0, 1, 2, ... a process is forked that publishes and promotes, and dies by SIGKILL before
# it changes the disk for the n-th time; then the repository is read, and published to again.
CUT_OFF = """
import json, os, signal, sys
from pathlib import Path
from publisher import check, layout, publish, store

os.fsync = lambda file: None  # the power stays on
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.chmod", "open"}
for num_changes in range(1000):
    repository = Path(sys.argv[1], str(num_changes))
    repository.mkdir()
    child = os.fork()
    if child == 0:
        left = num_changes
        def hook(event, arguments):
            global left
            if event in CHANGES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        publish(repository)
        publish(repository)
        publish(repository, is_better=False)
        with store.lock(repository):
            store.promote(repository, "digits", 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    versions = layout.list_versions(repository, "digits")
    print(json.dumps([status, list(versions), check(repository)]))
    if status == 0:
        break
    assert publish(repository) == len(versions) + 1
    assert check(repository) == {"digits": len(versions) + 1}
    assert not list(repository.rglob(".publishing_*")), "what was cut off is still there"
"""


def test_killed_before_any_change_it_leaves_a_repository_that_loads(tmp_path):
    done = start(CUT_OFF, tmp_path).communicate()[0]
    states = [json.loads(line) for line in done.splitlines()]
    statuses = [state[0] for state in states]
    assert statuses == [-signal.SIGKILL] * (len(states) - 1) + [0]
    assert len(states) > 80
    seen = [state[1:] for state in states]
    assert [
        state for state, before in zip(seen, [None, *seen], strict=False) if state != before
    ] == [
        [[], {}],
        [[1], {"digits": 1}],
        [[1, 2], {"digits": 1}],
        [[1, 2], {"digits": 2}],
        [[1, 2, 3], {"digits": 2}],
        [[1, 2, 3], {"digits": 1}],
    ]


def start(code, *arguments):
    """Runs code in a process that finds the package and `publisher` and imports nothing else."""
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parent), str(here.parents[2])])
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_readers_never_see_anything_but_whole_versions(tmp_path):
    """A reader in this process, a publisher in another, at the same time."""
    code = """
import sys
from pathlib import Path
from publisher import publish
for _ in range(30):
    publish(Path(sys.argv[1]))
"""
    process = start(code, tmp_path)
    champions = []
    while process.poll() is None:
        if layout.list_models(tmp_path):
            champions.append(layout.champion(tmp_path, "digits"))
            version = layout.load_version(tmp_path, "digits", champions[-1])
            assert version.model_path.read_bytes() == files(champions[-1])["model.onnx"]
    process.stdout.close()
    assert process.returncode == 0
    assert champions == sorted(champions) and len(set(champions)) > 5
    assert check(tmp_path) == {"digits": 30}


def test_two_publishers_do_not_get_into_each_others_way(tmp_path):
    code = """
import sys, time
from pathlib import Path
from publisher import store
with store.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
    process = start(code, tmp_path)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"another process is publishing to .*; wait"):
            publish(tmp_path)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:  # the kernel frees the lock when the process is gone
        try:
            assert publish(tmp_path) == 1
            return
        except UserError:
            time.sleep(0.01)
    raise AssertionError("the lock outlived its holder")


def test_a_failure_leaves_nothing(tmp_path):
    def fail(folder):
        raise UserError("no key")

    for num_versions in range(2):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match="no key"):
            publish(tmp_path, sign=fail)
        assert sorted(tmp_path.rglob("*")) == before
        assert publish(tmp_path) == num_versions + 1


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot be a repository .*; name a folder"):
            publish(path)


def test_what_stands_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="remove what is in its place, or give another --name"):
        publish(tmp_path)
    assert (tmp_path / "digits" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_copy_without_links_cannot_be_promoted_in(tmp_path):
    publish(tmp_path)
    (tmp_path / "digits" / "serving").unlink()
    (tmp_path / "digits" / "serving").mkdir()
    with pytest.raises(UserError, match="is a copy, not a link; copy the repository with its"):
        store.promote(tmp_path, "digits", 1)
