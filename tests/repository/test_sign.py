"""Real signatures with real keys."""

import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mnist_jax.errors import UserError
from mnist_jax.files import write_json
from mnist_jax.repository import audit, layout, sign, store


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Paths of two pairs: private, public."""
    folder, pairs = tmp_path_factory.mktemp("keys"), []
    for name in ("ours", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        pairs.append((private, public))
    return pairs


@pytest.fixture
def signed(keys, tmp_path):
    """A repository with one signed version."""
    files = {
        "model.onnx": b"model",
        "labels.txt": b"zero\n",
        "version": b"1\n",
        "config.pbtxt": b"config",
        "card/card.md": b"card",
        ".gitattributes": b"git",
    }

    def with_key(folder):
        sign.sign(folder, keys[0][0])

    with store.lock(tmp_path):
        store.add_version(tmp_path, "digits", 1, files, {"verdict": "released"}, with_key)
    return tmp_path


def test_the_signature_of_the_right_key_holds(signed, keys, capfd):
    assert layout.load_version(signed, "digits", 1).number == 1
    sign.check(signed / "digits" / "1", keys[0][1])
    assert audit.main([str(signed), "--public-key", str(keys[0][1])]) == 0
    assert f"signature holds for {keys[0][1]}" in capfd.readouterr().out
    assert audit.main([str(signed)]) == 0
    assert "signed (not checked without --public-key)" in capfd.readouterr().out


def test_another_ones_key_does_not(signed, keys):
    with pytest.raises(UserError, match=r"does not hold for .*theirs.pub .*; do not serve it"):
        sign.check(signed / "digits" / "1", keys[1][1])


@pytest.mark.parametrize("name", ["model.onnx", "SHA256SUMS", "manifest.json", ".gitattributes"])
def test_every_file_is_signed(signed, keys, name):
    """Also those that an attacker would change together with the model."""
    path = signed / "digits" / "1" / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UserError, match="does not hold"):
        sign.check(path.parent, keys[0][1])


def test_a_file_too_many_breaks_it(signed, keys):
    (signed / "digits" / "1" / "more").touch()
    with pytest.raises(UserError, match="does not hold"):
        sign.check(signed / "digits" / "1", keys[0][1])


def test_a_missing_signature_is_refused_where_one_is_demanded(signed, keys, capfd):
    (signed / "digits" / "1" / "model.sig").unlink()
    assert audit.main([str(signed), "--public-key", str(keys[0][1])]) == 1
    assert "is not signed; sign it with scripts/publish --sign KEY" in capfd.readouterr().err


def plant_run(folder):
    """Makes a folder look like a run that exported nothing."""
    write_json(folder / "logs" / "release.json", {"verdict": "released", "verification": None})


@pytest.mark.parametrize("place", ["", "digits", "digits/1"])
@pytest.mark.parametrize("part", ["", "digits", "digits/1"])
def test_a_run_beside_it_does_not_hide_a_changed_version(signed, keys, place, part, capfd):
    plant_run(signed / place)
    (signed / "digits" / "1" / "model.onnx").write_bytes(b"another")
    for key in ([], ["--public-key", str(keys[0][1])]):
        assert audit.main([str(signed / part), *key]) == 1
        assert any("digits/1" in line for line in capfd.readouterr().err.splitlines())


@pytest.mark.parametrize("release", [{}, [], {"verdict": "released", "verification": [3]}])
def test_a_damaged_run_beside_it_does_not_hide_a_changed_version(signed, release, capfd):
    write_json(signed / "logs" / "release.json", release)
    (signed / "digits" / "1" / "model.onnx").write_bytes(b"another")
    assert audit.main([str(signed)]) == 1
    said = capfd.readouterr().err
    assert "release.json is not what a run writes" in said and "digits/1" in said


@pytest.mark.parametrize("place", ["", "digits"])
def test_a_run_in_a_signed_repository_is_refused(signed, keys, place, capfd):
    """Every version is as it was signed, but who serves the folder would serve the run."""
    plant_run(signed / place)
    assert audit.main([str(signed), "--public-key", str(keys[0][1])]) == 1
    said = capfd.readouterr()
    assert f"{(signed / place).absolute()} is a run, which has no signature" in said.err
    assert "digits/1: released" in said.out


def test_a_signed_version_in_front_does_not_hide_a_changed_one(signed, keys, tmp_path, capfd):
    """A repository named as its model becomes such a model by the signed version, put into it."""
    repository = tmp_path / "places" / "digits"
    shutil.copytree(signed / "digits", repository, symlinks=True)
    shutil.copytree(signed / "digits", repository / "digits", symlinks=True)
    command = [str(repository), "--public-key", str(keys[0][1])]
    assert audit.main(command) == 0
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"another")
    assert audit.main(command) == 1
    assert f"{repository}/digits/1/model.onnx is not what was" in capfd.readouterr().err


def test_a_run_has_no_signature(released, keys, capfd):
    assert audit.main([str(released / "run"), "--public-key", str(keys[0][1])]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        f"FAIL  {released / 'run'} is a run, which has no signature; "
        "publish it with scripts/publish --sign KEY, or leave the key out"
    )


def test_the_librarys_own_program_agrees(signed, keys):
    """Nobody needs this package to check a signature."""
    folder = signed / "digits" / "1"
    command = [
        *(sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key", str(folder)),
        *("--signature", str(folder / "model.sig"), "--public_key", str(keys[0][1])),
        *("--ignore-paths", str(folder / "model.sig"), "--no-ignore-git-paths"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(folder / "labels.txt", folder / "model.onnx")
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_a_key_that_is_none_leaves_nothing(tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    repository = tmp_path / "repository"
    with store.lock(repository), pytest.raises(UserError, match=r"cannot sign .*; make a key with"):
        store.add_version(
            repository, "digits", 1, {}, {}, lambda folder: sign.sign(folder, tmp_path / "key.pem")
        )
    assert list(repository.iterdir()) == []


def test_without_the_library_the_remedy_is_named(signed, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UserError, match=r"is not installed .*; run scripts/install sign"):
        sign.check(signed / "digits" / "1", keys[0][1])
