"""A deployment in a cloud, as a program holds it: its journal, and the verbs of its target as methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from medic.deployment.client import Image
from medic.deployment.targets import find_target
from medic.deployment.targets.journal import DeploymentJournal
from medic.errors import MedicError
from medic.task import Prediction


@dataclass(frozen=True, eq=False)
class RemoteDeployment:
    """One bundle, callable on a target. The journal on disk lets another program find it again.

    Attributes:
        journal: what was created for it, and what is known of it; ``facts`` holds ``bundle`` (its version) and, once it
            is ready, ``url``.
    """

    journal: DeploymentJournal

    @property
    def target(self) -> str:
        """``watsonx``, ``azureml`` or ``kserve``."""
        return self.journal.target

    @property
    def name(self) -> str:
        """Unique in its space."""
        return self.journal.name

    @property
    def space(self) -> str:
        """The space's name there."""
        return self.journal.space

    @property
    def bundle(self) -> str:
        """Version of the bundle it serves."""
        return self.journal.facts["bundle"]

    @property
    def url(self) -> str | None:
        """Where it answers; None while it does not."""
        return self.journal.facts.get("url")

    def score(self, images: Sequence[Image]) -> Prediction:
        """Send image files (bytes or paths); see the target's ``score``."""
        return find_target(self.target).score(self, images)

    def status(self) -> str:
        """One word; see the target's ``status``."""
        return find_target(self.target).status(self)

    def delete(self, bundle: bool = False) -> None:
        """End it; with ``bundle`` remove what was stored for it, too."""
        find_target(self.target).delete(self, bundle)

    def __enter__(self) -> RemoteDeployment:
        return self

    def __exit__(self, *_: object) -> None:
        if self.journal.path.exists():
            self.delete()

    def __str__(self) -> str:
        where = f" at {self.url}" if self.url else f" ({self.journal})"
        return f"deployment {self.name} of bundle {self.bundle} on {self.target}{where}: {self._seen()}"

    def _repr_html_(self) -> str:
        rows = {
            "deployment": self.name,
            "target": f"{self.target}, space {self.space}",
            "bundle": self.bundle,
            "url": self.url or "",
            "created": str(self.journal),
            "status": self._seen(),
        }
        cells = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
        return f"<table>{cells}</table>"

    def _seen(self) -> str:
        """The status for a list, which a cloud that cannot be asked does not end."""
        try:
            return self.status()
        except MedicError as error:
            return f"unknown ({error})"
