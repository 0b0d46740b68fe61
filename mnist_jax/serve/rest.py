"""The Open Inference Protocol over HTTP, with the page, the metrics and the OpenAPI document."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import prometheus_client
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_jax.serve import answers, metrics, protocol
from mnist_jax.serve.hosts import make_rule
from mnist_jax.serve.models import Models
from mnist_jax.serve.protocol import MAX_BODY_BYTES, RefusedError
from mnist_jax.serve.reading import Reader

PAGE = Path(__file__).parent / "page"
OPENAPI = Path(__file__).parent / "openapi.json"
MAX_READ_BYTES = 16 * MAX_BODY_BYTES  # before a body that is too long is cut off
SERVER = {
    "name": "mnist_jax",
    "version": version("mnist-jax"),
    "extensions": ["binary_tensor_data", "model_repository", "statistics"],
}
HEADERS = {  # of every answer, refusals of the connection too
    # The page is complete in itself: a script or picture from elsewhere is an intruder.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def make_app(
    models: Models, reader: Reader, allowed_hosts: Sequence[str], origins: Sequence[str]
) -> ASGIApp:
    """Returns the application.

    Args:
        models: what it answers for.
        reader: of large requests.
        allowed_hosts: the names in `Host` that are answered; `*` is all.
        origins: of the other sites whose pages may ask; `*` is all.
    """
    v2 = _Endpoints(models, reader)
    model, any_version = "/v2/models/{name}", "/v2/models/{name}/versions/{number}"
    routes = [
        # Asked a thousand times as often as all others: first, since they are tried in turn.
        *(Route(f"{path}/infer", v2.infer, methods=["POST"]) for path in (model, any_version)),
        *(Route(path, v2.server) for path in ("/v2", "/v2/")),
        Route("/v2/health/live", v2.live),
        Route("/v2/health/ready", v2.ready),
        Route("/v2/repository/index", v2.index, methods=["POST"]),
        Route("/v2/models/stats", v2.statistics),  # first, or it would be a model's name
        *(Route(path, v2.model) for path in (model, any_version)),
        *(Route(f"{path}/ready", v2.model_ready) for path in (model, any_version)),
        *(Route(f"{path}/stats", v2.statistics) for path in (model, any_version)),
        Route("/metrics", _metrics),
        Route("/openapi.json", _file(OPENAPI)),
        *_page_routes(),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            RefusedError: _refuse,
            HTTPException: _refuse_by_status,
            Exception: _apologise,
        },
    )
    app.router.redirect_slashes = False
    finished = _count_answers(refuse_other_hosts(app, allowed_hosts))
    if origins:
        finished = CORSMiddleware(
            finished,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[protocol.HEADER_LENGTH],
        )
    return finished


class _Endpoints:
    """What the protocol asks for, each returning JSON."""

    def __init__(self, models: Models, reader: Reader) -> None:
        self._models, self._reader = models, reader

    async def server(self, request: Request) -> Response:
        return JSONResponse(SERVER)

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        is_ready = self._models.is_ready()
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 400)

    async def index(self, request: Request) -> Response:
        # The body may hold {"ready": true}, which no client here needs; a large one needs a place.
        headers = _headers(request)
        async with self._reader.place(_length(headers)):
            await _read_body(request, headers)
        return JSONResponse(self._models.index())

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._models.describe(*_asked(request)))

    async def statistics(self, request: Request) -> Response:
        name, number = request.path_params.get("name"), request.path_params.get("number")
        return JSONResponse({"model_stats": self._models.statistics(name, number)})

    async def model_ready(self, request: Request) -> Response:
        name, number = _asked(request)
        self._models.find(name, number)
        return JSONResponse({"name": name, "ready": True})

    async def infer(self, request: Request) -> Response:
        headers = _headers(request)
        async with self._reader.place(_length(headers)):
            body = await _read_body(request, headers)
            name, number = _asked(request)
            number, loaded, batcher = self._models.find(name, number)
            header_length = headers.get(protocol.HEADER_LENGTH.encode())
            asked, images = await self._reader.parse(
                len(body), partial(_read, body, header_length, loaded.model.image_shape)
            )
            del body
        scores = await batcher.score(images)
        answer, headers = answers.write_rest(asked, name, number, scores)
        return Response(answer, headers=headers)


def _read(
    body: bytes, header_length: bytes | None, image_shape: protocol.Shape
) -> tuple[protocol.Request, np.ndarray]:
    """Returns a request and its images."""
    length = None if header_length is None else header_length.decode("latin-1")
    asked = protocol.parse_rest(body, length, image_shape)
    return asked, protocol.read_images(asked, image_shape)


def _asked(request: Request) -> tuple[str, str | None]:
    """Returns the model and the version that a path names."""
    return request.path_params["name"], request.path_params.get("number")


def _headers(request: Request) -> Mapping[bytes, bytes]:
    """Returns a request's headers by name: quicker than Starlette's, which looks through them."""
    return dict(request.scope["headers"])


def _length(headers: Mapping[bytes, bytes]) -> int | None:
    """Returns a body's length where the client says it; uvicorn holds the client to it."""
    length = headers.get(b"content-length")
    if length is None:
        return None if b"transfer-encoding" in headers else 0
    return int(length[:18])


async def _read_body(request: Request, headers: Mapping[bytes, bytes]) -> bytes:
    """Returns a request's body; one that is too slow is the connection's to refuse.

    A body that is somewhat too long is read to its end: a client that is still sending would not
    see the answer.

    Raises:
        RefusedError: it is too long, or compressed.
    """
    if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        raise RefusedError(415, "the body is compressed; expected it as it is")
    too_long = RefusedError(413, f"the body is too long; expected at most {MAX_BODY_BYTES} bytes")
    length = headers.get(b"content-length", b"0")
    if len(length) > 18 or int(length) > MAX_READ_BYTES:
        raise too_long
    parts, size, is_more = [], 0, True
    while is_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the body ended early")  # nobody is there to read this
        size += len(message["body"])
        if size <= MAX_BODY_BYTES:
            parts.append(message["body"])
        elif size > MAX_READ_BYTES:
            raise too_long
        is_more = message["more_body"]
    if size > MAX_BODY_BYTES:
        raise too_long
    return b"".join(parts)


async def _metrics(request: Request) -> Response:
    return Response(
        prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
    )


def _page_routes() -> list[Route]:
    """Returns a route for each file of the page: no path of a request ever names one on disk."""
    files = {
        f"/{path.relative_to(PAGE).as_posix()}": path for path in PAGE.rglob("*") if path.is_file()
    }
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return [Route(url, _file(path)) for url, path in sorted(files.items())]


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return FileResponse(path)

    return answer


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {"retry-after": "1"} if error.status == 429 else {}
    if error.status in (408, 413, 415):
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": str(error)}, error.status, headers)


async def _refuse_by_status(request: Request, error: Exception) -> Response:
    """Answers for what Starlette refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _apologise(request: Request, error: Exception) -> Response:
    """Answers for a mistake of ours; Starlette raises it again, and the log has it whole."""
    return JSONResponse({"error": "the server failed; its log says how"}, 500)


def refuse_other_hosts(app: ASGIApp, allowed: Sequence[str]) -> ASGIApp:
    """Returns the application for requests to allowed names; others get 400."""
    is_allowed = make_rule(allowed)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if is_allowed(host.decode("latin-1")):
            await app(scope, receive, send)
            return
        error = (
            f"Host is {host[:100].decode('latin-1')!r}; expected one of {', '.join(allowed)}; "
            "start the server with --allow-host=NAME to have another answered"
        )
        await JSONResponse({"error": error}, 400)(scope, receive, send)

    return answer


def _count_answers(app: ASGIApp) -> ASGIApp:
    """Counts every answer."""

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_infer = scope["path"].endswith("/infer")
                seconds = time.perf_counter() - start
                metrics.count_request("rest" if is_infer else "other", message["status"], seconds)
            await send(message)

        await app(scope, receive, send_counted)

    return count
