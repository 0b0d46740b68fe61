"""`scripts/serve PATH`: serves a model repository, or a run, over HTTP and gRPC."""

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from mnist_jax.command import Parser, run, run_as_program
from mnist_jax.errors import UserError
from mnist_jax.serve import rest, rpc
from mnist_jax.serve.connections import BoundedProtocol
from mnist_jax.serve.models import Models
from mnist_jax.serve.sources import Run, find_source

LOGGER = logging.getLogger("mnist_jax.serve")

POLL_S = 1.0
DRAIN_S = 20  # that requests have to end when the server is told to stop
BACKLOG = 1024  # connections that the kernel keeps until they are taken up


def make_parser() -> Parser:
    """Returns the command line's parser."""
    parser = Parser("scripts/serve", __doc__)
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
    return parser


def serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; returns 0 once every request that had begun is answered."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.raiseExceptions = False  # a log that nobody reads any more must not stop the server
    LOGGER.setLevel(logging.INFO)
    source = find_source(options.path)
    if isinstance(source, Run) and not source.is_released:
        LOGGER.warning("the criteria refused this run: its model is served for a look only")
    models = Models(source, options.micro_batch)
    models.refresh()
    if not any(version["state"] == "READY" for version in models.index()):
        reasons = "; ".join(version["reason"] for version in models.index())
        raise UserError(f"{options.path} has no version that can be served: {reasons}")
    _bind(options.host, options.grpc_port, "--grpc-port").close()  # grpc says it in many lines
    with _bind(options.host, options.port, "--port") as listener:
        # uvicorn raises the signal that stopped it once more when all is done.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(
            rest.make_app(models),
            http=BoundedProtocol,
            ws="none",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_S,
        )
        server = uvicorn.Server(config)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(options, models, server, listener))
    models.close()
    return 0


async def _serve(
    options: argparse.Namespace, models: Models, server: uvicorn.Server, listener: socket.socket
) -> None:
    grpc_server, grpc_port = rpc.make_server(models, options.host, options.grpc_port)
    await grpc_server.start()
    listener.listen(BACKLOG)  # before it is said: from here on the kernel keeps who comes early
    host = f"[{options.host}]" if ":" in options.host else options.host
    LOGGER.info(
        "serving %s at http://%s:%d, gRPC at %s:%d; Ctrl-C stops",
        *(", ".join(models.current), host, listener.getsockname()[1], host, grpc_port),
    )
    watch = asyncio.create_task(_watch(models))
    await server.serve(sockets=[listener])
    watch.cancel()
    await grpc_server.stop(DRAIN_S)
    LOGGER.info("stopped")


async def _watch(models: Models) -> None:
    """Looks for new versions and champions for as long as the server runs."""
    said = ""
    while True:
        await asyncio.sleep(POLL_S)
        try:
            await asyncio.to_thread(models.refresh)
            said = ""
        except Exception as error:  # a repository out of reach must not end what is served
            if str(error) != said:
                said = str(error)
                LOGGER.warning("%s; serving goes on as before", error)


def _bind(host: str, port: int, flag: str) -> socket.socket:
    """Returns a socket on which nothing listens yet.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on port {port} of {host}: {error.strerror}; give another {flag}"
        ) from error
    return listener


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{number} is no port; it must be 0 to 65535")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; it must be 1 or more")
    return number


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the server was told to stop, 2 on a mistake."""
    return run(make_parser(), arguments, serve)


if __name__ == "__main__":
    run_as_program(main)
