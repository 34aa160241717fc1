"""Run a bundle as a service: ``medic serve BUNDLE`` or ``python -m medic.deployment.service.server BUNDLE``.

The process takes connections and checks what comes; worker processes compute (``workers``). On SIGHUP
it loads the bundle's folder again and lets it answer from then on; on SIGTERM it finishes what it has accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import re
import signal
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medic.deployment.bundle import Bundle
from medic.deployment.service.limits import Limits, cores
from medic.deployment.service.listen import bind, take_no_more
from medic.deployment.service.telemetry import log_as_json
from medic.errors import MedicError

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn

    from medic.deployment.service.app import Service
    from medic.deployment.service.workers import Workers

DRAIN_SECONDS = 1.0
"""How long a service that is told to end lets clients in, each answer ending its connection, before it closes."""

ENTRY_SECONDS = 0.1
"""How long it then accepts those who have come already: a connection takes a round trip to be made."""

NOT_EXCHANGED = "the bundle was not exchanged"
"""What the log says when another bundle could not take over."""

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
        key: PEM file of its private key.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None


def serve(bundle: str | Path, config: ServerConfig, name: str | None = None, limits: Limits | None = None) -> None:
    """Serve a bundle until the process is told to stop (Ctrl-C, SIGTERM); requests under way are finished first.

    Args:
        bundle: a bundle's folder or archive.
        config: where it listens.
        name: what the deployment is called, shown by ``GET /``.
        limits: what it takes on; the usual when None.

    Raises:
        MedicError: the port is in use, the host may be reached from elsewhere and there is no token, a TLS file is
            wrong, or the bundle is not sound. Nothing has started then.
    """
    serve_on(bind(config.host, config.port, config.token), bundle, config, name, limits)


def serve_on(
    listening: socket.socket,
    bundle: str | Path,
    config: ServerConfig,
    name: str | None = None,
    limits: Limits | None = None,
) -> None:
    """As ``serve``, on a socket that listens already."""
    with contextlib.closing(listening):
        # Until the bundle has been loaded once, there is nothing to load again; the signal's default is the end.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        tls = _tls(config)
        # Kept: an archive is unpacked for as long as this lives.
        loaded = Bundle.load(bundle)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(listening, loaded, config, tls, (name, limits or Limits())))


async def _serve(
    listening: socket.socket,
    bundle: Bundle,
    config: ServerConfig,
    tls: ssl.SSLContext | None,
    given: tuple[str | None, Limits],
) -> None:
    from medic.deployment.service.workers import Workers

    name, limits = given
    starting = asyncio.create_task(Workers.start(bundle.folder, limits))
    # kserve says a lot while it is imported, and reports each refused request with a traceback.
    logging.getLogger("kserve").setLevel(logging.CRITICAL)
    # Its import takes as long as the workers' start: both at once.
    await asyncio.to_thread(importlib.import_module, "medic.deployment.service.open_inference_grpc")
    from medic.deployment.service import open_inference_grpc
    from medic.deployment.service.app import Service

    workers = await starting
    service = Service(workers, limits, name, config.token)
    certificate = None
    if tls is not None:
        certificate = open_inference_grpc.Certificate(config.certificate.read_bytes(), config.key.read_bytes())
    rpc = None
    try:
        if config.grpc_port is not None:
            rpc = await open_inference_grpc.start(service, config.host, config.grpc_port, certificate)
        _announce(service, listening, tls)
        server = _server(service, listening, tls)
        reloads: set[asyncio.Task] = set()

        def reload() -> None:
            task = asyncio.create_task(_exchange(workers, bundle))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        await server.serve(sockets=[listening])
    finally:
        if rpc is not None:
            await rpc.stop(limits.computing)
        await workers.close()


async def _exchange(workers: Workers, bundle: Bundle) -> None:
    """Load the bundle's folder again, and let what lies there now answer."""
    try:
        await workers.exchange(bundle.folder)
        LOG.info("bundle exchanged", extra={"facts": {"version": workers.manifest.version}})
    except (MedicError, OSError) as error:
        LOG.error("%s: %s", NOT_EXCHANGED, error)


def _announce(service: Service, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
    manifest = service.workers.manifest
    host, port = listening.getsockname()[:2]
    address = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
    rpc = f", gRPC at {service.grpc}" if service.grpc else ""
    print(f"serving {manifest.task.name} ({manifest.version}, {manifest.precision}) at {address}{rpc}")
    print(manifest.notice, flush=True)


def _server(service: Service, listening: socket.socket, tls: ssl.SSLContext | None) -> uvicorn.Server:
    import uvicorn

    from medic.deployment.service.app import application
    from medic.deployment.service.connection import PatientProtocol

    state = service.state

    class Server(uvicorn.Server):
        """uvicorn's, which would close connections in the very moment a client sends its next request."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                self.force_exit = True
            elif sig != signal.SIGTERM or state.get("draining"):
                self.should_exit = True
            else:
                state["draining"] = True
                loop = asyncio.get_running_loop()
                loop.call_soon_threadsafe(self.end, loop.time() + DRAIN_SECONDS)

        def end(self, latest: float) -> None:
            loop = asyncio.get_running_loop()
            if loop.time() >= latest or not self.server_state.connections:
                take_no_more(listening)
                loop.call_later(ENTRY_SECONDS, setattr, self, "should_exit", True)
            else:
                loop.call_later(0.02, self.end, latest)

    return Server(
        uvicorn.Config(
            application(service),
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(service.limits.computing),
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
    )


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
    if config.certificate is None and config.key is None:
        return None
    if config.certificate is None or config.key is None:
        raise MedicError("TLS takes two files, the certificate and its private key; give both")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise MedicError(
            f"{config.certificate} and {config.key} are no certificate and its key in PEM form ({error}); correct the "
            "paths"
        ) from error
    return context


def read_token(file: Path | None) -> str | None:
    """The token from a file or else from the environment variable ``MEDIC_TOKEN``; None if there is neither.

    Raises:
        MedicError: the file cannot be read, or what it holds is too short or has blanks in it.
    """
    try:
        token = os.environ.get("MEDIC_TOKEN") if file is None else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise MedicError(f"the token file {file} cannot be read ({error}); correct the path") from error
    if token is None:
        return None
    token = token.strip()
    if not re.fullmatch(r"[!-~]{16,200}", token):
        raise MedicError(
            "a token has 16 to 200 letters, digits and signs without blanks; make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def main(arguments: list[str] | None = None) -> int:
    """The program behind ``local.deploy`` and ``medic serve``."""
    parser = argparse.ArgumentParser(prog="python -m medic.deployment.service.server", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle's folder or .tar.gz")
    parser.add_argument("--host", default="127.0.0.1", help="other than loopback needs a token (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any free one (default: 8080)")
    parser.add_argument("--grpc-port", type=int, help="opens gRPC, too; 0 takes any free one")
    parser.add_argument("--token-file", type=Path, help="file with the token to ask for (or MEDIC_TOKEN)")
    parser.add_argument("--certificate", type=Path, help="TLS certificate, PEM")
    parser.add_argument("--key", type=Path, help="its private key, PEM")
    parser.add_argument("--workers", type=int, default=cores(), help="processes that compute (default: a core each)")
    parser.add_argument("--name", help="what the deployment is called")
    parser.add_argument("--descriptor", type=int, help="serve on this inherited, listening socket instead")
    given = parser.parse_args(arguments)
    log_as_json()
    try:
        token = read_token(given.token_file)
        config = ServerConfig(given.host, given.port, given.grpc_port, token, given.certificate, given.key)
        if given.workers < 1:
            raise MedicError(f"{given.workers} workers compute nothing; give 1 or more")
        listening = (
            bind(config.host, config.port, token)
            if given.descriptor is None
            else socket.socket(fileno=given.descriptor)
        )
        serve_on(listening, given.bundle, config, given.name, Limits(workers=given.workers))
    except MedicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
