"""The service answers as the model does, over each way in, and refuses everything else with a reason."""

import asyncio
import base64
import http.server
import json
import re
import signal
import socket
import struct
import threading
import time
import zlib
from pathlib import Path

import grpc
import httpx
import numpy as np
import onnx
import psutil
import pytest
from certificate import write_certificate
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from medic.deployment.bundle import Bundle, package
from medic.deployment.bundle.predictor import REFERRAL
from medic.deployment.client import AsyncClient, Client, ServiceError, bearer
from medic.deployment.service.app import Service
from medic.deployment.service.open_inference import Protocol
from medic.deployment.service.server import ServerConfig, bind, read_token, serve
from medic.errors import MedicError
from medic.referral import Referral, advise

pytestmark = pytest.mark.servers
JPEG = {"content-type": "image/jpeg"}
MODEL = "/v2/models/retinopathy"
INFER = f"{MODEL}/infer"
TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture(scope="module")
def service(bundle, serving):
    with serving(bundle, "--grpc-port", "0", "--workers", "2") as running:
        with grpc.insecure_channel(running.grpc) as channel:  # it opens some seconds later
            grpc.channel_ready_future(channel).result(180)
        yield running


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False, headers=JPEG) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(service):
    with grpc.insecure_channel(service.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def other(exported, photographs, about, tmp_path_factory) -> Bundle:
    """The same model packaged again: another version."""
    golden = [(f"{number}_left.jpeg", photographs[number]) for number in range(2)]
    return package(exported.path, tmp_path_factory.mktemp("others") / "discs", golden, about, archive=False)


def workers(service) -> list[psutil.Process]:
    def works(child: psutil.Process) -> bool:
        try:
            return "spawn_main" in " ".join(child.cmdline())
        except psutil.NoSuchProcess:  # or it has ended and nobody has asked how yet
            return False

    return [child for child in psutil.Process(service.process.pid).children() if works(child)]


def tensor(name, datatype, shape, data=None, **parameters) -> dict:
    given = {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
    return given if data is None else {**given, "data": data}


def with_binary(entry: dict, binary: bytes, **more) -> dict:
    """A request of the protocol's binary form, as httpx takes it."""
    head = json.dumps({"inputs": [entry], **more}).encode()
    return {"content": head + binary, "headers": {"inference-header-content-length": str(len(head))}}


def lengths(images: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(data)) + data for data in images)


def message(images: list[bytes], version: str = "") -> messages.ModelInferRequest:
    """Image files as the protocol has them in gRPC."""
    given = messages.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    return messages.ModelInferRequest(
        model_name="retinopathy", model_version=version, inputs=[given], raw_input_contents=[lengths(images)]
    )


def test_one_photograph_has_one_answer_however_it_is_asked_for(classifier, bundle, service, client, stub, photographs):
    data = photographs[3]
    pixels = classifier.preprocessing.pixels(data)[None]
    expected = classifier.predict_pixels(pixels)

    async def ask_with_kserve(binary: bool) -> tuple:
        given = InferInput("images", [1, 96, 96, 3], "UINT8")
        given.set_data_from_numpy(pixels, binary_data=binary)
        request = InferRequest("retinopathy", [given], parameters={"binary_data_output": binary})
        rpc = InferenceGRPCClient(service.grpc)
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as rest:
            assert await rest.is_model_ready(service.url, "retinopathy")
            assert await rpc.is_model_ready("retinopathy")
            over_http = await rest.infer(service.url, request, model_name="retinopathy")
        given.set_data_from_numpy(pixels, binary_data=binary)
        over_grpc = await rpc.infer(InferRequest("retinopathy", [given]))
        await rpc.close()
        assert over_grpc.model_version == bundle.manifest.version
        return over_http.outputs[0].as_numpy()[0], over_grpc.outputs[0].as_numpy()[0]

    def over_v2(**request) -> list[float]:
        [output] = client.post(INFER, **request).json()["outputs"]
        return output["data"]

    asked = {"outputs": [{"name": "probabilities"}]}
    wrapped = {"inputs": [tensor("image", "BYTES", [1], [base64.encodebytes(data).decode()])], **asked}
    binary = tensor("image", "BYTES", [1], binary_data_size=len(data) + 4)
    form = httpx.post(f"{service.url}/predict", files={"image": data})
    with Client(service.url) as ours:
        answers = {
            "bundle": bundle.predictor().predict([data]).probabilities[0],
            "client": ours.score([data]).probabilities[0],
            "raw": list(client.post("/predict", content=data).json()["probabilities"].values()),
            "form": list(form.json()["probabilities"].values()),
            "explain": list(client.post("/explain", content=data).json()["probabilities"].values()),
            "v2 base64": over_v2(json=wrapped),
            "v2 binary": over_v2(**with_binary(binary, lengths([data]), **asked)),
            "gRPC files": np.frombuffer(stub.ModelInfer(message([data])).raw_output_contents[0], np.float32),
        }
    for kind in (True, False):
        over_http, over_grpc = asyncio.run(ask_with_kserve(kind))
        answers |= {f"kserve HTTP, {kind}": over_http, f"kserve gRPC, {kind}": over_grpc}
    for name, probabilities in answers.items():
        assert probabilities == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4), name


def png(pixels: bytes, side: int) -> bytes:
    """A PNG of side x side grey pixels, of which there may be fewer than it says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


IMAGES = {
    "nothing": (b"", 422, "empty"),
    "text": (b"this is text, named eye.jpeg", 415, "unsupported"),
    "cut off": (lambda photograph: photograph[:1500], 422, "truncated"),
    "damaged": (png(bytes(20), 50), 422, "unreadable"),
    "a bomb": (png(zlib.compress(bytes(2501) * 20_000, 1), 20_000), 413, "too_large"),
}
"""What is no image: the status and the word that it gets over HTTP; over gRPC all are INVALID_ARGUMENT."""


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_no_image_is_refused_alike_over_http_and_grpc(client, stub, photographs, name):
    made, status, reason = IMAGES[name]
    data = made(photographs[0]) if callable(made) else made
    for path in ("/predict", "/explain"):
        refused = client.post(path, content=data)
        assert (refused.status_code, refused.json()["reason"]) == (status, reason), refused.text
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(message([data]))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == refused.json()["error"]


SOUND = tensor("images", "UINT8", [1, 96, 96, 3], [7] * 27648)
FORM, PART = "multipart/form-data", b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\na\r\n'
BINARY = tensor("image", "BYTES", [1], binary_data_size=9)


def typed(kind: str, content: bytes = b"x") -> dict:
    return {"content": content, "headers": {"content-type": kind}}


def said(length: str) -> dict:
    return {"content": b"{}", "headers": {"inference-header-content-length": length}}


REQUESTS = [
    ("GET", "/nothing/here", {}, 404),
    ("GET", "/predict", {}, 405),
    ("GET", "/v2/models/other", {}, 404),
    ("GET", f"{MODEL}/versions/garbage", {}, 404),
    ("POST", "/v2/models/other/infer", {"json": {"inputs": [SOUND]}}, 404),
    ("POST", f"{MODEL}/versions/7/infer", {"json": {"inputs": [SOUND]}}, 404),
    ("POST", "/v2/repository/models/retinopathy/unload", {}, 404),
    ("POST", "/predict/", {"content": b"x"}, 404),
    ("POST", "/predict", typed("application/json"), 415),
    ("POST", "/predict", {"content": b"x", "headers": {"content-encoding": "gzip"}}, 415),
    ("POST", "/predict", {"content": bytes((32 << 20) + 1)}, 413),
    ("POST", "/predict", {"content": (bytes(1 << 20) for _ in range(40))}, 413),
    ("POST", "/predict", typed(f"{FORM}; boundary=x", PART + PART + b"--x--\r\n"), 400),
    ("POST", "/predict", typed(FORM), 400),
    ("POST", "/predict", typed(f"{FORM}; boundary=x", b"--x--\r\n"), 422),
    ("POST", INFER, {"content": b'{"inputs": [' + b"[]," * (3 << 20) + b"[]]}"}, 413),
    ("POST", INFER, said("-5"), 400),
    ("POST", INFER, said("9999"), 400),
    ("POST", INFER, with_binary(BINARY, b"12345"), 400),
    ("POST", INFER, with_binary(BINARY, b"\xff\xff\xff\x7f12345"), 400),
    ("POST", INFER, with_binary(BINARY | {"datatype": "NONSENSE"}, b"123456789"), 400),
]
BODIES = [
    None,
    {"inputs": [{}] * 20_000},
    {"inputs": [SOUND, SOUND]},
    {"inputs": [SOUND], "outputs": [{"name": "other"}]},
    {"inputs": [SOUND], "outputs": [{"name": "grade"}] * 2},
    *(
        {"inputs": [SOUND | wrong]}
        for wrong in ({"name": "pictures"}, {"datatype": "FP32"}, {"shape": [-1, 96, 96, 3]})
    ),
    *({"inputs": [SOUND | {"data": data}]} for data in ([300] * 27648, [0.5] * 27648, [True] * 27648, [[1, 2], [3]])),
    *({"inputs": [tensor("image", "BYTES", [1], data)]} for data in (["not base64!"], ["dGV4dA=="] * 2, [7])),
]
"""Malformed bodies of the Open Inference Protocol: 400 each."""


@pytest.mark.parametrize(
    ("method", "path", "request_", "status"), [*REQUESTS, *(("POST", INFER, {"json": body}, 400) for body in BODIES)]
)
def test_a_wrong_request_is_refused_with_a_sentence_and_a_word(client, method, path, request_, status):
    refused = client.request(method, path, **request_)
    assert refused.status_code == status, refused.text
    assert set(refused.json()) == {"error", "reason"}
    assert len(refused.content) < 2000
    assert "default-src 'none'" in refused.headers["content-security-policy"]


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_the_connection_closed(service, sent):
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(sent)
        assert b"".join(iter(lambda: connection.recv(4096), b"")).startswith(b"HTTP/1.1 400")


def test_it_says_what_it_is_in_one_way_over_both_protocols(bundle, service, client, stub):
    about = client.get("/").json()
    assert (about["model"], about["token"]) == (bundle.manifest.version, False)
    assert client.get("/", headers={"accept": "text/html"}).headers["content-type"].startswith("text/html")
    assert "Not a medical device" in client.get("/card").text
    for path in ("/", "/metrics", "/v2/health/ready", MODEL):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
    metadata = client.get(MODEL).json()
    same = stub.ModelMetadata(messages.ModelMetadataRequest(name="retinopathy"))
    assert metadata["versions"] == list(same.versions) == [bundle.manifest.version]
    names = ["images", "image"]
    assert [entry["name"] for entry in metadata["inputs"]] == [entry.name for entry in same.inputs] == names
    for version in ("1", bundle.manifest.version):
        assert client.get(f"{MODEL}/versions/{version}/ready").json()["ready"]
        assert stub.ModelReady(messages.ModelReadyRequest(name="retinopathy", version=version)).ready
    with grpc.insecure_channel(service.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        other = message([b""], "garbage").SerializeToString()
        for asked, code in ((other, "NOT_FOUND"), (b"\xff", "INVALID_ARGUMENT")):
            with pytest.raises(grpc.RpcError) as error:
                infer(asked)
            assert error.value.code().name == code


def test_it_counts_in_all_workers_and_logs_no_content(client, stub, service, photographs):
    def counted() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = counted()
    for number in range(6):  # each on a connection of its own, so that both workers have some
        httpx.post(f"{service.url}/predict", content=photographs[number], headers=JPEG)
    client.post("/predict", content=b"secret text", headers={"x-name": "Jane Doe"})
    stub.ModelInfer(message(photographs[:1]))
    more = {name: value - before.get(name, 0) for name, value in counted().items()}
    assert more['medic_requests_total{route="/predict",status="200"}'] == 6
    assert more['medic_requests_total{route="/predict",status="415"}'] == 1
    assert more['medic_requests_total{route="grpc ModelInfer",status="OK"}'] == 1
    assert more['medic_inputs_rejected_total{reason="unsupported"}'] == 1
    log = service.log.read_text()
    last = json.loads([line for line in log.splitlines() if '"/predict"' in line][-1])
    assert (last["status"], last["reason"], last["bytes"]) == (415, "unsupported", 11)
    assert not re.search("secret|Jane", log)


def test_behind_token_and_tls_every_door_asks(bundle, serving, photographs, tmp_path):
    certificate = tmp_path / "certificate.pem"
    write_certificate(certificate, tmp_path / "key.pem")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ["--token-file", tmp_path / "token", "--certificate", certificate, "--key", tmp_path / "key.pem"]
    expected = bundle.predictor().predict(photographs[:2])
    with serving(bundle, *options, "--workers", "1", "--grpc-port", "0") as locked:
        for header in (bearer(TOKEN), {"Authorization": f"bearer  {TOKEN}"}):
            with Client(locked.url, headers=header, certificate=certificate) as client:
                given = client.score(photographs[:2]).probabilities
            np.testing.assert_allclose(given, expected.probabilities, atol=1e-4)
        with httpx.Client(base_url=locked.url, verify=str(certificate), trust_env=False) as client:
            for path in ("/", "/page.js", "/page.css", "/v2/health/live", "/v2/health/ready"):
                assert client.get(path).status_code == 200, path
            for path in ("/predict", "/explain", "/card", "/metrics", "/v2", INFER):
                for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
                    refused = client.request("POST", path, headers=wrong, content=photographs[0])
                    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
        with pytest.raises(MedicError, match="certificate"), Client(locked.url) as client:
            client.about()
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(locked.grpc, trusted) as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(messages.ServerReadyRequest(), wait_for_ready=True, timeout=180).ready
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(message(photographs[:1]), metadata=(("authorization", "Bearer wrong"),))
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert stub.ModelInfer(message(photographs[:1]), metadata=(("authorization", f"Bearer {TOKEN}"),)).outputs


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.05)


class Crowd:
    """Clients that ask without a pause, and remember what became of every request."""

    def __init__(self, url: str, images: list[bytes], expected: np.ndarray, *, ours: bool, clients: int = 4):
        self.versions, self.failures, self._ended = [], [], threading.Event()

        def ask() -> None:
            # Without ours: a client that asks once.
            with Client(url, timeout=120) if ours else httpx.Client(base_url=url, timeout=120, headers=JPEG) as client:
                while not self._ended.is_set():
                    number = len(self.versions) % len(images)
                    try:
                        if ours:
                            answer = client.answer(images[number])
                        else:
                            answer = client.post("/predict", content=images[number]).raise_for_status().json()
                        given = list(answer["probabilities"].values())
                        assert given == pytest.approx(expected[number].tolist(), abs=1e-4), "another image's answer"
                        self.versions.append(answer["model"])
                    except Exception as error:
                        self.failures.append(repr(error))

        self._threads = [threading.Thread(target=ask) for _ in range(clients)]

    def wait(self, count: int) -> None:
        """Until so many more requests were answered."""
        least = len(self.versions) + count
        wait_for(lambda: len(self.versions) >= least or self.failures)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def linked(bundle, tmp_path):
    """A bundle behind a link that can be turned to another one."""
    (tmp_path / "bundle").symlink_to(bundle.folder.absolute(), target_is_directory=True)

    def turn(folder: Path) -> None:
        (tmp_path / "new").symlink_to(folder.absolute(), target_is_directory=True)
        (tmp_path / "new").rename(tmp_path / "bundle")

    return Bundle.load(tmp_path / "bundle"), turn


def test_another_bundle_takes_over_and_no_request_is_lost(bundle, other, linked, copied, serving, photographs):
    loaded, turn = linked
    expected = bundle.predictor().predict(photographs[:8]).probabilities
    (copied / "model.onnx").write_bytes(b"damaged")
    with serving(loaded, "--workers", "2") as service:
        with Crowd(service.url, photographs[:8], expected, ours=False) as crowd:
            for folder, told in ((other.folder, "the bundle was exchanged"), (copied, "not exchanged")):
                crowd.wait(20)
                turn(folder)
                service.process.send_signal(signal.SIGHUP)
                wait_for(lambda told=told: told in service.log.read_text())
                crowd.wait(20)
                assert crowd.versions[-1] == other.manifest.version
        assert crowd.failures == []
        assert set(crowd.versions) == {bundle.manifest.version, other.manifest.version}


def test_a_killed_worker_is_replaced_and_our_client_asks_again(bundle, service, photographs):
    expected = bundle.predictor().predict(photographs[:8]).probabilities
    with Crowd(service.url, photographs[:8], expected, ours=True) as crowd:
        crowd.wait(20)
        first, second = workers(service)
        first.kill()
        crowd.wait(20)
        wait_for(lambda: len(workers(service)) == 2)
        assert second.pid in {worker.pid for worker in workers(service)}
        crowd.wait(20)
    assert crowd.failures == []


@pytest.mark.soak
def test_no_good_request_is_lost_in_a_minute_of_kills_and_rolls(bundle, other, linked, serving, photographs):
    loaded, turn = linked
    expected = bundle.predictor().predict(photographs[:8]).probabilities
    with serving(loaded, "--workers", "2") as service:

        def megabytes() -> float:
            return sum(worker.memory_info().rss for worker in workers(service)) / 2**20

        with Crowd(service.url, photographs[:8], expected, ours=True, clients=8) as crowd:
            ended, others, memory = time.monotonic() + 60, [other, bundle], []
            while time.monotonic() < ended:
                for bad in (b"", b"text", photographs[0][:700]):
                    assert 400 <= httpx.post(f"{service.url}/predict", content=bad, timeout=60).status_code < 500
                memory.append(round(megabytes()))
                workers(service)[0].kill()
                time.sleep(5)
                turn(others[0].folder)
                others.reverse()
                service.process.send_signal(signal.SIGHUP)
                time.sleep(5)
            wait_for(lambda: len(workers(service)) == 2)
        print(f"{len(crowd.versions)} answers, {len(crowd.failures)} lost; MiB of the workers at each kill: {memory}")
        assert crowd.failures == []
        assert '"status": 5' not in service.log.read_text()


def test_clients_that_wait_for_too_short_a_time_harm_nobody(client, stub, service, photographs):
    before = {worker.pid for worker in workers(service)}
    for _ in range(20):
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(message(photographs[:60]), timeout=0.02)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert client.get("/v2/health/ready").status_code == 200
    assert {worker.pid for worker in workers(service)} == before
    assert client.post("/predict", content=photographs[0]).status_code == 200


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_workers_end_with_the_service_however_it_ends_and_in_the_middle_of_an_exchange(bundle, serving, end):
    with serving(bundle, "--workers", "2") as service:
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(workers(service)) == 3)
        left = workers(service)
        getattr(service.process, end)()
        _, alive = psutil.wait_procs(left, timeout=60)
        assert alive == []
        assert service.process.wait(60) == (0 if end == "terminate" else -signal.SIGKILL)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"host": "0.0.0.0"}, "there is no token"),
        ({"host": "::"}, "there is no token"),
        ({"host": "192.168.1.7"}, "there is no token"),
        ({"host": "example.org"}, "is no address"),
        ({"host": ""}, "is no address"),
        ({"port": 70000}, "port 70000 .* choose another port"),
        ({"certificate": Path("absent.pem")}, "no certificate and its key"),
        ({"key": Path("absent.pem")}, "no certificate and its key"),
        ({"taken": "port"}, "Address already in use"),
        ({"taken": "grpc_port"}, "Address already in use"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(bundle, config, reason):
    with bind("127.0.0.1", 0) as taken:
        config = {config["taken"]: taken.getsockname()[1]} if "taken" in config else config
        with pytest.raises(MedicError, match=reason):
            serve(bundle.folder, ServerConfig(**{"port": 0, **config}))


def test_a_token_is_long_and_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDIC_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("MEDIC_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    with pytest.raises(MedicError, match="cannot be read"):
        read_token(tmp_path / "absent")
    for wrong in ("short", "with a blank in its middle", ""):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(MedicError, match="16 to 200"):
            read_token(tmp_path / "token")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, ""),
        ({"refer": False, "why": "", "set": ["No DR"]}, "Possible: No DR."),
        ({"refer": True, "why": "several", "grade": 2, "set": ["Moderate", "Severe"]}, "Between Moderate and Severe; "),
        ({"refer": True, "why": "several", "set": ["nevus", "basal_cell"]}, "One of Nevus, Basal cell; please refer."),
        ({"refer": True, "why": "unlike", "set": ["Mild"]}, "The image is not of the kind"),
    ],
)
def test_a_referral_is_a_sentence(answer, said):
    assert advise(answer).startswith(said)
    assert advise(answer).endswith("please refer.") == bool(answer.get("refer"))


def test_a_referral_is_three_outputs_of_the_open_protocol(exported, photographs, about, tmp_path):
    graph, rule = onnx.load(exported.path), Referral(10, "validation", (0.2,) * 5)
    known = {entry.key: entry.value for entry in graph.metadata_props}
    onnx.helper.set_model_props(graph, known | {REFERRAL: json.dumps(rule.to_dict())})
    onnx.save(graph, tmp_path / "model.onnx")
    predictor = package(tmp_path / "model.onnx", tmp_path / "made", [("a.jpeg", photographs[0])], about).predictor()
    protocol = Protocol(Service(predictor, ServerConfig()))
    files = InferInput("image", [8], "BYTES", [base64.b64encode(data).decode() for data in photographs[:8]])
    answer = asyncio.run(protocol.infer(InferRequest("retinopathy", [files])))
    expected = predictor.predict(photographs[:8])
    given = {output["name"]: output["data"] for output in answer.to_rest()[0]["outputs"]}
    assert [output["name"] for output in protocol.model("retinopathy", "1")["outputs"]] == list(given)
    assert np.array_equal(np.reshape(given["set"], (8, 5)), expected.sets)
    assert given["why"] == expected.why.tolist()
    assert given["refer"] == [bool(why) for why in expected.why]
    assert [output.name for output in answer.to_grpc().outputs] == list(given)


def test_who_computes_alone_has_all_cores_and_others_one_each(bundle, photographs):
    one, other = (Service(bundle.predictor(), ServerConfig()) for _ in range(2))
    with one._cores() as alone, other._cores() as second, one._cores() as third:
        assert [predictor.threads for predictor in (alone, second, third)] == [None, 1, 1]
        probabilities = [predictor.predict(photographs[:2]).probabilities for predictor in (alone, second)]
    np.testing.assert_allclose(*probabilities, atol=1e-5)
    with one._cores() as again:
        assert again.threads is None


@pytest.fixture
def scripted():
    """A server that gives the answers it is told to, one after the other."""
    answers: list[tuple[int, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            status, text = answers.pop(0)
            if status:
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ([(200, "{}")], {}),
        ([(0, ""), (200, "{}")], {}),
        ([(503, '{"error": "busy"}'), (200, "{}")], {}),
        ([(0, ""), (0, "")], "no service answers at"),
        ([(503, '{"error": "busy"}')] * 2, "refused with 503: busy"),
        ([(415, '{"error": "no image"}')], r"eye\.jpeg: the service refused with 415: no image"),
        ([(200, "<html>")], "and no JSON; correct the address"),
    ],
)
def test_the_client_asks_once_more_and_then_says_why(scripted, tmp_path, monkeypatch, told, outcome):
    monkeypatch.setattr(Client._request.retry, "wait", lambda _: 0)
    url, answers = scripted
    (tmp_path / "eye.jpeg").write_bytes(b"image")

    async def ask_many() -> dict:
        async with AsyncClient(url) as client:
            return await client.answer(tmp_path / "eye.jpeg")

    def ask() -> dict:
        with Client(url) as client:
            return client.answer(tmp_path / "eye.jpeg")

    for call in (ask, lambda: asyncio.run(ask_many())):
        answers[:] = told
        if isinstance(outcome, dict):
            assert call() == outcome
        else:
            with pytest.raises(ServiceError, match=outcome) as error:
                call()
            assert error.value.status == told[-1][0]
        assert answers == []


def test_the_client_says_when_nobody_is_there_or_answers_too_late(tmp_path, monkeypatch):
    with bind("127.0.0.1", 0) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout=0.2) as client, pytest.raises(MedicError, match="no answer in time"):
            client.about()
    with pytest.raises(MedicError, match=r"address .* cannot be used"):
        Client("http://127.0.0.1:a-port")
    for proxy in ("socks5://127.0.0.1:9", "nonsense://x"):
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(MedicError, match=r"address .* cannot be used .*proxy"):
            Client("http://10.0.0.1")
    with Client(address) as client:
        assert not client.ready()
        for ask, reason in (
            (lambda: client.score([]), "no image to score"),
            (lambda: client.score([tmp_path / "absent"]), "no service answers"),
            (lambda: client.answer(tmp_path / "absent"), "correct the path"),
        ):
            with pytest.raises(MedicError, match=reason):
                ask()
