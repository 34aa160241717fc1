"""The Open Inference Protocol over gRPC: kserve's servicer behind the same token, limits and workers as over HTTP."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Awaitable
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

from medic.deployment.guard import same_token
from medic.deployment.limits import Refused
from medic.deployment.open_inference import elements
from medic.deployment.service import Service
from medic.deployment.telemetry import REJECTED, REQUESTS, SECONDS, UNDER_WAY
from medic.errors import ImageError, MedicError

ROUTE = "grpc infer"
LOG = logging.getLogger("medic")


@dataclass(frozen=True)
class Certificate:
    """A TLS certificate (its chain) and its private key, PEM."""

    chain: bytes
    key: bytes


async def start(service: Service, host: str, port: int, certificate: Certificate | None = None) -> aio.Server:
    """Open the gRPC door; ``service.grpc`` then holds its address.

    Args:
        service: what answers.
        host: an address of this machine.
        port: 0 takes any free one.
        certificate: for TLS; None speaks plain text.

    Raises:
        MedicError: the port cannot be used.
    """
    limits = service.limits
    server = aio.server(
        maximum_concurrent_rpcs=limits.workers + limits.waiting,
        options=[
            ("grpc.max_receive_message_length", limits.upload),
            ("grpc.max_metadata_size", 16 << 10),
            # Without this a second server would share the port, and get every other request.
            ("grpc.so_reuseport", 0),
        ],
    )
    add_GRPCInferenceServiceServicer_to_server(_Servicer(service), server)
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


class _Servicer(InferenceServicer):
    def __init__(self, service: Service):
        super().__init__(service.data_plane(), None)
        self._service = service

    async def ServerMetadata(self, request: Any, context: aio.ServicerContext) -> Any:
        return await self._answer(super().ServerMetadata(request, context), context)

    async def ModelReady(self, request: Any, context: aio.ServicerContext) -> Any:
        return await self._answer(super().ModelReady(request, context), context)

    async def ModelMetadata(self, request: Any, context: aio.ServicerContext) -> Any:
        return await self._answer(super().ModelMetadata(request, context), context)

    async def RepositoryModelLoad(self, request: Any, context: aio.ServicerContext) -> Any:
        await context.abort(StatusCode.UNIMPLEMENTED, "this service has one model, and nobody loads another one")

    async def RepositoryModelUnload(self, request: Any, context: aio.ServicerContext) -> Any:
        await context.abort(StatusCode.UNIMPLEMENTED, "this service has one model, and nobody unloads it")

    async def ModelInfer(self, request: Any, context: aio.ServicerContext) -> Any:
        start = time.perf_counter()
        UNDER_WAY.inc()
        try:
            return await self._answer(self._infer(request, context), context)
        finally:
            UNDER_WAY.dec()
            seconds = time.perf_counter() - start
            status = StatusCode(context.code()).name if context.code() else "OK"
            REQUESTS.labels(ROUTE, status).inc()
            SECONDS.labels(ROUTE).observe(seconds)
            facts = {"route": ROUTE, "status": status, "milliseconds": round(1e3 * seconds, 1)}
            LOG.info("request", extra={"facts": {**facts, "bytes": request.ByteSize()}})

    async def _infer(self, request: messages.ModelInferRequest, context: aio.ServicerContext) -> Any:
        size = request.ByteSize()
        with self._service.gate.enter(_client(context.peer())):
            self._service.gate.hold(size)
            try:
                self.validate_grpc_request(request)
                answer, _ = await self._data_plane.infer(
                    request=_read(request), headers={}, model_name=request.model_name
                )
            finally:
                self._service.gate.release(size)
            return answer.to_grpc()

    async def _answer(self, work: Awaitable[Any], context: aio.ServicerContext) -> Any:
        """The work's result, once the token is right; its errors as gRPC's status codes, with a sentence."""
        token = self._service.token
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if token is not None and not same_token(given, token):
            work.close()
            await context.abort(StatusCode.UNAUTHENTICATED, "this service asks for a token; see GET / over HTTP")
        try:
            return await work
        except ImageError as error:
            REJECTED.labels(error.reason).inc()
            await context.abort(StatusCode.INVALID_ARGUMENT, str(error))
        except Refused as error:
            await context.abort(
                StatusCode.RESOURCE_EXHAUSTED if error.status == 429 else StatusCode.UNAVAILABLE, str(error)
            )
        except (InvalidInput, ValueError, TypeError, AttributeError, struct.error) as error:
            REJECTED.labels("malformed").inc()
            await context.abort(StatusCode.INVALID_ARGUMENT, f"the request is malformed ({error})")
        except (ModelNotFound, ModelNotReady) as error:
            await context.abort(StatusCode.NOT_FOUND, str(error))
        except Exception as error:  # nobody foresaw it: the log has it, without the request's content
            LOG.error("a gRPC request failed", exc_info=error)
            await context.abort(StatusCode.INTERNAL, "the service failed; its log says more")


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
