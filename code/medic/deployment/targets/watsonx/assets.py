"""What the watsonx target makes and removes there: models, deployments, and which of either there are."""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ibm_watsonx_ai import APIClient
from ibm_watsonx_ai.wml_client_error import ResourceIdByNameNotFound

from medic.deployment.bundle import Bundle
from medic.deployment.targets.journal import DeploymentJournal, Thing
from medic.deployment.targets.watsonx.connection import Refused, step
from medic.errors import MedicError


@dataclass(frozen=True)
class Settings:
    """What may differ from one installation of the service to another.

    Attributes:
        software: name of the software specification that runs ONNX (``MEDIC_WATSONX_SOFTWARE``).
        type: the model type that belongs to it (``MEDIC_WATSONX_TYPE``).
        hardware: name of the hardware specification, ``S`` to ``XL``; larger ones cost more
            (``MEDIC_WATSONX_HARDWARE``).
        poll: seconds between two looks at a deployment that starts (``MEDIC_WATSONX_POLL_SECONDS``).
        wait: seconds after which a deployment should be ready (``MEDIC_WATSONX_WAIT_SECONDS``).
    """

    software: str = "onnxruntime_opset_19"
    type: str = "onnxruntime_1.16"
    hardware: str = "S"
    poll: float = 5.0
    wait: float = 600.0

    @classmethod
    def from_environment(cls) -> Settings:
        """The defaults, where the environment names nothing else.

        Raises:
            MedicError: a number is none.
        """
        given: dict[str, Any] = {
            name: value
            for name, variable in (("software", "SOFTWARE"), ("type", "TYPE"), ("hardware", "HARDWARE"))
            if (value := os.environ.get(f"MEDIC_WATSONX_{variable}"))
        }
        for name in ("poll", "wait"):
            if value := os.environ.get(variable := f"MEDIC_WATSONX_{name.upper()}_SECONDS"):
                try:
                    given[name] = float(value)
                except ValueError as error:
                    raise MedicError(f"{variable} is {value!r}; give a number of seconds") from error
        return cls(**given)


def stored(client: APIClient, bundle: Bundle, journal: DeploymentJournal, settings: Settings) -> str:
    """The id of the model that holds this version of the bundle; it is uploaded only if there is none."""
    name = f"medic {bundle.task.name} {bundle.manifest.version}"
    with step(journal.failed, "cannot list the models there"):
        found = ids(client, "model", name)
    if found:
        return found[0]
    software = _software(client, journal, settings)
    # Only a whole upload gets the name by which it is found again.
    unfinished = f"{name}, upload {uuid.uuid4().hex[:6]} unfinished"
    size = bundle.manifest.preprocessing.size
    properties = client.repository.ModelMetaNames
    with (
        step(journal.failed, "the model was not stored"),
        _archive(bundle) as archive,
        creating(client, journal, "model", unfinished),
    ):
        model = client.repository.store_model(
            model=str(archive),
            meta_props={
                properties.NAME: unfinished,
                properties.TYPE: settings.type,
                properties.SOFTWARE_SPEC_ID: software,
                properties.DESCRIPTION: bundle.manifest.notice,
                properties.INPUT_DATA_SCHEMA: [
                    {
                        "id": "images",
                        "fields": [{"name": "images", "type": f"tensor(uint8)[-1,{size},{size},3]", "nullable": False}],
                    }
                ],
            },
        )["metadata"]["id"]
        client.repository.update_model(model, {properties.NAME: name})
    return model


def _software(client: APIClient, journal: DeploymentJournal, settings: Settings) -> str:
    specifications = client.software_specifications
    with step(journal.failed, f"cannot look up the software specification {settings.software!r}"):
        try:
            return specifications.get_id_by_name(settings.software)
        except ResourceIdByNameNotFound:
            there = sorted(one["metadata"]["name"] for one in specifications.get_details()["resources"])
    runs_onnx = [name for name in there if "onnx" in name] or there
    raise journal.failed(
        f"there is no software specification {settings.software!r}",
        f"there is: {', '.join(runs_onnx) or 'none'}",
        "set MEDIC_WATSONX_SOFTWARE to one that runs ONNX, and MEDIC_WATSONX_TYPE to the model type that goes with it",
    )


def wait_until_ready(client: APIClient, identity: str, journal: DeploymentJournal, settings: Settings) -> None:
    """Look at a deployment from time to time until it is ready.

    A look that fails for the network's or the server's sake is taken again: the deployment goes on without us.

    Raises:
        MedicError: it failed there, or time is up; the message carries the service's reason.
    """
    deadline = time.monotonic() + settings.wait
    seen = "no answer"
    while True:
        with step(journal.failed, f"cannot follow the deployment {identity}"):
            try:
                seen, why = state(client, identity)
            except httpx.TransportError as error:
                seen, why = f"no answer, {error or type(error).__name__}", ""
            except Refused as refused:
                if refused.status != 429 and refused.status < 500:
                    raise
                seen, why = str(refused), ""
        if seen == "ready":
            return
        if seen == "failed":
            raise journal.failed("the deployment failed there", why, "mend what it says, clean up and deploy again")
        if time.monotonic() > deadline:
            raise journal.failed(
                f"the deployment was not ready in {settings.wait:g} seconds",
                f"last seen: {seen}",
                "look at it again later, or clean up; MEDIC_WATSONX_WAIT_SECONDS sets how long to wait",
            )
        time.sleep(settings.poll)


def state(client: APIClient, identity: str) -> tuple[str, str]:
    """A deployment's state in the service's own word, and the reason if it failed."""
    told = client.deployments.get_details(identity)["entity"]["status"]
    errors = told.get("failure", {}).get("errors", [])
    texts = [str(error.get("message", error)) if isinstance(error, dict) else str(error) for error in errors]
    return told["state"], "; ".join(texts) or "no reason given"


@contextlib.contextmanager
def creating(client: APIClient, journal: DeploymentJournal, kind: str, name: str) -> Iterator[None]:
    """A step that creates something: whatever becomes of its answer or of this program, it is not forgotten.

    Before it is asked for, that there may be one of that name is noted. An answer replaces the doubt; if it is lost,
    what there is of that name is looked for. The doubt stays where nobody answers, or this program is interrupted:
    ``delete`` looks again.
    """
    doubt = f"perhaps a {kind} named"
    journal.created(doubt, name)
    before = len(journal.things)
    try:
        yield
    except Exception as error:
        refused = isinstance(error, Refused) and error.status < 500 and error.status != 408
        known = refused or len(journal.things) > before
        if not known:
            with contextlib.suppress(Exception):  # no answer again
                for identity in ids(client, kind, name):
                    journal.created(kind, identity)
                known = True
        if known:
            journal.removed(doubt, name)
        raise
    journal.removed(doubt, name)


def remove(client: APIClient, thing: Thing, mine: set[str]) -> None:
    """Remove one thing there, if it still is there; a model stays that another deployment than ``mine`` serves."""
    if thing.kind.startswith("perhaps a "):
        kind = thing.kind.split()[2]
        for identity in ids(client, kind, thing.id):
            remove(client, Thing(kind, identity), mine)
        return
    if thing.kind == "model" and any(
        one["entity"].get("asset", {}).get("id") == thing.id and one["metadata"]["id"] not in mine
        for one in client.deployments.get_details(get_all=True)["resources"]
    ):
        return
    try:
        if thing.kind == "model":
            client.repository.delete(thing.id, force=True)
        else:
            client.deployments.delete(thing.id)
    except Refused as refused:
        if refused.status != 404:
            raise


def ids(client: APIClient, kind: str, name: str) -> list[str]:
    """The models or deployments of that very name in the space."""
    if kind == "model":
        listed = client.repository.get_model_details(get_all=True)
    else:
        listed = client.deployments.get_details(get_all=True)
    return [one["metadata"]["id"] for one in listed["resources"] if one["metadata"].get("name") == name]


@contextlib.contextmanager
def _archive(bundle: Bundle) -> Iterator[Path]:
    """The graph alone as ``.tar.gz``: the runtime wants one ONNX file, and refuses what it does not know."""
    with tempfile.TemporaryDirectory(prefix="medic-watsonx-") as folder:
        path = Path(folder) / "model.tar.gz"
        # Weights hardly shrink, by 7 % or so: the quickest level will do.
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            entry = tarfile.TarInfo("model.onnx")
            graph = bundle.folder / "model.onnx"
            entry.size = graph.stat().st_size
            with open(graph, "rb") as file:
                archive.addfile(entry, file)
        yield path
