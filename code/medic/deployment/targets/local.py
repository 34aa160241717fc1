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
from collections.abc import Callable, Iterator
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
"""In a deployment's folder: what ``find`` needs, and a link to the stored bundle that it serves."""


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
            return process if str(self.folder.absolute()) in process.cmdline() else None

    def save(self) -> None:
        """Write down what ``find`` needs."""
        write_json(self.folder / RECORD, {"url": self.url, "bundle": self.bundle, "pid": self.pid})


class Local(targets.Target):
    """Processes of this machine. A space is a name, or a folder's path (a ``Path``, or a text with a ``/`` in it)."""

    def deploy(
        self, bundle: Bundle | str | Path, space: str | Path = "default", name: str | None = None, port: int = 0
    ) -> Deployment:
        """Store a bundle and serve it in a process of its own on loopback ports, until it is deleted.

        Under the name of a deployment that runs, the new bundle takes over at the same address, and no request is
        dropped. One that crashed is started again where it was. A ``port`` of 0 takes any free one, or that one's.

        Raises:
            MedicError: the port is in use, or the server did not take the bundle (one of another task, for example):
                the message holds the end of its log. What was there is there still.
        """
        stored = self.store(bundle, space)
        name, version = targets.check_name(name, stored), stored.manifest.version
        there = next((one for one in self._look(space) if one.name == name), None)
        used = there and urlsplit(there.url).port
        if there and port not in (0, used):
            raise MedicError(f"{name!r} is at port {used}, not {port}; leave the port away, or delete it first")
        if not there or there.state == "crashed":
            return _start(version, _folder(space) / "deployments" / name, used or port, there)
        _wait(there)  # it may have been started just now
        logged = there.log.stat().st_size
        _link(there.folder, version)
        os.kill(there.pid, signal.SIGHUP)
        try:
            _wait(there, lambda: there.log.read_bytes()[logged:].decode(errors="replace"))
        except MedicError:
            _link(there.folder, there.bundle)
            raise
        exchanged = replace(there, bundle=version, state="ready")
        exchanged.save()
        return exchanged

    def find(self, name: str, space: str | Path = "default") -> Deployment:
        """See ``Target.find``."""
        return super().find(name, _folder(space).absolute())

    def _put(self, bundle: Bundle, space: str | Path) -> Bundle:
        folder = _folder(space) / "bundles" / bundle.manifest.version
        if not folder.exists():
            with replacing(folder) as new:
                shutil.copytree(bundle.folder, new)
                Bundle.load(new)
        return Bundle.load(folder)

    def _look(self, space: str | Path) -> Iterator[Deployment]:
        for record in (_folder(space) / "deployments").glob(f"*/{RECORD}"):
            known, at = json.loads(record.read_text()), (record.parent.name, record.parents[2])
            found = Deployment(self, *at, known["bundle"], known["url"], pid=known["pid"])
            with Client(found.url, timeout=5) as client:
                state = "crashed" if not found.process() else "ready" if client.ready() else "starting"
            yield replace(found, state=state)

    def _remove(self, deployment: Deployment) -> None:
        if not deployment.folder.exists():
            raise MedicError(f"the deployment {deployment.name!r} was deleted before; there is nothing to delete")
        if process := deployment.process():
            process.terminate()
            # Longer than the service takes to finish what it has accepted, over HTTP and gRPC.
            for alive in psutil.wait_procs([process], timeout=75)[1]:
                alive.kill()
        shutil.rmtree(deployment.folder)

    def _remove_bundle(self, deployment: Deployment) -> None:
        shutil.rmtree(Path(deployment.space) / "bundles" / deployment.bundle, ignore_errors=True)


def _start(version: str, folder: Path, port: int, there: Deployment | None) -> Deployment:
    """Start a server for a stored bundle; nothing new is left of it if it does not become ready."""
    # Workers whose server was killed need a moment to notice, and to let its port go.
    again = {"stop": tenacity.stop_after_delay(30 if there else 0), "wait": tenacity.wait_fixed(0.1), "reraise": True}
    with contextlib.closing(tenacity.retry(**again)(bind)("127.0.0.1", port)) as taken:
        folder.mkdir(parents=True, exist_ok=True)
        _link(folder, version)
        command = [sys.executable, "-m", "medic.cli", "serve", str((folder / LINK).absolute())]
        command += ["--name", folder.name, "--descriptor", str(taken.fileno()), "--grpc-port", "0"]
        command += ["--counts", str(folder.absolute())]
        # A token in the environment of whoever deploys is meant for something else: nobody else reaches loopback.
        options = {"env": {key: value for key, value in os.environ.items() if key != "MEDIC_TOKEN"}}
        with open(folder / "server.log", "ab") as log:
            # In a session of its own: Ctrl-C in the notebook or the shell is not meant for it.
            options |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            child = subprocess.Popen(command, pass_fds=[taken.fileno()], **options)
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    started = Deployment(LOCAL, folder.name, folder.parents[1], version, url, "ready", pid=child.pid)
    try:
        started.save()  # at once: should this program be killed while it waits, the server can still be found
        _wait(started)
    except BaseException:
        child.kill()
        child.wait()
        there.save() if there else shutil.rmtree(folder, ignore_errors=True)
        raise
    return replace(started, facts={"child": child})  # kept, or Python warns that it still runs


def _wait(deployment: Deployment, said: Callable[[], str] | None = None) -> None:
    """Wait until a server is ready, or where its log goes on with ``said``, until it has exchanged its bundle."""
    deadline = time.monotonic() + 300
    with Client(deployment.url, timeout=5) as client:
        while not (EXCHANGED in said() if said else client.ready()):
            failed = not deployment.process() or (said and NOT_EXCHANGED in said())
            if failed or time.monotonic() > deadline:
                end = "\n".join(deployment.log.read_text(errors="replace").splitlines()[-15:])
                raise MedicError(f"{deployment.name!r} did not take the bundle; the end of its log:\n{end}")
            time.sleep(0.05)


def _link(folder: Path, version: str) -> None:
    """Let the link that a server loads from lead to a stored bundle."""
    new = folder / f".{LINK}.{uuid.uuid4().hex}"
    new.symlink_to(Path("..") / ".." / "bundles" / version, target_is_directory=True)
    os.replace(new, folder / LINK)


def _folder(space: str | Path) -> Path:
    if isinstance(space, Path) or "/" in space:
        return Path(space)
    return Path(os.environ.get("MEDIC_SPACES") or Path("outputs") / "spaces") / targets.check_name(space)


LOCAL = Local()
store, deploy, deployments, find = LOCAL.store, LOCAL.deploy, LOCAL.deployments, LOCAL.find
