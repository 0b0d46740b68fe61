"""Versions that are there: signed and promoted later, without importing what training needs."""

import re
import subprocess
import sys
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mnist_jax.errors import UserError
from mnist_jax.repository import existing, layout, publish, sign

HEAVY = ("jax", "flax", "onnx", "onnxruntime", "scipy", "sklearn", "tensorflow_datasets")


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """Paths of a private and a public key."""
    folder, key = tmp_path_factory.mktemp("key"), ec.generate_private_key(ec.SECP256R1())
    (folder / "private.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "public.pem").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return folder / "private.pem", folder / "public.pem"


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_version_that_is_there_can_be_signed_by_its_number(
    is_relative, repository, key, capfd, monkeypatch
):
    monkeypatch.chdir(repository)
    with pytest.raises(UserError, match="is not signed"):
        sign.check(repository / "digits" / "2", key[1])
    before = sorted(path.name for path in (repository / "digits").iterdir())
    for _ in range(2):
        named = "." if is_relative else str(repository)
        arguments = ["--repository", named, "--sign", str(key[0])]
        assert publish.main([*arguments, "--version", "digits", "2"]) == 0
        assert "signed version 2 of digits" in capfd.readouterr().out
        sign.check(repository / "digits" / "2", key[1])
    layout.load_version(repository, "digits", 2)
    assert sorted(path.name for path in (repository / "digits").iterdir()) == before
    assert layout.champion(repository, "digits") == 2


def test_a_run_that_is_published_already_is_signed_there(released, tmp_path, key, capfd):
    arguments = [str(released / "run"), f"--repository={tmp_path}"]
    arguments.append(f"--data-dir={released / 'data'}")
    assert publish.main(arguments) == 0
    assert publish.main([*arguments, "--sign", str(key[0])]) == 0
    assert "signed version 1 of digits_v1" in capfd.readouterr().out
    sign.check(tmp_path / "digits_v1" / "1", key[1])
    assert publish.main(arguments) == 2
    assert layout.list_versions(tmp_path, "digits_v1") == (1,)


def test_a_folder_that_cannot_be_written_is_not_the_keys_fault(repository, key, monkeypatch):
    def full(*_):
        raise UserError("cannot write it: No space left on device")

    monkeypatch.setattr(sign, "write_bytes", full)
    with pytest.raises(UserError, match=r"^cannot write it"):
        sign.sign(repository / "digits" / "2", key[0])


def test_a_damaged_champion_does_not_hinder_another(repository, capfd):
    (repository / "digits" / "2" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="name one with scripts/publish --promote digits VERSION"):
        layout.champion(repository, "digits")
    assert publish.main(["--repository", str(repository), "--promote", "digits", "1"]) == 0
    assert "version 1; it was damaged" in capfd.readouterr().out
    assert layout.champion(repository, "digits") == 1


def test_a_changed_version_is_not_signed(repository, key):
    (repository / "digits" / "2" / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="is not what was published"):
        existing.sign_version(repository, "digits", "2", key[0])
    assert not (repository / "digits" / "2" / layout.SIGNATURE).exists()


def run_publish(arguments):
    """Returns the processor seconds of a real process, and the modules that it imported."""
    code = (
        "import resource, sys; from mnist_jax.repository import publish; "
        f"status = publish.main({arguments!r}); used = resource.getrusage(resource.RUSAGE_SELF); "
        "print('used', used.ru_utime + used.ru_stime, *sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, seconds, *modules = re.search("^used .*", done.stdout, re.MULTILINE)[0].split()
    return float(seconds), {name.partition(".")[0] for name in modules}


def test_a_promotion_takes_under_2_s_and_imports_nothing_heavy(repository):
    arguments = ["--repository", str(repository), "--promote", "digits", "10"]
    start = time.monotonic()
    seconds, modules = run_publish(arguments)
    assert not modules & set(HEAVY)
    assert seconds < 2, time.monotonic() - start
    assert layout.champion(repository, "digits") == 10


def test_a_first_version_takes_under_2_s_without_jax(released, tmp_path):
    arguments = [str(released / "run"), f"--repository={tmp_path}"]
    seconds, modules = run_publish([*arguments, f"--data-dir={released / 'data'}"])
    assert not modules & {"jax", "flax", "scipy", "sklearn", "tensorflow_datasets"}
    assert seconds < 2
