"""The Open Inference Protocol over gRPC: kserve's servicer behind the same token, limits and workers as over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import StatusCode, aio
from kserve import InferInput, InferRequest
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.infer_type import RequestedOutput

from medic.deployment.service.app import Service
from medic.deployment.service.guard import same_token
from medic.deployment.service.limits import Refused
from medic.deployment.service.open_inference import elements
from medic.deployment.service.telemetry import REJECTED, REQUESTS, SECONDS, UNDER_WAY
from medic.deployment.service.workers import Failed
from medic.errors import ImageError, MedicError

ROUTE = "grpc infer"
LONGEST = 1000
"""Characters of a sentence that are sent: it may quote what was asked, and travels among the headers."""
OPEN = ("/ServerLive", "/ServerReady")
"""Calls that need no token."""

LOG = logging.getLogger("medic")


@dataclass(frozen=True)
class Certificate:
    """A TLS certificate (its chain) and its private key, PEM."""

    chain: bytes
    key: bytes


async def start(service: Service, host: str, port: int, certificate: Certificate | None = None) -> aio.Server:
    """Open the gRPC port; ``service.grpc`` then holds its address.

    Args:
        service: what answers.
        host: an address of this machine.
        port: 0 takes any free one.
        certificate: for TLS; None speaks plain text.

    Raises:
        MedicError: the port cannot be used.
    """
    limits = service.limits
    servicer = _Servicer(service)
    server = aio.server(
        interceptors=[_TokenInterceptor(servicer)],
        # A message is whole in memory before it is looked at.
        maximum_concurrent_rpcs=max(limits.workers, limits.memory // limits.upload),
        options=[
            ("grpc.max_receive_message_length", limits.upload),
            ("grpc.max_metadata_size", 16 << 10),
            # Without this a second server would share the port, and get every other request.
            ("grpc.so_reuseport", 0),
        ],
    )
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if certificate is None:
            bound = server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials([(certificate.key, certificate.chain)])
            bound = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise MedicError(f"port {port} on {host} cannot be used for gRPC; choose another, or any with 0") from error
    await server.start()
    service.grpc = address.rpartition(":")[0] + f":{bound}"
    return server


class _TokenInterceptor(aio.ServerInterceptor):
    """Asks for the token, and lets a question in, before any of its message is read."""

    def __init__(self, servicer: _Servicer):
        self._servicer = servicer

    async def intercept_service(self, continuation: Callable, details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call: kserve's, ours for questions, or one that refuses."""
        token, handler = self._servicer.service.token, await continuation(details)
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        if token is not None and not details.method.endswith(OPEN) and not same_token(given, token):
            return grpc.stream_unary_rpc_method_handler(_refuse)
        if handler is None or not details.method.endswith("/ModelInfer"):
            return handler
        # The same on the wire as a single message, but read when we say so.
        return grpc.stream_unary_rpc_method_handler(
            self._servicer.infer, handler.request_deserializer, handler.response_serializer
        )


async def _refuse(_: AsyncIterator[bytes], context: aio.ServicerContext) -> bytes:
    return _refused(context, StatusCode.UNAUTHENTICATED, "this service asks for a token; see GET / over HTTP", b"")


def _refused(context: aio.ServicerContext, status: StatusCode, sentence: str, empty: Any) -> Any:
    """Refuse with a status and a sentence; ``empty`` is sent with them, and read by nobody.

    ``context.abort`` would raise an error that the call keeps, and that keeps in its traceback the call and the whole
    message, some megabytes, until Python next looks for circles among all its objects.
    """
    context.set_code(status)
    context.set_details(sentence[:LONGEST])
    return empty


class _Servicer(InferenceServicer):
    def __init__(self, service: Service):
        super().__init__(service.data_plane(), None)
        self.service = service

    async def ServerMetadata(self, request: Any, context: aio.ServicerContext) -> Any:
        return await self._answer(super().ServerMetadata(request, context), context, messages.ServerMetadataResponse())

    async def ModelReady(self, request: Any, context: aio.ServicerContext) -> Any:
        return await self._answer(super().ModelReady(request, context), context, messages.ModelReadyResponse())

    async def ModelMetadata(self, request: Any, context: aio.ServicerContext) -> Any:
        return await self._answer(super().ModelMetadata(request, context), context, messages.ModelMetadataResponse())

    async def RepositoryModelLoad(self, request: Any, context: aio.ServicerContext) -> Any:
        sentence = "this service has one model, and nobody loads another one"
        return _refused(context, StatusCode.UNIMPLEMENTED, sentence, messages.RepositoryModelLoadResponse())

    async def RepositoryModelUnload(self, request: Any, context: aio.ServicerContext) -> Any:
        sentence = "this service has one model, and nobody unloads it"
        return _refused(context, StatusCode.UNIMPLEMENTED, sentence, messages.RepositoryModelUnloadResponse())

    async def infer(self, messages_sent: AsyncIterator[Any], context: aio.ServicerContext) -> Any:
        """Answer one question, which is the only message of its stream."""
        start, size = time.perf_counter(), 0

        async def work() -> Any:
            nonlocal size
            with self.service.counter.enter(_client(context.peer())):
                # Closed, or the stream would keep its message in a circle as well.
                async with contextlib.aclosing(aiter(messages_sent)) as stream:
                    request = await asyncio.wait_for(anext(stream), self.service.limits.sending)
                size = request.ByteSize()
                self.service.counter.hold(size)
                try:
                    self.validate_grpc_request(request)
                    answer, _ = await self._data_plane.infer(
                        request=_read(request), headers={}, model_name=request.model_name
                    )
                finally:
                    self.service.counter.release(size)
                return answer.to_grpc()

        UNDER_WAY.inc()
        try:
            return await self._answer(work(), context, messages.ModelInferResponse())
        finally:
            UNDER_WAY.dec()
            seconds = time.perf_counter() - start
            status = StatusCode(context.code()).name if context.code() else "OK"
            REQUESTS.labels(ROUTE, status).inc()
            SECONDS.labels(ROUTE).observe(seconds)
            facts = {"route": ROUTE, "status": status, "milliseconds": round(1e3 * seconds, 1), "bytes": size}
            LOG.info("request", extra={"facts": facts})

    async def _answer(self, work: Awaitable[Any], context: aio.ServicerContext, empty: Any) -> Any:
        """The work's result; its errors as gRPC's status codes, with a sentence."""
        try:
            return await work
        except Exception as error:
            return _refused(context, *_refusal(error), empty)


def _refusal(error: Exception) -> tuple[StatusCode, str]:
    """Status and sentence for an error, which is counted or, where nobody foresaw it, logged."""
    match error:
        case ImageError():
            REJECTED.labels(error.reason).inc()
            return StatusCode.INVALID_ARGUMENT, str(error)
        case Refused():
            return StatusCode.RESOURCE_EXHAUSTED if error.status == 429 else StatusCode.UNAVAILABLE, str(error)
        case TimeoutError() | StopAsyncIteration():
            return StatusCode.DEADLINE_EXCEEDED, "the question did not come in time; send it again"
        case Failed():
            return StatusCode.INTERNAL, str(error)
        case ModelNotFound() | ModelNotReady():
            return StatusCode.NOT_FOUND, str(error)
        case InvalidInput() | MedicError() | ValueError() | TypeError() | AttributeError() | struct.error():
            REJECTED.labels("malformed").inc()
            return StatusCode.INVALID_ARGUMENT, f"the request is malformed ({error})"
    LOG.error("a gRPC request failed", exc_info=error)
    return StatusCode.INTERNAL, "the service failed; its log says more"


def _read(request: messages.ModelInferRequest) -> InferRequest:
    """The message as kserve's request. Raw contents stay arrays and bytes; kserve would read BYTES as text."""
    if not request.raw_input_contents:
        return InferRequest.from_grpc(request)
    inputs = [
        InferInput(entry.name, list(entry.shape), entry.datatype, elements(entry.datatype, raw))
        for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    outputs = [RequestedOutput(entry.name) for entry in request.outputs]
    return InferRequest(
        request.model_name,
        inputs,
        request_id=request.id,
        request_outputs=outputs or None,
    )


def _client(peer: str) -> str:
    """The address in gRPC's words for who asks, such as ``ipv4:127.0.0.1:51234``."""
    return peer.partition(":")[2].rpartition(":")[0].strip("[]")
