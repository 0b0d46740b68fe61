"""`python -m mnist_jax COMMAND ...`: the commands by name, as `scripts/` call them."""

import importlib
from collections.abc import Sequence
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
    "train": "mnist_jax.train",
    "verify": "mnist_jax.repository.audit",
}


def main(arguments: Sequence[str]) -> int:
    """Returns the status of the command that the first argument names.

    Raises:
        UserError: there is no such command, or a library that it needs cannot be loaded.
    """
    name = arguments[0] if arguments else "nothing"
    if name not in MODULES:
        raise UserError(f"{name} is not a command; give one of {', '.join(MODULES)}")
    with command.loading():
        module = importlib.import_module(MODULES[name])
    return module.main(arguments[1:])


def program() -> NoReturn:
    """Is the command `mnist-jax`, which an installed package has."""
    command.run_as_program(main)


if __name__ == "__main__":
    program()
