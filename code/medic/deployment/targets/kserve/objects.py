"""Secrets and InferenceServices on a Kubernetes cluster: created, read and removed with the real clients."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import kserve
import urllib3
from kubernetes import client as kubernetes_client
from kubernetes.client import ApiException
from kubernetes.config import ConfigException

from medic.deployment.targets.kserve.inference_service import MARK
from medic.errors import MedicError

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "secret"
SERVICE = "inferenceservice"
RESOURCE = ("serving.kserve.io", "v1beta1")
PLURAL = "inferenceservices"
REQUEST_SECONDS = 30.0
"""How long the cluster's API may take over one answer; without it the clients wait for ever."""

Failure = (ApiException, urllib3.exceptions.HTTPError)
"""What the clients raise: the cluster refused, or could not be reached."""


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that ``KUBECONFIG`` names.

    KServe's client lends its connection; its own methods take no time-out and hide the status of a refusal in a text,
    so the calls go to the Kubernetes client under it.
    """

    client: kserve.KServeClient
    namespace: str

    def create(self, kind: str, body: Mapping[str, Any]) -> None:
        """Create a Secret or an InferenceService; one of ``Failure`` is raised where that fails."""
        if kind == SECRET:
            self.client.core_api.create_namespaced_secret(self.namespace, body, _request_timeout=REQUEST_SECONDS)
            return
        self.client.api_instance.create_namespaced_custom_object(
            *RESOURCE, self.namespace, PLURAL, body, _request_timeout=REQUEST_SECONDS
        )

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object as plain values, or None where there is none of that name."""
        try:
            if kind == SECRET:
                found = self.client.core_api.read_namespaced_secret(
                    name, self.namespace, _request_timeout=REQUEST_SECONDS
                )
                return kubernetes_client.ApiClient().sanitize_for_serialization(found)
            return self.client.api_instance.get_namespaced_custom_object(
                *RESOURCE, self.namespace, PLURAL, name, _request_timeout=REQUEST_SECONDS
            )
        except ApiException as error:
            # The cluster says so itself; where it has no KServe, the answer is another page of status 404.
            if error.status == 404 and _details(error).get("reason") == "NotFound" and f'"{name}"' in _message(error):
                return None
            raise

    def remove(self, kind: str, name: str) -> None:
        """Ask for the end of an object; it may live on for a while. None of that name is as good as removed."""
        try:
            if kind == SECRET:
                self.client.core_api.delete_namespaced_secret(name, self.namespace, _request_timeout=REQUEST_SECONDS)
            else:
                self.client.api_instance.delete_namespaced_custom_object(
                    *RESOURCE, self.namespace, PLURAL, name, _request_timeout=REQUEST_SECONDS
                )
        except ApiException as error:
            if error.status != 404:
                raise

    def warnings(self, name: str) -> list[str]:
        """The last few things that went wrong for a service and what belongs to it, if the cluster tells."""
        try:
            events = self.client.core_api.list_namespaced_event(
                self.namespace, field_selector="type=Warning", limit=500, _request_timeout=REQUEST_SECONDS
            ).items
        except Failure:
            return []
        said = [event.message for event in events if (event.involved_object.name or "").startswith(name)]
        return list(dict.fromkeys(filter(None, said)))[-3:]


def connect(namespace: str) -> Cluster:
    """The cluster of ``KUBECONFIG``, or the one this program runs in.

    Raises:
        MedicError: there is no such configuration, or it is damaged.
    """
    # The client reads the variable once, when it is first imported; ours may be set later, in a notebook.
    file = os.environ.get("KUBECONFIG") or None
    try:
        return Cluster(kserve.KServeClient(config_file=file), namespace)
    except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        where = file or "the default place"
        raise MedicError(
            f"kserve: no cluster can be used with the kubeconfig in {where} ({error}); set KUBECONFIG to the file of a "
            "cluster that kubectl reaches"
        ) from error


def marked(values: Mapping[str, Any], mark: str) -> bool:
    """Whether an object was made for the deployment of that mark."""
    return (values.get("metadata", {}).get("labels") or {}).get(MARK) == mark


def refused(error: Exception) -> bool:
    """Whether the cluster said no, so that nothing was created; otherwise nobody knows."""
    return isinstance(error, ApiException) and 400 <= (error.status or 0) < 500 and error.status != 408


def reason(error: Exception) -> str:
    """A failure in a few words, those of the cluster where it has any."""
    if isinstance(error, ApiException):
        return f"{error.status or 'no answer'}: {_message(error)}"
    return f"the connection failed: {str(error)[:300]}"


def remedy(error: Exception, namespace: str) -> str:
    """What to do about a failure."""
    status, said = (error.status, _message(error)) if isinstance(error, ApiException) else (None, "")
    if status == 401:
        return "renew the credentials in KUBECONFIG, so that kubectl get inferenceservices works"
    if status == 403 and "quota" in said:
        return f"delete what is not needed in the namespace {namespace}, or ask for a larger quota"
    if status == 403:
        return f"ask for the right to use secrets and inferenceservices in the namespace {namespace}"
    if status == 404 and "namespaces" in said:
        return f"make the namespace (kubectl create namespace {namespace}) or choose another space"
    if status == 404:
        return "install KServe on the cluster, or set KUBECONFIG to one that has it"
    if status == 409:
        return "choose another name, or delete what has it"
    if status in (400, 422):
        return "correct the settings that the message names"
    if status == 429 or (status or 0) >= 500:
        return "the cluster is too busy or unwell; try again in a minute"
    return "check the network and the address in KUBECONFIG, then try again"


def _details(error: ApiException) -> dict[str, Any]:
    try:
        details = json.loads(error.body or "")
    except ValueError:
        return {}
    return details if isinstance(details, dict) else {}


def _message(error: ApiException) -> str:
    return str(_details(error).get("message") or error.reason or "no reason given").strip()[:400]
