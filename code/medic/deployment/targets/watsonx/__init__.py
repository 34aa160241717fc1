"""IBM watsonx.ai Runtime as a target, on IBM Cloud or Cloud Pak for Data: its own runtime runs the bundle's graph.

The service takes the ONNX file alone and scores nested lists of numbers; so images are decoded, cropped and resized
here, with the bundle's own preprocessing, and the prediction is put together here.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle import Bundle
from medic.deployment.client import Image
from medic.deployment.targets.journal import DeploymentJournal, Thing, names
from medic.deployment.targets.remote import RemoteDeployment
from medic.deployment.targets.watsonx import assets
from medic.deployment.targets.watsonx.assets import Settings
from medic.deployment.targets.watsonx.connection import Account, Failed, Refused, account, connected, step
from medic.errors import ImageError, MedicError
from medic.task import Prediction, Task

if TYPE_CHECKING:
    from ibm_watsonx_ai import APIClient

TARGET = "watsonx"
REQUEST_BYTES = 4 << 20
"""How long one scoring request may become, unless one image alone is longer. As nested JSON a prepared image of 384
pixels takes up to 2 MB, and reading it is slow for every server (kserve#2400): short requests stay clear of limits on
size and time that gateways set and do not tell."""
PIXEL_BYTES = len("[255,255,255],")
"""The most that a pixel takes in a request."""


def store(bundle: Bundle | str | Path, space: str = "default", settings: Settings | None = None) -> Thing:
    """Upload a bundle's graph into a space, unless that very version is there.

    Args:
        bundle: a bundle, its folder or its archive.
        space: the space's name there.
        settings: those of the environment when None.

    Returns:
        The model there.

    Raises:
        MedicError: a step failed; the message says which, what was created, and how to clean up.
    """
    bundle, settings = _loaded(bundle), settings or Settings.from_environment()
    with _page(space, f"bundle-{bundle.manifest.version}", bundle) as (journal, who):
        with connected(who, space, journal.failed, note=journal.created) as client:
            model = assets.stored(client, bundle, journal, settings)
        journal.close()
    return Thing("model", model)


def deploy(
    bundle: Bundle | str | Path, space: str = "default", name: str | None = None, settings: Settings | None = None
) -> RemoteDeployment:
    """Store a bundle, create an online deployment of it, and wait until it is ready.

    Args:
        bundle: a bundle, its folder or its archive.
        space: the space's name there.
        name: unique in the space; the task's name with a few random digits when None.
        settings: those of the environment when None.

    Returns:
        The deployment, ready to be called. From now on it costs money.

    Raises:
        MedicError: the name is taken, or a step failed; the message says which, what was created, and how to clean up.
    """
    bundle, settings = _loaded(bundle), settings or Settings.from_environment()
    name = name or f"{bundle.task.name}-{uuid.uuid4().hex[:6]}"
    with (
        _page(space, name, bundle) as (journal, who),
        connected(who, space, journal.failed, note=journal.created) as client,
    ):
        with step(journal.failed, "cannot list the deployments there"):
            taken = assets.ids(client, "deployment", name)
        if taken:
            raise journal.failed(
                f"the space {space!r} has a deployment {name!r}",
                f"with the id {', '.join(taken)}, made from elsewhere",
                "choose another name, or delete it there",
            )
        journal.know(space_id=client.default_space_id)
        journal.know(model=assets.stored(client, bundle, journal, settings))
        with (
            step(journal.failed, "the deployment was not created"),
            assets.creating(client, journal, "deployment", name),
        ):
            properties = client.deployments.ConfigurationMetaNames
            made = client.deployments.create(
                journal.facts["model"],
                meta_props={
                    properties.NAME: name,
                    properties.ONLINE: {},
                    properties.HARDWARE_SPEC: {"name": settings.hardware},
                },
                # The client would look every five seconds, without end, and print all the while.
                background_mode=True,
            )
        identity = made["metadata"]["id"]
        assets.wait_until_ready(client, identity, journal, settings)
        journal.know(url=_url(who, identity))
    return RemoteDeployment(journal)


def deployments(space: str = "default") -> list[RemoteDeployment]:
    """What was deployed into a space from this folder and not deleted, half-made ones included, by name."""
    return [RemoteDeployment(DeploymentJournal.load(TARGET, space, name)) for name in names(TARGET, space)]


def find(name: str, space: str = "default") -> RemoteDeployment:
    """The deployment of that name.

    Raises:
        MedicError: there is none; the message lists those there are.
    """
    return RemoteDeployment(DeploymentJournal.load(TARGET, space, name))


def score(deployment: RemoteDeployment, images: Sequence[Image]) -> Prediction:
    """Prepare image files (bytes or paths) here, and send their pixels to a deployment, a few at a time.

    Raises:
        ImageError: an image cannot become pixels; the message names it.
        MedicError: it was deleted, there is no image, one cannot be read, or the service refuses.
    """
    deployment.journal.check_open()
    if not images:
        raise MedicError("there is no image to score; give one or more")
    facts, identity = deployment.journal.facts, _identity(deployment)
    if identity is None:
        raise MedicError(
            f"the deployment {deployment.name!r} on watsonx is not complete; {deployment.journal.clean_up} removes it, "
            "then deploy again"
        )
    preprocessing = Preprocessing.from_dict(facts["preprocessing"])
    size = max(1, REQUEST_BYTES // (PIXEL_BYTES * preprocessing.size**2))
    parts = []
    with _reached(deployment, _failed) as client:
        for start in range(0, len(images), size):
            pixels = [
                _pixels(preprocessing, image, number)
                for number, image in enumerate(images[start : start + size], start=start + 1)
            ]
            with step(_failed, f"the deployment {deployment.name!r} gave no scores", "look at its status"):
                values = [{"values": [square.tolist() for square in pixels]}]
                answer = client.deployments.score(identity, {client.deployments.ScoringMetaNames.INPUT_DATA: values})
                parts.append(_prediction(answer, facts, len(pixels)))
    return Prediction.joined(parts)


def status(deployment: RemoteDeployment) -> str:
    """``ready``, ``starting``, ``crashed`` (failed there, or half-made) or ``stopped`` (deleted, here or there).

    Raises:
        MedicError: the service cannot be asked.
    """
    if not deployment.journal.path.exists():
        return "stopped"
    identity = _identity(deployment)
    if identity is None:
        return "crashed"
    with _reached(deployment, _failed) as client, step(_failed, f"cannot ask for the status of {deployment.name!r}"):
        try:
            seen, _ = assets.state(client, identity)
        except Refused as refused:
            if refused.status == 404:
                return "stopped"
            raise
    if seen == "ready" and deployment.url is None:  # it became ready after we stopped waiting
        deployment.journal.know(url=_url(account(), identity))
    return {"ready": "ready", "failed": "crashed"}.get(seen, "starting")


def delete(deployment: RemoteDeployment, bundle: bool = False) -> None:
    """Remove a deployment there, and its page here; of a half-made one all that was created for it.

    What cannot be removed now stays on the page, for the next attempt.

    Args:
        deployment: which one.
        bundle: remove the stored model too, unless another deployment serves it.

    Raises:
        MedicError: it was deleted before, or something could not be removed.
    """
    journal = deployment.journal
    if not journal.path.exists():
        raise MedicError(f"the deployment {journal.name!r} was deleted before; there is nothing to delete")
    model = journal.facts.get("model")
    if bundle and model and Thing("model", model) not in journal.things:
        journal.things.insert(0, Thing("model", model))
        journal.write()
    keep = deployment.url is not None and not bundle
    mine = {thing.id for thing in journal.things}
    with _reached(deployment, journal.failed) as client:
        for thing in reversed(list(journal.things)):
            if keep and thing.kind == "model":
                continue
            with step(journal.failed, f"the {thing} could not be removed"):
                assets.remove(client, thing, mine)
            journal.removed(thing.kind, thing.id)
    journal.close()


@contextlib.contextmanager
def _page(space: str, name: str, bundle: Bundle) -> Iterator[tuple[DeploymentJournal, Account]]:
    """A page of the journal with what scoring needs again; it goes if nothing was created, whatever happens."""
    who = account()
    journal = DeploymentJournal.begin(
        TARGET,
        space,
        name,
        bundle=bundle.manifest.version,
        service=who.url,
        task=bundle.task.to_dict(),
        preprocessing=bundle.manifest.preprocessing.to_dict(),
        thresholds=bundle.manifest.values["model"].get("thresholds"),
        notice=bundle.manifest.notice,
    )
    try:
        yield journal, who
    except BaseException:
        if not journal.things:
            journal.close()
        raise


@contextlib.contextmanager
def _reached(deployment: RemoteDeployment, failed: Failed) -> Iterator[APIClient]:
    """The client, set to a deployment's space; it must be the service where the deployment was made."""
    who, facts = account(), deployment.journal.facts
    if who.url != facts["service"]:
        raise MedicError(
            f"the deployment {deployment.name!r} is at {facts['service']}, and WATSONX_URL names {who.url}; set it to "
            "the former"
        )
    with connected(who, deployment.space, failed, space_id=facts.get("space_id")) as client:
        yield client


def _identity(deployment: RemoteDeployment) -> str | None:
    return next((thing.id for thing in deployment.journal.things if thing.kind == "deployment"), None)


def _url(who: Account, identity: str) -> str:
    return f"{who.url}/ml/v4/deployments/{identity}/predictions"


def _loaded(bundle: Bundle | str | Path) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)


def _pixels(preprocessing: Preprocessing, image: Image, number: int) -> np.ndarray:
    name = f"image {number}" if isinstance(image, bytes) else str(image)
    try:
        return preprocessing.pixels(image if isinstance(image, bytes) else Path(image).read_bytes())
    except ImageError as error:
        raise ImageError(f"{name}: {error}", error.reason) from error
    except OSError as error:
        raise MedicError(f"cannot read {image} ({error.strerror}); correct the path") from error


def _prediction(answer: dict, facts: dict, count: int) -> Prediction:
    """One entry for each output of the graph, ``{"id": name, "values": [...]}``, becomes a prediction."""
    task = Task.from_dict(facts["task"])
    try:
        outputs = {one["id"]: np.array(one["values"], np.float32) for one in answer["predictions"]}
        probabilities = outputs["probabilities"].reshape(count, len(task.classes))
        grade = outputs["grade"].reshape(count) if task.kind == "ordinal" else None
    except (KeyError, TypeError, ValueError) as error:
        raise MedicError(
            f"watsonx answered otherwise than with {count} rows of probabilities ({error!r}); the deployment may serve "
            "another model: delete it and deploy again"
        ) from error
    thresholds = facts["thresholds"]
    return Prediction(task, probabilities, grade, None if thresholds is None else tuple(thresholds))


def _failed(what: str, why: object, remedy: str) -> MedicError:
    return MedicError(f"watsonx: {what} ({why}); {remedy}")
