"""Run a bundle as a service on this machine: ``medic serve BUNDLE`` or ``python -m medic.deployment.serve BUNDLE``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path

from medic.deployment.bundle import Bundle
from medic.deployment.listen import bind
from medic.errors import MedicError


def serve(bundle: Bundle | str | Path, host: str = "127.0.0.1", port: int = 8080, name: str | None = None) -> None:
    """Serve a bundle until the process is told to stop (Ctrl-C, SIGTERM); requests under way are finished first.

    Args:
        bundle: a bundle, its folder or its archive.
        host: a loopback address: the service asks nobody who they are, so other machines are not let in.
        port: 0 takes any free one.
        name: what the deployment is called, shown by ``GET /``.

    Raises:
        MedicError: the port is in use, the host is not loopback, or the bundle is not sound. Nothing has started then.
    """
    serve_on(bind(host, port), bundle, name)


def serve_on(listening: socket.socket, bundle: Bundle | str | Path, name: str | None = None) -> None:
    """As ``serve``, on a socket that listens already."""
    # kserve says a lot while it is imported, and reports each refused request with a traceback.
    logging.getLogger("kserve").setLevel(logging.CRITICAL)
    import uvicorn

    from medic.deployment.service import Limits, application

    with contextlib.closing(listening):
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        # One thread a request and as many requests as cores: the most answers a second from a machine.
        app = application(bundle.predictor(threads=1), Limits(), name)
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"serving {bundle.task.name} ({bundle.manifest.version}, {bundle.manifest.precision}) at {address}")
        print(bundle.manifest.notice, flush=True)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            limit_concurrency=128,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=10,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def main(arguments: list[str] | None = None) -> int:
    """The program behind ``local.deploy`` and ``medic serve``."""
    parser = argparse.ArgumentParser(prog="python -m medic.deployment.serve", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle's folder or .tar.gz")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any free one (default: 8080)")
    parser.add_argument("--name", help="what the deployment is called")
    parser.add_argument("--descriptor", type=int, help="serve on this inherited, listening socket instead")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if given.descriptor is None:
            serve(given.bundle, given.host, given.port, given.name)
        else:
            serve_on(socket.socket(fileno=given.descriptor), given.bundle, given.name)
    except MedicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
