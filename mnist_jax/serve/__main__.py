"""`scripts/serve PATH`: serves a model repository, or a run, over HTTP and gRPC."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mnist_jax import command
from mnist_jax.serve.hosts import host_pattern


def make_parser() -> command.Parser:
    """Returns the command line's parser."""
    parser = command.Parser("scripts/serve", __doc__)
    parser.add_argument("path", type=Path, help="a model repository, or the folder of a run")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is all (%(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=8080, help="for HTTP; 0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--grpc-port", type=_port, default=8081, help="for gRPC; 0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--micro-batch",
        type=_positive,
        default=16,
        help="images of waiting requests that are scored together; 1: never (%(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        type=host_pattern,
        metavar="NAME",
        help="answer HTTP requests for this host too; may be repeated. A server on loopback "
        "answers to loopback names only, any other one to every name, unless this is given",
    )
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        type=_origin,
        metavar="ORIGIN",
        help="let pages of this origin ask, as https://app.example; * is all; may be repeated",
    )
    parser.add_argument("--access-log", action="store_true", help="log every request")
    return parser


def serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; returns 0 once every request that had begun is answered."""
    # Imported here, so that --help needs nothing of the extra `serve`.
    with command.loading():
        from mnist_jax.serve import server

    return server.serve(options)


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"https?://[^/\s]+", text):
        raise argparse.ArgumentTypeError(
            f"{text} is not an origin; give one as https://app.example"
        )
    return text


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{number} is not a port; it must be 0 to 65535")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; it must be 1 or more")
    return number


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the server was told to stop, 2 on a mistake."""
    return command.run(make_parser(), arguments, serve)


if __name__ == "__main__":
    command.run_as_program(main)
