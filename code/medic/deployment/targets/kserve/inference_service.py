"""An InferenceService: the manifest that tells a KServe cluster what to run, and what the cluster says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medic.errors import MedicError

HTTP_PORT = 8080
GRPC_PORT = 8081
USER = 10001
"""User and group of the server in its container: a number, so that a cluster can see that it is not root."""
MODEL_FOLDER = "/mnt/models"
"""Where KServe's storage initializer puts what ``STORAGE_URI`` names."""
TOKEN_FOLDER = "/etc/medic-token"
TOKEN_FILE = "token"
"""The key of the Secret, and the name of the file it becomes."""
MARK = "medic/deployment"
"""Label that says which deployment made an object: nothing else is ever removed."""
MODES = {"RawDeployment": ("cpu", "memory"), "Serverless": ("concurrency", "rps")}
"""How KServe runs a service, and what it can scale by then. Newer versions call them Standard and Knative, and know
these names, too."""
HOPELESS = {"ProgressDeadlineExceeded", "RevisionFailed"}
"""Reasons of a condition after which the cluster does not try again by itself."""


@dataclass(frozen=True)
class ClusterSettings:
    """How one bundle runs on a cluster.

    Attributes:
        name: of the InferenceService; lower case letters, digits and ``-``, at most 40 characters.
        namespace: where it runs.
        image: the container image that ``write_image_files`` describes, as the cluster pulls it.
        storage: URI of the stored bundle, as KServe's storage initializer reads it.
        folder: where the bundle lies in the container.
        mode: ``RawDeployment`` (plain Kubernetes) or ``Serverless`` (Knative).
        replicas: fewest and most servers; none at all is possible with ``Serverless`` only.
        scale_metric: what is held at ``scale_target``: ``cpu`` or ``memory`` (per cent of the request), ``concurrency``
            or ``rps`` (a server's requests). None takes ``cpu`` or ``concurrency``.
        scale_target: None takes 70 per cent, or 4 requests.
        workers: processes of a server that compute; as many as ``cpu`` allows at most.
        cpu: requested, and at most, in the words of Kubernetes.
        memory: requested, and at most.
        grace_seconds: how long a server that is told to end may finish its requests.
        service_account: whose credentials the storage initializer uses; None is the namespace's default.
        mark: the value of the label ``MARK``.
    """

    name: str
    namespace: str
    image: str
    storage: str
    folder: str = MODEL_FOLDER
    mode: str = "RawDeployment"
    replicas: tuple[int, int] = (1, 3)
    scale_metric: str | None = None
    scale_target: int | None = None
    workers: int = 2
    cpu: tuple[str, str] = ("500m", "2")
    memory: tuple[str, str] = ("1Gi", "2Gi")
    grace_seconds: int = 30
    service_account: str | None = None
    mark: str = "by-hand"

    def __post_init__(self) -> None:
        check_service(self.name)
        check_namespace(self.namespace)
        if self.mode not in MODES:
            raise MedicError(f"KServe has no mode {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.scale_metric not in (None, *MODES[self.mode]):
            raise MedicError(
                f"{self.mode} cannot scale by {self.scale_metric!r}; choose one of {', '.join(MODES[self.mode])}"
            )
        fewest, most = self.replicas
        least = 0 if self.mode == "Serverless" else 1
        if not least <= fewest <= most or most < 1:
            raise MedicError(
                f"{fewest} to {most} replicas are no range for {self.mode}; give {least} or more and, as most, at "
                "least as many and one"
            )

    @property
    def secret(self) -> str:
        """Name of the Secret with the token."""
        return f"{self.name}-token"


def check_service(name: str) -> str:
    """The name of an InferenceService, if KServe allows it; what KServe appends must fit behind it.

    Raises:
        MedicError: it does not.
    """
    if not re.fullmatch(r"[a-z](-?[a-z0-9])*", name) or len(name) > 40:
        raise MedicError(
            f"{name!r} is no name for an InferenceService; use up to 40 lower case letters, digits and single '-' "
            "between them, a letter first"
        )
    return name


def check_namespace(name: str) -> str:
    """The name of a namespace, if Kubernetes allows it.

    Raises:
        MedicError: it does not.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) or len(name) > 63:
        raise MedicError(
            f"{name!r} is no name for a namespace; use up to 63 lower case letters, digits and '-' between them"
        )
    return name


def inference_service(settings: ClusterSettings) -> dict[str, Any]:
    """The manifest of an InferenceService (``serving.kserve.io/v1beta1``) that runs our server on a stored bundle.

    Everything stands on the container rather than on the pod: Knative lets little else through.
    """
    raw = settings.mode == "RawDeployment"
    metric = settings.scale_metric or MODES[settings.mode][0]
    target = settings.scale_target or (70 if metric in MODES["RawDeployment"] else 4)
    labels = {
        "app.kubernetes.io/name": "medic",
        "app.kubernetes.io/instance": settings.name,
        "app.kubernetes.io/managed-by": "medic",
        MARK: settings.mark,
    }
    modes = {"serving.kserve.io/deploymentMode": settings.mode}
    if raw:
        modes["serving.kserve.io/autoscalerClass"] = "hpa"
    predictor = {
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(HTTP_PORT),
            "prometheus.io/path": "/metrics",
        },
        "labels": labels,
        "minReplicas": settings.replicas[0],
        "maxReplicas": settings.replicas[1],
        "scaleMetric": metric,
        "scaleTarget": target,
        "timeout": 60,
        # The server asks the cluster for nothing.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(settings, raw)],
        "volumes": [
            {"name": "temporary", "emptyDir": {"sizeLimit": "64Mi"}},
            {
                "name": "token",
                "secret": {"secretName": settings.secret, "items": [{"key": TOKEN_FILE, "path": TOKEN_FILE}]},
            },
        ],
    }
    if settings.service_account:
        predictor["serviceAccountName"] = settings.service_account
    if raw:
        # Knative sets its own, and refuses this one.
        predictor["terminationGracePeriodSeconds"] = settings.grace_seconds
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": settings.name,
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": modes,
        },
        "spec": {"predictor": predictor},
    }


def server_arguments(folder: str = MODEL_FOLDER, workers: int = 2, grpc: bool = True) -> list[str]:
    """What ``python -m medic.deployment.service.server`` is given in a container."""
    ports = ["--port", str(HTTP_PORT), *(["--grpc-port", str(GRPC_PORT)] if grpc else [])]
    token = ["--token-file", f"{TOKEN_FOLDER}/{TOKEN_FILE}"]
    # Stated, because a container sees all cores of its node, whatever it may use of them.
    return [folder, "--host", "0.0.0.0", *ports, *token, "--workers", str(workers)]


def _container(settings: ClusterSettings, raw: bool) -> dict[str, Any]:
    def probe(path: str, seconds: int, failures: int, **more: int) -> dict[str, Any]:
        asked = {"path": path, "port": HTTP_PORT}
        return {"httpGet": asked, "periodSeconds": seconds, "timeoutSeconds": 3, "failureThreshold": failures, **more}

    # Knative routes to one port only, and starts sending when the server is ready: it needs no start-up probe.
    ports = [{"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}]
    if raw:
        ports.append({"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"})
        probes = {
            "startupProbe": probe("/v2/health/ready", 2, 60),
            "livenessProbe": probe("/v2/health/live", 10, 3),
        }
    else:
        probes = {"livenessProbe": probe("/v2/health/live", 10, 3, initialDelaySeconds=60)}
    return {
        # KServe finds the container by this name.
        "name": "kserve-container",
        "image": settings.image,
        "args": server_arguments(settings.folder, settings.workers, grpc=raw),
        "env": [{"name": "STORAGE_URI", "value": settings.storage}],
        "ports": ports,
        "resources": {
            "requests": {"cpu": settings.cpu[0], "memory": settings.memory[0]},
            "limits": {"cpu": settings.cpu[1], "memory": settings.memory[1]},
        },
        **probes,
        "readinessProbe": probe("/v2/health/ready", 5, 3),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "temporary", "mountPath": "/tmp"},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    }


def service_state(found: Mapping[str, Any] | None) -> tuple[str, str, str | None]:
    """A word for the state of an InferenceService, what the cluster says of it, and its address once it is ready."""
    if found is None:
        return "stopped", "it is not there", None
    told = found.get("status") or {}
    conditions = {condition.get("type"): condition for condition in told.get("conditions") or []}
    # What is told of an older version of the object says nothing of this one.
    generation = found["metadata"].get("generation", 0)
    current = told.get("observedGeneration", generation) >= generation
    if current and conditions.get("Ready", {}).get("status") == "True" and told.get("url"):
        return "ready", "it is ready", told["url"]
    model = told.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    open_ones = [condition for condition in conditions.values() if condition.get("status") != "True"]
    said = [failure, *open_ones]
    words = [": ".join(filter(None, (item.get("reason"), item.get("message")))) for item in said]
    words = "; ".join(dict.fromkeys(filter(None, words))) or "the cluster says nothing of it yet"
    gave_up = model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec") or any(
        condition.get("status") == "False" and condition.get("reason") in HOPELESS for condition in open_ones
    )
    return ("crashed" if current and gave_up else "starting"), words[:600], None
