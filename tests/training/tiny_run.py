"""The pipeline, which may kill itself on the way; a program for test_processes.py.

python tiny_run.py [--stop-after=LINE] FLAG...: as scripts/train. With --stop-after the
process kills itself once the log says so.
"""

import logging
import os
import signal
import sys

from mnist_jax import command, train


class Killer(logging.Handler):
    """Kills the process once a line is logged."""

    def __init__(self, line: str) -> None:
        super().__init__(logging.INFO)
        self.line = line

    def emit(self, record: logging.LogRecord) -> None:
        if self.line in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1].startswith("--stop-after="):
        logging.getLogger("mnist_jax").addHandler(Killer(sys.argv.pop(1).partition("=")[2]))
    command.run_as_program(train.main)
