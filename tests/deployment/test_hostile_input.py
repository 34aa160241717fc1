"""Mutated images, headers and protocol bodies by the thousand: refused or answered, never a failure or a crash.

The short form is part of ``make test``; ``make soak`` sends 12,000 and more.
"""

import io
import json
import secrets
import socket
import struct
import sys

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

from medic.deployment.targets import local
from medic.sample.chest_set import dicom

pytestmark = pytest.mark.servers
PERSON = {"id": "1", "age": "050Y", "sex": "F", "view": "PA"}
INFER = "/v2/models/retinopathy/infer"
SHORT, LONG = 250, 2400
"""Requests of each of the five kinds."""

MEGABYTES_MORE = 32
"""How much memory the processes together may have taken more after the second round of requests than after the first.
A leak of one small image a request would be over three times as much in the long form."""


@pytest.fixture(scope="module")
def originals(photographs) -> list[bytes]:
    """One small image of each kind that is read, and of a few that are not."""
    pixels = cv2.imdecode(np.frombuffer(photographs[3], np.uint8), cv2.IMREAD_COLOR)
    picture = Image.fromarray(pixels)
    saved = []
    for name, options in (
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("GIF", {}),
        ("WEBP", {}),
    ):
        written = io.BytesIO()
        picture.save(written, name, **options)
        saved.append(written.getvalue())
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    deep = cv2.imencode(".png", (grey.astype(np.uint16) << 4))[1].tobytes()
    return [photographs[3], *saved, deep, dicom(grey, PERSON)]


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the files with a few of its bytes changed, cut, doubled or replaced, more often near its beginning."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        near = min(len(data), draw(st.sampled_from([32, 256, 4096, len(data)])))
        at = draw(st.integers(0, max(0, near - 1)))
        what = draw(st.sampled_from(["flip", "set", "number", "cut", "insert", "double", "end"]))
        if what == "flip":
            data[at : at + 1] = bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) if data else b""
        elif what == "set":
            data[at : at + 1] = draw(st.sampled_from([b"\x00", b"\xff", b"\x7f", b"\x80"]))
        elif what == "number":
            value = draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 65535, 100_000]))
            data[at : at + 4] = struct.pack(draw(st.sampled_from(["<I", ">I"])), value)
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif what == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 512))]
        else:
            del data[at:]
    return bytes(data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["images", "image", "UINT8", "BYTES", "FP32", "retinopathy", "dGV4dA==", 96, 1, -1, 27648]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


PIXELS = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8", "data": [7] * 27648}
FILE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["dGV4dA=="]}


@st.composite
def protocol_bodies(draw: st.DrawFn) -> bytes:
    """A request of the Open Inference Protocol with some of its parts replaced by anything."""
    entry = draw(st.sampled_from([PIXELS, FILE, {**PIXELS, "data": [7] * 30}])).copy()
    request = {"id": "a", "parameters": {}, "inputs": [entry], "outputs": [{"name": "probabilities"}]}
    for part in draw(st.lists(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), max_size=2)):
        entry[part] = draw(json_values)
    for part in draw(st.lists(st.sampled_from(["id", "parameters", "inputs", "outputs"]), max_size=2)):
        request[part] = draw(json_values | st.lists(st.dictionaries(st.just("name"), json_values), max_size=3))
    body = json.dumps(request).encode()
    return body if draw(st.booleans()) else body[: draw(st.integers(0, len(body)))] + draw(st.binary(max_size=8))


header_values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
headers = st.dictionaries(
    st.sampled_from(
        [
            *("content-type", "accept", "inference-header-content-length", "content-encoding", "range", "origin"),
            *("authorization", "expect", "x-forwarded-for", "ce-id", "ce-source", "ce-type", "ce-specversion"),
            *("te", "if-none-match", "cookie", "user-agent", "content-disposition"),
        ]
    ),
    header_values
    | st.sampled_from(
        [
            *("multipart/form-data; boundary=x", "multipart/form-data", "application/json", "image/jpeg", "gzip"),
            *("application/octet-stream", "100-continue", "0", "-1", "999999999999", "chunked", "text/html", "1.0"),
            *("application/cloudevents+json", "multipart/form-data; boundary=" + "a" * 300, "charset=\x7f"),
        ]
    ),
    max_size=5,
)
paths = st.sampled_from(
    ["/predict", "/explain", INFER, "/", "/card", "/metrics", "/v2", "/v2/models", "/v2/models/%00", "/v2/health/ready"]
) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(lambda text: f"/{text.lstrip('/')}")


def send(count: int, strategy: st.SearchStrategy, ask, number: int | None) -> int:
    """Put so many cases to ``ask``, which gives the status; how many were asked. The same ones for the same number."""
    asked = 0

    @seed(secrets.randbits(64) if number is None else number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def one(case):
        nonlocal asked
        asked += 1
        status = ask(case)
        assert 200 <= status < 500, f"{status} for {case!r}"

    one()
    return asked


def raw_requests(host: str, port: int):
    """Sends bytes as they are, and gives the status of what comes back; a closed connection counts as refused."""

    def ask(data: bytes) -> int:
        with socket.create_connection((host, port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while b"\r\n" not in answer and (more := connection.recv(4096)):
                    answer += more
            except ConnectionResetError:
                return 400
        return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 400

    return ask


@st.composite
def raw_http(draw: st.DrawFn) -> bytes:
    """An HTTP request as bytes, broken in its lines, lengths and chunks."""
    lines = [
        draw(st.sampled_from(["POST /predict HTTP/1.1", "POST / HTTP/9.9", "GET / HTTP/1.0", "X", "POST  HTTP/1.1"])),
        "Host: me",
        *draw(st.lists(st.builds("{}: {}".format, header_values, header_values), max_size=3)),
        draw(
            st.sampled_from(
                [
                    *("Content-Length: 5", "Content-Length: -5", "Content-Length: 5, 7", "Transfer-Encoding: chunked"),
                    *("Transfer-Encoding: gzip, chunked", "Content-Length: 99999999999999999999", "Content-Length: 2"),
                ]
            )
        ),
    ]
    body = draw(st.sampled_from([b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"FFFFFFFF\r\nx", b"-1\r\n", b""]))
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body + draw(st.binary(max_size=8))


def fuzz(deployment: local.Deployment, originals: list[bytes], count: int) -> int:
    """Send five kinds of ``count`` requests each, in two rounds, and look after the processes; how many were sent."""
    server = psutil.Process(deployment.pid)

    def megabytes() -> float:
        return sum(one.memory_info().rss for one in (server, *server.children())) / 1e6

    def replaced() -> float:
        lines = client.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("medic_workers_replaced_total"))

    def grpc_infer(case) -> int:
        name, datatype, shape, raw = case
        tensor = ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
        request = ModelInferRequest(model_name="retinopathy", inputs=[tensor], raw_input_contents=[raw])
        try:
            rpc.ModelInfer(request, timeout=60)
        except grpc.RpcError as error:
            wrong = error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            return 400 if wrong else pytest.fail(f"{error.code()} {error.details()} for {case!r}")
        return 200

    host, port = "127.0.0.1", int(deployment.url.rpartition(":")[2])
    image = mutated(originals)
    files = st.lists(image, min_size=1, max_size=2)
    tensors = st.tuples(
        st.sampled_from(["images", "image", "", "grade"]),
        st.sampled_from(["UINT8", "BYTES", "FP32", "FP16", "BOOL", "X"]),
        st.lists(st.integers(-1, 2**40), max_size=4) | st.sampled_from([[1], [1, 96, 96, 3], [2], [64], [0]]),
        st.binary(max_size=64)
        | files.map(lambda several: b"".join(struct.pack("<I", len(one)) + one for one in several))
        | st.just(bytes(27648)),
    )
    with (
        httpx.Client(base_url=deployment.url, timeout=60, trust_env=False) as client,
        grpc.insecure_channel(deployment.grpc) as channel,
    ):
        rpc = GRPCInferenceServiceStub(channel)

        def post(path: str, **request) -> int:
            return client.post(path, **request).status_code

        def with_headers(case) -> int:
            method, path, given, body = case
            return client.request(method, path, headers=given, content=body).status_code

        json_type, head = {"content-type": "application/json"}, "inference-header-content-length"
        binary = st.tuples(protocol_bodies(), st.binary(max_size=64), st.integers(-2, 2))
        methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])

        def binary_infer(case) -> int:
            return post(INFER, content=case[0] + case[1], headers={head: str(max(0, len(case[0]) + case[2]))})

        kinds = (
            (count // 2, image, lambda data: post("/predict", content=data)),
            (count // 8, image, lambda data: post("/explain", files={"image": ("a", data)})),
            (count // 2, protocol_bodies(), lambda body: post(INFER, content=body, headers=json_type)),
            (count // 2, binary, binary_infer),
            (count // 2, st.tuples(methods, paths, headers, image | st.binary(max_size=64)), with_headers),
            (count // 2, tensors, grpc_infer),
            (count // 8, raw_http(), raw_requests(host, port)),
        )

        def once(number: int) -> int:
            return sum(send(*kind, number if count == SHORT else None) for kind in kinds)

        before = replaced()
        sent = once(1)
        early = megabytes()
        sent += once(2)
        late = megabytes()
        assert deployment.status() == "ready"
        assert replaced() == before, "a worker ended"
    assert late - early < MEGABYTES_MORE, f"{early:.0f} MB grew to {late:.0f} MB"
    print(f"{sent} hostile requests; {early:.0f} MB early, {late:.0f} MB at the end", file=sys.stderr)
    return sent


@pytest.fixture(scope="module")
def deployment(bundle, tmp_path_factory):
    with local.deploy(bundle, tmp_path_factory.mktemp("hostile"), name="eyes") as deployed:
        yield deployed


def test_hostile_input_is_refused_or_answered(deployment, originals, photographs, bundle):
    assert fuzz(deployment, originals, SHORT) >= 4 * SHORT
    expected = bundle.predictor().predict(photographs[:4])
    np.testing.assert_allclose(deployment.score(photographs[:4]).probabilities, expected.probabilities, atol=1e-4)


@pytest.mark.soak
def test_hostile_input_by_the_ten_thousand(deployment, originals, photographs, bundle):
    assert fuzz(deployment, originals, LONG) >= 10_000
    expected = bundle.predictor().predict(photographs[:4])
    np.testing.assert_allclose(deployment.score(photographs[:4]).probabilities, expected.probabilities, atol=1e-4)
