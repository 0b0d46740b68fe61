"""Full disks, folders that cannot be written or vanish, company, and clocks that are wrong.

Each ends in one line and status 2, or as if nothing had been; the same command resumes afterwards.
"""

import os
import random
import shutil
import subprocess
import time

import pytest

from tests.waiting import HANG_S

FIRST_CHECKPOINT = "models/training/19"  # an epoch is 19 steps


def wait_for(condition, timeout_s=HANG_S):
    """Looks every millisecond until `condition` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "this has not happened"
        time.sleep(0.001)


def the_error(folder, out="out"):
    """Returns the one line that a run has printed, and takes it away."""
    text = (folder / out).read_text()
    (folder / out).unlink()
    assert len(text.splitlines()) == 1, text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    return text


@pytest.fixture
def mount(tmp_path):
    """Mounts a small file system of its own; where that is not allowed the test is skipped."""
    mounted = []

    def make(size_kib):
        folder = tmp_path / f"mounted{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, stderr=-3).returncode:
            pytest.skip("this user may not mount: run as root; the other tests limit file sizes")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


FEW_BYTES = [0]
MANY_BYTES = [
    40_000,
    1,
    500,
    2_000,
    5_000,
    10_000,
    20_000,
    60_000,
    80_000,
    100_000,
    120_000,
    200_000,
]


@pytest.mark.parametrize(
    "max_file_bytes", [*FEW_BYTES, *(pytest.param(n, marks=pytest.mark.slow) for n in MANY_BYTES)]
)
def test_where_no_file_may_grow(server, tmp_path, whole, assert_same, max_file_bytes):
    shutil.copytree(whole / "data", tmp_path / "data")
    status = server.run(tmp_path, max_file_bytes=max_file_bytes)
    if status == 0:  # the largest file fits
        return assert_same(tmp_path)
    assert status == 2, (tmp_path / "out").read_text()
    error = the_error(tmp_path)
    assert "File too large" in error
    assert "room" in error or "space" in error
    if max_file_bytes != FEW_BYTES[0]:
        assert server.run(tmp_path) == 0
        assert_same(tmp_path)


@pytest.mark.parametrize("max_file_bytes", [0, 1_000, 100_000])
def test_data_that_cannot_be_written(server, tmp_path, max_file_bytes):
    assert server.run(tmp_path, max_file_bytes=max_file_bytes) == 2
    assert "File too large" in the_error(tmp_path)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "size_kib", [150, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 30, 300, 600, 900))]
)
def test_a_disk_that_is_full(server, whole, mount, new_folder, assert_same, size_kib):
    disk = mount(size_kib)
    shutil.copytree(whole / "data", disk.parent / "data")
    places = {"run": f"{disk.name}/run"}
    status = server.run(disk.parent, **places)
    assert status == 2, (disk.parent / "out").read_text()
    assert "No space left on device" in the_error(disk.parent)
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    assert server.run(disk.parent, **places) == 0, (disk.parent / "out").read_text()
    assert_same(disk.parent, **places)


def test_a_folder_that_cannot_be_written(server, mount, tmp_path):
    disk = mount(1_000)
    (disk / "run").mkdir()
    (disk / "data").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for places, told in (
        ({"run": f"{disk.name}/run"}, f"cannot work in {disk}/run: Read-only file system; make"),
        ({"run": f"{disk.name}/new"}, f"cannot make the folder {disk}/new: Read-only file system"),
        ({"data": f"{disk.name}/data"}, f"cannot write the data to {disk}/data: Read-only file sy"),
    ):
        assert server.run(tmp_path, **places) == 2
        assert told in the_error(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == [
        "mounted0",
        "operations",
    ]


@pytest.mark.parametrize(
    "moment",
    [
        FIRST_CHECKPOINT,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("pipeline.log", "logs/config.json", "logs/metrics.json")
        ),
    ],
)
def test_a_run_folder_that_vanishes(server, whole, tmp_path, assert_same, moment):
    shutil.copytree(whole / "data", tmp_path / "data")
    process = server.start(tmp_path)
    wait_for((tmp_path / "run" / moment).exists)
    (tmp_path / "run").rename(tmp_path / "gone")  # at once, where removing would take its time
    assert server.wait(process) == 2, (tmp_path / "out").read_text()
    assert "run was removed or replaced while a run worked in it" in the_error(tmp_path)
    if moment == FIRST_CHECKPOINT:
        if server.run(tmp_path) == 2:  # what was written after that is not taken for a run
            assert "is not empty and holds no run" in the_error(tmp_path)
            shutil.rmtree(tmp_path / "run")
            assert server.run(tmp_path) == 0
        assert_same(tmp_path)


def test_two_runs_in_one_folder(server, tmp_path, assert_same):
    first = server.start(tmp_path)
    wait_for((tmp_path / "run" / "pipeline.log").exists)
    assert server.run(tmp_path, out="second") == 2
    assert "is in use by another process; wait for it" in the_error(tmp_path, "second")
    assert server.wait(first) == 0
    assert_same(tmp_path)


def test_two_runs_that_prepare_one_data_dir_and_one_of_them_is_killed(
    server, tmp_path, assert_same
):
    killed = server.start(tmp_path, kill_at=12, run="killed")
    others = [server.start(tmp_path, run=name) for name in ("first", "second")]
    assert server.wait(killed) < 0
    assert [server.wait(process) for process in others] == [0, 0], (tmp_path / "out").read_text()
    for name in ("first", "second"):
        assert_same(tmp_path, run=name)


@pytest.mark.slow
def test_a_clock_that_is_set_back(server, tmp_path, assert_same):
    """Neither a file's time nor the clock decides anything: a resumed run ends as it would have."""
    decades_s = 10**9
    process = server.start(tmp_path, clock_offset_s=decades_s)
    wait_for((tmp_path / "run" / FIRST_CHECKPOINT).exists)
    os.kill(process, 9)
    assert server.wait(process) == -9
    for number, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (number, number) if number % 2 else (time.time() + decades_s,) * 2)
    assert server.run(tmp_path, clock_offset_s=-decades_s) == 0, (tmp_path / "out").read_text()
    assert_same(tmp_path)


@pytest.mark.slow
def test_compiled_programs_that_are_damaged_are_compiled_again(
    server, whole, new_server, tmp_path, assert_same
):
    """Cut and with bits flipped, as a crash or a disk may leave them; JAX keeps them packed."""
    cache, rng = tmp_path / "cache", random.Random(0)
    shutil.copytree(server.cache, cache)
    programs = sorted(cache.glob("*-cache"))
    for number, path in enumerate(programs):
        content = bytearray(path.read_bytes())
        if number % 3 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    assert len(programs) > 10
    other = new_server(JAX_COMPILATION_CACHE_DIR=str(cache))
    assert other.run(tmp_path) == 0, (tmp_path / "out").read_text()
    assert_same(tmp_path)
