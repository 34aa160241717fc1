"""Places where a bundle becomes a service; each is a module with the same five verbs.

``store`` and ``deploy`` take a bundle into a space; ``status``, ``score`` and ``delete`` are methods of the
``Deployment`` that comes of it. ``deployments(space)`` lists them, ``find(name, space)`` gives one. What is made in a
cloud carries tags: by them it is found and removed, from any machine. Within ``recording.dry_run()`` the verbs print
what they would ask of a cloud, and ask nothing.
"""

import contextlib
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medic.deployment.bundle import Bundle
from medic.deployment.client import Client, Image, prediction_of
from medic.deployment.targets.recording import AnswerNeeded, dry_running, known
from medic.errors import MedicError
from medic.task import Prediction

NAME, VERSION = "medic-name", "medic-bundle"
"""The tags of what is made in a cloud: the deployment's name and the bundle's version."""


@dataclass(frozen=True, eq=False)
class Deployment:
    """One bundle, callable. It outlives the program that made it; ``find`` gives it again.

    Attributes:
        space: a deployment space, workspace or namespace; on this machine a folder.
        bundle: version of the bundle that it serves.
        url: where it answers; None while it does not.
        state: its status when it was looked for; ``said`` is what the cloud said of that.
        facts: what its target needs to call it.
    """

    target: "Target"
    name: str
    space: str | Path
    bundle: str
    url: str | None = None
    state: str = "starting"
    said: object = ""
    facts: Mapping[str, Any] | None = None

    def status(self) -> str:
        """Return ``ready``, ``starting``, ``crashed`` (it ended or failed by itself) or ``stopped`` (deleted)."""
        return next((one.state for one in self.target.deployments(self.space) if one.name == self.name), "stopped")

    def service(self) -> AbstractContextManager[Client]:
        """Return what answers, for a ``with`` block: ``answer`` takes an image file (bytes or path), see ``Client``.

        A cloud is asked for its key here, once. Raises a ``MedicError`` where it cannot be reached.
        """
        with self.target._asking("score"):
            return self.target._service(self)

    def score(self, images: Sequence[Image]) -> Prediction:
        """Return one prediction for all image files (bytes or paths), in their order.

        Raises:
            MedicError: there is no image, one cannot be read or is refused, or the service cannot be reached.
        """
        with self.service() as service:
            return prediction_of([known(service.answer(image)) for image in images])

    def delete(self, bundle: bool = False) -> None:
        """End it and remove it; with ``bundle`` the stored bundle too, unless another deployment serves it."""
        with self.target._asking("delete"):
            self.target._remove(self)
            served = [one.bundle for one in self.target.deployments(self.space)] if bundle else []
            if bundle and (self.bundle not in served or dry_running()):
                self.target._remove_bundle(self)

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        if self.status() != "stopped":
            self.delete()

    def __str__(self) -> str:
        return f"deployment {self.name} of bundle {self.bundle} at {self.url}: {self.status()}"


class Target:
    """What all targets share; a subclass says how to put a bundle there, to make, look for and remove a deployment."""

    poll_seconds = 5.0

    def store(self, bundle: Bundle | str | Path, space: str = "default") -> Any:
        """Put a bundle, its folder or its archive into a space, unless that version is there; return what it is there.

        Raises a ``MedicError`` where the bundle is not sound, or is refused.
        """
        with self._asking("store"):
            return self._put(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle), space)

    def deploy(
        self, bundle: Bundle | str | Path, space: str = "default", name: str | None = None, **options: Any
    ) -> Deployment:
        """Store a bundle, make it callable, and wait until it answers. In a cloud it costs money from then on.

        The name is unique in the space; None makes one of the task's name and six random digits. ``options`` are what
        the target knows besides, such as this machine's ``port``.

        Raises:
            MedicError: the name is taken, or a step failed; the message says why.
        """
        with self._asking("deploy"):
            bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
            name = check_name(name, bundle)
            self._make(bundle, space, name, **options)
        deadline = time.monotonic() + (0 if dry_running() else float(os.environ.get("MEDIC_WAIT_SECONDS", 1800)))
        while (found := self.find(name, space)).state == "starting" and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        if found.state != "ready" and not dry_running():
            remove = f"medic delete {name} --target {self} --space {space}"
            raise MedicError(f"{self}: {name} is {found.state} ({found.said}); mend that, or remove it: {remove}")
        return found

    def deployments(self, space: str = "default") -> list[Deployment]:
        """Return what was deployed into a space and not deleted, by name, from whichever machine."""
        with self._asking("deployments"):
            return sorted(self._look(space), key=lambda one: str(one.name))

    def find(self, name: str, space: str = "default") -> Deployment:
        """Return the deployment of that name; a ``MedicError`` says where it looked and lists those there are."""
        there = self.deployments(space)
        for one in there:
            if dry_running() or one.name == name:
                return replace(one, name=name)
        others = f"there is: {', '.join(one.name for one in there) or 'none'}"
        raise MedicError(f"the space {space} has no deployment {name!r}; {others}; name another with --space")

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        """Turn what a cloud's client raises into one sentence; what it prints goes to standard error."""
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stdout if dry_running() else sys.stderr):
                warnings.simplefilter("ignore")  # of a client, about itself
                yield
        except (MedicError, AnswerNeeded):
            raise
        except Exception as error:  # the clients' errors share no base
            why = re.sub(r"\?[^\s'\")]+", "?...", " ".join((str(error) or type(error).__name__).split()))[:600]
            # Not chained: a client's own error may quote a key, or an address that is signed with one.
            raise MedicError(f"{self}: {verb} failed ({why}); docs/deploy.md says what it needs") from None

    def __str__(self) -> str:
        return type(self).__name__.lower()


def check_name(name: str | None, bundle: Bundle | None = None) -> str:
    """Return the name of a space or a deployment, if it is one; None makes one of the bundle's task."""
    if name is None:
        name = f"{re.sub('[^a-z0-9]+', '-', bundle.task.name.lower())[:20].strip('-')}-{uuid.uuid4().hex[:6]}"
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise MedicError(f"{name!r} is no name; use up to 63 letters, digits, '.', '_' and '-'")
    return name


def tags_of(bundle: Bundle, name: str | None = None) -> dict[str, str]:
    """Return the tags of what is made of a bundle: its version and digest, and the deployment's name."""
    named = {NAME: name} if name else {}
    return {VERSION: bundle.manifest.version, "medic-digest": bundle.manifest.digest, **named}


def setting(name: str, allowed: str = ".+", example: str | None = None) -> str:
    """Return what the environment says; in a dry run, where it says nothing, an example.

    Raises:
        MedicError: it says nothing, or what does not match the regular expression ``allowed``.
    """
    value = os.environ.get(name) or ((example or f"${name}") if dry_running() else "")
    if not dry_running() and not re.fullmatch(allowed, value):
        raise MedicError(f"set {name} to yours{f', such as {example}' if example else ''}; docs/deploy.md says more")
    return value
