"""`python -m mnist_jax COMMAND ...`: the commands by name, as `scripts/` call them."""

import ast
import importlib
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mnist_jax import command
from mnist_jax.errors import UserError

MODULES = {
    "build_demo": "mnist_jax.serve.demo",
    "export": "mnist_jax.reexport",
    "import": "mnist_jax.studies.import_weights",
    "multimnist": "mnist_jax.studies.multi_mnist",
    "predict": "mnist_jax.serve.predict",
    "publish": "mnist_jax.repository.publish",
    "quantize": "mnist_jax.release.quantize",
    "reproduce-release": "mnist_jax.rerun",
    "robustness": "mnist_jax.studies.robustness",
    "serve": "mnist_jax.serve.__main__",
    "sweep": "mnist_jax.studies.sweep",
    "train": "mnist_jax.train",
    "verify": "mnist_jax.repository.audit",
}


def main(arguments: Sequence[str]) -> int:
    """Returns the status of the command that the first argument names.

    Raises:
        UserError: there is no such command, or a library that it needs cannot be loaded.
    """
    name = arguments[0] if arguments else "nothing"
    if name in ("-h", "--help"):
        print(help_text())
        return 0
    if name not in MODULES:
        raise UserError(f"{name} is not a command; give one of {', '.join(MODULES)}, or --help")
    with command.loading():
        module = importlib.import_module(MODULES[name])
    return module.main(arguments[1:])


def help_text() -> str:
    """Returns what `--help` prints: a line for each command, from its module's first."""
    width = max(60, min(100, shutil.get_terminal_size((100, 24)).columns))
    lines = [
        f"usage: {command.INSTALLED} COMMAND ...",
        "",
        "From data to a proven ONNX release. COMMAND --help tells more.",
        "",
        "commands:",
    ]
    for name, module in MODULES.items():
        path = Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
        (first, *_) = (ast.get_docstring(ast.parse(path.read_bytes())) or "").splitlines()
        lines += textwrap.wrap(
            command.as_called(first.rpartition("`: ")[2]),
            width,
            initial_indent=f"  {name:<18} ",
            subsequent_indent=" " * 21,
        )
    return "\n".join(lines)


def program() -> NoReturn:
    """Is the command `mnist-jax`, which an installed package has."""
    command.run_as_program(main)


if __name__ == "__main__":
    program()
