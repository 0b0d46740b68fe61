"""What a run says, on terminals of two widths and where there is none."""

import io
import logging
import re

import pytest
from rich.console import Console

from mnist_jax.run import log

LONG = (
    "time: 6.1 s to the first step (imports 2.4, data 0.2, export check 1.2, first step 2.3), "
    "11.3 s of training, 3.2 s to the verdict (evaluation 0.2, export 0.1, verification 2.2)"
)


def console(width, is_terminal=True):
    return Console(width=width, force_terminal=is_terminal, file=io.StringIO())


def said(by):
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", by.file.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_lines_break_between_words(width):
    terminal = console(width)
    with log.to_terminal(terminal):
        logging.getLogger("mnist_jax").info(LONG)
    lines = said(terminal).splitlines()
    assert len(lines) > 1 and all(len(line) <= width for line in lines)
    assert " ".join(lines).split() == LONG.split()


def test_without_a_terminal_a_line_stays_whole_and_has_no_colours():
    pipe = console(80, is_terminal=False)
    with log.to_terminal(pipe):
        logging.getLogger("mnist_jax").info(LONG)
        logging.getLogger("mnist_jax").warning("a warning")
    assert pipe.file.getvalue() == f"{LONG}\na warning\n"


class Listening(logging.Handler):
    """As of a program that calls this one; keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def emit(self, record):
        self.heard.append(record.getMessage())


@pytest.mark.parametrize(("level", "heard"), [("WARNING", ["b"]), ("INFO", ["a", "b"])])
def test_within_another_program_the_file_has_it_all_and_the_program_what_it_asks_for(
    level, heard, tmp_path, monkeypatch
):
    program = Listening()
    monkeypatch.setattr(logging.root, "handlers", [program])
    monkeypatch.setattr(log.LOGGER, "handlers", [])
    monkeypatch.setattr(log.LOGGER, "propagate", True)
    before = logging.root.level, log.LOGGER.level
    logging.root.setLevel(level)
    log.LOGGER.setLevel(logging.NOTSET)
    try:
        with log.to_file(tmp_path / "x.log"):
            log.LOGGER.info("a")
            log.LOGGER.warning("b")
        assert (log.LOGGER.level, log.LOGGER.propagate) == (logging.NOTSET, True)
    finally:
        logging.root.setLevel(before[0])
        log.LOGGER.setLevel(before[1])
    assert program.heard == heard
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert [line.split()[2:] for line in lines] == [["INFO", "a"], ["WARNING", "b"]]
