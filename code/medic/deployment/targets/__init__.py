"""Places where a bundle becomes a service. Each target is a module with the same five verbs.

- ``store(bundle, space)`` puts a version of a bundle into a space; one that is there is not sent again.
- ``deploy(bundle, space, name)`` stores it, makes it callable, waits until it answers, and returns a deployment.
- ``status(deployment)`` is one word: ``ready``, ``starting``, ``crashed`` or ``stopped``.
- ``score(deployment, images)`` sends image files (bytes or paths) and returns a ``medic.task.Prediction``.
- ``delete(deployment, bundle)`` ends it; with ``bundle`` the stored version goes too, unless another one serves it.

``deployments(space)`` lists what runs in a space, and ``find(name, space)`` gives one of them. What is made in a cloud
carries tags (``tags_of``): by them it is found and removed, from any machine. Within ``recording.dry_run()`` the verbs
print what they would ask of a cloud, and ask nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from medic.deployment.bundle import Bundle
from medic.deployment.client import Image
from medic.deployment.targets.recording import AnswerNeeded, dry_running
from medic.errors import MedicError
from medic.task import Prediction

TARGETS = ("local", "watsonx", "azureml", "kserve")
NAME, VERSION = "medic-name", "medic-bundle"


@dataclass(frozen=True, eq=False)
class Deployment:
    """One bundle, callable in a cloud or on a cluster; the verbs of its target are methods.

    Attributes:
        target: the module that made it, such as ``azureml``.
        space: its deployment space, workspace or namespace.
        name: unique in the space.
        bundle: version of the bundle that it serves.
        url: where it answers; None while it does not.
        facts: what its target needs to call it, as plain values.
    """

    target: str
    space: str
    name: str
    bundle: str
    url: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def score(self, images: Sequence[Image]) -> Prediction:
        """Send image files (bytes or paths)."""
        return find_target(self.target).score(self, images)

    def status(self) -> str:
        """Return ``ready``, ``starting``, ``crashed`` or ``stopped``."""
        return find_target(self.target).status(self)

    def delete(self, bundle: bool = False) -> None:
        """End it; with ``bundle`` remove the stored bundle too."""
        find_target(self.target).delete(self, bundle)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status() != "stopped":
            self.delete()

    def __str__(self) -> str:
        return f"deployment {self.name} of bundle {self.bundle} on {self.target} at {self.url}: {self.status()}"


def find_target(name: str) -> ModuleType:
    """Return the target of that name; its client is imported only now.

    Raises:
        MedicError: there is no such target, or its client is not installed.
    """
    if name not in TARGETS:
        raise MedicError(f"there is no target {name!r}; choose one of {', '.join(TARGETS)}")
    try:
        return importlib.import_module(f"medic.deployment.targets.{name}")
    except ModuleNotFoundError as error:
        raise MedicError(
            f"the target {name!r} needs {error.name}, which is not installed; pip install 'medic[serve,cloud]'"
        ) from error


def check_name(name: str, allowed: str = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}", rule: str = "") -> str:
    """Return the name of a space or a deployment, if its target allows it.

    Raises:
        MedicError: it does not; the message states the rule.
    """
    if not re.fullmatch(allowed, name):
        rule = rule or "up to 63 letters, digits, '.', '_' and '-'"
        raise MedicError(f"{name!r} is no name for a space or a deployment; use {rule}")
    return name


def new_name(bundle: Bundle) -> str:
    """Return a name for a deployment that was given none: the task's, and six random digits."""
    return f"{re.sub('[^a-z0-9]+', '-', bundle.task.name.lower())[:20].strip('-')}-{uuid.uuid4().hex[:6]}"


def open_bundle(bundle: Bundle | str | Path) -> Bundle:
    """Return a bundle, loaded where only its folder or its archive is given."""
    return bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)


def tags_of(bundle: Bundle, name: str | None = None) -> dict[str, str]:
    """Return the tags of what is made of a bundle: its version and digest, and the deployment's name."""
    tags = {VERSION: bundle.manifest.version, "medic-digest": bundle.manifest.digest}
    return tags | ({NAME: name} if name else {})


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """Return what scoring needs of a bundle: task, preprocessing and operating point, as plain values."""
    values = bundle.manifest.values
    thresholds = values["model"].get("thresholds")
    return {"task": values["task"], "preprocessing": values["preprocessing"], "thresholds": thresholds}


def named(name: str, space: str, there: Sequence[Any]) -> Any:
    """Return the deployment of that name; in a dry run the one that stands for it.

    Raises:
        MedicError: there is none; the message says where it looked and lists those there are.
    """
    for one in there:
        if dry_running() or one.name == name:
            return replace(one, name=name)
    others = ", ".join(one.name for one in there) or "none"
    raise MedicError(f"the space {space} has no deployment {name!r}, there is: {others}; name another with --space")


def or_stopped(look: Callable[[], str]) -> str:
    """Return the word that ``look`` gives, or ``stopped`` where the cloud answers that there is no such thing."""
    try:
        return look()
    except Exception as error:  # the clients' errors share no base
        if http_status(error) == 404:
            return "stopped"
        raise


def wait_until_ready(deployment: Deployment, look: Callable[[], tuple[str, object]]) -> None:
    """Look every ``MEDIC_POLL_SECONDS`` (5) until a deployment is ready, for ``MEDIC_WAIT_SECONDS`` (1800) at most.

    Args:
        deployment: which one.
        look: gives its status, and what the cloud says of it.

    Raises:
        MedicError: it failed, or time is up; the message carries what the cloud says, and how to clean up.
    """
    every, most = float(os.environ.get("MEDIC_POLL_SECONDS", 5)), float(os.environ.get("MEDIC_WAIT_SECONDS", 1800))
    deadline = time.monotonic() + most
    while True:
        try:
            state, said = look()
        except Exception as error:  # no answer now is no answer about the deployment, which goes on
            if (http_status(error) or 500) < 500:
                raise
            state, said = "starting", error
        if state == "ready" or dry_running():
            return
        if state != "starting" or time.monotonic() > deadline:
            what = f"was not ready in {most:g} seconds" if state == "starting" else "failed there"
            where = f"--target {deployment.target} --space {deployment.space}"
            raise MedicError(
                f"{deployment.target}: {deployment.name} {what} ({said}); mend that, or remove what was made: "
                f"medic delete {deployment.name} {where}"
            )
        time.sleep(every)


@contextlib.contextmanager
def asking(what: str, remedies: Mapping[int | None, str]) -> Iterator[None]:
    """Turn what a cloud's client raises into one sentence; what it prints goes to standard error.

    Args:
        what: what it comes to when it fails, such as ``watsonx: the bundle was not stored``.
        remedies: what to do, by HTTP status; that of None where no other fits.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stdout if dry_running() else sys.stderr):
            warnings.simplefilter("ignore")  # of a client, about itself
            yield
    except (MedicError, AnswerNeeded):
        raise
    except Exception as error:  # the clients raise from many layers; none of it may reach the reader raw
        why = re.sub(r"\?[^\s'\")]+", "?...", " ".join((str(error) or type(error).__name__).split()))[:600]
        # Not chained: a client's own error may quote a key, or an address that is signed with one.
        raise MedicError(f"{what} ({why.rstrip('.')}); {remedies.get(http_status(error), remedies[None])}") from None


def http_status(error: BaseException | None) -> int | None:
    """Return the HTTP status of the answer behind an error; None where there was no answer."""
    while error is not None:
        for one in (error, getattr(error, "response", None)):
            status = getattr(one, "status_code", None) or getattr(one, "status", None)
            if isinstance(status, int):
                return status
        if stated := re.search(r"\bError: (\d{3})\b", str(error)):  # IBM's client says it in words alone
            return int(stated[1])
        error = error.__cause__ or error.__context__
    return None
