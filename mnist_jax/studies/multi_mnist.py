"""`scripts/multimnist`: trains and tests on pairs of overlapping digits, MultiMNIST.

Sabour, Frosst, Hinton 2017, section 6, by the rules of the authors' generator: each digit, in a
frame of 36x36 pixels, is moved by up to 4 pixels along each axis, and one of another class, moved
likewise, is added to it; the sum is cut off at white. An answer is right where the two classes with
the largest scores are both right. Pairs for training are new at each step; the pairs for the
test, one for each test digit, are seeded: every model gets the same.

It takes the flags and recipes of scripts/train; the canvas and the augmentation are MultiMNIST's,
and of data it takes the published sets alone: the black around their images leaves room to move.
Criteria, seeds, patience, class weights, precision, devices and formats have no effect here.
"""

from collections.abc import Sequence

from rich.console import Console

from mnist_jax import command
from mnist_jax.config import flags
from mnist_jax.errors import UserError
from mnist_jax.run import log


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where file and network agree, 1 where they do not, 2 on a mistake."""
    return command.status_of(lambda: _parse_and_run(arguments))


def _parse_and_run(arguments: Sequence[str]) -> int:
    config = flags.parse_here(arguments)
    if config is None:
        print(flags.help_text("scripts/multimnist", command.about(__doc__)))
        return 0
    if config["data"]:
        raise UserError(
            f"data is {config['data']!r}, but pairs are made of 28x28 pixels on black; "
            "leave --data out and give --dataset-id"
        )
    with log.to_terminal(Console(quiet=config["quiet"])):
        # Imported here, so that --help and a mistaken flag answer without loading JAX.
        with command.loading():
            from mnist_jax.studies import overlapping

        return overlapping.run(config)


if __name__ == "__main__":
    command.run_as_program(main)
