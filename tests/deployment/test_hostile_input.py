"""Mutated images, protocol bodies and headers by the thousand: refused or answered, never a failure or a crash.

The short form is part of ``make test``; ``make soak`` sends 10,000.
"""

import io
import json
import secrets
import struct
from collections.abc import Callable

import cv2
import grpc
import httpx
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from PIL import Image

from medic.sample.chest_set import dicom

pytestmark = pytest.mark.servers
INFER = "/v2/models/retinopathy/infer"
SHORT, LONG = 60, 2500
"""Requests of each of the four kinds."""


@pytest.fixture(scope="module")
def originals(photographs) -> list[bytes]:
    """One small image of each kind that is read, and of a few that are not."""
    pixels = cv2.imdecode(np.frombuffer(photographs[3], np.uint8), cv2.IMREAD_COLOR)
    saved = []
    for kind in ("PNG", "BMP", "TIFF", "GIF", "WEBP"):
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, kind)
        saved.append(written.getvalue())
    person = {"id": "1", "age": "050Y", "sex": "F", "view": "PA"}
    return [photographs[3], *saved, dicom(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), person)]


places = st.sampled_from([32, 256, 4096, 1 << 20]).flatmap(lambda near: st.integers(0, near))
numbers = st.sampled_from([0, 1, 65535, 100_000, 0x7FFFFFFF, 0xFFFFFFFF])
parts = st.binary(max_size=64) | st.builds(struct.pack, st.sampled_from(["<I", ">I"]), numbers)
splices = st.tuples(places, st.integers(0, 64) | st.just(1 << 20), parts)
"""Where, how many bytes go, and what comes in their place; more often near a file's beginning."""


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the files with a few of its bytes changed, cut or filled in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for at, length, new in draw(st.lists(splices, min_size=1, max_size=6)):
        at %= len(data) + 1
        data[at : at + length] = new
    return bytes(data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["images", "image", "UINT8", "BYTES", "FP32", "dGV4dA==", 96, 1, -1, 27648]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict]:
    """A request of the Open Inference Protocol with some of its parts replaced by anything, and its headers."""
    entry = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8", "data": [7] * 27648, "parameters": {}}
    request = {"id": "a", "parameters": {}, "inputs": [entry], "outputs": [{"name": "probabilities"}]}
    for part in draw(st.lists(st.sampled_from([*entry]), max_size=2)):
        entry[part] = draw(json_values)
    for part in draw(st.lists(st.sampled_from([*request]), max_size=2)):
        request[part] = draw(json_values | st.lists(st.dictionaries(st.just("name"), json_values), max_size=3))
    body = json.dumps(request).encode()
    body = body if draw(st.booleans()) else body[: draw(st.integers(0, len(body)))] + draw(st.binary(max_size=8))
    length = len(body) + draw(st.integers(-2, 2))
    return body, draw(st.sampled_from([{}, {"inference-header-content-length": str(length)}]))


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
named = st.sampled_from(["content-type", "inference-header-content-length", "content-encoding", "authorization", "te"])
values = words | st.sampled_from(["multipart/form-data; boundary=x", "application/json", "gzip", "-1", "100-continue"])
paths = st.sampled_from(["/predict", "/explain", INFER, "/", "/card", "/v2/models/%00"]) | words.map("/{}".format)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
tensors = st.tuples(
    st.sampled_from(["images", "image", ""]),
    st.sampled_from(["UINT8", "BYTES", "FP32", "FP16", "BOOL", "X"]),
    st.lists(st.integers(-1, 2**40), max_size=4) | st.sampled_from([[1], [1, 96, 96, 3], [0]]),
    st.binary(max_size=64) | st.just(bytes(27648)),
)


def send(count: int, strategy: st.SearchStrategy, ask: Callable[..., int]) -> None:
    """Put so many cases to ``ask``, which gives the status; the same ones in the short form, others in the long."""

    @seed(1 if count == SHORT else secrets.randbits(64))
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def one(case):
        status = ask(*case)
        assert 200 <= status < 500, f"{status} for {case!r}"

    one()


@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)])
def test_hostile_input_is_refused_or_answered_and_ends_no_worker(bundle, serving, originals, photographs, count):
    def over_http(method: str, path: str, content: bytes, headers: dict) -> int:
        return client.request(method, path, content=content, headers=headers).status_code

    def over_grpc(name: str, datatype: str, shape: list[int], raw: bytes) -> int:
        tensor = ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
        request = ModelInferRequest(model_name="retinopathy", inputs=[tensor], raw_input_contents=[raw])
        try:
            stub.ModelInfer(request, timeout=60)
        except grpc.RpcError as error:
            return 400 if error.code() is grpc.StatusCode.INVALID_ARGUMENT else pytest.fail(f"{error} for {raw!r}")
        return 200

    image = mutated(originals)
    headers = st.dictionaries(named, values, max_size=4)
    with (
        serving(bundle, "--workers", "2", "--grpc-port", "0") as service,
        httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        grpc.channel_ready_future(channel).result(180)
        stub = GRPCInferenceServiceStub(channel)
        before = {child.pid for child in psutil.Process(service.process.pid).children()}
        send(count, st.tuples(image), lambda data: over_http("POST", "/predict", data, {}))
        send(count, bodies(), lambda body, given: over_http("POST", INFER, body, given))
        send(count, st.tuples(methods, paths, image, headers), over_http)
        send(count, tensors, over_grpc)
        assert {child.pid for child in psutil.Process(service.process.pid).children()} == before, "a worker ended"
        expected = bundle.predictor().predict(photographs[:1]).probabilities[0].tolist()
        answer = client.post("/predict", content=photographs[0]).json()
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
