"""The Open Inference Protocol, version 2, over HTTP and gRPC, with kserve's types and messages.

Importing this takes seconds, because it imports kserve.
"""

import asyncio
import base64
import inspect
import json
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any

import grpc
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf.message import DecodeError
from grpc import StatusCode, aio
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.infer_type import RequestedOutput
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from medic.deployment.bundle.predictor import INPUT, referral_of
from medic.deployment.service.app import Service
from medic.deployment.service.middleware import BINARY, REQUESTS, SECONDS, UPLOAD, WAITING, check_token, refusal
from medic.errors import MedicError

FILES = "image"
"""The second way in: whole image files as BYTES, prepared by the service."""

MAX_IMAGES = 64
"""Images in one request."""

CODES = {401: StatusCode.UNAUTHENTICATED, 404: StatusCode.NOT_FOUND, 500: StatusCode.INTERNAL}
"""gRPC's code for a status of HTTP; INVALID_ARGUMENT for all others."""


class Protocol:
    """What the protocol asks of one model in one version.

    A request gives prepared pixels, or image files. An answer holds probabilities and, where the bundle refers, ``set``
    (BOOL [N, C]: the classes that are possible), ``refer`` (BOOL [N]) and ``why`` (BYTES [N]). Its ``parameters`` hold
    beside the ``notice`` the operating point, where the model has one: ``thresholds``, a JSON text of the same list as
    in ``manifest.json``. A class is called from its threshold on. The protocol allows no lists as parameters, and
    numbers with a fraction not over gRPC.
    """

    def __init__(self, service: Service):
        manifest, self.service = service.manifest, service
        rule = {"set": ("BOOL", [-1, len(manifest.task.classes)]), "refer": ("BOOL", [-1]), "why": ("BYTES", [-1])}
        if referral_of(service.predictor.session) is None:
            rule = {}
        ruled = [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in rule.items()]
        self.server = {"name": "medic", "version": version("medic"), "extensions": ["binary_tensor_data"]}
        self._model = {
            "name": manifest.task.name,
            "versions": [manifest.version],
            "platform": "onnx_onnxv1",
            "inputs": [*manifest.values["inputs"], {"name": FILES, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [*manifest.values["outputs"], *ruled],
        }

    def model(self, name: str, version: str) -> dict:
        """Return the metadata of the model; of no other, and of no version but its own and 1, the clients' default."""
        there, [own] = self._model["name"], self._model["versions"]
        if name != there or version not in ("", "1", own):
            missing = f"there is no model {name[:80]!r} in version {version[:40]!r}"
            raise HTTPException(404, f"{missing}, but model {there} in version {own}")
        return self._model

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer one request.

        Raises:
            MedicError: its inputs are not what the model's metadata say, or an image file cannot become pixels.
        """
        manifest = self.service.manifest
        images = _images(request, manifest.preprocessing.size)
        prediction, _ = await asyncio.to_thread(self.service.predict, images)
        found = {"probabilities": prediction.probabilities, "grade": prediction.grade, "distance": prediction.distance}
        if prediction.referral is not None:
            why = np.char.encode(prediction.why).astype(object)
            found |= {"set": prediction.sets, "refer": why != b"", "why": why}
        found = {name: values for name, values in found.items() if values is not None}
        # kserve leaves out what was not asked for over HTTP, but not over gRPC.
        asked = [output.name for output in request.request_outputs or ()]
        if len(set(asked)) < len(asked) or not found.keys() >= set(asked):
            raise MedicError(f"outputs are asked for once each, out of {', '.join(found)}; see the model's metadata")
        outputs = []
        for name in asked or found:
            kind = {"float32": "FP32", "bool": "BOOL", "object": "BYTES"}[found[name].dtype.name]
            outputs.append(InferOutput(name, list(found[name].shape), kind))
            outputs[-1].set_data_from_numpy(found[name], binary_data=False)
        operating_point = {} if prediction.thresholds is None else {"thresholds": json.dumps(prediction.thresholds)}
        return InferResponse(
            response_id=request.id or str(uuid.uuid4()),
            model_name=manifest.task.name,
            model_version=manifest.version,
            infer_outputs=outputs,
            parameters={"notice": manifest.notice, **operating_point},
            requested_outputs=request.request_outputs,
            use_binary_outputs=request.use_binary_outputs,
        )


def add_routes(app: FastAPI, protocol: Protocol) -> None:
    """Let an application answer the protocol over HTTP."""

    @app.get("/v2")
    async def server() -> dict:
        return protocol.server

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def metadata(name: str, version: str = "") -> dict:
        return protocol.model(name, version)

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def ready(name: str, version: str = "") -> dict:
        return {"name": protocol.model(name, version)["name"], "ready": True}

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str = "") -> Response:
        protocol.model(name, version)
        answer, length = (await protocol.infer(_read(await request.body(), request.headers, name))).to_rest()
        if length is None:
            return JSONResponse(answer)
        return Response(answer, headers={BINARY: str(length)}, media_type="application/octet-stream")


def _images(request: InferRequest, size: int) -> list[bytes] | np.ndarray:
    """Return the image files of a request, or its prepared pixels uint8 (N, size, size, 3)."""
    wanted = (
        f"give one input with 1 to {MAX_IMAGES} images: {INPUT!r}, UINT8 [N, {size}, {size}, 3] with whole numbers in "
        f"0..255, or {FILES!r}, BYTES [N], in JSON as base64"
    )
    try:
        [given] = request.inputs
        # As objects: of texts NumPy would make an array as wide as the longest, for each of them.
        values = given.as_numpy() if given._raw_data is not None else np.array(given.data, dtype=object)
        kind, count = (given.name, given.datatype, *given.shape[1:]), given.shape[0]
        if 1 <= count <= MAX_IMAGES and kind == (FILES, "BYTES") and values.size == count:
            # Some encoders wrap their lines.
            return [
                item if isinstance(item, bytes) else base64.b64decode("".join(item.split()), validate=True)
                for item in values.flat
            ]
        whole = values.dtype == np.uint8 or all(type(value) is int and 0 <= value <= 255 for value in values.flat)
        if 1 <= count <= MAX_IMAGES and kind == (INPUT, "UINT8", size, size, 3) and whole:
            return values.astype(np.uint8).reshape(count, size, size, 3)
    except (AttributeError, IndexError, TypeError, ValueError, struct.error, InvalidInput) as error:
        raise MedicError(f"{wanted} ({error!s:.200})") from error
    raise MedicError(wanted)


class _Output(BaseModel):
    name: str
    parameters: dict = {}


class _Input(_Output):
    datatype: str
    shape: Annotated[list[int], Field(max_length=4, strict=True)]
    data: Any = None


class _Request(BaseModel):
    id: str | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_Output], Field(max_length=16)] = []
    parameters: dict = {}


def _read(body: bytes, headers: Mapping[str, str], model: str) -> InferRequest:
    """Read a request as JSON, or as JSON with a binary tensor behind it, as the protocol's extension says.

    kserve's own reader makes a Python number of each byte, and refuses BYTES that are no text.
    """
    try:
        length = int(headers.get(BINARY, len(body)))
        request = _Request.model_validate_json(body[:length])
    except ValueError as error:
        first = error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else {}
        where, why = ".".join(map(str, first.get("loc", ()))) or "its start", first.get("msg", error)
        raise MedicError(f"the request is malformed at {where} ({why!s:.200})") from error
    [given], binary = request.inputs, body[length:]
    if (size := given.parameters.get("binary_data_size", 0)) != len(binary):
        raise MedicError(f"binary_data_size is {size!r:.40}, {len(binary)} bytes are there")
    return InferRequest(
        model,
        [InferInput(given.name, given.shape, given.datatype, given.data)],
        request_id=request.id,
        raw_inputs=[binary] if binary else None,
        parameters=request.parameters,
        request_outputs=[RequestedOutput(output.name, output.parameters) for output in request.outputs] or None,
    )


async def open_grpc(protocol: Protocol) -> aio.Server:
    """Open a worker's gRPC port, which all workers share."""

    async def infer(asked: messages.ModelInferRequest) -> messages.ModelInferResponse:
        protocol.model(asked.model_name, asked.model_version)
        InferenceServicer.validate_grpc_request(asked)
        return (await protocol.infer(InferRequest.from_grpc(asked))).to_grpc()

    calls = {
        "ServerLive": lambda _: messages.ServerLiveResponse(live=True),
        "ServerReady": lambda _: messages.ServerReadyResponse(ready=True),
        "ServerMetadata": lambda _: messages.ServerMetadataResponse(**protocol.server),
        "ModelReady": lambda asked: messages.ModelReadyResponse(ready=bool(protocol.model(asked.name, asked.version))),
        "ModelMetadata": lambda asked: messages.ModelMetadataResponse(**protocol.model(asked.name, asked.version)),
        "ModelInfer": infer,
    }
    config = protocol.service.config
    server = aio.server(
        maximum_concurrent_rpcs=WAITING,
        options=[("grpc.max_receive_message_length", UPLOAD), ("grpc.so_reuseport", 1)],
    )
    handlers = {name: _handler(name, call, config.token) for name, call in calls.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])
    if config.certificate is None:
        server.add_insecure_port(config.grpc)
    else:
        pair = ((config.key or config.certificate).read_bytes(), config.certificate.read_bytes())
        server.add_secure_port(config.grpc, grpc.ssl_server_credentials([pair]))
    await server.start()
    return server


def _handler(name: str, call: Callable, token: str | None) -> grpc.RpcMethodHandler:
    """Put token, metrics, and errors as a code and a sentence around a call."""

    async def answer(data: bytes, context: aio.ServicerContext) -> Any:
        start, code = time.perf_counter(), StatusCode.OK
        try:
            if name not in ("ServerLive", "ServerReady"):
                check_token(dict(context.invocation_metadata() or ()).get("authorization", ""), token)
            answered = call(read(data))
            return await answered if inspect.isawaitable(answered) else answered
        except Exception as error:
            malformed = isinstance(error, InvalidInput | DecodeError)
            status, said = refusal(MedicError(f"the request is malformed ({error})") if malformed else error)
            code = CODES.get(status, StatusCode.INVALID_ARGUMENT)
            # It may quote what was asked, and travels among the headers, which must not be long.
            await context.abort(code, said["error"][:1000])
        finally:
            REQUESTS.labels(f"grpc {name}", code.name).inc()
            SECONDS.labels(f"grpc {name}").observe(time.perf_counter() - start)

    read, write = getattr(messages, f"{name}Request").FromString, getattr(messages, f"{name}Response").SerializeToString
    return grpc.unary_unary_rpc_method_handler(answer, None, write)
