"""What is installed: exact versions, for every Python that is promised, under licences we list."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PINS = {canonicalize_name(pin.name): pin for pin in map(Requirement, LINES)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNPINNED_EXTRAS = {"cuda", "bench"}  # they depend on the machine: drivers, CPU or GPU builds


def test_every_line_pins_one_version_and_no_package_is_pinned_twice():
    for line in LINES:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ?; ?python_version .*)?", line), line
    assert len(PINS) == len(LINES)


def required():
    extras = PROJECT["optional-dependencies"]
    names = [n for extra in extras if extra not in UNPINNED_EXTRAS for n in extras[extra]]
    return sorted({*PROJECT["dependencies"], *names})


@pytest.mark.parametrize("line", required())
def test_what_the_project_asks_for_is_pinned_within_its_bounds(line):
    requirement = Requirement(line)
    if requirement.name != PROJECT["name"]:  # an extra that includes another
        (pinned,) = PINS[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pinned.version)


def test_the_licences_listed_are_of_the_pinned_versions():
    rows = re.findall(
        r"^\| ([\w.-]+) \| (\d[\w.]*) \| (.+) \|$",
        (ROOT / "docs" / "licences.md").read_text(),
        flags=re.MULTILINE,
    )
    assert [f"{name}=={pinned}" for name, pinned, _ in rows] == [
        line.split(";")[0].strip() for line in LINES
    ], "run scripts/licences"


# What may be linked with Apache-2.0 code and given on without more than a notice; and, for files of
# theirs that somebody changes, the weak copyleft of MPL. No GPL, no "non-commercial".
FAMILIES = "Apache|MIT|BSD|PSF|Python Software Foundation|MPL|Mozilla|ZPL|CC0|AFL|ISC|Unlicense"


def test_no_licence_forbids_what_apache_allows():
    text = (ROOT / "docs" / "licences.md").read_text()
    for name, licence in re.findall(r"^\| ([\w.-]+) \| [\d].*? \| (.+) \|$", text, re.MULTILINE):
        assert re.search(FAMILIES, licence), f"{name} is under {licence}"
        assert not re.search(r"\bA?GPL|Commercial|Proprietary", licence), f"{name}: {licence}"
