"""The same answers through the protocol's other doors, behind a token and TLS, and while versions are swapped."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
from certificate import write_certificate
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from medic.deployment.bundle import Bundle, package
from medic.deployment.client import Client, bearer
from medic.deployment.service.listen import bind, take_no_more
from medic.deployment.service.server import read_token
from medic.deployment.targets import local
from medic.errors import MedicError

pytestmark = pytest.mark.servers
TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture(scope="module")
def other(classifier, exported, photographs, about, tmp_path_factory) -> Bundle:
    """The same model packaged again: another version."""
    golden = [(f"{number}_left.jpeg", photographs[number]) for number in range(2)]
    return package(classifier, tmp_path_factory.mktemp("others") / "discs", exported.path, golden, about, archive=False)


@pytest.fixture(scope="module")
def deployment(bundle, tmp_path_factory):
    with local.deploy(bundle, tmp_path_factory.mktemp("doors"), name="eyes") as deployed:
        yield deployed


@pytest.fixture(scope="module")
def locked(bundle, tmp_path_factory):
    """A service with a token and TLS, as it would stand in a network; its addresses and its certificate."""
    folder = tmp_path_factory.mktemp("locked")
    write_certificate(folder / "certificate.pem", folder / "key.pem")
    (folder / "token").write_text(f"{TOKEN}\n")
    command = [
        sys.executable,
        "-m",
        "medic.deployment.service.server",
        str(bundle.folder),
        "--port",
        "0",
        "--grpc-port",
        "0",
    ]
    command += ["--token-file", "token", "--certificate", "certificate.pem", "--key", "key.pem", "--workers", "1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        said = process.stdout.readline().decode()
        assert "gRPC at" in said, said
        address, rpc = said.split(" at ")[1].split(",")[0], said.split()[-1]
        yield address, rpc, folder / "certificate.pem"
        process.terminate()
    assert process.returncode == 0, "told to end, it ends well"


def channel(rpc: str, certificate=None) -> grpc.Channel:
    """A connection to the gRPC door, over TLS with a certificate to trust."""
    if certificate is None:
        return grpc.insecure_channel(rpc)
    return grpc.secure_channel(rpc, grpc.ssl_channel_credentials(certificate.read_bytes()))


def question(images: list[bytes]) -> messages.ModelInferRequest:
    """Image files as the protocol has them in gRPC."""
    raw = b"".join(struct.pack("<I", len(data)) + data for data in images)
    tensor = messages.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    return messages.ModelInferRequest(model_name="retinopathy", inputs=[tensor], raw_input_contents=[raw])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritons_client_is_understood(protocol, deployment, bundle, photographs, pixels, tmp_path):
    expected = bundle.predictor().predict(photographs[:3])
    np.savez(
        tmp_path / "examples.npz",
        files=np.frombuffer(b"".join(photographs[:3]), np.uint8),
        sizes=[len(data) for data in photographs[:3]],
        pixels=pixels[:3],
        probabilities=expected.probabilities,
        grade=expected.grade,
    )
    address = deployment.url.removeprefix("http://") if protocol == "http" else deployment.grpc
    program = Path(__file__).with_name("triton_client.py")
    command = [sys.executable, program, protocol, address, tmp_path / "examples.npz"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_kserves_own_grpc_client_is_understood(deployment, bundle, photographs, pixels):
    expected = bundle.predictor().predict_pixels(pixels[:3])

    async def call():
        client = InferenceGRPCClient(deployment.grpc)
        assert await client.is_server_ready()
        assert await client.is_model_ready("retinopathy")
        given = InferInput("images", [3, 96, 96, 3], "UINT8")
        given.set_data_from_numpy(pixels[:3], binary_data=True)
        plain = InferInput("images", [1, 96, 96, 3], "UINT8", pixels[0].ravel().tolist())
        answers = [await client.infer(InferRequest("retinopathy", [one])) for one in (given, plain)]
        await client.close()
        return answers

    for answer in asyncio.run(call()):
        outputs = {output.name: output.as_numpy() for output in answer.outputs}
        count = len(outputs["grade"])
        np.testing.assert_allclose(outputs["probabilities"], expected.probabilities[:count], atol=1e-4)
        np.testing.assert_allclose(outputs["grade"], expected.grade[:count], atol=1e-4)
        assert answer.model_version == bundle.manifest.version


def test_grpc_counts_what_it_answers(deployment, photographs):
    def counted():
        lines = httpx.get(f"{deployment.url}/metrics", trust_env=False).text.splitlines()
        name = 'medic_requests_total{route="grpc infer",status="'
        return {line[len(name) :].split('"')[0]: float(line.split()[-1]) for line in lines if line.startswith(name)}

    before = counted()
    with channel(deployment.grpc) as connection:
        stub = GRPCInferenceServiceStub(connection)
        stub.ModelInfer(question(photographs[:1]))
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(question([b"text"]))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    after = counted()
    assert after["OK"] - before.get("OK", 0) == 1
    assert after["INVALID_ARGUMENT"] - before.get("INVALID_ARGUMENT", 0) == 1


def test_large_messages_that_grpc_refuses_are_let_go_of(deployment):
    """gRPC's errors and streams hold their message in circles, which Python looks for every few hundred calls only."""
    large = 10_000_000
    tensor = messages.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=[1, 2, 2, 3])
    wrong = messages.ModelInferRequest(model_name="retinopathy", inputs=[tensor], raw_input_contents=[bytes(large)])
    unknown = messages.ModelMetadataRequest(name="x" * large)
    server = psutil.Process(deployment.pid)
    with channel(deployment.grpc) as connection:
        stub = GRPCInferenceServiceStub(connection)

        def refused(count):
            for _ in range(count):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelInfer(wrong, timeout=60)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelMetadata(unknown, timeout=60)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                assert len(caught.value.details()) <= 1000
            return server.memory_info().rss

        early = refused(5)
        assert refused(30) - early < 15 * large


def test_behind_token_and_tls_every_door_asks(locked, bundle, photographs):
    address, rpc, certificate = locked
    assert address.startswith("https://127.0.0.1:")
    expected = bundle.predictor().predict(photographs[:2])
    with Client(address, headers=bearer(TOKEN), certificate=certificate) as client:
        np.testing.assert_allclose(client.score(photographs[:2]).probabilities, expected.probabilities, atol=1e-4)
    with Client(address, certificate=certificate) as client:
        assert client.ready(), "who watches over it needs no token"
        with pytest.raises(MedicError, match=r"401: .*asks for a token"):
            client.answer(photographs[0])
    with Client(address, headers=bearer(TOKEN)) as client, pytest.raises(MedicError, match="certificate"):
        client.about()
    with channel(rpc, certificate) as connection:
        stub = GRPCInferenceServiceStub(connection)
        assert stub.ServerReady(messages.ServerReadyRequest()).ready
        metadata = messages.ModelMetadataRequest(name="retinopathy")
        for ask, asked in ((stub.ModelInfer, question(photographs[:2])), (stub.ModelMetadata, metadata)):
            for shown in ((), (("authorization", "Bearer wrong"),)):
                with pytest.raises(grpc.RpcError) as refused:
                    ask(asked, metadata=shown)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answer = stub.ModelInfer(question(photographs[:2]), metadata=(("authorization", f"Bearer {TOKEN}"),))
    given = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 5)
    np.testing.assert_allclose(given, expected.probabilities, atol=1e-4)


def test_what_is_served_directly_is_tcp_without_delay():
    """asyncio turns Nagle's algorithm off only for sockets that say they are TCP; with it an answer takes 40 ms."""
    with bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
        with socket.create_connection(listening.getsockname()) as client:
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP
                assert client.getpeername() == accepted.getsockname()


def test_a_token_is_long_and_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDIC_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("MEDIC_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN[::-1]}\n")
    assert read_token(file) == TOKEN[::-1]
    for wrong in ("short", "with a blank in its middle", ""):
        file.write_text(wrong)
        with pytest.raises(MedicError, match="16 to 200"):
            read_token(file)
    with pytest.raises(MedicError, match="cannot be read"):
        read_token(tmp_path / "absent")


def test_wrong_files_for_tls_are_said_before_anything_starts(bundle, tmp_path):
    write_certificate(tmp_path / "certificate.pem", tmp_path / "key.pem")
    write_certificate(tmp_path / "other.pem", tmp_path / "other.key")
    for files, reason in (
        (["--certificate", "certificate.pem"], "takes two files"),
        (["--certificate", "certificate.pem", "--key", "other.key"], "no certificate and its key"),
        (["--certificate", "absent.pem", "--key", "key.pem"], "no certificate and its key"),
    ):
        command = [sys.executable, "-m", "medic.deployment.service.server", str(bundle.folder), "--port", "0", *files]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert reason in ended.stderr


def test_a_socket_that_takes_no_more_still_gives_those_who_wait():
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()) as early:
        take_no_more(listening)
        with pytest.raises(TimeoutError):
            socket.create_connection(listening.getsockname(), timeout=0.3)
        accepted, _ = listening.accept()
        with accepted:
            early.sendall(b"question")
            assert accepted.recv(8) == b"question"
            accepted.sendall(b"answer")
            assert early.recv(6) == b"answer"
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_system_that_cannot_do_it_is_named_in_the_log_and_the_service_goes_on_ending(caplog):
    closed = bind("127.0.0.1", 0)
    closed.close()
    take_no_more(closed)
    assert "may be lost" in caplog.text


def test_who_has_come_before_the_end_may_still_ask(bundle, photographs, tmp_path):
    question = b"POST /predict HTTP/1.1\r\nHost: eyes\r\nContent-Length: %d\r\n\r\n" % len(photographs[0])
    with local.deploy(bundle, tmp_path, name="eyes") as deployed, contextlib.ExitStack() as stack:
        address = "127.0.0.1", int(deployed.url.rpartition(":")[2])
        come = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(4)]
        process = psutil.Process(deployed.pid)
        process.terminate()
        while (address, psutil.CONN_LISTEN) in {(seen.laddr, seen.status) for seen in psutil.net_connections("tcp4")}:
            time.sleep(0.01)
        for connection in come:
            connection.sendall(question + photographs[0])
        for connection in come:
            answer = b"".join(iter(lambda connection=connection: connection.recv(1 << 16), b""))
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in answer
        process.wait(30)


class Crowd:
    """Clients that ask without a pause, and remember what became of every request."""

    def __init__(self, url, image, clients=4):
        self.versions, self.failures = [], []
        self._ended = threading.Event()
        self._url, self._image = url, image
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self):
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._ended.is_set():
                try:
                    answer = client.post("/predict", content=self._image)
                    self.versions.append(answer.json()["model"])
                except httpx.ConnectError:
                    time.sleep(0.05)  # nobody listens: nothing was accepted, nothing is lost
                except Exception as error:
                    self.failures.append(repr(error))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def version(self):
        """Which one answers now."""
        return httpx.post(f"{self._url}/predict", content=self._image, timeout=60, trust_env=False).json()["model"]

    def wait(self, count):
        """Until so many more requests were answered."""
        least, deadline = len(self.versions) + count, time.monotonic() + 60
        while len(self.versions) < least and not self.failures:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_versions_change_workers_die_the_service_restarts_and_no_request_is_lost(bundle, other, photographs, tmp_path):
    space, old, new = tmp_path / "space", bundle.manifest.version, other.manifest.version
    with local.deploy(bundle, space, name="eyes") as first, Crowd(first.url, photographs[0]) as crowd:
        crowd.wait(20)
        second = local.deploy(other, space, name="eyes")
        crowd.wait(20)
        assert (second.url, second.pid, second.bundle) == (first.url, first.pid, new)
        assert local.find("eyes", space).bundle == new
        assert crowd.version() == new
        third = local.deploy(bundle, space, name="eyes")
        crowd.wait(20)
        assert third.bundle == old
        assert crowd.version() == old
        for child in psutil.Process(first.pid).children():
            child.kill()
        crowd.wait(20)
        assert crowd.failures == []
        third.delete()
        assert third.status() == "stopped"
        assert crowd.failures == [], "told to end, it finished what it had accepted"
        with local.deploy(other, space, name="eyes", port=int(first.url.rpartition(":")[2])) as fourth:
            assert fourth.url == first.url
            crowd.wait(20)
            assert crowd.version() == new
    assert crowd.failures == []
    assert set(crowd.versions) == {old, new}


def test_a_bundle_that_cannot_take_over_leaves_the_old_one_answering(deployment, other, photographs, monkeypatch):
    stored = local.store(other, deployment.space)
    damaged = stored.folder / "model.onnx"
    content = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    monkeypatch.setattr(local, "store", lambda *_: stored)
    with pytest.raises(MedicError, match=r"did not take over from \w+, which answers on(.|\n)*changed or damaged"):
        local.deploy(other, deployment.space, name="eyes")
    damaged.write_bytes(content)
    assert len(deployment.score(photographs[:1])) == 1
    assert local.find("eyes", deployment.space).bundle == deployment.bundle


def test_a_crashed_deployment_is_started_again_where_it_was(bundle, photographs, tmp_path):
    first = local.deploy(bundle, tmp_path, name="eyes")
    os.kill(first.pid, signal.SIGKILL)
    first._child.wait()
    assert first.status() == "crashed"
    with local.deploy(bundle, tmp_path, name="eyes") as second:
        assert (second.url, second.status()) == (first.url, "ready")
        assert second.pid != first.pid
        assert len(second.score(photographs[:1])) == 1


def test_a_client_that_never_ends_its_header_is_cut_off(bundle, tmp_path):
    """With the time shortened, as nobody wants to wait a quarter of a minute for it."""
    program = (
        "import sys, medic.deployment.service.connection as connection; connection.HEADER_SECONDS = 0.5;"
        "from medic.deployment.service.server import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(bundle.folder), "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        port = int(process.stdout.readline().decode().rpartition(":")[2])

        async def dawdle(start):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            started = time.monotonic()
            assert await asyncio.wait_for(reader.read(), 20) == b""
            return time.monotonic() - started

        async def both():
            return await asyncio.gather(dawdle(b""), dawdle(b"POST /predict HTTP/1.1\r\nHost: me\r\nX-Slow: "))

        seconds = asyncio.run(both())
        process.terminate()
    assert all(0.3 < each < 10 for each in seconds), seconds


def test_signals_to_the_workers_alone_do_not_end_them(deployment, photographs):
    """Ctrl-C in a terminal reaches the whole group; the service decides when its workers end."""
    workers = psutil.Process(deployment.pid).children()
    assert workers
    for worker in workers:
        worker.send_signal(signal.SIGINT)
        worker.send_signal(signal.SIGTERM)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda data: len(deployment.score([data])), photographs[:4]))
    assert {one.pid for one in workers} == {one.pid for one in psutil.Process(deployment.pid).children()}
