"""`scripts/predict RUN_OR_MODEL PATH...`: answers for pictures, one line of CSV each."""

import argparse
import csv
import io
import itertools
import os
import stat
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from mnist_jax import files
from mnist_jax.command import Parser, run, run_as_program
from mnist_jax.data.decoding import CHUNK, Decoders
from mnist_jax.data.pictures import to_grey
from mnist_jax.errors import UserError, first_line, printable
from mnist_jax.export.interface import INK, INPUT_NAME, OUTPUT_NAME, as_input
from mnist_jax.export.session import Session, open_session
from mnist_jax.serve import listed, prepared
from mnist_jax.serve.model_file import ModelFile, num_scores, read_model
from mnist_jax.serve.sources import find_model

Scores = Float32[np.ndarray, " classes"]


class Classifier(NamedTuple):
    """A loaded model."""

    session: Session
    model: ModelFile
    labels: tuple[str, ...]  # one a score


def make_parser() -> Parser:
    """Returns the command line's parser."""
    parser = Parser("scripts/predict", __doc__)
    parser.add_argument(
        "model",
        type=Path,
        metavar="RUN_OR_MODEL",
        help="a run, an .onnx file, a version in a repository (REPOSITORY/NAME/1), or a model "
        "(REPOSITORY/NAME, REPOSITORY), of which the champion answers",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a picture, a folder with pictures in it or below it, or -: paths on standard input",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the CSV goes, whole or not at all"
    )
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="the N best labels, N at most (%(default)s)"
    )
    parser.add_argument(
        "--as-is",
        action="store_true",
        help="take pictures as the published data set has them: no ink is looked for",
    )
    parser.add_argument(
        "--null", action="store_true", help="paths on standard input end in NUL, as of find -print0"
    )
    return parser


def predict(options: argparse.Namespace) -> int:
    """Answers for every picture; returns 0, or 2 where one could not be read.

    Raises:
        UserError: the model or an option is at fault, there are no pictures, or the answers cannot
            be written.
    """
    classifier = load(options.model)
    rule = _rule(classifier.model, options.as_is)
    if not 1 <= options.top <= len(classifier.labels):
        raise UserError(
            f"--top is {options.top}, but must be from 1 to {len(classifier.labels)}, "
            "the number of classes"
        )
    refused: list[str] = []  # the first alone: a million of them need no memory
    count = 0

    def refuse(path: str, reason: str) -> None:
        refused[:] = [path]
        print(f"{printable(path)}: {printable(reason)}", file=sys.stderr)

    end = b"\0" if options.null else b"\n"
    paths = listed.list_files(options.paths, end, refuse)
    with (
        _place(options.output) as table,
        closing(answers(classifier, paths, rule, refuse)) as found,
    ):
        table.write([_header(options.top)])
        for names, scores in found:
            count += len(names)
            rows = zip(names, scores, strict=True)
            table.write([[name, *_best(row, classifier.labels, options.top)] for name, row in rows])
        if not count and not refused:
            raise UserError(f"there are no pictures in {', '.join(options.paths)}; name some")
    if options.output is not None:
        print(f"{options.output}: {count:,} pictures")
    return 2 if refused else 0


def load(path: Path) -> Classifier:
    """Loads a model, every byte of which is what was verified or published.

    Args:
        path: see `make_parser`.

    Raises:
        UserError: it is none of these, damaged, or not a model of images.
    """
    version = find_model(path)
    if version.manifest.get("verdict") == "refused":
        print("the criteria refused this model: its answers are for a look only", file=sys.stderr)
    try:
        session = open_session(version.model, "all", num_threads=1)
    except Exception as error:  # ONNX Runtime has its own for each fault of a file
        raise UserError(
            f"{path} cannot be loaded ({first_line(error)}); export it again"
        ) from error
    model = read_model(session, path)
    count = num_scores(session, model)
    labels = version.labels or model.class_names or tuple(map(str, range(count)))
    if len(labels) != count:
        raise UserError(
            f"{path} gives {count} scores for {len(labels)} class names; export the run again"
        )
    return Classifier(session, model, labels)


def answers(
    classifier: Classifier, paths: Iterable[str], rule: str, refuse: listed.Refuse
) -> Generator[tuple[list[str], list[Scores]], None, None]:
    """Yields paths and their scores, some at a time, in order; holds a few chunks in memory.

    Pictures are decoded by a process for each core. Each is scored by itself, as many at a time as
    there are cores: ONNX Runtime rounds a batch of one and a batch of several differently, and so
    the answer does not depend on what else is asked.

    Args:
        classifier: the model.
        paths: of picture files.
        rule: how they become its images, see `prepared.prepare_file`.
        refuse: is told of each that cannot be read.
    """
    session, model = classifier.session, classifier.model
    asked: deque[list[str]] = deque()

    def chunks() -> Iterator[list[str]]:
        left = iter(paths)
        while chunk := list(itertools.islice(left, CHUNK)):
            asked.append(chunk)
            yield chunk

    def score(images: np.ndarray) -> list[Scores]:
        inputs = ({INPUT_NAME: image[None]} for image in images)
        return [np.asarray(session.run([OUTPUT_NAME], one)[0])[0] for one in inputs]

    num_cores = len(os.sched_getaffinity(0))
    prepare = f"{prepared.__name__}:{prepared.prepare_file.__name__}"
    with (
        ThreadPoolExecutor(num_cores) as threads,
        Decoders(prepare=prepare) as decoders,
    ):
        for seen, images in decoders.decode(chunks(), model.side, rule):
            names = []
            for name, (reason, *_) in zip(asked.popleft(), seen, strict=True):
                if reason is None:
                    names.append(name)
                else:
                    refuse(name, reason)
            shares = np.array_split(model_inputs(images, model.channels), num_cores)
            yield names, list(itertools.chain.from_iterable(threads.map(score, shares)))


def model_inputs(
    images: UInt8[np.ndarray, "n side side 3"], channels: int
) -> Float32[np.ndarray, "n channels side side"]:
    """Returns prepared pictures as a model takes them: levels 0 to 1, grey where it has one."""
    return as_input(to_grey(images) if channels == 1 else images)


def _rule(model: ModelFile, is_as_is: bool) -> str:
    if is_as_is and model.rule != INK:
        raise UserError(
            "--as-is is for models of published data sets, and this one prepares pictures by the "
            f"rule {model.rule}; leave --as-is out"
        )
    return prepared.AS_IS if is_as_is else model.rule


def _header(top: int) -> list[str]:
    more = ([f"label_{rank}", f"score_{rank}"] for rank in range(2, top + 1))
    return ["path", "label", "score", *itertools.chain.from_iterable(more)]


def _best(scores: Scores, labels: Sequence[str], top: int) -> list[str]:
    """The best labels, each with its score in the fewest digits that give it back to the bit."""
    best = np.argsort(-scores, kind="stable")[:top]
    return [str(cell) for index in best for cell in (labels[index], scores[index])]


class _Table:
    """CSV on its way to a file, each block at once."""

    def __init__(
        self, file: io.BufferedIOBase | io.RawIOBase, place: str, is_terminal: bool
    ) -> None:
        self._file, self._place, self._is_terminal = file, place, is_terminal

    def write(self, rows: Iterable[Sequence[str]]) -> None:
        """Writes rows; names as they are, byte for byte, but escaped where a person reads them."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            writer.writerow([printable(cell) for cell in row] if self._is_terminal else row)
        data = memoryview(text.getvalue().encode("utf-8", "surrogateescape"))
        try:
            while data:
                data = data[self._file.write(data) :]
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self._place}: {error.strerror}; give an --output with free space"
            ) from error


@contextmanager
def _place(output: Path | None) -> Iterator[_Table]:
    """Lends the table that goes to `output`, or to standard output."""
    if output is None:
        # Not sys.stdout, which bears the loss of its reader: here the answers are all there is.
        with open(1, "wb", buffering=0, closefd=False) as file:
            yield _Table(file, "standard output", os.isatty(1))
        return
    place = Path(os.path.realpath(output))
    try:
        is_other = not stat.S_ISREG(place.stat().st_mode)
    except OSError:  # it is not there, and `appearing` says what else is wrong
        is_other = False
    if is_other:
        raise UserError(f"--output {output} is not a regular file; name a file to write")
    with files.appearing(place) as file:
        yield _Table(file, str(output), False)


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where every picture was answered for, 2 where one was not, or on a mistake."""
    return run(make_parser(), arguments, predict)


if __name__ == "__main__":
    run_as_program(main)
