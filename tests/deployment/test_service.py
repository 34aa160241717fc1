"""The service answers as the model does, over each way in, and refuses everything else with a reason."""

import asyncio
import concurrent.futures
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zlib

import cv2
import httpx
import numpy as np
import psutil
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

import medic.deployment.service.workers as workers_module
from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.client import Client, ServiceError, health, measure, score
from medic.deployment.service.app import Service, application
from medic.deployment.service.limits import Limits
from medic.deployment.service.listen import bind
from medic.deployment.service.worker import frame
from medic.deployment.service.workers import Workers
from medic.deployment.targets import local
from medic.errors import MedicError
from medic.task import RETINOPATHY

JPEG = {"content-type": "image/jpeg"}


TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture(scope="module")
def space_of(tmp_path_factory):
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def deployment(bundle, space_of):
    with local.deploy(bundle, space_of) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def url(deployment):
    return deployment.url


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def limited(bundle):
    """Asks the application in this process, over real workers, with limits small enough to reach."""

    def ask(use, folder=None, token=None, **limits):
        async def in_process():
            held = Limits(**{"workers": 1, **limits})
            workers = await Workers.start(folder or bundle.folder, held)
            service = Service(workers, held, token=token)
            transport = httpx.ASGITransport(application(service), raise_app_exceptions=False)
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://medic", headers=JPEG) as client:
                    client.service = service
                    await use(client)
            finally:
                await workers.close()

        asyncio.run(in_process())

    return ask


def huge_png() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in some 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2501) * 20_000, 1)), (b"IEND", b""))
    )


def damaged_png() -> bytes:
    """A PNG whose header and end are sound and whose pixels are not."""
    sound = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))[1].tobytes()
    start = sound.index(b"IDAT") + 4
    return sound[:start] + bytes(len(sound) - start - 12) + sound[-12:]


@pytest.mark.servers
def test_one_photograph_has_one_answer_however_it_is_asked_for(classifier, exported, bundle, url, http, photographs):
    data = photographs[3]
    pixels = classifier.preprocessing.pixels(data)[None]
    torch_answer = classifier.predict_pixels(pixels)
    answers = {
        "graph": run(open_session(exported.path), RETINOPATHY, pixels),
        "bundle": bundle.predictor().predict([data]),
        "client": score(url, [data]),
    }
    for name, prediction in answers.items():
        np.testing.assert_allclose(prediction.probabilities, torch_answer.probabilities, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(prediction.grade, torch_answer.grade, atol=1e-4, err_msg=name)
    plain = urllib.request.Request(f"{url}/predict", data, JPEG)
    with urllib.request.urlopen(plain, timeout=30) as response:
        answer = json.load(response)
    assert list(answer["probabilities"].values()) == pytest.approx(torch_answer.probabilities[0].tolist(), abs=1e-4)
    assert answer["grade_continuous"] == pytest.approx(float(torch_answer.grade[0]), abs=1e-4)
    assert answer["class"] == RETINOPATHY.classes[answer["grade"]]
    assert "Not a medical device" in answer["notice"]
    assert "synthetic" in answer["notice"]
    request = {"inputs": [{"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8", "data": pixels.tolist()}]}
    outputs = {o["name"]: o["data"] for o in http.post("/v2/models/retinopathy/infer", json=request).json()["outputs"]}
    assert outputs["probabilities"] == pytest.approx(torch_answer.probabilities[0].tolist(), abs=1e-4)
    assert outputs["grade"] == pytest.approx(torch_answer.grade.tolist(), abs=1e-4)


@pytest.mark.servers
@pytest.mark.parametrize("binary", [True, False])
def test_kserves_own_client_is_understood(bundle, url, pixels, binary):
    expected = bundle.predictor().predict_pixels(pixels[:3])

    async def call():
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            assert await client.is_server_ready(url)
            assert await client.is_model_ready(url, "retinopathy")
            given = InferInput("images", [3, 96, 96, 3], "UINT8")
            given.set_data_from_numpy(pixels[:3], binary_data=binary)
            request = InferRequest("retinopathy", [given], parameters={"binary_data_output": binary})
            return await client.infer(url, request, model_name="retinopathy")

    response = asyncio.run(call())
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, atol=1e-4)
    np.testing.assert_allclose(outputs["grade"], expected.grade, atol=1e-4)


@pytest.mark.servers
def test_image_files_go_through_the_open_protocol_too(bundle, http, photographs):
    expected = bundle.predictor().predict(photographs[:2])
    binary = b"".join(struct.pack("<I", len(data)) + data for data in photographs[:2])
    entry = {"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(binary)}}
    head = json.dumps({"id": "mine", "inputs": [entry]}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    answer = http.post("/v2/models/retinopathy/infer", content=head + binary, headers=headers).json()
    assert answer["id"] == "mine"
    assert answer["outputs"][0]["data"] == pytest.approx(expected.probabilities.ravel().tolist(), abs=1e-4)


@pytest.mark.servers
def test_it_says_what_it_is(http, bundle):
    about = http.get("/").json()
    assert about["model"] == bundle.manifest.version
    assert "Not a medical device" in about["notice"]
    assert about["grpc"].startswith("127.0.0.1:")
    page = http.get("/", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "Not a medical device" in http.get("/card").text
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert [entry["name"] for entry in http.get("/v2/models/retinopathy").json()["inputs"]] == ["images", "image"]
    assert "medic_requests_total" in http.get("/metrics").text


@pytest.mark.servers
@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"", JPEG, 422, "empty"),
        (b"", {}, 422, "empty"),
        (b"this is text, named eye.jpeg", JPEG, 415, "give a JPEG, PNG"),
        ("truncated", JPEG, 422, "cut off"),
        ("damaged", JPEG, 422, "damaged inside"),
        ("bomb", {"content-type": "image/png"}, 413, "pixels"),
        ("photograph", {"content-type": "application/json"}, 415, "content type"),
        ("photograph", {"content-type": "application/x-www-form-urlencoded"}, 415, "Content-Type: image/jpeg"),
        (bytes((32 << 20) + 1), JPEG, 413, "33,554,432 bytes"),
    ],
    ids=["empty", "nothing", "text", "truncated", "damaged", "bomb", "json", "form", "too large"],
)
def test_what_is_no_image_is_refused_with_the_reason(http, photographs, content, headers, status, reason):
    made = {
        "photograph": lambda: photographs[0],
        "truncated": lambda: photographs[0][:1500],
        "damaged": damaged_png,
        "bomb": huge_png,
    }
    body = made[content]() if isinstance(content, str) else content
    response = http.post("/predict", content=body, headers=headers)
    assert response.status_code == status, response.text
    assert reason in response.json()["error"]


@pytest.mark.servers
def test_bytes_are_counted_as_they_come_whatever_length_is_claimed(http):
    def stream():
        for _ in range(40):
            yield bytes(1 << 20)

    response = http.post("/predict", content=stream(), headers=JPEG)
    assert response.status_code == 413


@pytest.mark.servers
@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 95, 96, 3]},
        {"shape": [2, 96, 96, 3]},
        {"shape": [0, 96, 96, 3]},
        {"shape": [-1, 96, 96, 3]},
        {"shape": [100_000, 96, 96, 3]},
        {"shape": []},
        {"shape": "large"},
        {"datatype": "FP32"},
        {"datatype": "NONSENSE"},
        {"name": "pictures"},
        {"data": [1, 2, 3]},
        {"data": [[1, 2], [3]]},
        {"data": ["a"] * 27648},
        {"data": [0.5] * 27648},
        {"data": [300] * 27648},
        {"data": [-1] * 27648},
        {"data": None},
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["not base64!"]},
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["dGV4dA=="]},
        {"name": "image", "datatype": "BYTES", "shape": [2], "data": ["dGV4dA=="]},
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [7]},
    ],
    ids=str,
)
def test_wrong_tensors_are_the_clients_fault(http, change):
    entry = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8", "data": [0] * 27648} | change
    response = http.post("/v2/models/retinopathy/infer", json={"inputs": [entry]})
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["error"]


@pytest.mark.servers
@pytest.mark.parametrize(
    ("head", "body", "length"),
    [
        (b"{}", b"", None),
        (b"not json", b"", None),
        (b"[]", b"", None),
        (b'{"inputs": [{}]}', b"", None),
        (b'{"inputs": 7}', b"", None),
        (b"{}", b"", "abc"),
        (b"{}", b"", "-5"),
        (b"{}", b"", "9999"),
        (b"\xff\xfe\x00", b"", None),
        (b'{"inputs":[{"name":"images","shape":[1,96,96,3],"datatype":"UINT8"}]}', b"", None),
        (
            b'{"inputs":[{"name":"images","shape":[1,96,96,3],"datatype":"UINT8","parameters":{"binary_data_size":9}}]}',
            b"123456789",
            None,
        ),
        (
            b'{"inputs":[{"name":"images","shape":[1,96,96,3],"datatype":"UINT8","parameters":{"binary_data_size":99}}]}',
            b"123456789",
            None,
        ),
        (
            b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}',
            b"\xff\xff\xff\x7f12345",
            None,
        ),
        (
            b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":3}}]}',
            b"\x01\x00\x00",
            None,
        ),
    ],
)
def test_malformed_binary_requests_are_the_clients_fault(http, head, body, length):
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": length or str(len(head))}
    response = http.post("/v2/models/retinopathy/infer", content=head + body, headers=headers)
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["error"]


def sound() -> dict:
    """A request that is answered."""
    entry = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8", "data": [7] * 27648}
    return {"id": "a", "inputs": [entry], "outputs": [{"name": "grade"}]}


@pytest.mark.servers
@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"id": "\ud800"},
        {"outputs": [{"name": []}]},
        {"outputs": [{"name": 1}, {"name": "a"}]},
        {"outputs": [{"name": "other"}]},
        {"outputs": [{"name": "grade"}] * 3000},
        {"outputs": [{"name": "grade", "parameters": "binary_data"}]},
        {"outputs": "grade"},
        {"parameters": [1]},
        {"inputs": [{}] * 20_000},
        {"inputs": {"name": "images"}},
        {"datatype": "\ud800"},
        {"parameters of the input": [1]},
        {"data": ["a" * 100_000] + [""] * 30_000},
        {"data": "a" * 27648},
        {"data": [True] * 27648},
        {"name": "image", "shape": [1], "datatype": "BYTES", "data": None},
        {"name": "image", "shape": [1], "datatype": "BYTES", "data": {"a": 1}},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_sound_request_with_one_wrong_part_is_refused_and_takes_nothing(http, deployment, change):
    request = sound()
    for name, value in change.items():
        part = request["inputs"][0] if name in ("data", "datatype", "name", "shape") else request
        part[name] = value
    if "parameters of the input" in request:
        request["inputs"][0]["parameters"] = request.pop("parameters of the input")
    body = json.dumps(request).encode()
    before = psutil.Process(deployment.pid).memory_info().rss
    headers = {"content-type": "application/json"}
    for more in ({}, {"inference-header-content-length": str(len(body))}):
        refused = http.post("/v2/models/retinopathy/infer", content=body, headers={**headers, **more})
        assert 400 <= refused.status_code < 414, refused.text
        assert refused.json()["reason"]
        assert len(refused.content) < 2000
    assert psutil.Process(deployment.pid).memory_info().rss - before < 60e6
    assert http.post("/v2/models/retinopathy/infer", json=sound()).status_code == 200


@pytest.mark.servers
def test_a_tensor_of_countless_empty_elements_is_refused_at_once(http):
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 16 << 20}}
    head = json.dumps({"inputs": [entry]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    refused = http.post("/v2/models/retinopathy/infer", content=head + bytes(16 << 20), headers=headers)
    assert refused.status_code == 400
    assert "up to 64 images" in refused.json()["error"]


@pytest.mark.servers
def test_memory_that_is_taken_is_said_on_every_route(limited):
    async def ask(client):
        client.service.counter.hold(900)
        for path in ("/predict", "/v2/models/retinopathy/infer"):
            refused = await client.post(path, content=b"x" * 500)
            assert (refused.status_code, refused.json()["reason"]) == (503, "busy"), path

    limited(ask, memory=1000)


@pytest.mark.servers
def test_the_sender_of_a_form_does_not_choose_how_it_is_decoded(http, photographs):
    form = {"content-type": "multipart/form-data; boundary=x; charset=punycode"}
    text = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"-" * 100 + b"\r\n"
    file = b'--x\r\nContent-Disposition: form-data; name="b"; filename="b"\r\n\r\n' + photographs[0] + b"\r\n--x--\r\n"
    assert http.post("/predict", content=text + file, headers=form).status_code == 200
    long = text.replace(b"-" * 100, b"a" * 100_000)
    assert http.post("/predict", content=long + file, headers=form).status_code == 400


def test_serving_unpickles_nothing(bundle):
    """Loading a bundle, in the process that serves it and in the one that computes, with unpickling made an error."""
    program = (
        "import sys, io; import medic.deployment.service.app, medic.deployment.service.worker as worker;"
        "from medic.deployment.bundle import Bundle;"
        "sys.addaudithook(lambda event, _: sys.exit('unpickled') if event == 'pickle.find_class' else None);"
        "Bundle.load(sys.argv[2]); sys.exit(worker.main(sys.argv[1]))"
    )
    image = (bundle.folder / "golden" / "01.jpeg").read_bytes()
    asked = b"".join(frame({"kind": "files"}, [image]) + frame({"kind": "explain"}, [image]))
    command = [sys.executable, "-c", program, str(bundle.folder), str(bundle.archive)]
    ended = subprocess.run(command, input=asked, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(b'"images": 1') == 2


@pytest.mark.servers
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/here", 404),
        ("GET", "/predict", 405),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/retinopathy/infer", 400),
        ("POST", "/v2/models/retinopathy/versions/1/infer", 404),
        ("POST", "/v2/repository/models/retinopathy/unload", 404),
    ],
)
def test_unknown_paths_and_missing_bodies_are_refused(http, method, path, status):
    body = {"json": {"inputs": []}} if path == "/v2/models/other/infer" else {}
    response = http.request(method, path, **body)
    assert response.status_code == status, response.text
    assert response.json()["error"]
    assert http.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.servers
def test_eight_clients_at_once_all_get_their_own_answer(bundle, url, photographs):
    expected = bundle.predictor().predict(photographs)

    def ask(start):
        return score(url, photographs[start : start + 10]).probabilities

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(0, 80, 10)))
    np.testing.assert_allclose(np.concatenate(answers), expected.probabilities, atol=1e-4)


@pytest.mark.servers
def test_the_client_carries_the_servers_reason(url, photographs, tmp_path):
    (tmp_path / "note.jpeg").write_text("text")
    with pytest.raises(ServiceError, match=r"note\.jpeg: .*415: .*give a JPEG, PNG") as refused:
        score(url, [photographs[0], tmp_path / "note.jpeg"])
    assert refused.value.status == 415
    with pytest.raises(MedicError, match="correct the path"):
        score(url, [tmp_path / "absent.jpeg"])
    with pytest.raises(MedicError, match="no image to score"):
        score(url, [])


def test_the_client_says_when_nobody_is_there():
    with bind("127.0.0.1", 0) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(MedicError, match="no service answers at"):
        score(address, [b"image"])
    assert not health(address)
    with pytest.raises(MedicError, match="correct the address"):
        score("ftp://127.0.0.1:1", [b"image"])


def test_the_client_says_when_an_answer_takes_too_long():
    with bind("127.0.0.1", 0) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        with client, pytest.raises(MedicError, match=r"no answer in 0\.2 seconds"):
            client.about()


async def until(condition, seconds=60):
    """Wait until something is so."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to be so"
        await asyncio.sleep(0.01)


@pytest.mark.servers
def test_a_full_queue_is_answered_at_once(limited, photographs):
    async def two_at_once(client):
        [pid] = client.service.workers.pids
        os.kill(pid, signal.SIGSTOP)
        first = asyncio.create_task(client.post("/predict", content=photographs[0]))
        await until(lambda: client.service.counter.under_way == 1)
        second = await client.post("/predict", content=photographs[0])
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert second.json() == {"error": "the service is busy; try again in a second", "reason": "busy"}
        os.kill(pid, signal.SIGCONT)
        assert (await first).status_code == 200
        assert (await client.post("/predict", content=photographs[0])).status_code == 200
        assert client.service.counter.under_way == 0

    limited(two_at_once, waiting=0)


@pytest.mark.servers
def test_one_client_cannot_take_every_place(limited, photographs):
    async def three_at_once(client):
        [pid] = client.service.workers.pids
        os.kill(pid, signal.SIGSTOP)
        first = [asyncio.create_task(client.post("/predict", content=photographs[0])) for _ in range(2)]
        await until(lambda: client.service.counter.under_way == 2)
        third = await client.post("/predict", content=photographs[0])
        assert (third.status_code, third.json()["reason"]) == (429, "too_many")
        assert third.headers["retry-after"] == "1"
        with client.service.counter.enter("10.0.0.9"):
            assert client.service.counter.under_way == 3, "another client is let in"
        os.kill(pid, signal.SIGCONT)
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200, 200]

    limited(three_at_once, per_client=2)


@pytest.mark.servers
def test_bodies_together_take_no_more_memory_than_allowed(limited, photographs):
    async def ask(client):
        assert (await client.post("/predict", content=photographs[0])).status_code == 200
        with client.service.counter.enter("10.0.0.9"):
            client.service.counter.hold(2 * len(photographs[0]))
            refused = await client.post("/predict", content=photographs[0])
        assert (refused.status_code, refused.json()["reason"]) == (503, "busy")

    limited(ask, memory=2 * len(photographs[0]) + 1)


@pytest.mark.servers
def test_a_worker_that_takes_too_long_is_ended_and_replaced(limited, photographs):
    async def ask(client):
        [stuck] = client.service.workers.pids
        os.kill(stuck, signal.SIGSTOP)
        refused = await client.post("/predict", content=photographs[0])
        assert (refused.status_code, refused.json()["reason"]) == (503, "slow")
        assert (await client.post("/predict", content=photographs[0])).status_code == 200
        assert client.service.workers.pids != [stuck]

    limited(ask, computing=2)


@pytest.mark.servers
def test_without_a_worker_it_is_not_ready(limited):
    async def ask(client):
        [pid] = client.service.workers.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not client.service.workers.pids)
        refused = await client.get("/v2/health/ready")
        assert (refused.status_code, refused.json()["reason"]) == (503, "not_ready")
        assert (await client.get("/v2/health/live")).status_code == 200
        await until(lambda: client.service.workers.pids)
        assert (await client.get("/v2/health/ready")).status_code == 200

    limited(ask)


@pytest.mark.servers
def test_a_killed_worker_loses_no_request(limited, bundle, photographs):
    expected = bundle.predictor().predict(photographs[:8])

    async def ask(client):
        for pid in client.service.workers.pids:
            os.kill(pid, signal.SIGSTOP)
        asked = [asyncio.create_task(client.post("/predict", content=data)) for data in photographs[:8]]
        await until(lambda: client.service.counter.under_way == 8)
        for pid in client.service.workers.pids:
            os.kill(pid, signal.SIGKILL)
        for answer, row in zip(await asyncio.gather(*asked), expected.probabilities, strict=True):
            assert answer.status_code == 200, answer.text
            assert list(answer.json()["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-4)

    limited(ask, workers=2)


@pytest.mark.servers
def test_a_request_survives_the_end_of_all_workers_the_idle_ones_too(limited, photographs):
    async def ask(client):
        for pid in client.service.workers.pids:
            os.kill(pid, signal.SIGSTOP)
        asked = asyncio.create_task(client.post("/predict", content=photographs[0]))
        await until(lambda: client.service.counter.under_way == 1)
        for pid in client.service.workers.pids:
            os.kill(pid, signal.SIGKILL)
        assert (await asked).status_code == 200

    limited(ask, workers=4)


@pytest.mark.servers
def test_an_image_that_ends_every_worker_is_refused_and_the_next_one_is_answered(limited, photographs, monkeypatch):
    # What a decoder's crash does, from outside: each worker is killed as soon as it has the image.
    async def killed(self, question, parts):
        self.process.kill()
        return await asked(self, question, parts)

    asked = workers_module._Worker.ask

    async def ask(client):
        with monkeypatch.context() as crashing:
            crashing.setattr(workers_module._Worker, "ask", killed)
            refused = await client.post("/predict", content=photographs[0])
        assert (refused.status_code, refused.json()["reason"]) == (422, "unreadable")
        assert (await client.post("/predict", content=photographs[0])).status_code == 200

    limited(ask)


@pytest.mark.servers
def test_a_failure_nobody_foresaw_tells_the_client_nothing_of_the_inside(limited, photographs, monkeypatch):
    async def broken(self, images):
        raise RuntimeError("secret path")

    async def ask(client):
        with monkeypatch.context() as breaking:
            breaking.setattr(Workers, "files", broken)
            response = await client.post("/predict", content=photographs[0])
        assert (response.status_code, response.json()["reason"]) == (500, "failed")
        assert "secret" not in response.text

    limited(ask)


@pytest.mark.servers
def test_a_damaged_bundle_starts_no_worker(limited, copied):
    (copied / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(MedicError, match=r"changed or damaged at model\.onnx"):
        limited(None, folder=copied)


@pytest.mark.servers
def test_without_the_token_only_the_page_and_the_health_are_answered(limited, photographs):
    async def ask(client):
        for path in ("/", "/page.js", "/page.css", "/v2/health/live", "/v2/health/ready"):
            assert (await client.get(path)).status_code == 200, path
        asked = [("POST", "/predict"), ("POST", "/explain"), ("GET", "/card"), ("GET", "/metrics")]
        asked += [("GET", "/v2/models/retinopathy"), ("POST", "/v2/models/retinopathy/infer"), ("GET", "/openapi.json")]
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
            for method, path in asked:
                refused = await client.request(method, path, headers=wrong, content=photographs[0])
                assert (refused.status_code, refused.json()["reason"]) == (401, "token"), path
                assert refused.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in refused.text
        right = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.post("/predict", headers=right, content=photographs[0])).status_code == 200
        assert (await client.get("/")).json()["token"] is True

    limited(ask, token=TOKEN)


@pytest.mark.servers
def test_a_form_with_one_file_is_understood(http, photographs):
    plain = http.post("/predict", content=photographs[0], headers=JPEG).json()
    large = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8))[1].tobytes()
    assert http.post("/predict", files={"image": ("eye.jpeg", photographs[0], "image/jpeg")}).json() == plain
    assert http.post("/predict", files={"image": ("a.png", large)}, data={"who": "me"}).status_code == 200
    for wrong, status in (
        ({"data": {"image": "no file"}, "files": {}}, 415),
        ({"files": [("a", ("a", photographs[0])), ("b", ("b", photographs[0]))]}, 400),
        ({"files": {"image": ("eye.jpeg", b"text")}}, 415),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"--x--\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422),
    ):
        refused = http.post("/predict", **wrong)
        assert refused.status_code == status, refused.text
        assert refused.json()["reason"]


@pytest.mark.servers
def test_uploads_are_never_written_to_disk(limited, tmp_path, monkeypatch):
    """The folder for temporary files cannot be written, and a form of 3 MB is read all the same."""
    photograph = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8))[1]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))

    async def ask(client):
        del client.headers["content-type"]
        for file in (("a.png", photograph.tobytes()), ("a.png", photograph.tobytes()[:-2000])):
            answer = await client.post("/predict", files={"image": file})
            assert answer.status_code in (200, 422), answer.text

    limited(ask)


@pytest.mark.servers
def test_tensors_as_text_have_a_smaller_limit(http):
    body = b'{"inputs": [' + b"[]," * (3 << 20) + b"[]]}"
    refused = http.post("/v2/models/retinopathy/infer", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 413
    assert "binary form" in refused.json()["error"]


@pytest.mark.servers
def test_every_answer_forbids_what_a_page_does_not_need(http, photographs):
    for answer in (http.get("/"), http.post("/predict", content=photographs[0]), http.get("/nothing")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


@pytest.mark.servers
def test_it_counts_answers_and_refusals_and_logs_them_without_content(http, url, bundle, photographs, space_of):
    before = http.get("/metrics").text
    answer = http.post("/predict", content=photographs[1], headers=JPEG)
    http.post("/predict", content=b"secret text", headers={**JPEG, "x-name": "Jane Doe"})

    def counted(text, name):
        return float((re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE) or [0, 0])[1])

    after = http.get("/metrics").text
    decided = answer.json()["class"]
    for name in (
        f'medic_answers_total{{decided="{decided}"}}',
        'medic_inputs_rejected_total{reason="unsupported"}',
        'medic_requests_total{route="/predict",status="200"}',
        'medic_requests_total{route="/predict",status="415"}',
        'medic_request_seconds_count{route="/predict"}',
    ):
        assert counted(after, name) > counted(before, name), name
    assert f'version="{bundle.manifest.version}"' in after
    [deployment] = local.deployments(space_of)
    lines = [json.loads(line) for line in deployment.log.read_text().splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line.get("id") == answer.headers["x-request-id"]]
    assert (line["event"], line["route"], line["status"]) == ("request", "/predict", 200)
    assert line["bytes"] == len(photographs[1])
    assert lines[-1]["status"] == 415
    assert lines[-1]["reason"] == "unsupported"
    assert "secret" not in deployment.log.read_text()
    assert "Jane" not in deployment.log.read_text()


def test_a_smaller_limit_holds_for_every_route(limited, photographs):
    async def ask(client):
        assert (await client.post("/predict", content=photographs[0])).status_code == 413
        assert (await client.post("/v2/models/retinopathy/infer", content=b"x" * 2000)).status_code == 413

    limited(ask, upload=1000)


def test_a_client_that_falls_silent_is_not_waited_for(limited, photographs):
    async def stall():
        yield photographs[0][:100]
        await asyncio.sleep(20)

    async def ask(client):
        response = await client.post("/predict", content=stall())
        assert response.status_code == 408
        assert "nothing came" in response.json()["error"]

    limited(ask, silence=0.2)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_other_machines_are_not_let_in(host):
    with pytest.raises(MedicError, match=r"asks nobody who they are|is no address"):
        bind(host, 0)


@pytest.mark.servers
def test_a_port_in_use_is_said_before_anything_starts(bundle, url):
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "medic.deployment.service.server", str(bundle.folder), "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: port {port} on 127.0.0.1 is in use")
    assert ended.stdout == ""
    with pytest.raises(MedicError, match=r"outside 0\.\.65535"):
        bind("127.0.0.1", 70_000)


def test_serving_and_calling_load_no_torch():
    program = (
        "import sys, medic.deployment.client, medic.deployment.bundle, medic.deployment.service.server;"
        "import medic.deployment.service.app;"
        "import medic.deployment.targets.local;"
        "print([name for name in ('torch', 'torchvision', 'lightning', 'onnx') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


@pytest.mark.servers
def test_a_load_is_measured_and_a_refusal_in_it_is_not_swallowed(url, photographs):
    load = measure(url, photographs[:2], requests=6, clients=2)
    assert load.clients == 2
    assert load.milliseconds.shape == (6,)
    assert (load.milliseconds > 0).all()
    assert load.per_second > 0
    with pytest.raises(ServiceError, match="415"):
        measure(url, [b"no image"], requests=2)
    with pytest.raises(MedicError, match="one image"):
        measure(url, [], requests=2)
