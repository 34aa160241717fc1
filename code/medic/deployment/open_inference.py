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
from kserve.protocol.rest.v2_datamodels import InferenceRequest

from medic.deployment.predict import INPUT
from medic.deployment.telemetry import count_answers
from medic.deployment.workers import Answered, Workers
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
        wanted = {output.name for output in payload.request_outputs or there}
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

    async def _classify(self, request: InferRequest) -> Answered:
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
            f"input {INPUT!r} is UINT8 [N, {size}, {size}, 3], this one says {given.datatype} {list(given.shape)}"
        )
    try:
        values = np.asarray(given.data)
    except ValueError as error:
        raise InvalidInput(f"the data of {INPUT!r} is ragged; give rows of equal length") from error
    if values.size != np.prod(expected) or values.dtype.kind not in "iu":
        raise InvalidInput(f"the data of {INPUT!r} must be {np.prod(expected)} whole numbers, it is {values.size}")
    if values.min() < 0 or values.max() > 255:
        raise InvalidInput(f"the data of {INPUT!r} must lie in 0..255")
    return values.astype(np.uint8).reshape(expected)


def _files(given: InferInput) -> list[bytes]:
    if given.datatype != "BYTES" or len(given.shape) != 1 or len(given.data) != given.shape[0]:
        raise InvalidInput(
            f"input {FILES!r} is BYTES [N] with N elements, this one says {given.datatype} {list(given.shape)} and "
            f"holds {len(given.data)}"
        )
    try:
        return [item if isinstance(item, bytes) else base64.b64decode(item, validate=True) for item in given.data]
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

    def decode_inference_request(self, body: bytes | InferenceRequest, headers: dict, model_name: str) -> InferRequest:
        """JSON requests as kserve reads them; binary ones as the protocol's binary tensor extension says."""
        if isinstance(body, InferenceRequest):
            return InferRequest.from_inference_request(body, model_name)
        try:
            length = int(headers[_JSON_LENGTH])
            if not 0 < length <= min(len(body), MAX_JSON_HEAD):
                raise ValueError(f"{_JSON_LENGTH} is {length}, the body has {len(body)} bytes")
            return _from_binary(json.loads(body[:length]), body[length:], model_name)
        except KeyError as error:
            raise InvalidInput(f"the request lacks {error}; see the Open Inference Protocol, version 2") from error
        except (ValueError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise InvalidInput(f"the binary request is malformed ({error})") from error

    def encode(self, model_name: str, response: InferResponse, headers: dict, req_attributes: dict):
        """The response as it is; cloud events are not spoken here."""
        return super().encode(model_name, response, {}, req_attributes)


def _from_binary(request: dict, binary: bytes, model_name: str) -> InferRequest:
    inputs, start = [], 0
    for entry in request["inputs"]:
        size = (entry.get("parameters") or {}).get("binary_data_size")
        if size is None:
            data = entry["data"]
        elif not isinstance(size, int) or not 0 <= size <= len(binary) - start:
            raise ValueError(f"binary_data_size of {entry['name']!r} is {size!r}, {len(binary) - start} bytes are left")
        else:
            data, start = elements(entry["datatype"], binary[start : start + size]), start + size
        inputs.append(InferInput(entry["name"], _shape(entry["shape"]), entry["datatype"], data))
    if start != len(binary):
        raise ValueError(f"{len(binary) - start} bytes belong to no input")
    outputs = [RequestedOutput(entry["name"], entry.get("parameters")) for entry in request.get("outputs") or []]
    return InferRequest(
        model_name,
        inputs,
        request_id=request.get("id"),
        parameters=request.get("parameters"),
        request_outputs=outputs or None,
    )


def _shape(values: list) -> list[int]:
    if not all(isinstance(value, int) for value in values):
        raise ValueError(f"shape {values} is no list of whole numbers")
    return values


def elements(datatype: str, binary: bytes) -> np.ndarray | list[bytes]:
    """The content of a tensor in the protocol's binary form: UINT8 as an array, BYTES as a list.

    Raises:
        ValueError: another datatype, or lengths that do not fit.
    """
    if datatype == "UINT8":
        return np.frombuffer(binary, np.uint8)
    if datatype != "BYTES":
        raise ValueError(f"datatype {datatype!r} is neither UINT8 nor BYTES")
    elements, start = [], 0
    while start < len(binary):
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if start + length > len(binary):
            raise ValueError("a BYTES element is longer than what was sent")
        elements.append(binary[start : start + length])
        start += length
    return elements
