"""The Open Inference Protocol, version 2, over HTTP and gRPC, on kserve's own classes.

Importing this takes seconds, because it imports kserve.
"""

import base64
import json
import re
import struct
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import grpc
import numpy as np
from fastapi import FastAPI, Request, Response
from grpc import StatusCode, aio
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest.v2_endpoints import V2Endpoints, register_v2_endpoints
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from medic.deployment.bundle.predictor import INPUT, REFERRAL
from medic.deployment.service.app import Service
from medic.deployment.service.middleware import HANDLERS, UPLOAD, WAITING, check_token, refusal
from medic.deployment.service.telemetry import REQUESTS, SECONDS
from medic.errors import MedicError

FILES = "image"
"""The second way in: whole image files as BYTES, prepared by the service."""

MAX_IMAGES = 64
"""Images in one request."""

ONE_MODEL = "this service has one model, and nobody loads or unloads it"

CODES = {401: StatusCode.UNAUTHENTICATED, 404: StatusCode.NOT_FOUND, 500: StatusCode.INTERNAL}
"""gRPC's code for a status of HTTP; INVALID_ARGUMENT for all others."""


def application(service: Service) -> Callable:
    """Return the protocol over HTTP, as an ASGI application: kserve's routes, for one model in one version."""
    app, plane = FastAPI(openapi_url=None, exception_handlers=HANDLERS), Plane(service)

    # Left to kserve's route, FastAPI would read the JSON itself and keep an error for each wrong element of it: a body
    # of 60 kB then takes 100 MB.
    @app.post("/v2/models/{model}/infer", response_model=None)
    async def infer(model: str, request: Request, response: Response) -> Any:
        return await V2Endpoints(plane).infer(request, response, model, await request.body())

    register_v2_endpoints(app, plane, None)

    async def route(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["path"].startswith("/v2/repository"):
            raise HTTPException(404, ONE_MODEL)
        if found := re.fullmatch("/v2/models/([^/]+)(?:/versions/([^/]+))?(/.*)?", scope["path"]):
            plane.check(found[1], found[2] or "")
            scope = {**scope, "path": f"/v2/models/{found[1]}{found[3] or ''}"}
        await app(scope, receive, send)

    return route


class BundleModel(Model):
    """A bundle as a kserve model, behind the protocol's endpoints over HTTP and gRPC.

    An answer holds probabilities and, where the bundle refers, ``set`` (BOOL [N, C]: the classes that are possible),
    ``refer`` (BOOL [N]) and ``why`` (BYTES [N]). Its ``parameters`` hold beside the ``notice`` the operating point,
    where the model has one: ``thresholds``, a JSON text of the same list as in ``manifest.json``. A class is called
    from its threshold on. The protocol allows no lists as parameters, and numbers with a fraction not over gRPC.
    """

    def __init__(self, service: Service):
        super().__init__(service.manifest.task.name)
        self.service, self.ready = service, True

    def get_input_types(self) -> list[dict]:
        """Return prepared pixels, or image files; a request gives one of them."""
        return [*self.service.manifest.values["inputs"], {"name": FILES, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict]:
        """Return the graph's outputs, and those of the referral rule where it has one."""
        outputs, classes = self.service.manifest.values["outputs"], len(self.service.manifest.task.classes)
        if REFERRAL not in self.service.predictor.session.get_modelmeta().custom_metadata_map:
            return outputs
        rule = {"set": ("BOOL", [-1, classes]), "refer": ("BOOL", [-1]), "why": ("BYTES", [-1])}
        return [*outputs, *({"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in rule.items())]

    async def predict(self, payload: InferRequest, headers: dict | None = None, response_headers: dict | None = None):
        """Answer one request.

        Raises:
            MedicError: its inputs are not what ``get_input_types`` says, or an image file cannot become pixels.
        """
        manifest = self.service.manifest
        prediction, answers = await self.service.predict(_images(payload, manifest.preprocessing.size))
        found = {"probabilities": prediction.probabilities, "grade": prediction.grade, "distance": prediction.distance}
        if "refer" in answers[0]:
            why = np.array([answer["why"].encode() for answer in answers], dtype=object)
            found |= {"set": prediction.sets, "refer": why != b"", "why": why}
        found = {name: values for name, values in found.items() if values is not None}
        # kserve leaves out what was not asked for over HTTP, but not over gRPC.
        asked = [output.name for output in payload.request_outputs or ()]
        if len(set(asked)) < len(asked) or not found.keys() >= set(asked):
            raise MedicError(f"outputs are asked for once each, out of {', '.join(found)}; see the model's metadata")
        outputs = []
        for name in asked or found:
            kind = {"float32": "FP32", "bool": "BOOL", "object": "BYTES"}[found[name].dtype.name]
            outputs.append(InferOutput(name, list(found[name].shape), kind))
            outputs[-1].set_data_from_numpy(found[name], binary_data=False)
        operating_point = {} if prediction.thresholds is None else {"thresholds": json.dumps(prediction.thresholds)}
        return InferResponse(
            # Without an id of its own a request would make kserve's response invalid.
            response_id=payload.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=manifest.version,
            infer_outputs=outputs,
            parameters={"notice": manifest.notice, **operating_point},
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


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


class Plane(DataPlane):
    """kserve's data plane for one model, with a decoder of binary requests that keeps arrays as arrays.

    The stock one turns each byte into a Python number, refuses BYTES that are no text, and answers a malformed request
    with 500.
    """

    def __init__(self, service: Service):
        models = ModelRepository()
        models.update(BundleModel(service))
        super().__init__(models)
        self._name, self._version = service.manifest.task.name, service.manifest.version

    def check(self, model: str, version: str) -> None:
        """Refuse any model but the bundle's, and any version but its own and 1, which clients send by default."""
        if model != self._name or version not in ("", "1", self._version):
            there = f"model {self._name} in version {self._version}"
            raise HTTPException(404, f"there is no model {model[:80]!r} in version {version[:40]!r}, but {there}")

    def metadata(self) -> dict:
        """Return the server's name, version and extensions of the protocol."""
        return {**super().metadata(), "name": "medic", "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str) -> dict:
        """Return the model's inputs, outputs and versions."""
        return {**await super().model_metadata(model_name), "platform": "onnx_onnxv1", "versions": [self._version]}

    def decode_inference_request(self, body: bytes, headers: dict, model_name: str) -> InferRequest:
        """Read a request as JSON, or as JSON with binary tensors behind it, as the protocol's extension says."""
        length = headers.get("inference-header-content-length", str(len(body)))
        length = int(length) if length.isdecimal() else -1
        if not 0 < length <= len(body):
            raise MedicError(f"the length of the request's JSON is not within its {len(body)} bytes; correct it")
        try:
            request = _Request.model_validate_json(body[:length])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its start"
            raise MedicError(f"the request is malformed at {where} ({first['msg']:.200})") from error
        [given], binary = request.inputs, body[length:]
        if (size := given.parameters.get("binary_data_size", 0)) != len(binary):
            raise MedicError(f"binary_data_size is {size!r:.40}, {len(binary)} bytes are there")
        return InferRequest(
            model_name,
            [InferInput(given.name, given.shape, given.datatype, given.data)],
            request_id=request.id,
            raw_inputs=[binary] if binary else None,
            parameters=request.parameters,
            request_outputs=[RequestedOutput(output.name, output.parameters) for output in request.outputs] or None,
        )

    def encode(self, model_name: str, response: InferResponse, headers: dict, req_attributes: dict):
        """Return the response as it is; cloud events are not spoken here."""
        return super().encode(model_name, response, {}, req_attributes)


async def open_grpc(service: Service) -> aio.Server | None:
    """Open a worker's gRPC port, which all workers share; None where none is asked for."""
    config, plane = service.config, Plane(service)
    if config.grpc is None:
        return None
    server = aio.server(
        interceptors=[_Interceptor(plane, config.token)],
        maximum_concurrent_rpcs=WAITING,
        options=[("grpc.max_receive_message_length", UPLOAD), ("grpc.so_reuseport", 1)],
    )
    add_GRPCInferenceServiceServicer_to_server(_Servicer(plane, None), server)
    if config.certificate is None:
        server.add_insecure_port(config.grpc)
    else:
        pair = ((config.key or config.certificate).read_bytes(), config.certificate.read_bytes())
        server.add_secure_port(config.grpc, grpc.ssl_server_credentials([pair]))
    await server.start()
    return server


class _Servicer(InferenceServicer):
    """kserve's servicer, with the model's versions."""

    async def ModelMetadata(self, request: Any, context: aio.ServicerContext) -> Any:
        return messages.ModelMetadataResponse(**await self._data_plane.model_metadata(request.name))


class _Interceptor(aio.ServerInterceptor):
    """Around every call: the token, the model and its version, metrics, and errors as a code and a sentence."""

    def __init__(self, plane: Plane, token: str | None):
        self._plane, self._token = plane, token

    async def intercept_service(self, continuation: Callable, details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call, with all that around it."""
        name = details.method.rpartition("/")[2]
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        if (handler := await continuation(details)) is None:
            return None

        async def answer(request: Any, context: aio.ServicerContext) -> Any:
            start, code = time.perf_counter(), StatusCode.OK
            try:
                if name not in ("ServerLive", "ServerReady"):
                    check_token(given, self._token)
                if name.startswith("Repository"):
                    raise HTTPException(404, ONE_MODEL)
                if name.startswith("Model"):
                    asked = ("model_name", "model_version") if name == "ModelInfer" else ("name", "version")
                    self._plane.check(*(getattr(request, field) for field in asked))
                return await handler.unary_unary(request, context)
            except Exception as error:
                told = MedicError(f"the request is malformed ({error})") if isinstance(error, InvalidInput) else error
                status, said = refusal(told)
                code = CODES.get(status, StatusCode.INVALID_ARGUMENT)
                # It may quote what was asked, and travels among the headers, which must not be long.
                await context.abort(code, said["error"][:1000])
            finally:
                REQUESTS.labels(f"grpc {name}", code.name).inc()
                SECONDS.labels(f"grpc {name}").observe(time.perf_counter() - start)

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)
