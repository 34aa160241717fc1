"""This machine as a target: a space is a folder, a deployment a process of its own on a loopback port."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from medic.deployment.bundle import Bundle
from medic.deployment.bundle.manifest import MANIFEST
from medic.deployment.client import Client, Image
from medic.deployment.service.server import EXCHANGED, NOT_EXCHANGED, bind
from medic.deployment.targets import check_name
from medic.errors import MedicError
from medic.files import write_bytes, write_json
from medic.task import Prediction

RECORD = "deployment.json"
LINK = "bundle"
"""In a deployment's folder: leads to the stored bundle that it serves."""
START_SECONDS = 150.0
ORPHAN_SECONDS = 30.0
EXCHANGE_SECONDS = 300.0
"""Each worker is replaced in turn, by one that starts."""
STOP_SECONDS = 75.0
"""Longer than the service takes to finish what it has accepted, over HTTP and gRPC."""


@dataclass(frozen=True, eq=False)
class Deployment:
    """One bundle, callable. It outlives the program that made it; ``deployments`` finds it again.

    Attributes:
        name: unique in its space.
        space: the space's folder.
        url: where it answers.
        bundle: version of the bundle it serves.
        pid: its process.
        started: when that process started, seconds since 1970: a process number alone may since be someone else's.
        created: when it was deployed, ISO 8601.
        grpc: where it speaks the Open Inference Protocol over gRPC, such as ``127.0.0.1:40001``.
    """

    name: str
    space: Path
    url: str
    bundle: str
    pid: int
    started: float
    created: str
    grpc: str = ""
    # Kept so that the process is collected when it ends while its maker still runs.
    _child: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Where its record and its log lie."""
        return self.space / "deployments" / self.name

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.folder / "server.log"

    def score(self, images: Sequence[Image]) -> Prediction:
        """See ``local.score``."""
        return score(self, images)

    def status(self) -> str:
        """See ``local.status``."""
        return status(self)

    def delete(self, bundle: bool = False) -> None:
        """See ``local.delete``."""
        delete(self, bundle)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status() != "stopped":
            self.delete()

    def __str__(self) -> str:
        return f"deployment {self.name} of bundle {self.bundle} at {self.url}: {self.status()}"

    def _repr_html_(self) -> str:
        rows = {"deployment": self.name, "bundle": self.bundle, "url": self.url, "gRPC": self.grpc}
        rows["status"] = self.status()
        cells = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows.items())
        return f"<table>{cells}</table>"


def store(bundle: Bundle | str | Path, space: str | Path = "default") -> Bundle:
    """Copy a bundle into a space, under its version, whole or not at all, and verify the copy.

    Args:
        bundle: a bundle, its folder or its archive.
        space: a name, or a folder's path (a ``Path``, or a text with a ``/`` in it).

    Raises:
        MedicError: the bundle is not sound, or the space cannot be written.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    folder = _folder(space) / "bundles" / bundle.manifest.version
    if not folder.exists():
        new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
        try:
            for name in (*bundle.manifest.files, MANIFEST):
                write_bytes(new / name, (bundle.folder / name).read_bytes())
            Bundle.load(new)
            os.rename(new, folder)
        except OSError as error:
            raise MedicError(
                f"cannot store into {folder} ({error.strerror}); free some space or choose another space"
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return Bundle.load(folder)


def deploy(
    bundle: Bundle | str | Path, space: str | Path = "default", name: str | None = None, port: int = 0
) -> Deployment:
    """Store a bundle and serve it in a process of its own on loopback ports, until ``delete``.

    Under the name of a deployment that runs, the new bundle takes over from the one that answers now: the address
    stays, what is under way is finished by the old one, and no request is dropped. One that crashed is started again
    where it was.

    Args:
        bundle: a bundle, its folder or its archive.
        space: as for ``store``.
        name: unique in the space; the task's name with a few random digits when None.
        port: 0 takes any free one, or that of the deployment there is.

    Returns:
        The deployment, ready to be called.

    Raises:
        MedicError: the port is in use, the bundle is of another task than the one that answers under this name, or the
            server did not become ready; the message holds the end of its log. What was there before is there still.
    """
    stored = store(bundle, space)
    name = name or f"{stored.task.name}-{uuid.uuid4().hex[:6]}"
    folder = _folder(space) / "deployments" / check_name(name)
    if not (folder / RECORD).is_file():
        return _start(stored, folder, port)
    there = _load(folder / RECORD)
    used = int(there.url.rpartition(":")[2])
    if port not in (0, used):
        raise MedicError(
            f"the deployment {name!r} is at port {used}, not {port}; leave the port away, or delete it first"
        )
    if _process(there) is None:
        return _start(stored, folder, used)
    return _exchange(there, stored)


def _start(stored: Bundle, folder: Path, port: int) -> Deployment:
    """Start a server for a stored bundle; nothing new is left of it if it does not become ready."""
    record, link = folder / RECORD, folder / LINK
    before = (record.read_bytes(), os.readlink(link)) if record.is_file() else None
    with contextlib.closing(_take(port, ORPHAN_SECONDS if before else 0)) as listening:
        folder.mkdir(parents=True, exist_ok=True)
        _point(folder, stored)
        command = [sys.executable, "-m", "medic.cli", "serve", str((folder / LINK).absolute())]
        command += ["--name", folder.name, "--descriptor", str(listening.fileno()), "--grpc-port", "0"]
        command += ["--counts", str(folder.absolute())]
        # A token in the environment of whoever deploys is meant for something else: nobody else reaches loopback.
        environment = {key: value for key, value in os.environ.items() if key != "MEDIC_TOKEN"}
        with open(folder / "server.log", "wb" if before is None else "ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listening.fileno()],
                env=environment,
                # A session of its own: Ctrl-C in the notebook or the shell is not meant for it.
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        deployment = Deployment(
            folder.name,
            folder.parents[1],
            url,
            stored.manifest.version,
            child.pid,
            psutil.Process(child.pid).create_time(),
            datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            _child=child,
        )
        # Recorded before it is ready: should this program be killed while it waits, the server can still be found.
        write_json(folder / RECORD, _record(deployment))
        deployment = replace(deployment, grpc=_wait_until_ready(deployment))
        write_json(folder / RECORD, _record(deployment))
    except BaseException:
        child.kill()
        child.wait()
        if before is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            write_bytes(record, before[0])
            _link(folder, before[1])
        raise
    return deployment


def _take(port: int, seconds: float) -> socket.socket:
    """Take a port, and wait for it so long: workers whose server was killed need a moment to notice and let it go."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return bind("127.0.0.1", port)
        except MedicError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def _exchange(there: Deployment, stored: Bundle) -> Deployment:
    """Let a running server load another bundle, and wait until that one answers."""
    present = Bundle.load(there.space / "bundles" / there.bundle)
    if present.task != stored.task:
        raise MedicError(
            f"the deployment {there.name!r} answers {present.task.name!r}, the bundle is for {stored.task.name!r}; "
            "clients count on that: deploy it under another name"
        )
    _wait_until_ready(there)  # it may have been started just now
    logged, said = there.log.stat().st_size, ""
    _point(there.folder, stored)
    with contextlib.suppress(ProcessLookupError):
        os.kill(there.pid, signal.SIGHUP)
    deadline = time.monotonic() + EXCHANGE_SECONDS
    while EXCHANGED not in said:
        if time.monotonic() > deadline or _process(there) is None or NOT_EXCHANGED in said:
            _point(there.folder, present)
            raise MedicError(
                f"the bundle {stored.manifest.version} did not take over from {there.bundle}; the end of the log:\n"
                f"{said[-2000:]}"
            )
        time.sleep(0.1)
        said = there.log.read_bytes()[logged:].decode(errors="replace")
    deployment = replace(there, bundle=stored.manifest.version)
    write_json(there.folder / RECORD, _record(deployment))
    return deployment


def _point(folder: Path, stored: Bundle) -> None:
    """Let the link that a server loads from lead to a stored bundle."""
    _link(folder, Path("..") / ".." / "bundles" / stored.manifest.version)


def _link(folder: Path, to: str | Path) -> None:
    new = folder / f".{LINK}.{uuid.uuid4().hex}"
    new.symlink_to(to, target_is_directory=True)
    os.replace(new, folder / LINK)


def deployments(space: str | Path = "default") -> list[Deployment]:
    """What was deployed in a space and not deleted, by name; ``status`` tells which of them still run."""
    records = sorted((_folder(space) / "deployments").glob(f"*/{RECORD}"))
    return [_load(record) for record in records]


def find(name: str, space: str | Path = "default") -> Deployment:
    """The deployment of that name.

    Raises:
        MedicError: there is none; the message lists those there are.
    """
    there = {deployment.name: deployment for deployment in deployments(space)}
    if name not in there:
        raise MedicError(
            f"the space {_folder(space).absolute()} has no deployment {name!r}; there is: "
            f"{', '.join(there) or 'none'}; name another space with --space NAME or --space PATH"
        )
    return there[name]


def score(deployment: Deployment, images: Sequence[Image]) -> Prediction:
    """Send image files (bytes or paths) to a deployment.

    Raises:
        MedicError: it does not run, or refuses an image; the message carries its reason.
    """
    state = _process_state(deployment)
    if state != "running":
        raise MedicError(f"the deployment {deployment.name!r} is {state}; deploy the bundle again")
    with Client(deployment.url) as client:
        return client.score(images)


def status(deployment: Deployment) -> str:
    """``ready``, ``starting`` (runs, does not answer yet), ``crashed`` (ended by itself) or ``stopped`` (deleted)."""
    state = _process_state(deployment)
    if state != "running":
        return state
    with Client(deployment.url, timeout=5) as client:
        return "ready" if client.ready() else "starting"


def delete(deployment: Deployment, bundle: bool = False) -> None:
    """End a deployment and remove its record and its log.

    Requests under way are finished first. The process is ended only if it is still the one that was started.

    Args:
        deployment: which one.
        bundle: remove the stored bundle too, unless another deployment serves it.

    Raises:
        MedicError: it was deleted before, or its process does not end.
    """
    state = _process_state(deployment)
    if state == "stopped":
        raise MedicError(f"the deployment {deployment.name!r} was deleted before; there is nothing to delete")
    if state == "running":
        _stop(deployment)
    shutil.rmtree(deployment.folder)
    others = {other.bundle for other in deployments(deployment.space)}
    if bundle and deployment.bundle not in others:
        shutil.rmtree(deployment.space / "bundles" / deployment.bundle, ignore_errors=True)


def _process_state(deployment: Deployment) -> str:
    record = deployment.folder / RECORD
    if not record.is_file() or _load(record).pid != deployment.pid:
        return "stopped"
    return "running" if _process(deployment) else "crashed"


def _process(deployment: Deployment) -> psutil.Process | None:
    """The deployment's process, if it still runs and the number has not since become another's."""
    if deployment._child is not None:
        deployment._child.poll()
    try:
        process = psutil.Process(deployment.pid)
        same = abs(process.create_time() - deployment.started) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _stop(deployment: Deployment) -> None:
    process = _process(deployment)
    if process is None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired as error:
            raise MedicError(
                f"process {deployment.pid} of the deployment {deployment.name!r} does not end; end it by hand"
            ) from error
    if deployment._child is not None:
        deployment._child.wait()


def _wait_until_ready(deployment: Deployment) -> str:
    """Wait until a server answers; what its gRPC address is."""
    deadline = time.monotonic() + START_SECONDS
    with Client(deployment.url, timeout=5) as client:
        while not client.ready():
            running = _process(deployment) is not None
            if not running or time.monotonic() > deadline:
                ended = f"was not ready in {START_SECONDS:g} seconds" if running else "ended"
                end = "\n".join(deployment.log.read_text(errors="replace").splitlines()[-15:])
                raise MedicError(f"the server of {deployment.name!r} {ended}; the end of its log:\n{end}")
            time.sleep(0.05)
        return client.about()["grpc"]


def _record(deployment: Deployment) -> dict:
    names = ("name", "url", "bundle", "pid", "started", "created", "grpc")
    return {name: getattr(deployment, name) for name in names}


def _load(record: Path) -> Deployment:
    try:
        return Deployment(space=record.parents[2], **json.loads(record.read_text()))
    except (ValueError, TypeError) as error:
        raise MedicError(
            f"{record} is damaged ({error}); end its server by hand if it runs, and remove {record.parent}"
        ) from error


def _home() -> Path:
    return Path(os.environ.get("MEDIC_SPACES") or Path("outputs") / "spaces")


def _folder(space: str | Path) -> Path:
    if isinstance(space, Path) or "/" in space:
        return Path(space)
    return _home() / check_name(space)
