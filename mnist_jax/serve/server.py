"""The server from its addresses to its end: both ways in, what it watches, how it stops."""

import argparse
import asyncio
import errno
import logging
import math
import resource
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn
from grpc_health.v1._async import HealthServicer

from mnist_jax.errors import UserError
from mnist_jax.serve import metrics, rest, rpc
from mnist_jax.serve.connections import MAX_CONNECTIONS, BoundedProtocol
from mnist_jax.serve.hosts import allowed_hosts
from mnist_jax.serve.models import Models
from mnist_jax.serve.reading import Reader
from mnist_jax.serve.sources import Run, find_source

LOGGER = logging.getLogger("mnist_jax.serve")

POLL_S = 1.0
TICK_S = 0.1  # uvicorn's
KEEP_ALIVE_S = 75  # for the next request on a connection
DRAIN_S = 6  # that requests have to end when the server is told to stop
CUT_S = 2  # that those have to end whose connection is cut then
BACKLOG = 1024  # connections that the kernel keeps until they are accepted
MAX_FILES = 4 * MAX_CONNECTIONS  # open at a time, gRPC's connections and the models among them


class _Server(uvicorn.Server):
    """Tells both ways in at once that the server stops."""

    def __init__(self, config: uvicorn.Config, models: Models) -> None:
        super().__init__(config)
        self._models, self.stopping = models, asyncio.Event()
        self._last_tick = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Is called for SIGTERM and Ctrl-C, in the main thread between two steps of its code."""
        self._models.is_stopping = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Is called ten times a second, or later where something holds up the event loop."""
        now = time.monotonic()
        metrics.LOOP_LAG.observe(max(0.0, now - self._last_tick - TICK_S))
        self._last_tick = now
        is_over = await super().on_tick(counter)
        if is_over:
            self.stopping.set()
        return is_over

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets requests end, and cuts off those that do not."""
        self.stopping.set()
        cut = asyncio.get_running_loop().call_later(DRAIN_S, self._cut)
        await super().shutdown(sockets)
        cut.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; returns 0 once every request that had begun is answered."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.raiseExceptions = False  # a log that nobody reads any more must not stop the server
    LOGGER.setLevel(logging.INFO)
    _allow_files()
    source = find_source(options.path)
    if isinstance(source, Run) and not source.is_released:
        LOGGER.warning("the criteria refused this run: its model is served for a look only")
    models, reader = Models(source, options.micro_batch), Reader()
    models.refresh()
    if not any(version["state"] == "READY" for version in models.index()):
        reasons = "; ".join(version["reason"] for version in models.index())
        raise UserError(f"{options.path} has no version that can be served: {reasons}")
    _bind(options.host, options.grpc_port, "--grpc-port").close()  # grpc says it in many lines
    with _bind(options.host, options.port, "--port") as listener:
        address = listener.getsockname()[0]
        hosts = allowed_hosts(address, options.host, options.allow_host)
        config = uvicorn.Config(
            rest.make_app(models, reader, hosts, options.cors),
            http=BoundedProtocol,
            ws="none",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            access_log=options.access_log,
            server_header=False,
            headers=list(rest.HEADERS.items()),
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S + CUT_S,
        )
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
        server = _Server(config, models)
        # Before uvicorn has its own, which do the same; it raises the signal again at the end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(options, models, reader, server, listener))
    models.close()
    return 0


async def _serve(
    options: argparse.Namespace,
    models: Models,
    reader: Reader,
    server: _Server,
    listener: socket.socket,
) -> None:
    grpc_server, grpc_port, health = rpc.make_server(
        models, reader, options.host, options.grpc_port, options.access_log
    )
    await grpc_server.start()
    await rpc.report_health(health, models)
    listener.listen(BACKLOG)  # before it is said: from here on the kernel keeps who comes early
    host = f"[{options.host}]" if ":" in options.host else options.host
    LOGGER.info(
        "serving %s at http://%s:%d, gRPC at %s:%d; Ctrl-C stops",
        ", ".join(models.current),
        host,
        listener.getsockname()[1],
        host,
        grpc_port,
    )
    watch = asyncio.create_task(_watch(models, health))
    rest_end = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait(
        (rest_end, asyncio.create_task(server.stopping.wait())), return_when="FIRST_COMPLETED"
    )
    watch.cancel()
    await health.enter_graceful_shutdown()
    await asyncio.gather(rest_end, grpc_server.stop(DRAIN_S))
    LOGGER.info("stopped")


def _allow_files() -> None:
    """Raises the limit on open files, which is 1024 in most shells, where this is permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _watch(models: Models, health: HealthServicer) -> None:
    """Looks for new versions and champions for as long as the server runs."""
    said = ""
    while True:
        await asyncio.sleep(POLL_S)
        try:
            await asyncio.to_thread(models.refresh)
            await rpc.report_health(health, models)
            said = ""
        except Exception as error:  # a repository out of reach must not end what is served
            if str(error) != said:
                said = str(error)
                LOGGER.warning("%s; serving continues as before", error)


def _bind(host: str, port: int, flag: str) -> socket.socket:
    """Returns a socket on which nothing listens yet.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"--host {host} is not an address of this machine ({error.strerror}); "
                "give one of its addresses, or 0.0.0.0 for all"
            ) from error
        raise UserError(
            f"cannot listen on port {port} of {host}: {error.strerror}; give another {flag}"
        ) from error
    return listener
