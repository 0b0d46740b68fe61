"""What commands share: terminal, surroundings, one line for a mistake, and the exit status."""

import argparse
import io
import os
import re
import select
import shutil
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mnist_jax.errors import StoppedError, Terminated, UserError, first_line

PACKAGE = Path(__file__).parent
# Settings of libraries that are this program's own, whatever a shell or a notebook has exported.
# The text of a notebook's MPLBACKEND stops the import of matplotlib, which draws to files here.
SETTINGS = {
    "MPLBACKEND": "agg",
    "JAX_NUMPY_DTYPE_PROMOTION": "standard",
    "JAX_NUMPY_RANK_PROMOTION": "allow",
    "JOBLIB_MULTIPROCESSING": "0",  # scikit-learn's pool, not used here, warns without /dev/shm
}
# How the variables begin that can change what is imported, or stop it.
PREFIXES = ("JAX_", "XLA_", "MPL", "PYTHONPATH", "PROTOCOL_BUFFERS_", "NPY_", "TFDS_", "LD_")


INSTALLED = "mnist-jax"  # the command of an installed package, and the package for pip
_SCRIPTS = r"(?<![\w./~-])scripts/"  # of this program, not in some path


def as_called(text: str) -> str:
    """Returns a text with each `scripts/NAME` as it can be called here: so, or `mnist-jax NAME`."""
    if not _is_installed():
        return text
    text = re.sub(rf"{_SCRIPTS}install ([a-z]+)", _install(r"\1"), text)
    return re.sub(rf"{_SCRIPTS}(?=[a-z])", f"{INSTALLED} ", text)


def _is_installed() -> bool:
    """Returns whether this is the command of an installed package, which has no `scripts/`."""
    return Path(sys.argv[0]).name == INSTALLED or not (PACKAGE.parent / "scripts").is_dir()


def _install(extras: str) -> str:
    """Returns how an installed package gets its extras, from any folder."""
    return f"pip install '{INSTALLED}[{extras}]'"


def about(docstring: str | None) -> str:
    """Returns what a command does: its module's docstring without the command itself."""
    command, separator, rest = (docstring or "").partition("`: ")
    return rest[:1].upper() + rest[1:] if separator and "\n" not in command else docstring or ""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, and takes no abbreviations."""

    def __init__(self, program: str, description: str | None) -> None:
        super().__init__(as_called(program), description=about(description), allow_abbrev=False)

    def format_help(self) -> str:
        """Returns what `--help` prints, with other commands as they can be called here."""
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong as a mistake of the user's, in place of leaving the program."""
        raise UserError(f"{message}; see {self.prog} --help")


def run(parser: Parser, arguments: Sequence[str], act: Callable[[argparse.Namespace], int]) -> int:
    """Parses and acts; returns the exit status.

    `~` and `$VARIABLE` are expanded in every argument of type Path.
    """

    def parse_and_act() -> int:
        options = parser.parse_args(arguments)
        for name, value in vars(options).items():
            setattr(options, name, _expanded(value))
        return act(options)

    return status_of(parse_and_act)


def status_of(act: Callable[[], int]) -> int:
    """Returns what `act` returns; 2 on a mistake, 130 or 143 where a signal stopped it.

    What is wrong is printed on one line of standard error.
    """
    try:
        return act()
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except StoppedError as error:
        _say(str(error))
        return error.status
    except KeyboardInterrupt as error:
        print("interrupted; the same command begins again", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130


def _say(line: str) -> None:
    """Prints on standard error: a line, which on a terminal breaks between words."""
    line = as_called(line)
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns
        line = textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)


def expand(path: str) -> str:
    """Returns a path with `~`, `~user` and `$VARIABLE` replaced; a variable that is not set stays.

    A path that leads to something as it is given stays: a shell has expanded it already.

    Raises:
        UserError: there is no such user.
    """
    return path if os.path.lexists(path) else expand_home(os.path.expandvars(path))


def expand_home(path: str, name: str = "the path") -> str:
    """Returns a path from a person with `~` and `~user` written out.

    Raises:
        UserError: there is no such user; a folder of that name is `./~name`.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UserError(
            f"{name} is {path!r}, but there is no user of that name; "
            f"write the home folder out, or ./{path} for a folder here"
        )
    return expanded


def _expanded(value: Any) -> Any:
    """Expands what is a path, alone or in a list."""
    if isinstance(value, list):
        return [_expanded(entry) for entry in value]
    return Path(expand(str(value))) if isinstance(value, Path) else value


@contextmanager
def loading() -> Iterator[None]:
    """Takes an import that fails, anywhere but in this package, for a mistake of the environment.

    Raises:
        UserError: in place of what a library raised.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        if _is_ours(error):
            raise
        known = sorted({name for name in os.environ if name.startswith(PREFIXES)} - set(SETTINGS))
        known = [name for name in known if name in str(error)] or known
        unset = f"unset {', '.join(known)} if that is not meant, or " if known else ""
        raise UserError(
            f"a library cannot be loaded ({first_line(error)}); {unset}{_remedy(error)}"
        ) from error


def _remedy(error: Exception) -> str:
    """Returns what to do about a library: pip has left the extras out, or .venv is broken."""
    if isinstance(error, ModuleNotFoundError) and _is_installed():
        return f"install the extras too: {_install('serve,import,publish')}"
    return "remove .venv, to have it installed again"


def _is_ours(error: Exception) -> bool:
    """Returns whether this package raised an error, or lacks what was to be imported from it."""
    if isinstance(error, ImportError):
        return (error.name or "").split(".")[0] == PACKAGE.name
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).is_relative_to(PACKAGE)


class _Outlet(io.FileIO):
    """Standard output or error. What cannot be written there any more is dropped, and ends nothing.

    The reader of a pipe has left, a terminal was closed, a disk is full.
    """

    def write(self, data: Any) -> int:
        """Writes `data`; returns the number of bytes that are done with."""
        try:
            while (count := super().write(data)) is None:  # it does not block, and is full
                select.select([], [self], [])
        except OSError:
            return len(data)
        return count


def settle_terminal() -> None:
    """Makes standard output and error bear everything, and lets no hang-up end the program.

    What a terminal's character set lacks is written escaped.
    """
    for number in (0, 1, 2):  # a file opened later must not take the place of a closed one
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)  # None: it was closed when Python started
        outlet = _Outlet(os.devnull if before is None else number, "w", closefd=before is None)
        stream = io.TextIOWrapper(
            io.BufferedWriter(outlet),
            encoding="utf-8" if before is None else before.encoding,
            errors="backslashreplace",
            line_buffering=before is None or before.line_buffering,
            write_through=before is not None and before.write_through,
        )
        setattr(sys, name, stream)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _terminate(*_: object) -> None:
    raise Terminated


def run_as_program(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs `main` on the command line and ends the process with its status.

    `main` alone can give status 1, which is for what was judged and refused. What nobody foresaw
    ends with status 3.
    """
    settle_terminal()
    os.environ.update(SETTINGS)
    if any(option.startswith("e") for option in sys.warnoptions):  # PYTHONWARNINGS=error
        warnings.simplefilter("default")  # a library's warning is shown, and ends nothing
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = status_of(lambda: main(sys.argv[1:]))
    except SystemExit as stop:  # of argparse's --help, or of a library that gives up
        status = 0 if stop.code in (None, 0) else 3
    except BaseException:
        traceback.print_exc()
        status = 3
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: an orderly exit waits for XLA's compiler threads, or crashes in them.
    os._exit(status)
