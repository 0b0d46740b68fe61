"""The Open Inference Protocol over gRPC: the same models and refusals as over HTTP.

Beside it stand gRPC's own health protocol, which Kubernetes' probes speak, and reflection.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from mnist_jax.errors import UserError
from mnist_jax.serve import answers, metrics, protocol
from mnist_jax.serve.models import Models
from mnist_jax.serve.protocol import RefusedError, messages
from mnist_jax.serve.reading import Reader
from mnist_jax.serve.rest import SERVER

LOGGER = logging.getLogger("mnist_jax.serve")

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
MAX_MESSAGE_BYTES = 1 << 20  # 128 images take 0.4 MB
MAX_CALLS = 512  # at a time: 512 MiB of messages
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # or a second server would silently share the port
)
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def make_server(
    models: Models, reader: Reader, host: str, port: int, is_logged: bool
) -> tuple[grpc.aio.Server, int, HealthServicer]:
    """Returns a server that is bound but not started, its port, and what says whether it is ready.

    Raises:
        UserError: the port cannot be had.
    """
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    calls = _Calls(models, reader)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(name, getattr(calls, name), reader, is_logged), response_serializer=_serialize
        )
        for name in (
            "ServerLive",
            "ServerReady",
            "ServerMetadata",
            "ModelReady",
            "ModelMetadata",
            "ModelInfer",
            "ModelStatistics",
            "RepositoryIndex",
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    address = f"[{host}]" if ":" in host else host
    try:
        return server, server.add_insecure_port(f"{address}:{port}"), health
    except RuntimeError as error:
        raise UserError(
            f"port {port} of {host} cannot be had for gRPC; give another --grpc-port"
        ) from error


async def report_health(health: HealthServicer, models: Models) -> None:
    """Says over gRPC's health protocol what `ServerReady` says."""
    statuses = health_pb2.HealthCheckResponse
    status = statuses.SERVING if models.is_ready() else statuses.NOT_SERVING
    for service in ("", SERVICE):
        await health.set(service, status)


def _make_properties_class() -> Any:
    """Returns the part of a `ModelMetadataResponse` that tritonclient's messages do not have.

    The protocol has `map<string, string> properties = 6`, which is a list of such pairs.
    """
    file = FileDescriptorProto(name="properties.proto", package="mnist_jax")
    pair, owner = file.message_type.add(name="Pair"), file.message_type.add(name="Properties")
    for number, name in enumerate(("key", "value"), 1):
        pair.field.add(name=name, number=number, type=FieldDescriptorProto.TYPE_STRING, label=1)
    pairs = owner.field.add(name="properties", number=6, type_name=".mnist_jax.Pair")
    pairs.type, pairs.label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_REPEATED
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("mnist_jax.Properties"))


_Properties = _make_properties_class()


class _Calls:
    """The service's methods, named as the protocol names them."""

    # ruff: noqa: N802

    def __init__(self, models: Models, reader: Reader) -> None:
        self._models, self._reader = models, reader

    async def ServerLive(self, request: Any) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any) -> Message:
        return messages.ServerReadyResponse(ready=self._models.is_ready())

    async def ServerMetadata(self, request: Any) -> Message:
        return messages.ServerMetadataResponse(**SERVER)

    async def ModelReady(self, request: Any) -> Message:
        try:
            self._models.find(request.name, request.version or None)
        except RefusedError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=not self._models.is_stopping)

    async def ModelMetadata(self, request: Any) -> Message:
        facts = self._models.describe(request.name, request.version or None)
        del facts["parameters"]  # which the properties say as well
        extra = _Properties()
        for key, value in facts.pop("properties").items():
            extra.properties.add(key=key, value=value)
        answer = messages.ModelMetadataResponse(**facts)
        answer.MergeFromString(extra.SerializeToString())
        return answer

    async def ModelStatistics(self, request: Any) -> Message:
        found = self._models.statistics(request.name or None, request.version or None)
        return messages.ModelStatisticsResponse(model_stats=found)

    async def RepositoryIndex(self, request: Any) -> Message:
        return messages.RepositoryIndexResponse(models=self._models.index())

    async def ModelInfer(self, request: Any) -> Message:
        number, loaded, batcher = self._models.find(
            request.model_name, request.model_version or None
        )
        asked, images = await self._reader.parse(
            request.ByteSize(), partial(_read, request, loaded.model.image_shape)
        )
        scores = await batcher.score(images)
        return answers.write_grpc(asked, request.model_name, number, scores)


def _read(message: Any, image_shape: protocol.Shape) -> tuple[protocol.Request, np.ndarray]:
    """Returns a request and its images."""
    asked = protocol.parse_grpc(message)
    return asked, protocol.read_images(asked, image_shape)


def _serialize(answer: Message) -> bytes:
    return answer.SerializeToString()


def _guarded(
    name: str, call: Callable[[Any], Awaitable[Message]], reader: Reader, is_logged: bool
) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[Message]]:
    """Returns a handler that reads the message itself, so that a broken one is the client's fault.

    Left to grpc, bytes that are not a message come back as INTERNAL, as if the server had failed.
    """
    kind = getattr(messages, f"{name}Request")
    way = "grpc" if name == "ModelInfer" else "other"

    async def handle(content: bytes, context: grpc.aio.ServicerContext) -> Message:
        start, status, problem, answer = time.perf_counter(), 200, "", kind()
        try:
            answer = await call(await reader.parse(len(content), partial(kind.FromString, content)))
        except DecodeError:
            status, problem = 400, f"the bytes are not a {kind.DESCRIPTOR.full_name}"
        except RefusedError as error:  # not kept: it holds this frame, and all that it refused
            status, problem = error.status, str(error)
        except Exception:
            LOGGER.exception("a gRPC call failed")
            status, problem = 500, "the server failed; its log says how"
        metrics.count_request(way, status, time.perf_counter() - start)
        if is_logged:
            LOGGER.info('%s - "gRPC %s" %d', context.peer(), name, status)
        if problem:
            await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), problem)
        return answer

    return handle
