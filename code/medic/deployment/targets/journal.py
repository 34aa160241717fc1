"""What a target creates elsewhere for a deployment, written down as it is made: nothing half-made is forgotten."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medic.deployment.targets import check_name
from medic.errors import MedicError
from medic.files import write_json


@dataclass(frozen=True)
class Thing:
    """Something that exists in a cloud, and may cost money there.

    Attributes:
        kind: what it is called there, such as ``model`` or ``endpoint``.
        id: what it is known by there.
    """

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(eq=False)
class DeploymentJournal:
    """One deployment's page: what was created for it, in order, and what is known of it.

    It is a JSON file ``<target>/<space>/<name>.json`` below ``MEDIC_JOURNALS`` or else ``outputs/journals``, written
    whole at every change. It holds no key.

    Attributes:
        target: ``watsonx``, ``azureml`` or ``kserve``.
        space: the space's name there.
        name: the deployment's.
        things: what exists there, oldest first.
        facts: plain values that the target needs again: the bundle's version, the address, ...
    """

    target: str
    space: str
    name: str
    things: list[Thing] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return _folder(self.target, self.space) / f"{self.name}.json"

    @classmethod
    def begin(cls, target: str, space: str, name: str, **facts: Any) -> DeploymentJournal:
        """Open a page.

        Raises:
            MedicError: there is one of that name; the message lists what it holds.
        """
        journal = cls(target, space, check_name(name), facts=facts)
        if journal.path.exists():
            there = cls.load(target, space, name)
            raise MedicError(
                f"the space {space!r} has a deployment {name!r} on {target} ({there}); delete that first "
                f"({there.clean_up}) or choose another name"
            )
        journal.write()
        return journal

    @classmethod
    def load(cls, target: str, space: str, name: str) -> DeploymentJournal:
        """Read a page.

        Raises:
            MedicError: there is none of that name (the message lists those there are), or it is damaged.
        """
        path = _folder(target, space) / f"{name}.json"
        try:
            values = json.loads(path.read_text())
            return cls(target, space, name, [Thing(**thing) for thing in values["things"]], values["facts"])
        except FileNotFoundError as error:
            there = ", ".join(names(target, space)) or "none"
            raise MedicError(f"there is no deployment {name!r} on {target} in {space!r}; there is: {there}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MedicError(
                f"{path} is damaged ({error!r}); look on {target} for what is there, remove it by hand, then the file"
            ) from error

    def created(self, kind: str, id: str) -> None:
        """Write down that something exists now."""
        self.things.append(Thing(kind, id))
        self.write()

    def removed(self, kind: str, id: str) -> None:
        """Write down that something exists no longer; nothing happens if it was not noted."""
        self.things = [thing for thing in self.things if thing != Thing(kind, id)]
        self.write()

    def know(self, **facts: Any) -> None:
        """Write down what the target needs again."""
        self.facts.update(facts)
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        things = [{"kind": thing.kind, "id": thing.id} for thing in self.things]
        write_json(self.path, {"things": things, "facts": self.facts})

    def close(self) -> None:
        """Remove the page: nothing of it exists any more."""
        self.path.unlink(missing_ok=True)

    @property
    def clean_up(self) -> str:
        """The command that removes what was created, for a shell that knows nothing of this program's environment."""
        journals = os.environ.get("MEDIC_JOURNALS")
        where = f"MEDIC_JOURNALS={shlex.quote(journals)} " if journals else ""
        return f"{where}medic delete {self.name} --target {self.target} --space {shlex.quote(self.space)}"

    def check_open(self) -> None:
        """Go on if the page is there.

        Raises:
            MedicError: it was removed, here or by another program: the deployment was deleted.
        """
        if not self.path.exists():
            raise MedicError(f"the deployment {self.name!r} is stopped; deploy the bundle again")

    def failed(self, what: str, why: object, remedy: str, stays: str = "") -> MedicError:
        """The error for a step that failed: what, why, what exists by now, and how to clean up.

        Nothing was created: the page is removed, and the message says so. ``stays`` is then said of what was stored
        before and is not on the page.
        """
        if not self.things:
            self.close()
            nothing = f"Nothing was created; {stays}" if stays else "Nothing was created"
            return MedicError(f"{self.target}: {what} ({why}); {remedy}. {nothing}")
        return MedicError(
            f"{self.target}: {what} ({why}); {remedy}. Created so far: {self}; {self.clean_up} removes it"
        )

    def __str__(self) -> str:
        return ", ".join(map(str, self.things)) or "nothing created"


def names(target: str, space: str) -> list[str]:
    """The deployments that a target has pages for, by name."""
    return sorted(path.stem for path in _folder(target, space).glob("*.json"))


def _folder(target: str, space: str) -> Path:
    # Clouds allow blanks in a space's name; what would lead out of the folder is refused.
    if not space.strip(". ") or "/" in space or "\\" in space:
        raise MedicError(f"{space!r} is no name for a space; give the one it has on {target}")
    return Path(os.environ.get("MEDIC_JOURNALS") or Path("outputs") / "journals") / target / space
