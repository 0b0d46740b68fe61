"""What the documents say is so."""

import re
import shlex
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from mnist_jax.config import flags

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split(" #")[0]
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
    if line.startswith("scripts/")
]


def test_contributing_has_the_layout_as_it_is():
    assert subprocess.run([ROOT / "scripts" / "layout", "--check"]).returncode == 0


def test_the_readme_names_the_rooms_and_nothing_that_is_gone():
    (rooms,) = [block for _, block in BLOCKS if block.startswith("mnist_jax/")]
    named = set(re.findall(r"(\w+)/", rooms)) - {"mnist_jax", "layers"}
    there = {path.parent.name for path in (ROOT / "mnist_jax").glob("*/__init__.py")}
    assert named == there - {"studies"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_and_its_flags_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert (ROOT / program).stat().st_mode & 0o111, f"{program} cannot be executed"
    if program == "scripts/train":
        flags.parse(arguments, {}, datetime.now())  # raises on any mistake


def test_the_first_two_commands_are_the_two_promised():
    assert COMMANDS[0].startswith("scripts/train --config=configs/digits_cnn_v1.py")
    assert COMMANDS[1] == "scripts/test"
    assert "scripts/train --model-id mnist_cnn_v1 --epochs 5" in README


def test_every_link_to_a_file_leads_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_flag_of_the_readme_is_a_flag():
    known = {flag.name for flag in flags.FLAGS} | {"config", "help", "host", "gpu"}
    for name in re.findall(r"`--([a-z_-]+)", README):
        assert name.replace("-", "_") in known, name


def test_the_image_is_built_by_the_steps_of_the_install_script():
    dockerfile, script = ((ROOT / name).read_text() for name in ("Dockerfile", "scripts/install"))
    for step in (
        r"-m venv --without-pip",
        r"-m pip --python \S+ install (--quiet )?--disable-pip-version-check",
        r"--constraint \S*constraints\.txt",
        r"--editable",
    ):
        assert re.search(step, dockerfile), step
        assert re.search(step, script), step
    assert dockerfile.index("USER trainer") < dockerfile.index("ENTRYPOINT")
    kept = (ROOT / ".dockerignore").read_text()
    for name in re.findall(r"^COPY (.*) \S+$", dockerfile, flags=re.MULTILINE):
        for source in name.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in kept, f".dockerignore keeps {source} out of the image"


def test_no_file_names_an_index_a_machine_or_tensorflow():
    tracked = [
        path
        for pattern in ("*.md", "*.py", "*.txt", "*.toml", "scripts/*", ".ci/run", "Dockerfile")
        for path in ROOT.rglob(pattern)
        if ".venv" not in path.parts and path.is_file()
    ]
    index = re.compile("|".join(("py" + r"pi\.org", "python" + "hosted", "index" + "-url")))
    for path in tracked:
        assert not index.search(path.read_text()), f"{path} names a package index"
