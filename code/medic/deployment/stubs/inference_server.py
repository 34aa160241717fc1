"""Azure's own inference server on this machine, as a managed online endpoint runs it in its container."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from medic.errors import MedicError

# Azure's server listens on all addresses; a rehearsal stays on this machine.
SERVER = """
from azureml_inference_server_http import amlserver
amlserver.DEFAULT_HOST = "127.0.0.1"
amlserver.run()
"""


@contextlib.contextmanager
def inference_server(
    entry_script: str | Path, model_dir: str | Path, environment: dict[str, str] | None = None
) -> Iterator[str]:
    """Run ``azmlinfsrv --entry_script ... --model_dir ... --port ...`` on loopback until the block ends.

    Args:
        entry_script: a ``score.py``.
        model_dir: what it finds as ``AZUREML_MODEL_DIR``.
        environment: variables beside those of this process.

    Yields:
        The server's address; it is ready.

    Raises:
        MedicError: it did not start; the message holds the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="medic-azmlinfsrv-") as folder:
        log = Path(folder) / "server.log"
        command = [sys.executable, "-c", SERVER, "--entry_script", str(entry_script), "--model_dir", str(model_dir)]
        with open(log, "wb") as output:
            server = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_healthy(server, url, log)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_healthy(server: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError), httpx.Client(trust_env=False) as http:
            if http.get(url).is_success:
                return
        time.sleep(0.1)
    end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise MedicError(f"Azure's inference server did not start; the end of its log:\n{end}")
