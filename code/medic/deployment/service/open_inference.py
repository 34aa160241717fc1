"""The Open Inference Protocol, version 2, on kserve's own classes: one model class from the laptop to a cluster."""

from __future__ import annotations

import base64
import binascii
import json
import struct
import uuid
from collections.abc import Callable

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput

from medic.deployment.bundle.predictor import INPUT
from medic.deployment.service.telemetry import count_answers
from medic.deployment.service.workers import WorkerAnswer, Workers
from medic.task import Prediction

FILES = "image"
"""The second way in: whole image files as BYTES, prepared by the service."""

MAX_IMAGES = 64
"""Images in one request."""

_JSON_LENGTH = "inference-header-content-length"

MAX_JSON_HEAD = 1 << 20
"""Bytes of the JSON part of a binary request."""


class BundleModel(Model):
    """A bundle as a kserve model, behind the protocol's endpoints over HTTP and gRPC.

    An answer holds probabilities. For whoever wants to decide as the model does, its ``parameters`` hold beside the
    ``notice`` the operating point, where the model has one: ``thresholds``, a JSON text of the same list as in
    ``manifest.json``, a number a class for multilabel tasks, one for the second of two classes. A class is called from
    its threshold on. The protocol allows no lists as parameters, and numbers with a fraction not over gRPC.

    Args:
        workers: what computes; they may exchange their bundle for another of the same task.
    """

    def __init__(self, workers: Workers):
        super().__init__(workers.manifest.task.name)
        self.workers = workers
        self.ready = True

    def get_input_types(self) -> list[dict]:
        """Prepared pixels, or image files; a request gives one of them."""
        return [*self.workers.manifest.values["inputs"], {"name": FILES, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict]:
        """As the graph's."""
        return self.workers.manifest.values["outputs"]

    async def predict(self, payload: InferRequest, headers: dict | None = None, response_headers: dict | None = None):
        """Answer one request.

        Raises:
            InvalidInput: its inputs are not what ``get_input_types`` says.
            ImageError: an image file of it cannot become pixels.
            Refused: it took too long.
        """
        manifest, prediction = await self._classify(payload)
        count_answers(prediction)
        outputs = {"probabilities": prediction.probabilities, "grade": prediction.grade}
        there = [_output(name, values) for name, values in outputs.items() if values is not None]
        # kserve leaves out what was not asked for over HTTP, but not over gRPC.
        asked = [output.name for output in payload.request_outputs or there]
        wanted = set(asked)
        if len(wanted) < len(asked):
            raise InvalidInput("an output is asked for twice")
        if unknown := wanted - {output.name for output in there}:
            raise InvalidInput(f"there is no output {min(unknown)!r}; see the model's metadata")
        return InferResponse(
            # Without an id of its own a request would make kserve's response invalid.
            response_id=payload.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=manifest.version,
            infer_outputs=[output for output in there if output.name in wanted],
            parameters={"notice": manifest.notice, **_operating_point(prediction)},
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )

    async def _classify(self, request: InferRequest) -> WorkerAnswer:
        if len(request.inputs) != 1 or request.inputs[0].name not in (INPUT, FILES):
            raise InvalidInput(f"give exactly one input, {INPUT!r} (prepared pixels) or {FILES!r} (image files)")
        given = request.inputs[0]
        if not 1 <= (count := given.shape[0] if given.shape else 0) <= MAX_IMAGES:
            raise InvalidInput(f"a request holds 1 to {MAX_IMAGES} images, this one says {count}")
        if given.name == FILES:
            return await self.workers.files(_files(given))
        return await self.workers.pixels(_pixels(given, self.workers.manifest.preprocessing.size))


def _operating_point(prediction: Prediction) -> dict[str, str]:
    return {} if prediction.thresholds is None else {"thresholds": json.dumps(prediction.thresholds)}


def _output(name: str, values: np.ndarray) -> InferOutput:
    return InferOutput(name, list(values.shape), "FP32", values)


def _pixels(given: InferInput, size: int) -> np.ndarray:
    expected = [given.shape[0], size, size, 3]
    if given.datatype != "UINT8" or list(given.shape) != expected:
        raise InvalidInput(
            f"input {INPUT!r} is UINT8 [N, {size}, {size}, 3], this one says {given.datatype!r:.40} {list(given.shape)}"
        )
    if isinstance(given.data, np.ndarray):
        values = given.data
    else:
        try:
            # As objects: of texts NumPy would make an array as wide as the longest, for each of them.
            values = np.asarray(given.data, dtype=object)
        except ValueError as error:
            raise InvalidInput(f"the data of {INPUT!r} is ragged; give rows of equal length") from error
        if not all(type(value) is int for value in values.flat):
            raise InvalidInput(f"the data of {INPUT!r} must be {np.prod(expected)} whole numbers")
        if not all(0 <= value <= 255 for value in values.flat):
            raise InvalidInput(f"the data of {INPUT!r} must lie in 0..255")
    if values.size != np.prod(expected):
        raise InvalidInput(f"the data of {INPUT!r} must be {np.prod(expected)} whole numbers, it is {values.size}")
    return values.astype(np.uint8).reshape(expected)


def _files(given: InferInput) -> list[bytes]:
    items = [] if given.data is None or isinstance(given.data, str) else list(given.data)
    if given.datatype != "BYTES" or len(given.shape) != 1 or len(items) != given.shape[0]:
        raise InvalidInput(
            f"input {FILES!r} is BYTES [N] with N elements, this one says {given.datatype!r:.40} {list(given.shape)} "
            f"and holds {len(items)}"
        )
    try:
        return [item if isinstance(item, bytes) else base64.b64decode(item, validate=True) for item in items]
    except (binascii.Error, TypeError, ValueError) as error:
        raise InvalidInput(f"in JSON the data of {FILES!r} is base64; send that, or the binary form") from error


class BinaryDataPlane(DataPlane):
    """kserve's data plane, with a decoder of binary requests that keeps arrays as arrays.

    The stock one turns each byte into a Python number, refuses BYTES that are no text, and answers a malformed request
    with 500.

    Args:
        models: the one model.
        is_ready: whether the service takes requests now.
    """

    def __init__(self, models: ModelRepository, is_ready: Callable[[], bool]):
        super().__init__(models)
        self._is_ready = is_ready

    async def ready(self) -> bool:
        """Whether there is a worker, and the service is not about to end."""
        return self._is_ready()

    def decode_inference_request(self, body: bytes, headers: dict, model_name: str) -> InferRequest:
        """A request as JSON, or as JSON with binary tensors behind it, as the protocol's extension for them says."""
        try:
            length = int(headers.get(_JSON_LENGTH, len(body)))
            most = MAX_JSON_HEAD if _JSON_LENGTH in headers else len(body)
            if not 0 < length <= min(len(body), most):
                raise ValueError(f"its JSON should have 1 to {most:,} bytes and has {length:,}")
            return _read(json.loads(body[:length]), body[length:], model_name)
        except KeyError as error:
            raise InvalidInput(f"the request lacks {error}; see the Open Inference Protocol, version 2") from error
        except (ValueError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise InvalidInput(f"the request is malformed ({error})") from error

    def encode(self, model_name: str, response: InferResponse, headers: dict, req_attributes: dict):
        """The response as it is; cloud events are not spoken here."""
        return super().encode(model_name, response, {}, req_attributes)


def _read(request: dict, binary: bytes, model_name: str) -> InferRequest:
    if not isinstance(request["inputs"], list) or len(request["inputs"]) != 1:
        raise ValueError(f"give exactly one input, {INPUT!r} (prepared pixels) or {FILES!r} (image files)")
    entry = request["inputs"][0]
    size = _mapping(entry.get("parameters")).get("binary_data_size")
    if size is None:
        data, size = entry["data"], 0
        if not isinstance(data, list):
            raise ValueError("the data is no list")
    elif not isinstance(size, int) or not 0 <= size <= len(binary):
        raise ValueError(f"binary_data_size is {size!r:.40}, {len(binary)} bytes are there")
    else:
        data = elements(entry["datatype"], binary[:size])
    if size != len(binary):
        raise ValueError(f"{len(binary) - size} bytes belong to no input")
    given = InferInput(_text(entry["name"]), _shape(entry["shape"]), _text(entry["datatype"]), data)
    outputs = request.get("outputs")
    if outputs is not None and not isinstance(outputs, list):
        raise ValueError("the outputs are no list")
    wanted = [RequestedOutput(_text(entry["name"]), _mapping(entry.get("parameters"))) for entry in outputs or []]
    return InferRequest(
        model_name,
        [given],
        request_id=None if request.get("id") is None else _text(request["id"]),
        parameters=_mapping(request.get("parameters")),
        request_outputs=wanted or None,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    value.encode()  # half of a surrogate pair could not be sent back
    return value


def _mapping(value: object) -> dict:
    if value is not None and not isinstance(value, dict):
        raise ValueError("parameters are no mapping")
    return value or {}


def _shape(values: list) -> list[int]:
    if not isinstance(values, list) or len(values) > 4 or not all(type(value) is int for value in values):
        raise ValueError("the shape is no list of up to four whole numbers")
    return values


def elements(datatype: str, binary: bytes) -> np.ndarray | list[bytes]:
    """The content of a tensor in the protocol's binary form: UINT8 as an array, BYTES as a list.

    Raises:
        ValueError: another datatype, or lengths that do not fit.
    """
    if datatype == "UINT8":
        return np.frombuffer(binary, np.uint8)
    if datatype != "BYTES":
        raise ValueError(f"datatype {datatype!r:.40} is neither UINT8 nor BYTES")
    elements, start = [], 0
    while start < len(binary):
        if len(elements) == MAX_IMAGES:
            raise ValueError(f"a request holds up to {MAX_IMAGES} images")
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if start + length > len(binary):
            raise ValueError("a BYTES element is longer than what was sent")
        elements.append(binary[start : start + length])
        start += length
    return elements
