"""The same configuration gives the same bytes: elsewhere, for another user, and by command."""

import os
import shutil
import subprocess

import pytest

from mnist_jax import rerun as reproduce_release
from mnist_jax.errors import UserError
from mnist_jax.files import read_json, write_json
from mnist_jax.run import environment, paths
from mnist_jax.training import checkpoint


@pytest.mark.slow
def test_another_process_user_and_folder(whole, new_server, tmp_path, assert_same):
    """Nothing is shared with the undisturbed run, not even what is compiled.

    `test_pipeline.py` does the like with the real network, in the default suite.
    """
    (tmp_path / "home").mkdir()
    places = {"HOME": str(tmp_path / "home"), "USER": "somebody", "TMPDIR": str(tmp_path / "home")}
    server = new_server(PYTHONHASHSEED="7", LANG="C", LC_ALL="C", TZ="Asia/Tokyo", **places)
    folder = tmp_path / "a longer ä name"
    assert server.run(folder) == 0, (folder / "out").read_text()
    assert_same(folder)


def test_no_secret_of_the_environment_is_written(whole, secret):
    texts = [path.read_bytes() for path in whole.rglob("*") if path.is_file()]
    assert len(texts) > 30
    assert not [text for text in texts if secret.encode() in text]


def test_the_command_reproduces_a_release(server, whole, tmp_path):
    shutil.copytree(whole / "run", tmp_path / "release")
    status = server.run(tmp_path, program="reproduce", arguments=[str(tmp_path / "release")])
    out = (tmp_path / "out").read_text()
    assert status == 0, out
    assert out.count("same ") >= 12
    assert "DIFFERS" not in out
    assert "was" not in [line.split(" ", 2)[1] for line in out.splitlines() if " and is " in line]


def test_the_command_says_what_it_cannot_do(tmp_path, capfd):
    assert reproduce_release.main([str(tmp_path)]) == 2
    assert "holds no finished run; name the folder of one" in capfd.readouterr().err
    assert reproduce_release.main([]) == 2
    assert "required: run_dir; see scripts/reproduce-release --help" in capfd.readouterr().err


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole / "run", tmp_path / "copy")
    return tmp_path / "copy"


def differing(whole, copy):
    return [
        row.path for row in reproduce_release.compare(whole / "run", copy) if row.then != row.now
    ]


def test_every_file_counts(whole, copy):
    assert differing(whole, copy) == []
    names = [row.path for row in reproduce_release.compare(whole / "run", copy)]
    assert names[0] == "models/checkpoint"
    for name in names[1:]:
        path = copy / name
        content = path.read_bytes()
        if name.endswith(".json"):
            write_json(path, {**read_json(path), "one": "more"})
        else:
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert differing(whole, copy) == [name]
        path.unlink()
        assert differing(whole, copy) == [name]
        path.write_bytes(content)
    shutil.rmtree(copy / "models" / "checkpoint")
    assert checkpoint.released_sha256(copy) is None
    assert differing(whole, copy) == ["models/checkpoint"]


def test_what_later_commands_add_does_not_count(whole, copy):
    for name in paths.LATER:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(b"{}")
    assert differing(whole, copy) == []


def test_in_the_json_files_only_times_and_places_may_differ(whole, copy):
    path = copy / "logs" / "release.json"
    verdict = read_json(path)
    verdict["training"]["seconds"] += 1
    verdict["verification"]["latency"]["p50_ms"] += 1
    verdict["run"]["config"]["output_dir"] = "elsewhere"
    (row,) = [row for row in verdict["criteria"] if row["name"] == "inference_time_ms"]
    row["measured"] += 1
    write_json(path, verdict)
    assert differing(whole, copy) == []
    verdict["metrics"]["loss"] += 1e-9
    write_json(path, verdict)
    assert differing(whole, copy) == ["logs/release.json"]
    path.write_bytes(path.read_bytes().replace(b"released", b"releasee", 1))
    with pytest.raises(
        UserError, match=r"release\.json is not valid JSON, or not what was written"
    ):
        differing(whole, copy)


def test_by_how_much_a_refused_model_is_too_slow_may_differ():
    wrong = "test_accuracy 0.9 is below 0.97 by 0.07"
    one, other = (
        {"reasons": [f"inference_time_ms {ms} ms is above 50 ms by {ms - 50:.3g} ms", wrong]}
        for ms in (61.2, 59.8)
    )
    without_times = reproduce_release.without_times
    assert without_times(one) == without_times(other)
    assert without_times(one) != without_times({"reasons": [wrong]})
    assert without_times(one) != without_times({"reasons": one["reasons"][:1]})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_repository_around_an_installed_package_is_not_its_source(tmp_path, monkeypatch):
    file = tmp_path / "environment.py"
    file.touch()
    monkeypatch.setattr(environment, "__file__", str(file))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # of a hook, which would lead to another repository
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "another project's")
    described = environment.describe()
    assert (described["git_commit"], described["git_clean"]) == (None, None)
    git("add", file.name)
    git("commit", "-q", "-m", "this project's")
    described = environment.describe()
    assert (described["git_commit"], described["git_clean"]) == (git("rev-parse", "HEAD"), True)


def test_what_a_run_stood_on_is_recorded_and_compared():
    now = environment.describe()
    assert reproduce_release.differences(now, {**now, "git_clean": True}) in (
        [],
        ["the source had changes then that are not committed"],
    )
    then = {**now, "git_clean": True, "device_kind": "a GPU", "num_cpus": 96}
    then["versions"] = {**now["versions"], "jax": "0.1"}
    then["xla_flags"] = "--fast"
    lines = reproduce_release.differences(then, {**now, "git_clean": False})
    assert lines == [
        f"device_kind was a GPU, and is {now['device_kind']}",
        f"num_cpus was 96, and is {now['num_cpus']}",
        f"xla_flags was --fast, and is {now['xla_flags']}",
        f"jax was 0.1, and is {now['versions']['jax']}",
        "the source had changes now that are not committed",
    ]
    assert {"python", "platform", "cpu", "git_commit", "jax_settings"} <= set(now)
