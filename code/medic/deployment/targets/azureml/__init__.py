"""Azure Machine Learning as a target: a space is a workspace, a deployment a managed online endpoint.

The workspace is found through ``AZURE_SUBSCRIPTION_ID``, ``AZURE_RESOURCE_GROUP`` and, for the space ``default``,
``AZUREML_WORKSPACE_NAME``; who asks, through ``DefaultAzureCredential`` (a service principal in ``AZURE_TENANT_ID``,
``AZURE_CLIENT_ID`` and ``AZURE_CLIENT_SECRET``, or whoever is signed in with ``az login``). An endpoint's key is
fetched for each scoring and kept nowhere. ``docs/deploy_azureml.md`` tells the whole story.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from azure.ai.ml import MLClient, load_environment, load_online_deployment, load_online_endpoint
from azure.ai.ml.constants import AssetTypes, ListViewType
from azure.ai.ml.entities import Model
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from medic.deployment.bundle import Bundle
from medic.deployment.client import Image, prediction_of
from medic.deployment.targets.azureml import files
from medic.deployment.targets.azureml.client import (
    FAILURES,
    Workspace,
    connect,
    explain,
    find_workspace,
    finish,
    there,
    with_log,
    workspace_name,
)
from medic.deployment.targets.azureml.files import Settings
from medic.deployment.targets.journal import DeploymentJournal, Thing, names
from medic.deployment.targets.remote import RemoteDeployment
from medic.errors import MedicError
from medic.task import Prediction, Task

TARGET = "azureml"
SENT = "Files that were sent stay in the workspace's storage below LocalUpload/, and the next try completes them"
STATUS = {
    "succeeded": "ready",
    "creating": "starting",
    "updating": "starting",
    "scaling": "starting",
    "deleting": "stopped",
}
"""Our word for each of Azure's states; the others mean that it failed."""


def store(bundle: Bundle | str | Path, space: str = "default") -> Thing:
    """Register a bundle as a custom model of the workspace, under its version; one that is there is not sent again.

    Args:
        bundle: a bundle, its folder or its archive.
        space: a workspace's name; ``default`` is that of ``AZUREML_WORKSPACE_NAME``.

    Returns:
        The model there; its ``id`` is ``NAME:VERSION``.

    Raises:
        MedicError: the bundle is not sound, or Azure refuses; what was sent so far stays in the workspace's storage and
            is completed by the next try.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    workspace = find_workspace(space)
    try:
        _store(connect(workspace), bundle, lambda: None)
    except FAILURES as error:
        why, remedy = explain(error, workspace)
        message = f"{TARGET}: the bundle {bundle.manifest.version} was not stored ({why}); {remedy}. {SENT}"
        raise MedicError(message) from None
    return Thing("model", ":".join(files.model_of(bundle)))


def deploy(
    bundle: Bundle | str | Path, space: str = "default", name: str | None = None, settings: Settings | None = None
) -> RemoteDeployment:
    """Store a bundle, put a managed online endpoint before it, and wait until it answers.

    It costs money from then on until ``delete``. What is asked for is written beside the journal as YAML that ``az ml``
    reads, too.

    Args:
        bundle: a bundle, its folder or its archive.
        space: as for ``store``.
        name: the endpoint's, unique in the workspace's region: 3 to 32 letters, digits and ``-``, a letter first. The
            task's name with a few random digits when None.
        settings: machines and times; those of the environment when None.

    Raises:
        MedicError: the name is taken, or a step failed; the message says which, why, what was created and how to remove
            that.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    settings = settings or Settings.from_environment()
    workspace = find_workspace(space)
    name = name or f"{re.sub('[^A-Za-z0-9]+', '-', bundle.task.name)[:25]}-{uuid.uuid4().hex[:6]}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]", name):
        raise MedicError(
            f"{name!r} is no name for an endpoint of Azure; use 3 to 32 letters, digits and '-', a letter first"
        )
    model, environment = files.model_of(bundle), files.environment_of(bundle, settings)
    journal = DeploymentJournal.begin(
        TARGET,
        workspace.name,
        name,
        bundle=bundle.manifest.version,
        task=bundle.task.to_dict(),
        thresholds=bundle.manifest.values["model"].get("thresholds"),
        subscription=workspace.subscription,
        resource_group=workspace.resource_group,
        model=":".join(model),
        environment=":".join(environment),
        request_seconds=settings.request_seconds,
        wait_seconds=settings.wait_seconds,
    )
    with _step(journal, f"the workspace {workspace.name!r} cannot be used"):
        client = connect(workspace)
        if there(lambda: client.online_endpoints.get(name)):
            raise MedicError(f"{workspace.name} has an endpoint {name!r} that was not made here; choose another name")
    with _step(journal, "the bundle was not stored", SENT):
        _store(client, bundle, lambda: journal.created("model", journal.facts["model"]))
    with _step(journal, "the files to be asked with are not in order"):
        written = files.write(_folder(journal), bundle, name, settings)
        wanted_environment = load_environment(written.environment)
        wanted_endpoint = load_online_endpoint(written.endpoint)
        wanted = load_online_deployment(written.deployment)
    with _step(journal, f"the environment {environment[0]} was not created"):
        thing = Thing("environment", journal.facts["environment"])
        if there(lambda: client.environments.get(*environment)) is None:
            _noted(journal, thing, lambda: client.environments.create_or_update(wanted_environment))
        elif _archived(client.environments, *environment):
            _noted(journal, thing, lambda: client.environments.restore(*environment))
    with _step(journal, f"the endpoint {name!r} was not created"):
        begin = client.online_endpoints.begin_create_or_update
        poller = _noted(journal, Thing("endpoint", name), lambda: begin(wanted_endpoint))
        endpoint = finish(poller, settings.wait_seconds)
    with _step(journal, f"the bundle was not put behind the endpoint {name!r}"):
        thing = Thing("deployment", f"{name}/{wanted.name}")
        poller = _noted(journal, thing, lambda: client.online_deployments.begin_create_or_update(wanted))
        try:
            finish(poller, settings.wait_seconds)
        except HttpResponseError as error:
            raise with_log(client, wanted.name, name, error) from None
    with _step(journal, f"the endpoint {name!r} was not opened for requests"):
        endpoint.traffic = {wanted.name: 100}
        endpoint = finish(begin(endpoint), settings.wait_seconds)
    journal.know(url=endpoint.scoring_uri)
    return RemoteDeployment(journal)


def deployments(space: str = "default") -> list[RemoteDeployment]:
    """What was deployed from here into a workspace and not deleted, by name."""
    space = workspace_name(space)
    return [RemoteDeployment(DeploymentJournal.load(TARGET, space, name)) for name in names(TARGET, space)]


def find(name: str, space: str = "default") -> RemoteDeployment:
    """The deployment of that name.

    Raises:
        MedicError: there is none; the message lists those there are.
    """
    return RemoteDeployment(DeploymentJournal.load(TARGET, workspace_name(space), name))


def score(deployment: RemoteDeployment, images: Sequence[Image]) -> Prediction:
    """Send image files (bytes or paths) to an endpoint, one a request.

    Raises:
        MedicError: it was deleted, is not ready, cannot be reached, or refuses an image; the message carries the
            reason.
    """
    journal, facts = deployment.journal, deployment.journal.facts
    journal.check_open()
    if not images:
        raise MedicError("there is no image to score; give one or more")
    if deployment.url is None:
        raise MedicError(
            f"the deployment {deployment.name!r} is {status(deployment)}; {journal.clean_up} removes what there is of "
            "it, then deploy again"
        )
    with _asked(deployment, "gave no key"):
        key = connect(_place(deployment)).online_endpoints.get_keys(deployment.name).primary_key
    with httpx.Client(timeout=facts["request_seconds"] + 5, headers={"Authorization": f"Bearer {key}"}) as http:
        answers = [_answer(http, deployment, image) for image in images]
    return prediction_of(Task.from_dict(facts["task"]), facts["thresholds"], answers)


def status(deployment: RemoteDeployment) -> str:
    """``ready``, ``starting``, ``crashed`` (failed there, or half-made) or ``stopped`` (deleted, here or there).

    Half-made is what ``deploy`` did not see through: nothing was put behind the endpoint, or no request goes there.

    Raises:
        MedicError: Azure cannot be asked.
    """
    journal = deployment.journal
    if not journal.path.exists():
        return "stopped"
    behind = [thing.id for thing in journal.things if thing.kind == "deployment"]
    if not behind:
        return "crashed"
    endpoint, _, name = behind[0].partition("/")
    with _asked(deployment, "did not say how it is"):
        client = connect(_place(deployment))
        try:
            state = client.online_deployments.get(name, endpoint).provisioning_state
        except ResourceNotFoundError:
            return "stopped"
    seen = STATUS.get(state.lower(), "crashed")
    return "crashed" if seen == "ready" and deployment.url is None else seen


def delete(deployment: RemoteDeployment, bundle: bool = False) -> None:
    """Delete the endpoint with what is behind it, wait until it is gone, and close the journal.

    Azure archives models and environments, which hides them; it deletes neither the entry nor the files in the storage.

    Args:
        deployment: which one. Of one that never became ready, all that the journal lists is removed.
        bundle: archive the registered bundle and its environment too, unless another deployment from here uses them.

    Raises:
        MedicError: it was deleted before, or Azure refuses; what could not be removed stays in the journal.
    """
    journal = deployment.journal
    if not journal.path.exists():
        raise MedicError(f"the deployment {deployment.name!r} was deleted before; there is nothing to delete")
    if bundle:
        for kind in ("model", "environment"):
            if Thing(kind, journal.facts[kind]) not in journal.things:
                journal.created(kind, journal.facts[kind])
    with _step(journal, f"the deployment {deployment.name!r} was not deleted"):
        client = connect(_place(deployment))
        if any(thing.kind == "endpoint" for thing in journal.things):
            with contextlib.suppress(ResourceNotFoundError):
                finish(client.online_endpoints.begin_delete(deployment.name), journal.facts["wait_seconds"])
        for thing in reversed(journal.things.copy()):
            # What was deployed well leaves its bundle for the next time.
            unwanted = thing.kind in ("model", "environment") and (bundle or deployment.url is None)
            if unwanted and not _used_by_another(journal, thing):
                assets = client.models if thing.kind == "model" else client.environments
                with contextlib.suppress(ResourceNotFoundError):
                    assets.archive(*thing.id.split(":"))
            journal.removed(thing.kind, thing.id)
    shutil.rmtree(_folder(journal), ignore_errors=True)
    journal.close()


def _place(deployment: RemoteDeployment) -> Workspace:
    """Where a deployment was made, whatever the environment says by now."""
    facts = deployment.journal.facts
    return Workspace(facts["subscription"], facts["resource_group"], deployment.space)


def _store(client: MLClient, bundle: Bundle, noted: Callable[[], None]) -> None:
    """Register the bundle unless it is there; ``noted`` is called once there is something new, or may be."""
    name, version = files.model_of(bundle)
    registered = there(lambda: client.models.get(name, version))
    if registered is not None and registered.tags.get("digest") != bundle.manifest.digest:
        raise MedicError(f"the workspace has a model {name}:{version} that is not this bundle; rename the bundle")
    if registered is not None and not _archived(client.models, name, version):
        return
    described = Model(
        name=name,
        version=version,
        type=AssetTypes.CUSTOM_MODEL,
        path=str(bundle.folder.resolve()),
        description=f"{bundle.task.name}. {bundle.manifest.notice}",
        tags={"made_by": "medic", "digest": bundle.manifest.digest},
    )
    try:
        if registered is None:
            client.models.create_or_update(described)
        else:
            client.models.restore(name, version)
    except FAILURES as error:
        if not _refused(error) and _perhaps_there(lambda: client.models.get(name, version)):
            noted()
        raise
    except BaseException:  # interrupted: nobody knows
        noted()
        raise
    noted()


def _perhaps_there(get: Callable[[], Any]) -> bool:
    """Whether something is there; so it is assumed where Azure cannot be asked."""
    try:
        return there(get) is not None
    except FAILURES:
        return True


def _refused(error: Exception) -> bool:
    """Whether Azure said no, so that nothing was made; otherwise nobody knows."""
    status = getattr(error, "status_code", None)
    return status is not None and 400 <= status < 500 and status != 408


def _archived(assets: Any, name: str, version: str) -> bool:
    """Whether a model or an environment that is there is hidden."""
    return any(old.version == version for old in assets.list(name, list_view_type=ListViewType.ARCHIVED_ONLY))


def _answer(http: httpx.Client, deployment: RemoteDeployment, image: Image) -> dict:
    """The endpoint's own words on one image."""
    data, name = (image, f"an image of {len(image)} bytes") if isinstance(image, bytes) else (None, str(image))
    try:
        data = Path(image).read_bytes() if data is None else data
    except OSError as error:
        raise MedicError(f"cannot read {image} ({error.strerror}); correct the path") from error
    where = f"{name}: the endpoint {deployment.name!r}"
    try:
        response = http.post(deployment.url, content=data, headers={"Content-Type": "application/octet-stream"})
        content = response.json()
    except httpx.TimeoutException as error:
        raise MedicError(f"{where} gave no answer in time; try again, or look at its log") from error
    except httpx.TransportError as error:
        raise MedicError(f"{where} cannot be reached ({error}); look at the network, or at its status") from error
    except ValueError as error:
        raise MedicError(f"{where} answered {response.status_code} without JSON; look at its log") from error
    if response.is_success and isinstance(content, dict) and content.get("model") == deployment.bundle:
        return content
    if response.is_success:
        raise MedicError(f"{where} answers with another model than {deployment.bundle}; deploy the bundle again")
    # Azure puts its own 424 over whatever the container refuses with.
    refused = response.headers.get("ms-azureml-model-error-statuscode") or response.status_code
    reason = content.get("error") or content.get("message") if isinstance(content, dict) else None
    raise MedicError(f"{where} refused with {refused}: {reason or 'no reason given'}")


def _used_by_another(journal: DeploymentJournal, thing: Thing) -> bool:
    others = [DeploymentJournal.load(TARGET, journal.space, name) for name in names(TARGET, journal.space)]
    return any(other.name != journal.name and other.facts.get(thing.kind) == thing.id for other in others)


def _folder(journal: DeploymentJournal) -> Path:
    """Where the YAML of a deployment lies."""
    return journal.path.with_suffix("")


def _noted(journal: DeploymentJournal, thing: Thing, ask: Callable[[], Any]) -> Any:
    """Note what is about to be asked for, and ask; where Azure refuses, it was not made, and the note goes.

    After a time-out or a broken connection nobody knows: the note stays, and ``delete`` looks.
    """
    journal.created(thing.kind, thing.id)
    try:
        return ask()
    except HttpResponseError as error:
        if _refused(error):
            journal.removed(thing.kind, thing.id)
        raise


@contextlib.contextmanager
def _step(journal: DeploymentJournal, what: str, more: str = "") -> Iterator[None]:
    """Raise what goes wrong inside as the journal tells it."""
    try:
        yield
    except FAILURES as error:
        why, remedy = explain(error, Workspace("", journal.facts["resource_group"], journal.space))
        # The client's own error may quote an address that is signed with a key, so it is not shown along with ours.
        raise journal.failed(what, why, f"{remedy}. {more}" if more else remedy) from None
    except BaseException:
        if not journal.things:
            journal.close()
        raise
    finally:
        if not journal.path.exists():
            shutil.rmtree(_folder(journal), ignore_errors=True)


@contextlib.contextmanager
def _asked(deployment: RemoteDeployment, what: str) -> Iterator[None]:
    """Raise what goes wrong inside in a sentence that names the deployment."""
    try:
        yield
    except FAILURES as error:
        why, remedy = explain(error, _place(deployment))
        raise MedicError(f"{TARGET}: the deployment {deployment.name!r} {what} ({why}); {remedy}") from None
