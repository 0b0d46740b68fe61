"""What the documents say is so."""

import contextlib
import importlib
import re
import shlex
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from mnist_jax.__main__ import MODULES
from mnist_jax.config import flags

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    line.split(" #")[0].strip()
    for document in DOCUMENTS
    for block in re.findall(r"```sh\n(.*?)```", document.read_text(), flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("scripts/")
]


def test_contributing_has_the_layout_as_it_is():
    assert subprocess.run([ROOT / "scripts" / "layout", "--check"]).returncode == 0


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_exists_and_its_flags_are_understood(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert (ROOT / program).stat().st_mode & 0o111, f"{program} cannot be executed"
    name = program.removeprefix("scripts/")
    if name == "train":
        flags.parse(arguments, {}, datetime.now())  # raises on any mistake
    elif name in MODULES:
        with contextlib.suppress(SystemExit):
            importlib.import_module(MODULES[name]).main(["--help"])
        told = capsys.readouterr().out + flags.help_text()
        for flag in arguments:
            if flag.startswith("--") and not flag.startswith("--config"):
                assert flag.split("=")[0] in re.findall(r"--[\w-]+", told)


def test_every_document_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for document in (ROOT / "docs").glob("[a-z]*.md"):
        assert f"({document.name})" in index, f"docs/README.md has no line for {document.name}"


def test_every_link_to_a_file_leads_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_file_of_this_repository_that_is_named_is_there():
    places = "tests|mnist_jax|examples|deploy|benchmarks|docs|scripts"
    named = re.compile(rf"(?<![\w/.])(?:{places})/[\w./-]*\w")
    for document in DOCUMENTS:
        if document.name != "log.md":  # which is history
            for name in named.findall(document.read_text()):
                assert (ROOT / name).exists(), f"{document.name} names {name}"


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
