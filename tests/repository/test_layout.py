import random
import re
import shutil
import subprocess
import sys

import pytest

from mnist_jax.errors import UserError
from mnist_jax.repository import layout

TRICKS = ["..", ".", "", "../digits", "digits/1", "/etc", "digits\n", "digits\0", ".digits", "é"]


def test_models_and_versions_are_listed_in_order(repository):
    (repository / "not.a.name").mkdir()
    (repository / "empty").mkdir()
    (repository / ".publishing_x" / "1").mkdir(parents=True)
    for name in ("03", "latest", "-1", "0", "7"):  # 7: a copy that has not got to its sums
        (repository / "digits" / name).mkdir()
    assert layout.list_models(repository) == ("clothes", "digits")
    assert layout.list_versions(repository, "digits") == (1, 2, 10)
    assert layout.champion(repository, "digits") == 2


def test_a_version_is_read_whole(repository):
    version = layout.load_version(repository, "digits", 10)
    assert (version.name, version.number) == ("digits", 10)
    assert version.model == version.model_path.read_bytes() == b"model 10"
    assert version.labels == ("zero", "öne")
    assert version.manifest["version"] == 10


def test_the_sums_are_those_of_sha256sum(repository):
    folder = repository / "digits" / "1"
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder)
    assert done.returncode == 0


def test_a_copy_without_links_reads_the_same(repository, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(repository, copy, symlinks=False)
    assert layout.list_versions(copy, "digits") == (1, 2, 10)
    assert layout.champion(copy, "digits") == 2
    assert layout.load_version(copy, "digits", 2).labels == ("zero", "öne")


@pytest.mark.parametrize("name", TRICKS)
def test_names_that_are_paths_are_no_models(repository, name):
    assert layout.list_versions(repository, name) == ()
    with pytest.raises(UserError, match=r"has no model .*; it has clothes, digits"):
        layout.champion(repository, name)
    with pytest.raises(UserError, match="has no version 1 of"):
        layout.load_version(repository, name, 1)


@pytest.mark.parametrize("number", [0, -1, 3])
def test_an_unknown_version_is_answered_with_those_there_are(repository, number):
    with pytest.raises(UserError, match=rf"has no version {number} of 'digits'; it has 1, 2, 10"):
        layout.load_version(repository, "digits", number)


def flip_a_bit(folder):
    content = bytearray((folder / "model.onnx").read_bytes())
    content[3] ^= 1
    (folder / "model.onnx").write_bytes(content)


def link_a_folder(folder):
    (folder / "more").symlink_to("card")


def drop_from_both(folder, name):
    """Removes a file that no version can do without, and every trace of it."""
    (folder / name).unlink()
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(x for x in sums.read_text().splitlines(True) if name not in x))


def sum_anew(folder):
    """Changes a file and its sum, as one does who knows sha256sum and not the manifest."""
    flip_a_bit(folder)
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    done = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    (folder / "SHA256SUMS").write_bytes(done.stdout)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, r"model\.onnx is not what was published; restore it"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), "model.onnx is not what was"),
        (lambda folder: (folder / "labels.txt").unlink(), "labels.txt: No such file or directory"),
        (lambda folder: (folder / "card" / "x").touch(), "card/x is not among the files published"),
        (
            lambda folder: (folder / "old").symlink_to("gone"),
            "old is not among the files published",
        ),
        (link_a_folder, "more is not among the files published; remove it"),
        (lambda folder: drop_from_both(folder, "model.onnx"), "model.onnx: No such file"),
        (lambda folder: drop_from_both(folder, "manifest.json"), "manifest.json: No such file"),
        (sum_anew, "model.onnx has one checksum in SHA256SUMS, another in manifest.json"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff"), "SHA256SUMS: UnicodeDecode"),
        (
            lambda folder: (folder / "SHA256SUMS").write_text("no\n"),
            "a line that is not a checksum, 'no'",
        ),
        (
            lambda folder: (folder / "SHA256SUMS").write_text("0" * 64 + "  ../1/labels.txt\n"),
            "a line that is not a checksum",
        ),
    ],
)
def test_damage_is_refused_by_name(repository, damage, message):
    folder = repository / "digits" / "2"
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        layout.load_version(repository, "digits", 2)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert layout.load_version(repository, "digits", 1).number == 1


def test_no_byte_of_a_version_can_change_unnoticed(repository):
    folder, rng = repository / "digits" / "2", random.Random(0)
    whole = layout.load_version(repository, "digits", 2)
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    for path in sorted(files):
        content = path.read_bytes()
        for position in [rng.randrange(len(content)) for _ in range(12)]:
            flipped = bytearray(content)
            flipped[position] ^= 1 << rng.randrange(8)
            for damaged in (flipped, content[:position]):
                path.write_bytes(damaged)
                try:
                    found = layout.load_version(repository, "digits", 2)
                except UserError as error:
                    assert re.match(re.escape(str(folder)), str(error))
                    assert "\n" not in str(error)
                else:  # the line end after the last sum
                    assert found == whole
                    assert (path.name, position) == ("SHA256SUMS", len(content) - 1)
        path.write_bytes(content)
    assert layout.load_version(repository, "digits", 2) == whole


def test_a_version_in_another_ones_place_is_refused(repository):
    (repository / "digits" / "1").rename(repository / "digits" / "5")
    with pytest.raises(UserError, match="was published as version 1 of digits; put it back"):
        layout.load_version(repository, "digits", 5)


def test_a_signature_is_not_among_the_sums(repository):
    (repository / "digits" / "1" / "model.sig").write_text("{}")
    assert layout.load_version(repository, "digits", 1).number == 1


@pytest.mark.parametrize("text", ["", "3", "02", "two", "../1", "²"])
def test_a_champion_that_is_no_version_is_refused(repository, text):
    (repository / "digits" / "champion").unlink()
    (repository / "digits" / "champion").write_text(text)
    with pytest.raises(UserError, match=r"no version of digits; name one with .*--promote digits"):
        layout.champion(repository, "digits")


def test_a_missing_champion_is_named(repository):
    (repository / "digits" / "serving").unlink()
    with pytest.raises(UserError, match="digits/champion cannot be read; name one with"):
        layout.champion(repository, "digits")


def test_a_repository_that_is_none_is_named(repository):
    for path in (repository / "nothing", repository / "digits" / "1" / "model.onnx"):
        with pytest.raises(UserError, match="is not a model repository"):
            layout.list_models(path)


def test_reading_needs_no_jax():
    code = (
        "import sys, mnist_jax.repository.layout; "
        "sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'onnx', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
