"""KServe on Kubernetes as a target: a space is a namespace, a deployment an InferenceService with a token's Secret.

The pods run the server of ``medic serve``, in an image that ``Dockerfile`` describes, on a bundle that KServe fetches
from the cluster's storage. ``docs/deploy_kserve.md`` explains the settings.
"""

import base64
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
import kserve
import yaml

from medic.deployment.bundle import Bundle
from medic.deployment.client import Client, bearer
from medic.deployment.targets import NAME, VERSION, Deployment, Target, check_name, local, setting, tags_of
from medic.deployment.targets.recording import Recording, dry_running
from medic.errors import MedicError

SERVICES = {"group": "serving.kserve.io", "version": "v1beta1", "plural": "inferenceservices"}
GIVEN_UP = {"BlockedByFailedLoad", "InvalidSpec", "ProgressDeadlineExceeded", "RevisionFailed"}


class KServe(Target):
    """InferenceServices of a namespace."""

    def _put(self, bundle: Bundle, space: str) -> str:
        uri, folder = _storage(space, bundle.manifest.version)
        if folder:
            local.store(bundle, folder)
        else:
            print(f"# the storage is not mounted here; copy the files of the bundle {bundle.folder.name} to {uri}")
        return uri

    def _make(self, bundle: Bundle, space: str, name: str) -> None:
        image = setting("MEDIC_KSERVE_IMAGE", example="registry.example/medic:1")
        service, client = manifest(bundle, space, name, image, self._put(bundle, space)), connect()
        token = os.environ.get("MEDIC_KSERVE_TOKEN") or secrets.token_urlsafe(32)
        about = {"name": f"{name}-token", "labels": service["metadata"]["labels"]}
        # The service first: by it what was made is found, should the next call fail.
        client.api_instance.create_namespaced_custom_object(**SERVICES, namespace=space, body=service)
        client.core_api.create_namespaced_secret(space, {"metadata": about, "stringData": {"token": token}})

    def _look(self, space: str) -> Iterator[Deployment]:
        found = connect().api_instance.list_namespaced_custom_object(**SERVICES, namespace=space, label_selector=NAME)
        for one in found["items"]:
            labels, told = one["metadata"]["labels"], {} if dry_running() else one.get("status", {})
            load, conditions = told.get("modelStatus", {}), told.get("conditions", [])
            ready = told.get("url") and ("Ready", "True") in [(each["type"], each["status"]) for each in conditions]
            failed = GIVEN_UP & {load.get("transitionStatus"), *(each.get("reason") for each in conditions)}
            said = [each["message"] for each in (load.get("lastFailureInfo", {}), *conditions) if "message" in each]
            state = "ready" if ready else "crashed" if failed else "starting"
            yield Deployment(self, labels[NAME], space, labels[VERSION], told.get("url"), state, "; ".join(said))

    def _service(self, deployment: Deployment) -> Client:
        secret = connect().core_api.read_namespaced_secret(f"{deployment.name}-token", deployment.space)
        if dry_running():
            return Recording("Client")
        if deployment.url is None:
            raise MedicError(f"kserve: the deployment {deployment.name} is {deployment.state}; ask it when it is ready")
        token, ingress = base64.b64decode(secret.data["token"]).decode(), os.environ.get("MEDIC_KSERVE_INGRESS")
        headers = bearer(token) | ({"Host": urlsplit(deployment.url).netloc} if ingress else {})
        return Client(ingress or deployment.url, headers=headers)

    def _remove(self, deployment: Deployment) -> None:
        client, space = connect(), deployment.space
        # The service last: while it is there, what is left of a deployment is found again.
        client.core_api.delete_collection_namespaced_secret(space, label_selector=f"{NAME}={deployment.name}")
        client.api_instance.delete_namespaced_custom_object(**SERVICES, namespace=space, name=deployment.name)

    def _remove_bundle(self, deployment: Deployment) -> None:
        uri, folder = _storage(deployment.space, deployment.bundle)
        if folder:
            shutil.rmtree(folder / "bundles" / deployment.bundle, ignore_errors=True)
        else:
            print(f"# the storage is not mounted here; remove {uri}")


def connect() -> kserve.KServeClient:
    """Return KServe's client for the cluster of ``KUBECONFIG``, or for the one that this program runs in."""
    return Recording("KServeClient") if dry_running() else kserve.KServeClient(config_file=os.environ.get("KUBECONFIG"))


def manifest(bundle: Bundle, space: str, name: str, image: str, storage: str) -> dict[str, Any]:
    """Return the InferenceService of ``inference_service.yaml.j2``, and the settings of the environment in it."""
    template = jinja2.Template((Path(__file__).parent / "inference_service.yaml.j2").read_text())
    account, most = os.environ.get("MEDIC_KSERVE_SERVICE_ACCOUNT"), os.environ.get("MEDIC_KSERVE_REPLICAS", 3)
    values = {"tags": tags_of(bundle, name), "space": space, "image": image, "storage": storage}
    return yaml.safe_load(template.render(**values, account=account, most=most))


def _storage(space: str, version: str) -> tuple[str, Path | None]:
    """Return where the cluster finds a stored bundle, and the space's folder here, where the storage is mounted."""
    root = setting("MEDIC_KSERVE_STORAGE", r"(pvc|s3|gs|file)://[^@?]+", "pvc://CLAIM/medic").rstrip("/")
    mounted = root.removeprefix("file://") if root.startswith("file://") else os.environ.get("MEDIC_KSERVE_MOUNT")
    folder = Path(mounted) / space if mounted and not dry_running() else None
    return f"{root}/{check_name(space)}/bundles/{version}", folder


KSERVE = KServe()
store, deploy, deployments, find = KSERVE.store, KSERVE.deploy, KSERVE.deployments, KSERVE.find
