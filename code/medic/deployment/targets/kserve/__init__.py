"""KServe on Kubernetes as a target: a space is a namespace, a deployment an InferenceService with a token's Secret.

Settings come from the environment: ``KUBECONFIG`` as usual, ``MEDIC_KSERVE_IMAGE`` and ``MEDIC_KSERVE_STORAGE`` (see
``kserve_storage.store``), and, where the defaults do not do, ``MEDIC_KSERVE_TOKEN``, ``MEDIC_KSERVE_INGRESS``,
``MEDIC_KSERVE_MODE``, ``MEDIC_KSERVE_REPLICAS``, ``MEDIC_KSERVE_SERVICE_ACCOUNT``, ``MEDIC_KSERVE_POLL_SECONDS`` and
``MEDIC_KSERVE_WAIT_SECONDS``; ``docs/deploy_kserve.md`` explains each.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medic.deployment import client as call
from medic.deployment.bundle import Bundle
from medic.deployment.client import Image
from medic.deployment.targets import journal as journals
from medic.deployment.targets.journal import DeploymentJournal, Thing
from medic.deployment.targets.kserve import storage as kserve_storage
from medic.deployment.targets.kserve.inference_service import (
    MARK,
    TOKEN_FILE,
    ClusterSettings,
    check_namespace,
    check_service,
    inference_service,
    service_state,
)
from medic.deployment.targets.kserve.objects import (
    SECRET,
    SERVICE,
    Cluster,
    Failure,
    connect,
    marked,
    reason,
    refused,
    remedy,
)
from medic.deployment.targets.kserve.storage import Stored
from medic.deployment.targets.kserve.strict_manifest import check_manifest
from medic.deployment.targets.remote import RemoteDeployment
from medic.errors import MedicError
from medic.task import Prediction

TARGET = "kserve"
POLL_SECONDS = 5.0
WAIT_SECONDS = 600.0


def store(bundle: Bundle | str | Path, space: str = "default") -> Stored:
    """Put a bundle where the cluster reads it, whole or not at all; see ``kserve_storage.store``.

    Raises:
        MedicError: a setting is missing or wrong, the bundle is not sound, or it has to be uploaded first.
    """
    return kserve_storage.store(bundle, space)


def deploy(bundle: Bundle | str | Path, space: str = "default", name: str | None = None) -> RemoteDeployment:
    """Store a bundle and serve it on the cluster, until ``delete``.

    Args:
        bundle: a bundle, its folder or its archive.
        space: the namespace; it must exist.
        name: of the InferenceService; the task's name with a few random digits when None.

    Returns:
        The deployment, ready to be called.

    Raises:
        MedicError: a setting is missing, the name is taken, the cluster refuses or cannot be reached, or the service
            failed or was not ready in time; the message says what was created and how to remove it.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    image = os.environ.get("MEDIC_KSERVE_IMAGE")
    if not image:
        raise MedicError(
            "kserve: MEDIC_KSERVE_IMAGE names no container image; write its files with "
            "medic.deployment.targets.kserve.container_image.write_image_files(FOLDER), build and push "
            "them (docker build --tag IMAGE FOLDER; docker push IMAGE) and set the variable to IMAGE"
        )
    name = check_service(name or _name(bundle))
    cluster = connect(check_namespace(space))
    # Asked before anything is stored or made: it shows that the cluster answers, has KServe and knows who asks.
    if _ask(lambda: cluster.read(SERVICE, name), f"the cluster cannot be asked for {name}", space) is not None:
        raise MedicError(
            f"kserve: the namespace {space} has an InferenceService {name}; delete that first or choose another name"
        )
    token = os.environ.get("MEDIC_KSERVE_TOKEN") or secrets.token_urlsafe(32)
    if not re.fullmatch(r"[!-~]{16,200}", token):
        raise MedicError("kserve: MEDIC_KSERVE_TOKEN has to have 16 to 200 letters, digits and signs without blanks")
    mark = uuid.uuid4().hex
    journal = DeploymentJournal.begin(TARGET, space, name, bundle=bundle.manifest.version, mark=mark)
    try:
        stored = store(bundle, space)
        settings = _settings(name, space, image, stored, mark)
        manifest = inference_service(settings)
        check_manifest(manifest)
    except BaseException:
        journal.close()
        raise
    journal.know(storage=stored.uri)
    _create(cluster, journal, SECRET, _secret(settings, token))
    _create(cluster, journal, SERVICE, manifest)
    _wait_until_ready(cluster, journal)
    return RemoteDeployment(journal)


def deployments(space: str = "default") -> list[RemoteDeployment]:
    """What was deployed into a namespace from this machine and not deleted, by name; half-made ones, too."""
    return [find(name, space) for name in journals.names(TARGET, check_namespace(space))]


def find(name: str, space: str = "default") -> RemoteDeployment:
    """The deployment of that name.

    Raises:
        MedicError: there is none; the message lists those there are.
    """
    return RemoteDeployment(DeploymentJournal.load(TARGET, check_namespace(space), name))


def score(deployment: RemoteDeployment, images: Sequence[Image]) -> Prediction:
    """Send image files (bytes or paths) to a deployment, with its token.

    They go to the address that KServe gave the service; where this machine cannot resolve that,
    ``MEDIC_KSERVE_INGRESS`` is the ingress's own address, and the service's goes into the header ``Host``. The token
    is ``MEDIC_KSERVE_TOKEN``, or read from the Secret.

    Raises:
        MedicError: it was deleted, does not run, cannot be reached, or refuses an image; the message carries the
            reason.
    """
    journal = deployment.journal
    journal.check_open()
    cluster = connect(journal.space)
    url = deployment.url
    if url is None:
        state, words, url = _look(cluster, journal)
        if state != "ready":
            raise MedicError(f"kserve: the deployment {journal.name} is {state} ({words}); it can be asked when ready")
        journal.know(url=url)
    headers = call.bearer(_token(cluster, journal))
    ingress = os.environ.get("MEDIC_KSERVE_INGRESS")
    if ingress:
        headers["Host"] = urlsplit(url).netloc
    return call.score(ingress or url, images, headers=headers)


def status(deployment: RemoteDeployment) -> str:
    """``ready``, ``starting``, ``crashed`` (the cluster gave up on it) or ``stopped`` (it is not there).

    Raises:
        MedicError: the cluster refuses or cannot be reached.
    """
    journal = deployment.journal
    if not journal.path.exists():
        return "stopped"
    return _look(connect(journal.space), journal)[0]


def delete(deployment: RemoteDeployment, bundle: bool = False) -> None:
    """Remove the InferenceService and the Secret, and wait until they are gone.

    An object of the same name that was made for something else is left alone.

    Args:
        deployment: which one; it may be half-made.
        bundle: remove the stored bundle too, unless another deployment serves it.

    Raises:
        MedicError: something could not be removed; the journal keeps it, so that ``delete`` can be tried again. Or all
            is gone but the bundle, which this machine cannot remove; the message says where it lies.
    """
    journal = deployment.journal
    if not journal.path.exists():
        raise MedicError(f"the deployment {journal.name!r} was deleted before; there is nothing to delete")
    cluster = connect(journal.space)
    # The service before its Secret, and the Secret not without it: what could not be removed can still be called.
    for thing in reversed(list(journal.things)):
        try:
            _remove(cluster, journal, thing)
        except (*Failure, TimeoutError) as error:
            why = str(error) if isinstance(error, TimeoutError) else reason(error)
            advice = "look at its finalizers" if isinstance(error, TimeoutError) else remedy(error, journal.space)
            raise MedicError(
                f"kserve: {thing} could not be removed ({why}); {advice}. Still there: {journal}; {journal.clean_up} "
                "tries again"
            ) from error
    journal.close()
    uri = journal.facts.get("storage")
    if not bundle or uri is None:
        return
    served = any(other.journal.facts.get("storage") == uri for other in deployments(journal.space))
    if not served and not kserve_storage.remove_stored(uri, journal.space):
        raise MedicError(
            f"kserve: the deployment {journal.name} is deleted, but its bundle still lies at {uri}; "
            f"{kserve_storage.removal(uri)}"
        )


def _name(bundle: Bundle) -> str:
    task = re.sub(r"[^a-z0-9]+", "-", bundle.task.name.lower()).strip("-")[:30].rstrip("-")
    return f"{task if task[:1].isalpha() else 'medic'}-{uuid.uuid4().hex[:6]}"


def _settings(name: str, space: str, image: str, stored: Stored, mark: str) -> ClusterSettings:
    given: dict[str, Any] = {}
    if mode := os.environ.get("MEDIC_KSERVE_MODE"):
        given["mode"] = mode
    if replicas := os.environ.get("MEDIC_KSERVE_REPLICAS"):
        if not re.fullmatch(r"\d+-\d+", replicas):
            raise MedicError(
                f"kserve: MEDIC_KSERVE_REPLICAS is {replicas!r}; give the fewest and the most, such as 1-3"
            )
        given["replicas"] = tuple(map(int, replicas.split("-")))
    account = os.environ.get("MEDIC_KSERVE_SERVICE_ACCOUNT") or None
    return ClusterSettings(
        name, space, image, stored.uri, folder=stored.inside, service_account=account, mark=mark, **given
    )


def _secret(settings: ClusterSettings, token: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "medic", "app.kubernetes.io/instance": settings.name, MARK: settings.mark}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": settings.secret, "namespace": settings.namespace, "labels": labels},
        "type": "Opaque",
        "data": {TOKEN_FILE: base64.b64encode(token.encode()).decode()},
    }


def _create(cluster: Cluster, journal: DeploymentJournal, kind: str, body: Mapping[str, Any]) -> None:
    name = body["metadata"]["name"]
    # Written down before it is asked for: whatever happens to this program or to the answer, it is not forgotten.
    journal.created(kind, name)
    try:
        cluster.create(kind, body)
    except Failure as error:
        if refused(error) or _is_absent(cluster, kind, name):
            journal.removed(kind, name)
        raise journal.failed(
            f"the {kind} {name} could not be created",
            reason(error),
            remedy(error, journal.space),
            f"the bundle stays stored at {journal.facts['storage']}",
        ) from error


def _is_absent(cluster: Cluster, kind: str, name: str) -> bool:
    """Whether the cluster says that there is no such object, after the answer to its creation was lost."""
    try:
        return cluster.read(kind, name) is None
    except Failure:
        return False


def _remove(cluster: Cluster, journal: DeploymentJournal, thing: Thing) -> None:
    found = cluster.read(thing.kind, thing.id)
    if found is not None and marked(found, journal.facts["mark"]):
        cluster.remove(thing.kind, thing.id)
        deadline = time.monotonic() + _seconds("MEDIC_KSERVE_WAIT_SECONDS", WAIT_SECONDS)
        while (found := cluster.read(thing.kind, thing.id)) is not None and marked(found, journal.facts["mark"]):
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster was told to, but it is still there")
            time.sleep(_seconds("MEDIC_KSERVE_POLL_SECONDS", POLL_SECONDS))
    journal.removed(thing.kind, thing.id)


def _wait_until_ready(cluster: Cluster, journal: DeploymentJournal) -> None:
    seconds = _seconds("MEDIC_KSERVE_WAIT_SECONDS", WAIT_SECONDS)
    deadline = time.monotonic() + seconds
    while True:
        try:
            state, words, url = service_state(cluster.read(SERVICE, journal.name))
        except Failure as error:
            if refused(error) and getattr(error, "status", None) != 429:
                raise journal.failed(
                    f"{journal.name} could not be watched", reason(error), remedy(error, journal.space)
                ) from error
            state, words, url = "starting", reason(error), None
        if state == "ready":
            journal.know(url=url)
            return
        if state in ("crashed", "stopped"):
            what = f"{journal.name} failed" if state == "crashed" else f"{journal.name} was removed by someone else"
            advice = f"see kubectl describe inferenceservice {journal.name} --namespace {journal.space}"
            raise journal.failed(what, _with_warnings(words, cluster, journal.name), advice)
        if time.monotonic() > deadline:
            raise journal.failed(
                f"{journal.name} was not ready in {seconds:g} seconds",
                _with_warnings(words, cluster, journal.name),
                "it may still become so (ask for its status); MEDIC_KSERVE_WAIT_SECONDS waits longer",
            )
        time.sleep(_seconds("MEDIC_KSERVE_POLL_SECONDS", POLL_SECONDS))


def _with_warnings(words: str, cluster: Cluster, name: str) -> str:
    return "; ".join(dict.fromkeys([words, *cluster.warnings(name)]))


def _look(cluster: Cluster, journal: DeploymentJournal) -> tuple[str, str, str | None]:
    found = _ask(
        lambda: cluster.read(SERVICE, journal.name), f"the cluster cannot be asked for {journal.name}", journal.space
    )
    return service_state(found)


def _token(cluster: Cluster, journal: DeploymentJournal) -> str:
    if token := os.environ.get("MEDIC_KSERVE_TOKEN"):
        return token
    secret = next((thing.id for thing in journal.things if thing.kind == SECRET), None)
    found = secret and _ask(lambda: cluster.read(SECRET, secret), "the token cannot be read", journal.space)
    try:
        return base64.b64decode(found["data"][TOKEN_FILE]).decode()
    except (TypeError, KeyError, ValueError) as error:
        raise MedicError(
            f"kserve: there is no Secret with the token of {journal.name}; set MEDIC_KSERVE_TOKEN, or deploy again"
        ) from error


def _ask(read: Callable[[], Any], what: str, space: str) -> Any:
    try:
        return read()
    except Failure as error:
        raise MedicError(f"kserve: {what} ({reason(error)}); {remedy(error, space)}") from error


def _seconds(variable: str, default: float) -> float:
    given = os.environ.get(variable)
    try:
        return float(given) if given else default
    except ValueError as error:
        raise MedicError(f"kserve: {variable} is {given!r}; give a number of seconds") from error
