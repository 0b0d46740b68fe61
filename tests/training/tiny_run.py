"""The pipeline with a network that compiles at once; a program for test_processes.py.

python tiny_run.py [--stop-after=LINE] FLAG...: as scripts/train. With --stop-after the
process kills itself once the log says so.
"""

import logging
import os
import signal
import sys

import jax
from flax import nnx

from mnist_jax import command, train
from mnist_jax.models import MODELS


class Tiny(nnx.Module):
    """A dense layer with the face of the networks."""

    criteria = ("nll",)
    choices = ()

    def __init__(self, *, num_classes, image_mean, image_std, image_side, rngs, dtype):
        self.dense = nnx.Linear(image_side**2, num_classes, rngs=rngs)

    def __call__(self, images, rngs=None):
        return self.dense(images.reshape(images.shape[0], -1))

    def scores_of(self, outputs):
        return jax.nn.softmax(outputs)


class Killer(logging.Handler):
    """Kills the process once a line is logged."""

    def __init__(self, line: str) -> None:
        super().__init__(logging.INFO)
        self.line = line

    def emit(self, record: logging.LogRecord) -> None:
        if self.line in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    MODELS["mnist_cnn_v1"] = Tiny
    if sys.argv[1].startswith("--stop-after="):
        logging.getLogger("mnist_jax").addHandler(Killer(sys.argv.pop(1).partition("=")[2]))
    command.run_as_program(train.main)
