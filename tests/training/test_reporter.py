"""The progress bar: on terminals of two widths, and none where there is no terminal."""

import io
import re

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mnist_jax.run.stopwatch import Phases
from mnist_jax.training.reporter import Reporter
from mnist_jax.training.step import Progress

ZERO = jnp.zeros(())
SEEN = Progress(
    loss_sum=jnp.float32(123.4),
    num_correct=jnp.int32(31_000),
    num_seen=jnp.int32(32_000),
    grad_norm=ZERO,
    param_norm=ZERO,
    update_norm=ZERO,
    first_bad_loss=jnp.int32(0),
    first_bad_gradient=jnp.int32(0),
)


def console(width, is_terminal=True):
    return Console(width=width, force_terminal=is_terminal, file=io.StringIO())


def said(by):
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", by.file.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_and_says_how_long_it_will_take(width):
    terminal = console(width)
    with Reporter(terminal, Phases(), label="seed 3, ") as reporter:
        reporter.begin(0, epochs=12, num_batches=938)
        reporter.steps(1, 500, SEEN, seconds=14.0)
    last = [line for line in said(terminal).replace("\r", "\n").splitlines() if "loss" in line][-1]
    assert len(last) <= width
    for shown in ("seed 3, epoch 1/12", "4 %", "accuracy 0.969 2,286/s --:-- left", "━━━"):
        assert shown in last


def test_there_is_no_bar_without_a_terminal():
    pipe = console(80, is_terminal=False)
    with Reporter(pipe, Phases()) as reporter:
        reporter.begin(0, epochs=12, num_batches=938)
        reporter.steps(1, 500, SEEN, seconds=14.0)
    assert pipe.file.getvalue() == ""


def test_tensorboard_does_without_pytorch():
    """Else each start of this program would load it, where it is installed."""
    from tensorboardX import writer  # after the reporter

    assert writer.numpy_compatible is np.ndarray
