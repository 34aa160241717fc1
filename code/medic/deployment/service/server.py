"""Run a bundle as a service, as ``medic serve BUNDLE`` does.

Uvicorn's worker processes share one port; each decodes and computes with a session of its own. The process around them
replaces a worker that ends. On SIGHUP it replaces the workers one after the other by ones that load what now lies in
the bundle's folder; on SIGTERM they finish what they have accepted.
"""

import functools
import ipaddress
import logging
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from medic.data.parallel import usable_cores
from medic.deployment.bundle import Bundle
from medic.errors import MedicError
from medic.task import Task

START_SECONDS = 120
"""How long a worker may take to start, and to answer the process around it, on a busy machine."""

FINISH_SECONDS = 30
"""How long a worker that ends goes on with what it has accepted."""

EXCHANGED = "the bundle was exchanged"
NOT_EXCHANGED = "the bundle was not exchanged"
"""What the log says after SIGHUP."""

LOG = logging.getLogger("medic")


@dataclass(frozen=True)
class ServerConfig:
    """Where a service listens, and whom it lets in.

    Attributes:
        host: an address of this machine. Other than loopback it needs a token.
        port: 0 takes any free one.
        grpc_port: of the Open Inference Protocol over gRPC; 0 takes any free one, None opens none.
        token: what clients show as ``Authorization: Bearer TOKEN``; None asks nobody.
        certificate: PEM file of a TLS certificate with its chain; None speaks plain HTTP.
        key: PEM file of its private key; None where the certificate's file holds it.
        name: what the deployment is called, shown by ``GET /``.
        workers: processes that compute; None takes a core each.
        counts: folder for what ``medic drift`` reads, counts of the answers by the hour; None keeps nothing.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None
    workers: int | None = None
    counts: Path | None = None

    @property
    def grpc(self) -> str | None:
        """The address of the gRPC port, such as ``127.0.0.1:8081``; None without."""
        return None if self.grpc_port is None else _address(self.host, self.grpc_port)


def serve(bundle: str | Path, config: ServerConfig, listening: socket.socket | None = None) -> None:
    """Serve a bundle until the process is told to stop (Ctrl-C, SIGTERM); requests under way are finished first.

    Args:
        bundle: a bundle's folder or archive.
        config: where it listens.
        listening: a socket to serve on instead of the config's host and port.

    Raises:
        MedicError: the port is in use, the host may be reached from elsewhere and there is no token, a TLS file is
            wrong, the bundle is not sound, or no worker starts.
    """
    with ExitStack() as held:
        taken = held.enter_context(listening or bind(config.host, config.port, config.token))
        if config.certificate or config.key:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.certificate, config.key)
            except (OSError, TypeError) as error:
                raise MedicError(
                    f"{config.certificate} and {config.key} are no certificate and its key in PEM form ({error}); "
                    "correct the paths"
                ) from error
        if config.grpc_port is not None:
            # Bound and never listening: it keeps the port for the workers, which share it.
            kept = held.enter_context(bind(config.host, config.grpc_port, config.token, shared=True))
            config = replace(config, grpc_port=kept.getsockname()[1])
        # Kept: an archive is unpacked for as long as this lives.
        loaded = Bundle.load(bundle)
        # The workers count together, in files (prometheus_client's multiprocess mode).
        counters = held.enter_context(tempfile.TemporaryDirectory(prefix="medic-metrics-"))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = counters
        _Supervisor(loaded, config, taken).run()


def _start_worker(folder: Path, config: ServerConfig, replaced: Task | None = None) -> Callable:
    """Load the bundle in a worker process, which may replace one that answers a task, and return its application."""
    from medic.deployment.bundle.predictor import Predictor
    from medic.deployment.service.app import Service, application
    from medic.deployment.service.middleware import log_as_json

    log_as_json()
    try:
        predictor = Predictor(folder)
        if replaced not in (None, predictor.task):
            raise MedicError(f"the bundle is for {predictor.task.name!r}, clients count on {replaced.name!r}")
        return application(Service(predictor, config, replaces=replaced is not None))
    except MedicError as error:
        LOG.error("a worker cannot start: %s", error)
        sys.exit(STARTUP_FAILURE)


class _Supervisor(Multiprocess):
    """Uvicorn's supervisor, which says when the service is ready, and whether another bundle took over."""

    def __init__(self, bundle: Bundle, config: ServerConfig, listening: socket.socket):
        settings = uvicorn.Config(
            functools.partial(_start_worker, bundle.folder.resolve(), config),
            factory=True,
            workers=config.workers or usable_cores(),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=FINISH_SECONDS,
            timeout_worker_healthcheck=START_SECONDS,
            ssl_certfile=config.certificate,
            ssl_keyfile=config.key,
        )
        super().__init__(settings, [listening])
        for end in (signal.SIGINT, signal.SIGTERM):
            # In the middle of an exchange, too; in a thread, as what a signal interrupts may hold the event's lock.
            signal.signal(end, lambda *_: threading.Thread(target=self.should_exit.set).start())
        manifest, address = bundle.manifest, _address(*listening.getsockname()[:2])
        self._ready = (
            f"serving {manifest.task.name} ({manifest.version}, {manifest.precision}) at "
            f"http{'s' if config.certificate else ''}://{address}{f', gRPC at {config.grpc}' if config.grpc else ''}\n"
            f"{manifest.notice}"
        )
        self._bundle, self._config = bundle, config

    def init_processes(self) -> None:
        super().init_processes()
        self.config.app = functools.partial(self.config.app, replaced=self._bundle.task)
        if not any(process.wait_until_ready(START_SECONDS) for process in self.processes):
            self.terminate_all()
            raise MedicError("no worker of the service started; the lines above say why")
        print(self._ready, flush=True)

    def run(self) -> None:
        super().run()
        if any(process.exitcode == STARTUP_FAILURE for process in self.processes):
            raise MedicError("a worker ended and no other could start in its place; the lines above say why")

    def handle_hup(self) -> None:
        # A link may lead elsewhere now. Only then: a worker that comes in place of one that ended serves what it did.
        before, app, folder = list(self.processes), self.config.app, self._bundle.folder.resolve()
        self.config.app = functools.partial(_start_worker, folder, self._config, self._bundle.task)
        self.restart_all()
        if any(process in before for process in self.processes):
            self.config.app = app
            LOG.error("%s; the lines above say why", NOT_EXCHANGED)
        else:
            LOG.info(EXCHANGED)


def bind(host: str, port: int, token: str | None = None, *, shared: bool = False) -> socket.socket:
    """Take a port on this machine.

    Args:
        host: ``localhost`` or an address of this machine. One that other machines can reach needs a token.
        port: 0 takes any free one.
        token: what clients have to show, if anything.
        shared: other sockets of this user may listen on it, and this one does not; otherwise it listens at once, and
            clients that come early wait.

    Raises:
        MedicError: others could come in unasked, or the port is in use, not allowed or no port at all.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise MedicError(f"host {host!r} is no address; give localhost or an address of this machine") from error
    if not address.is_loopback and token is None:
        raise MedicError(
            f"{host} can be reached from other machines, and there is no token; give one with --token-file, or listen "
            "on 127.0.0.1"
        )
    if shared and port:
        bind(host, port, token).close()  # a port that is shared would be taken even if someone else listens there
    # The protocol is named, or asyncio leaves answers to wait 40 ms for an acknowledgement (Nagle).
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
        taken.bind((str(address), port))
        if not shared:
            taken.listen(1024)
    except (OSError, OverflowError) as error:
        taken.close()
        why = f"port {port} on {host} cannot be used ({error})"
        raise MedicError(f"{why}; choose another port, or take any free one with 0") from error
    return taken


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_token(file: Path | None) -> str | None:
    """Return the token from a file or else from the environment variable ``MEDIC_TOKEN``; None if there is neither.

    Raises:
        MedicError: the file cannot be read, or what it holds is too short or has blanks in it.
    """
    try:
        token = os.environ.get("MEDIC_TOKEN") if file is None else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise MedicError(f"the token file {file} cannot be read ({error}); correct the path") from error
    if token is not None and not re.fullmatch(r"[!-~]{16,200}", token.strip()):
        raise MedicError(
            "a token has 16 to 200 letters, digits and signs without blanks; make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return None if token is None else token.strip()
