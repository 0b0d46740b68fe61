"""The progress bar: on terminals of two widths, and lines where there is no terminal."""

import io
import logging
import re
import time

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


def test_without_a_terminal_there_is_a_line_a_minute_and_no_bar(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "mnist_jax")
    pipe, seconds = console(80, is_terminal=False), iter([0.0, 59.0, 60.0, 119.0, 120.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with Reporter(pipe, Phases(), label="seed 3, ") as reporter:
        reporter.begin(0, epochs=12, num_batches=938)
        for num_done in (400, 500, 600, 700):
            reporter.steps(2, num_done, SEEN, seconds=14.0)
    assert pipe.file.getvalue() == ""
    # 9,818 of 11,256 batches are left, at 500 in 14 s; then 9,618, at 700 in 14 s.
    assert caplog.messages == [
        "seed 3, epoch 2/12, 53 % of it: loss 0.004, accuracy 0.969; 2,286 images/s, 0:04:35 left",
        "seed 3, epoch 2/12, 75 % of it: loss 0.004, accuracy 0.969; 2,286 images/s, 0:03:12 left",
    ]


def test_tensorboard_does_without_pytorch():
    """Else each start of this program would load it, where it is installed."""
    from tensorboardX import writer  # after the reporter

    assert writer.numpy_compatible is np.ndarray
