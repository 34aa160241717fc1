"""KServe on Kubernetes as a target: a space is a namespace, a deployment an InferenceService with a token's Secret.

The pods run the server of ``medic serve``, in an image that ``container/Dockerfile`` describes, on a bundle that KServe
fetches from the cluster's storage. ``docs/deploy_kserve.md`` explains the settings.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
import kserve
import yaml

from medic.deployment import targets
from medic.deployment.bundle import Bundle
from medic.deployment.client import Client, Image, bearer
from medic.deployment.targets import NAME, VERSION, Deployment, asking, local
from medic.deployment.targets.recording import Recording, dry_running
from medic.errors import MedicError
from medic.task import Prediction

RESOURCE = ("serving.kserve.io", "v1beta1")
GIVEN_UP = {"BlockedByFailedLoad", "InvalidSpec", "ProgressDeadlineExceeded", "RevisionFailed"}
REMEDIES = {
    401: "renew the credentials in KUBECONFIG, so that kubectl get inferenceservices works",
    403: "ask for the right to use secrets and inferenceservices in that namespace, or for a larger quota",
    404: "make the namespace (kubectl create namespace NAME), or install KServe on the cluster",
    409: "choose another name, or delete what has it",
    None: "check KUBECONFIG and the network, then try again",
}


@asking("kserve: the bundle was not stored", REMEDIES)
def store(bundle: Bundle | str | Path, space: str = "default") -> str:
    """Copy a bundle, verified, to where the cluster reads it, below ``MEDIC_KSERVE_STORAGE``; return its URI.

    The storage is ``file:///PATH``, or ``pvc://CLAIM/PATH``, ``s3://BUCKET/PATH`` or ``gs://BUCKET/PATH`` that
    ``MEDIC_KSERVE_MOUNT`` names as a folder of this machine. Where it is not mounted, the message says what to copy,
    and ``MEDIC_KSERVE_UPLOADED=VERSION`` says that it was done.

    Raises:
        MedicError: a setting is missing, the bundle is not sound, or it has to be copied first.
    """
    bundle, root = targets.open_bundle(bundle), _setting("STORAGE", "pvc://CLAIM/medic").rstrip("/")
    if not re.fullmatch(r"(pvc|s3|gs|file)://[^@?]+", root):
        raise MedicError(f"kserve: MEDIC_KSERVE_STORAGE is {root!r}; set it to a place such as pvc://CLAIM/medic")
    version, space = bundle.manifest.version, targets.check_name(space)
    uri, folder = f"{root}/{space}/bundles/{version}", _mounted(root)
    if dry_running():
        Recording("storage").copy(path=bundle.folder, to=uri)
    elif folder is not None:
        local.store(bundle, folder / space)
    elif os.environ.get("MEDIC_KSERVE_UPLOADED") != version:
        raise MedicError(
            f"kserve: the storage is not mounted here; copy {bundle.folder} to {uri} (aws s3 cp --recursive, gcloud "
            f"storage rsync --recursive, kubectl cp) and set MEDIC_KSERVE_UPLOADED={version}, or MEDIC_KSERVE_MOUNT"
        )
    return uri


@asking("kserve: the bundle was not deployed", REMEDIES)
def deploy(bundle: Bundle | str | Path, space: str = "default", name: str | None = None) -> Deployment:
    """Store a bundle and serve it on the cluster, until ``delete``.

    Args:
        bundle: a bundle, its folder or its archive.
        space: the namespace; it must exist.
        name: of the InferenceService; the task's name with six random digits when None.

    Raises:
        MedicError: a setting is missing, the cluster refuses, or the service failed; the message says why.
    """
    bundle, image = targets.open_bundle(bundle), _setting("IMAGE", "registry.example/medic:1")
    name = name or targets.new_name(bundle)
    targets.check_name(name, "[a-z](-?[a-z0-9]){0,39}", "up to 40 lower case letters, digits and single '-'")
    client, storage = connect(), store(bundle, space)
    service = manifest(bundle, space, name, image, storage)
    labels, token = service["metadata"]["labels"], os.environ.get("MEDIC_KSERVE_TOKEN") or secrets.token_urlsafe(32)
    secret = {"metadata": {"name": f"{name}-token", "labels": labels}, "stringData": {"token": token}}
    # The service first: by it ``delete`` finds what was made, should the next call fail.
    client.api_instance.create_namespaced_custom_object(*RESOURCE, space, "inferenceservices", service)
    client.core_api.create_namespaced_secret(space, secret)
    deployment = Deployment("kserve", space, name, bundle.manifest.version)
    targets.wait_until_ready(deployment, lambda: _look(client.get(name, namespace=space)))
    return find(name, space)


@asking("kserve: the services cannot be listed", REMEDIES)
def deployments(space: str = "default") -> list[Deployment]:
    """Return the services of a namespace that carry our labels, by name, from whichever machine they were made."""
    found = []
    for one in connect().get(namespace=space)["items"]:
        if "labels" in one["metadata"] and NAME in (labels := one["metadata"]["labels"]):
            url = one["status"]["url"] if "status" in one and "url" in one["status"] else None
            found.append(Deployment("kserve", space, labels[NAME], labels[VERSION], url))
    return sorted(found, key=lambda one: one.name)


def find(name: str, space: str = "default") -> Deployment:
    """Return the deployment of that name; a ``MedicError`` lists those there are."""
    return targets.named(name, space, deployments(space))


@asking("kserve: the status cannot be asked for", REMEDIES)
def status(deployment: Deployment) -> str:
    """Return ``ready``, ``starting``, ``crashed`` (the cluster gave up on it) or ``stopped`` (it is not there)."""
    client = connect()
    return targets.or_stopped(lambda: _look(client.get(deployment.name, namespace=deployment.space))[0])


@asking("kserve: the service gave no scores", REMEDIES)
def score(deployment: Deployment, images: Sequence[Image]) -> Prediction:
    """Send image files (bytes or paths) to a deployment, with the token from its Secret.

    Where this machine cannot resolve the service's name, ``MEDIC_KSERVE_INGRESS`` is the ingress's own address.

    Raises:
        MedicError: it is not ready, cannot be reached, or refuses an image; the message carries the reason.
    """
    deployment = deployment if deployment.url else find(deployment.name, deployment.space)
    token = connect().core_api.read_namespaced_secret(f"{deployment.name}-token", deployment.space).data["token"]
    if dry_running():
        return Recording("service").score(images, headers=bearer(token))
    if deployment.url is None:
        raise MedicError(f"kserve: the deployment {deployment.name} is {status(deployment)}; ask it when it is ready")
    headers, ingress = bearer(base64.b64decode(token).decode()), os.environ.get("MEDIC_KSERVE_INGRESS")
    headers |= {"Host": urlsplit(deployment.url).netloc} if ingress else {}
    with Client(ingress or deployment.url, headers=headers) as service:
        return service.score(images)


@asking("kserve: not everything was deleted", REMEDIES)
def delete(deployment: Deployment, bundle: bool = False) -> None:
    """Delete the InferenceService and the Secret with its label.

    With ``bundle`` the stored bundle goes too, where the storage is mounted and no other deployment serves it.
    """
    client, space = connect(), deployment.space
    # The service last: while it is there, what is left of a deployment is found again.
    client.core_api.delete_collection_namespaced_secret(space, label_selector=f"{NAME}={deployment.name}")
    client.delete(deployment.name, namespace=space)
    if bundle and deployment.bundle not in {one.bundle for one in deployments(space) if one.name != deployment.name}:
        root = _setting("STORAGE", "pvc://CLAIM/medic").rstrip("/")
        uri, folder = f"{root}/{space}/bundles/{deployment.bundle}", _mounted(root)
        if dry_running():
            Recording("storage").remove(uri)
        elif folder is None:
            raise MedicError(f"kserve: the deployment is deleted, but its bundle lies at {uri}; remove it there")
        else:
            shutil.rmtree(folder / space / "bundles" / deployment.bundle, ignore_errors=True)


def connect() -> kserve.KServeClient:
    """Return KServe's client for the cluster of ``KUBECONFIG``, or for the one that this program runs in."""
    if dry_running():
        return Recording("client", "KServeClient(config_file=$KUBECONFIG)")
    return kserve.KServeClient(config_file=os.environ.get("KUBECONFIG"))


def manifest(bundle: Bundle, space: str, name: str, image: str, storage: str) -> dict[str, Any]:
    """Return the InferenceService of ``inference_service.yaml.j2``, and the settings of the environment in it."""
    template = jinja2.Template((Path(__file__).parent / "inference_service.yaml.j2").read_text())
    account, most = os.environ.get("MEDIC_KSERVE_SERVICE_ACCOUNT"), os.environ.get("MEDIC_KSERVE_REPLICAS", 3)
    tags = targets.tags_of(bundle, name)
    return yaml.safe_load(
        template.render(tags=tags, space=space, image=image, storage=storage, account=account, most=most)
    )


def _look(service: Any) -> tuple[str, object]:
    """Return the status of an InferenceService, and what the cluster says of it."""
    if dry_running() or "status" not in service:
        return "starting", "the cluster says nothing of it yet"
    told = service["status"]
    conditions = [one for one in told.get("conditions", []) if one.get("status") != "True"]
    failure = told.get("modelStatus", {}).get("lastFailureInfo", {})
    said = [f"{one.get('reason', '')} {one.get('message', '')}".strip() for one in (failure, *conditions)]
    reasons = {told.get("modelStatus", {}).get("transitionStatus"), *(one.get("reason") for one in conditions)}
    ready = told.get("url") and any(one["type"] == "Ready" and one["status"] == "True" for one in told["conditions"])
    return "ready" if ready else "crashed" if reasons & GIVEN_UP else "starting", "; ".join(filter(None, said))


def _setting(name: str, example: str) -> str:
    value = os.environ.get(f"MEDIC_KSERVE_{name}") or (example if dry_running() else None)
    if value is None:
        raise MedicError(f"kserve: MEDIC_KSERVE_{name} is not set; set it to yours, such as {example}")
    return value


def _mounted(root: str) -> Path | None:
    folder = root.removeprefix("file://") if root.startswith("file://") else os.environ.get("MEDIC_KSERVE_MOUNT")
    return Path(folder) if folder else None
