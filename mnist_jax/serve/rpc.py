"""The Open Inference Protocol over gRPC: the same models, refusals and limits as over HTTP."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from mnist_jax.errors import UserError
from mnist_jax.serve import metrics, protocol
from mnist_jax.serve.models import Models
from mnist_jax.serve.protocol import MAX_BODY_BYTES, RefusedError, messages
from mnist_jax.serve.rest import SERVER

LOGGER = logging.getLogger("mnist_jax.serve")

SERVICE = "inference.GRPCInferenceService"
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.so_reuseport", 0),  # or a second server would silently share the port
)
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def make_server(models: Models, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """Returns a server that is bound but not started, and its port.

    Raises:
        UserError: the port cannot be had.
    """
    server = grpc.aio.server(options=OPTIONS)
    calls = _Calls(models)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(getattr(messages, f"{name}Request"), getattr(calls, name)),
            response_serializer=_serialize,
        )
        for name in (
            *("ServerLive", "ServerReady", "ServerMetadata"),
            *("ModelReady", "ModelMetadata", "ModelInfer", "RepositoryIndex"),
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = f"[{host}]" if ":" in host else host
    try:
        return server, server.add_insecure_port(f"{address}:{port}")
    except RuntimeError as error:
        raise UserError(
            f"port {port} of {host} cannot be had for gRPC; give another --grpc-port"
        ) from error


class _Calls:
    """The service's methods, named as the protocol names them."""

    # ruff: noqa: N802

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ServerLive(self, request: Any) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any) -> Message:
        return messages.ServerReadyResponse(ready=self._models.is_ready())

    async def ServerMetadata(self, request: Any) -> Message:
        return messages.ServerMetadataResponse(**SERVER)

    async def ModelReady(self, request: Any) -> Message:
        self._models.find(request.name, request.version or None)
        return messages.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any) -> Message:
        facts = self._models.describe(request.name, request.version or None)
        del facts["parameters"]  # the message has no place for them
        return messages.ModelMetadataResponse(**facts)

    async def RepositoryIndex(self, request: Any) -> Message:
        return messages.RepositoryIndexResponse(models=self._models.index())

    async def ModelInfer(self, request: Any) -> Message:
        number, loaded, batcher = self._models.find(
            request.model_name, request.model_version or None
        )
        asked = protocol.parse_grpc(request)
        scores = await batcher.score(protocol.read_images(asked, loaded.side))
        return protocol.write_grpc(asked, request.model_name, number, scores)


def _serialize(answer: Message) -> bytes:
    return answer.SerializeToString()


def _guarded(
    kind: type[Message], call: Callable[[Any], Awaitable[Message]]
) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[Message]]:
    """Returns a handler that reads the message itself, so that a broken one is the client's fault.

    Left to grpc, bytes that are no message come back as INTERNAL, as if the server had failed.
    """
    protocol_name = "grpc" if kind is messages.ModelInferRequest else "other"

    async def handle(content: bytes, context: grpc.aio.ServicerContext) -> Message:
        start, problem, answer = time.perf_counter(), None, kind()
        try:
            answer = await call(kind.FromString(content))
        except DecodeError:
            problem = RefusedError(400, f"the bytes are no {kind.DESCRIPTOR.full_name}")
        except RefusedError as error:
            problem = error
        except Exception:
            LOGGER.exception("a gRPC call failed")
            problem = RefusedError(500, "the server failed; its log says how")
        status = problem.status if problem else 200
        metrics.count_request(protocol_name, status, time.perf_counter() - start)
        if problem:
            await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), str(problem))
        return answer

    return handle
