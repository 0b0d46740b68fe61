"""The import direction, who alone may import what, and the rules that a reader relies on."""

import ast
from pathlib import Path

import pytest

from mnist_jax import config, data
from mnist_jax.export import interface
from mnist_jax.models import MODELS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mnist_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# A part may import itself and the parts on lines above its own.
ORDER = [
    {"errors"},
    {"files", "command", "config"},
    {"run"},
    {"data"},
    {"models", "export"},
    {"training"},
    {"release"},
    {"card", "repository"},
    {"pipeline", "serve"},
    {"train", "reexport", "rerun"},
    {"studies"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

SOLE_IMPORTERS = {
    "orbax": {"training"},
    "jax2onnx": {"export"},
    "onnxruntime": {"export", "release"},
    "matplotlib": {"card"},
    "tensorflow_datasets": {"data"},
    "absl": {"config", "data"},
    "flax": {"models", "export", "training", "release", "studies"},
    "tensorflow": set(),
    "pickle": set(),
}


def part(path: Path) -> str:
    """The module or subpackage that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_to_its_left(path):
    if path == PACKAGE / "__init__.py":
        return
    for name in imports(path):
        if name.startswith("mnist_jax."):
            other = name.split(".")[1]
            if other in RANK:
                assert RANK[other] <= RANK[part(path)], f"{part(path)} imports {other}"


@pytest.mark.parametrize("library", SOLE_IMPORTERS)
def test_libraries_stay_where_they_belong(library):
    importers = {
        part(path)
        for path in FILES
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    assert importers <= SOLE_IMPORTERS[library]


def test_every_module_has_its_place():
    assert {part(path) for path in FILES} == set(RANK) | {"__init__"}


def test_no_default_hides_behind_a_config_lookup():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_config = "config" in ast.unparse(node.func.value)
                assert not (node.func.attr == "get" and is_config), f"{path}:{node.lineno}"


def test_names_that_are_repeated_to_the_left_agree():
    assert config.DATASET_IDS == data.DATASET_IDS
    assert config.EXPORT_FORMATS == interface.FORMATS
    chosen = {model_id: network.choices for model_id, network in MODELS.items() if network.choices}
    assert chosen == config.MODEL_CHOICES


def test_files_stay_readable():
    total = 0
    for path in FILES:
        lines = path.read_text().splitlines()
        total += len(lines)
        assert len(lines) <= 400, f"{path.name} has {len(lines)} lines: is it two?"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 90, f"{path.name}: {node.name} has {length} lines"
    assert total <= 12_500
