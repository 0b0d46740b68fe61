"""The import direction, who alone may import what, and the rules that a reader relies on."""

import ast
from pathlib import Path

import pytest

from mnist_jax import config, data
from mnist_jax.run import paths
from mnist_jax.training import losses

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mnist_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

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
    "flax": {"models", "export", "training", "release", "studies", "pipeline"},
    "tensorflow": set(),
    "pickle": set(),
}

# What may not import what, although the order allows it.
NEVER = [
    ("card", "training"),
    ("release/compare.py", "export.onnx"),
    ("release/latency.py", "export.onnx"),
    ("release/quantize.py", "export.onnx"),
]
GROUND_FLOOR = ("errors", "files", "command", "config")
# The server reads no picture files; `predict`, which is beside it, does.
READERS = ("predict.py", "prepared.py", "listed.py")
SEEN_BY_READERS = ("data.decoder", "data.decoding", "data.pictures", "data.readers.folder")
SEEN_BY_SERVE = ("repository.layout", "export.interface", "export.session", "run.paths", "serve")


def part(path: Path) -> str:
    """The module or subpackage that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it, as dotted names."""
    names = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_imports(path: Path) -> list[str]:
    """The modules of this package that a file imports, without the package's name."""
    names = (name.removeprefix("mnist_jax.") for name in imports(path) if "mnist_jax." in name)
    return [name for name in names if (PACKAGE / f"{name.replace('.', '/')}.py").is_file()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upwards(path):
    if path == PACKAGE / "__init__.py":
        return
    for name in imports(path):
        if name.startswith("mnist_jax."):
            other = name.split(".")[1]
            if other in RANK:
                assert RANK[other] <= RANK[part(path)], f"{part(path)} imports {other}"
                is_beside = other != part(path) and RANK[other] == RANK[part(path)]
                assert not (is_beside and {other, part(path)} == {"card", "repository"})


@pytest.mark.parametrize(("importer", "imported"), NEVER)
def test_what_the_order_allows_and_the_house_does_not(importer, imported):
    for path in FILES:
        if str(path.relative_to(PACKAGE)).startswith(importer):
            for name in own_imports(path):
                assert name != imported and not name.startswith(f"{imported}."), f"{path}: {name}"


def test_the_server_sees_little():
    for path in (path for path in FILES if part(path) == "serve"):
        for name in own_imports(path):
            is_allowed = name in GROUND_FLOOR or name.startswith(SEEN_BY_SERVE)
            is_allowed |= path.name in READERS and name in SEEN_BY_READERS
            # Nor does the server import them by another way.
            is_allowed &= path.name in READERS or f"{name.rpartition('.')[2]}.py" not in READERS
            assert is_allowed, f"{path.name} imports {name}"


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


def test_the_paths_of_a_run_need_the_standard_library_alone():
    assert imports(PACKAGE / "run" / "paths.py") == []


def test_no_default_hides_behind_a_config_lookup():
    for path in FILES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_config = "config" in ast.unparse(node.func.value)
                assert not (node.func.attr == "get" and is_config), f"{path}:{node.lineno}"


def test_names_that_are_repeated_to_the_left_agree():
    assert config.DATASET_IDS == data.DATASET_IDS
    assert tuple(paths.EXPORTED) == config.EXPORT_FORMATS
    assert set(config.CRITERION_IDS) == set(losses.IDS)


def test_the_top_of_the_package_is_seen_at_a_glance():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_readable(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 300, f"{path.name} has {len(lines)} lines: is it two?"
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
            names = [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            assert count <= 8, f"{node.name} has {count} parameters"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_call_splats_what_could_be_named(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call):
            for argument in node.args:
                is_splat = isinstance(argument, ast.Starred)
                value = argument.value if is_splat else None
                assert not isinstance(value, ast.Tuple | ast.List), f"line {node.lineno}"
