"""An HTTP server on loopback in a cloud's place: it keeps every call, and fails where it is told to."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import socket
import ssl
import tempfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Call:
    """One request as it came.

    Attributes:
        method: ``GET``, ``POST``, ...
        path: without the query, as it stood in the request.
        query: each parameter's values.
        headers: by lower-case name.
        body: all its bytes; those that came, where the stub cut the connection.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Reply:
    """What is answered: ``body`` as bytes, or as a value that becomes JSON; None is no body at all."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


CUT = Reply(0)
"""In place of a reply: the connection is cut after the first 64 KiB of the request's body."""


class Stub:
    """A server that answers with a function of the call. Used in a ``with`` block, it ends with it.

    Args:
        answer: gives the reply to a call; None is answered 404.
        tls: whether it speaks https, with a certificate of its own that was made on the spot.

    Attributes:
        calls: every call so far, in order.
        url: its address.
        certificate: the file with its certificate, for a client to trust; None without TLS.
    """

    def __init__(self, answer: Callable[[Call], Reply | None], tls: bool = True):
        self.calls: list[Call] = []
        self._answer = answer
        self._failures: list[list] = []
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="medic-stub-")
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.certificate: Path | None = None
        if tls:
            self.certificate = Path(self._folder.name) / "certificate.pem"
            key = Path(self._folder.name) / "key.pem"
            write_certificate(self.certificate, key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, key)
            # The handshake is left to the connection's own thread: a client that breaks it off stops no other.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def fail(self, method: str, path: str, reply: Reply, times: int = 1, after: int = 0) -> None:
        """Answer calls otherwise: the next ``times`` ones of this method whose path matches, after ``after`` good ones.

        Args:
            method: such as ``POST``.
            path: a regular expression for the whole path.
            reply: what to answer instead, or ``CUT``.
            times: how many calls; -1 for all to come.
            after: how many matching calls are answered as usual first.
        """
        with self._lock:
            self._failures.append([method, re.compile(path), reply, times, after])

    def made(self, method: str, path: str = ".*") -> list[Call]:
        """The calls of this method whose whole path matches a regular expression."""
        return [call for call in self.calls if call.method == method and re.fullmatch(path, call.path)]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failure(self, method: str, path: str) -> Reply | None:
        with self._lock:
            for failure in self._failures:
                if failure[0] == method and failure[1].fullmatch(path) and failure[3]:
                    if failure[4] > 0:
                        failure[4] -= 1
                        continue
                    failure[3] -= 1
                    return failure[2]
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                split = urlsplit(self.path)
                failure = stub._failure(self.command, split.path)
                body = self._body(64 << 10 if failure is CUT else None)
                headers = {name.lower(): value for name, value in self.headers.items()}
                call = Call(self.command, split.path, parse_qs(split.query), headers, body)
                with stub._lock:
                    stub.calls.append(call)
                if failure is CUT:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._send(failure or stub._answer(call) or Reply(404, {"error": f"the stub has no {call}"}))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

            def _body(self, limit: int | None) -> bytes:
                if self.headers.get("Expect", "").lower() == "100-continue":
                    self.send_response_only(100)
                    self.end_headers()
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                        if limit and sum(map(len, parts)) >= limit:
                            return b"".join(parts)
                    self.rfile.readline()
                    return b"".join(parts)
                length = int(self.headers.get("Content-Length") or 0)
                return self.rfile.read(length if limit is None else min(length, limit))

            def _send(self, reply: Reply) -> None:
                body = reply.body
                plain = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if body is not None and not isinstance(body, bytes):
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(plain)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(plain)

            def log_message(self, *_: object) -> None:
                """Silent: ``calls`` holds what came."""

        return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: a client that breaks off, or trusts another, says so itself."""


def write_certificate(certificate: Path, key: Path, hosts: tuple[str, ...] = ("localhost",)) -> None:
    """Write a self-signed certificate for 127.0.0.1 and ``hosts``, valid for a day, and its key (PEM)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    # Two authorities of one name are mistaken for each other where a program trusts both.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"medic stub {uuid.uuid4().hex}")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, hosts)]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
