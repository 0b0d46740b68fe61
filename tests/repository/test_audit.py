import shutil

import pytest

from mnist_jax.repository import audit


@pytest.fixture
def go(capfd):
    def go(*arguments):
        status = audit.main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return status, said.out.splitlines(), said.err.splitlines()

    return go


@pytest.fixture
def repository(repository):
    """With the files beside the versions that `publish` makes: links into the champion's folder."""
    for name in ("digits", "clothes"):
        for file in ("labels.txt", "card"):
            (repository / name / file).symlink_to(f"serving/{file}")
    return repository


def test_every_version_of_a_repository_is_checked(repository, go):
    status, out, err = go(repository)
    assert (status, err) == (0, [])
    assert [line.split()[1].rpartition(str(repository))[2] for line in out] == [
        *("/clothes/1:", "/clothes:"),
        *("/digits/1:", "/digits/2:", "/digits/10:", "/digits:"),
    ]
    assert "released, 4 files, not signed" in out[0]
    assert out[-1].endswith("champion is version 2")


def test_all_that_is_damaged_is_named(repository, go):
    (repository / "digits/1/model.onnx").write_bytes(b"model 2")
    (repository / "digits/10/extra").touch()
    (repository / "clothes/1/SHA256SUMS").unlink()
    status, out, err = go(repository)
    assert status == 1
    assert [line.split()[0] for line in err] == ["FAIL"] * len(err)
    said = "\n".join(err)
    assert f"{repository}/digits/1/model.onnx is not what was published" in said
    assert f"{repository}/digits/10/extra is not among the files published" in said
    assert f"{repository}/clothes/1/SHA256SUMS: no such file; the folder was not copied" in said
    assert any("digits/2: released" in line for line in out)


@pytest.mark.parametrize("part", ["digits", "digits/2"])
def test_a_part_can_be_checked_alone(repository, go, part, monkeypatch):
    assert go(repository / part)[0] == 0
    monkeypatch.chdir(repository / part)
    assert go(".")[0] == 0
    (repository / "digits/2/labels.txt").write_text("one\nzero\n")
    assert go(".")[0] == 1


def test_a_version_copied_out_of_its_repository_is_checked_too(repository, go, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copies") / "release"
    shutil.copytree(repository / "digits" / "2", copy)
    assert go(copy)[0] == 0
    (copy / "version").write_text("3\n")
    assert go(copy)[0] == 1


def test_a_stale_copy_beside_the_versions_is_seen(repository, go):
    """What a copy without links becomes when only its versions are brought up to date."""
    (repository / "digits/labels.txt").unlink()
    (repository / "digits/labels.txt").write_text("zero\ntwo\n")
    status, _, err = go(repository)
    assert status == 1 and "labels.txt of" in err[0] and "is not that of the champion" in err[0]


def test_a_run_is_held_against_its_verification(released, go, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(released / "run", run)
    status, out, _ = go(run)
    assert status == 0 and out[0].endswith("run: released, 3 exported files")
    with open(run / "models" / "mnist_model.safetensors", "ab") as file:
        file.write(b"\0")
    status, _, err = go(run)
    assert status == 1 and "mnist_model.safetensors is not what was verified" in err[0]


def test_what_is_none_of_these_is_a_mistake(tmp_path, go):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        if path.name == "file":
            path.touch()
        status, out, err = go(path)
        assert (status, out) == (2, [])
        assert err == [
            f"error: {path} is not a run, version, model or repository; name one of these"
        ]
