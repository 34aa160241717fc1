"""This machine as a target: a space is a folder, a deployment a process of its own on a loopback port."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import tenacity

from medic.deployment import targets
from medic.deployment.bundle import Bundle
from medic.deployment.client import Client
from medic.deployment.service.server import EXCHANGED, NOT_EXCHANGED, bind
from medic.errors import MedicError
from medic.files import replacing, write_json

RECORD, LINK = "deployment.json", "bundle"
"""In a deployment's folder: its address and its process, and a link to the stored bundle that it serves."""
WAIT_SECONDS = 300
"""How long a server that runs may take until it is ready, or has exchanged its bundle."""


@dataclass(frozen=True, eq=False)
class Deployment(targets.Deployment):
    """A service on this machine; ``pid`` is its process."""

    pid: int = 0

    @property
    def folder(self) -> Path:
        """Where its record, its log and its counts lie."""
        return Path(self.space) / "deployments" / self.name

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.folder / "server.log"

    def process(self) -> psutil.Process | None:
        """Return its process, if it still runs: the number may since have become another's."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return process if str(self.folder) in process.cmdline() else None


class Local(targets.Target):
    """Processes of this machine. A space is a name, or a folder's path (a ``Path``, or a text with a ``/`` in it).

    ``deploy`` takes a ``port``, too; 0 is any free one, or the one that the deployment had. Under the name of a
    deployment that runs, the new bundle takes over at the same address, and no request is dropped; if the server
    refuses it, nothing changes. One that crashed is started again where it was.
    """

    poll_seconds = 0.05

    def find(self, name: str, space: str | Path = "default") -> Deployment:
        """See ``Target.find``."""
        return super().find(name, _folder(space))

    def _put(self, bundle: Bundle, space: str | Path) -> Bundle:
        folder = _folder(space) / "bundles" / bundle.manifest.version
        if not folder.exists():
            with replacing(folder) as new:
                shutil.copytree(bundle.folder, new)
                Bundle.load(new)
        return Bundle.load(folder)

    def _make(self, bundle: Bundle, space: str | Path, name: str, port: int = 0) -> None:
        version = self._put(bundle, space).manifest.version
        there = next((one for one in self._look(space) if one.name == name), None)
        used = there and urlsplit(there.url).port
        if there and port not in (0, used):
            raise MedicError(f"{name!r} is at port {used}, not {port}; leave the port away, or delete it first")
        deadline = time.monotonic() + WAIT_SECONDS
        while there and there.state == "starting" and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
            there = self.find(name, space)
        if there and there.state == "ready":
            _exchange(there, version)
        else:
            _start(version, _folder(space) / "deployments" / name, used or port)

    def _look(self, space: str | Path) -> Iterator[Deployment]:
        for record in (_folder(space) / "deployments").glob(f"*/{RECORD}"):
            folder, known = record.parent, json.loads(record.read_text())
            at = (folder.name, folder.parents[1], (folder / LINK).readlink().name, known["url"])
            found = Deployment(self, *at, pid=known["pid"])
            with Client(found.url, timeout=5) as client:
                state = "crashed" if not found.process() else "ready" if client.ready() else "starting"
            yield replace(found, state=state, said="" if state == "ready" else _end_of(found.log))

    def _service(self, deployment: Deployment) -> Client:
        return Client(deployment.url)

    def _remove(self, deployment: Deployment) -> None:
        if process := deployment.process():
            process.terminate()
            # Longer than the service takes to finish what it has accepted, over HTTP and gRPC.
            for alive in psutil.wait_procs([process], timeout=75)[1]:
                alive.kill()
        shutil.rmtree(deployment.folder)

    def _remove_bundle(self, deployment: Deployment) -> None:
        shutil.rmtree(Path(deployment.space) / "bundles" / deployment.bundle, ignore_errors=True)


def _start(version: str, folder: Path, port: int) -> None:
    """Start a server for a stored bundle in the deployment's folder, and write down how it is found again."""
    # Workers whose server was killed need a moment to notice, and to let its port go.
    stop = tenacity.stop_after_delay(30 if folder.exists() else 0)
    free = tenacity.retry(stop=stop, wait=tenacity.wait_fixed(0.1), reraise=True)(bind)
    with contextlib.closing(free("127.0.0.1", port)) as taken:
        folder.mkdir(parents=True, exist_ok=True)
        _link(folder, version)
        command = [sys.executable, "-m", "medic.cli", "serve", str(folder / LINK), "--name", folder.name]
        command += ["--descriptor", str(taken.fileno()), "--grpc-port", "0", "--counts", str(folder)]
        # A token in the environment of whoever deploys is meant for something else: nobody else reaches loopback.
        options = {"env": {key: value for key, value in os.environ.items() if key != "MEDIC_TOKEN"}}
        with open(folder / "server.log", "ab") as log:
            # In a session of its own: Ctrl-C in the notebook or the shell is not meant for it.
            options |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            child = subprocess.Popen(command, pass_fds=[taken.fileno()], **options)
        with contextlib.suppress(psutil.Error):
            while not psutil.Process(child.pid).cmdline():  # by which it is known, and which is empty for a moment
                time.sleep(0.001)
        child.returncode = 0  # or Python warns that it still runs: it is found by its record from here on
        write_json(folder / RECORD, {"url": f"http://127.0.0.1:{taken.getsockname()[1]}", "pid": child.pid})


def _exchange(there: Deployment, version: str) -> None:
    """Have a server take another stored bundle; it goes on with the one it has if it refuses."""
    before, deadline = there.log.stat().st_size, time.monotonic() + WAIT_SECONDS
    _link(there.folder, version)
    os.kill(there.pid, signal.SIGHUP)
    while EXCHANGED not in (said := there.log.read_bytes()[before:].decode(errors="replace")):
        if NOT_EXCHANGED in said or not there.process() or time.monotonic() > deadline:
            _link(there.folder, there.bundle)
            raise MedicError(f"{there.name!r} did not take the bundle; {_end_of(there.log)}")
        time.sleep(Local.poll_seconds)


def _link(folder: Path, version: str) -> None:
    """Let the link that a server loads from lead to a stored bundle."""
    new = folder / f".{LINK}.{uuid.uuid4().hex}"
    new.symlink_to(Path("..") / ".." / "bundles" / version, target_is_directory=True)
    os.replace(new, folder / LINK)


def _end_of(log: Path) -> str:
    return "the end of its log:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _folder(space: str | Path) -> Path:
    if not isinstance(space, Path) and "/" not in space:
        space = Path(os.environ.get("MEDIC_SPACES") or Path("outputs") / "spaces") / targets.check_name(space)
    return Path(space).absolute()


LOCAL = Local()
store, deploy, deployments, find = LOCAL.store, LOCAL.deploy, LOCAL.deployments, LOCAL.find
