"""A Kubernetes cluster with KServe on loopback: its API keeps what it is given, its ingress serves the bundle."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medic.deployment.bundle import Bundle
from medic.deployment.bundle.predictor import Predictor
from medic.deployment.stubs.server import Call, Reply, Stub
from medic.deployment.targets.kserve.inference_service import MODEL_FOLDER
from medic.deployment.targets.kserve.strict_manifest import check_manifest
from medic.errors import ImageError, MedicError

CLAIM = "pvc://bundles/medic"
PATHS = re.compile(
    r"/(?:api/v1|apis/serving\.kserve\.io/v1beta1)/namespaces/([^/]+)/(secrets|inferenceservices|events)(?:/([^/]+))?"
)
KINDS = {"secrets": ("Secret", "V1Secret"), "inferenceservices": ("InferenceService", "V1beta1InferenceService")}


@dataclass
class KubernetesStub:
    """What the stub holds and how it behaves; made by ``kubernetes_stub``.

    Attributes:
        folder: where its kubeconfig and its storage lie.
        token: what its API asks for; the kubeconfig has it.
        objects: what exists, by (namespace, plural, name).
        ready_after: how often a service is asked for before it says that it is ready; None for never.
        failure: reason and message with which services fail instead of becoming ready.
        warnings: messages that it reports as events, for every service.
        api: the cluster's API, over https.
        ingress: where the services answer, by their names in ``Host``.
    """

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    namespaces: tuple[str, ...] = ("default", "medic")
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    ready_after: int | None = 2
    failure: tuple[str, str] | None = None
    warnings: list[str] = field(default_factory=list)
    api: Stub = field(init=False)
    ingress: Stub = field(init=False)
    _asked: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _predictors: dict[tuple[str, str, str], Predictor] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the target here."""
        return {
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "MEDIC_KSERVE_IMAGE": "registry.example/medic:stub",
            "MEDIC_KSERVE_STORAGE": CLAIM,
            "MEDIC_KSERVE_MOUNT": str(self.folder / "claim"),
            "MEDIC_KSERVE_INGRESS": self.ingress.url,
            "MEDIC_KSERVE_POLL_SECONDS": "0.02",
            "MEDIC_KSERVE_WAIT_SECONDS": "20",
        }

    @property
    def calls(self) -> list[Call]:
        """Every call of the API so far, in order."""
        return self.api.calls

    def fail(self, method: str, path: str, reply: Reply, times: int = 1, after: int = 0) -> None:
        """Let calls of the API fail; see ``Stub.fail``."""
        self.api.fail(method, path, reply, times, after)

    def refuse(self, method: str, path: str, status: int, message: str, times: int = 1) -> None:
        """Let calls of the API be answered with a status and a message, in the cluster's own form."""
        self.fail(method, path, _status(status, "Forced", message), times)

    def _answer(self, call: Call) -> Reply | None:
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        found = PATHS.fullmatch(call.path)
        if not found:
            return None
        namespace, plural, name = found.groups()
        if plural == "events":
            return Reply(
                200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": self._events(namespace)}
            )
        if call.method == "POST" and name is None:
            return self._create(namespace, plural, call.json())
        key = (namespace, plural, name)
        if key not in self.objects:
            return _status(404, "NotFound", f'{plural} "{name}" not found')
        if call.method == "GET":
            return self._read(key)
        if call.method == "DELETE":
            if plural == "secrets":
                del self.objects[key]
            else:
                self.objects[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return Reply(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        return None

    def _create(self, namespace: str, plural: str, given: dict[str, Any]) -> Reply:
        if namespace not in self.namespaces:
            return _status(404, "NotFound", f'namespaces "{namespace}" not found')
        kind, model = KINDS[plural]
        try:
            check_manifest(given, model)
        except MedicError as error:
            return _status(400, "BadRequest", f"{kind} in version {given.get('apiVersion')} cannot be handled: {error}")
        key = (namespace, plural, given["metadata"]["name"])
        if given.get("kind") != kind or given["metadata"].get("namespace") != namespace:
            return _status(400, "BadRequest", "the object's kind or namespace is not that of the request")
        if key in self.objects:
            return _status(409, "AlreadyExists", f'{plural} "{key[2]}" already exists')
        made = {**given, "metadata": {**given["metadata"], "generation": 1, "uid": secrets.token_hex(8)}}
        self.objects[key] = made
        self._asked[key] = 0
        return Reply(201, made)

    def _read(self, key: tuple[str, str, str]) -> Reply:
        found = self.objects[key]
        if key[1] == "inferenceservices":
            if "deletionTimestamp" in found["metadata"]:
                # Seen once more while it ends, as a real one is.
                del self.objects[key]
                self._predictors.pop(key, None)
            else:
                self._asked[key] += 1
                found["status"] = self._progress(key, found)
        return Reply(200, found)

    def _progress(self, key: tuple[str, str, str], found: dict[str, Any]) -> dict[str, Any]:
        """The status of a service: nothing at first, then starting, then ready or failed."""
        if self._asked[key] == 1:
            return {}
        try:
            failure = self.failure or (None if self._secret_of(found) else ("FailedMount", "its Secret is not there"))
            if failure is None and key not in self._predictors:
                self._predictors[key] = self._load(found)
        except MedicError as error:
            failure = ("ModelLoadFailed", str(error))
        ready = self.ready_after is not None and self._asked[key] > self.ready_after and not failure
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        if not ready:
            condition |= {"reason": "PredictorNotReady", "message": "no server of it is ready"}
        told = {"observedGeneration": 1, "conditions": [condition], "modelStatus": {"transitionStatus": "InProgress"}}
        if failure:
            info = {"reason": failure[0], "message": failure[1]}
            told["modelStatus"] = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": info}
        if ready:
            told |= {"url": f"http://{_host(key)}", "modelStatus": {"transitionStatus": "UpToDate"}}
        return told

    def _load(self, found: dict[str, Any]) -> Predictor:
        """What the storage initializer and the container would do: find the bundle, verify it, load its graph."""
        container = found["spec"]["predictor"]["containers"][0]
        uri = {entry["name"]: entry.get("value") for entry in container["env"]}["STORAGE_URI"]
        folder = self.folder / "claim" / str(uri).removeprefix(CLAIM).lstrip("/")
        if not str(uri).startswith(f"{CLAIM}/") or container["args"][0] != MODEL_FOLDER:
            raise MedicError(f"there is no bundle at {uri}")
        return Bundle.load(folder).predictor(threads=1)

    def _secret_of(self, found: dict[str, Any]) -> str | None:
        """The token that a service asks for, from the Secret that its manifest mounts."""
        volumes = found["spec"]["predictor"]["volumes"]
        name = next(volume["secret"]["secretName"] for volume in volumes if "secret" in volume)
        secret = self.objects.get((found["metadata"]["namespace"], "secrets", name))
        return None if secret is None else base64.b64decode(secret["data"]["token"]).decode()

    def _events(self, namespace: str) -> list[dict[str, Any]]:
        keys = [key for key in self.objects if key[:2] == (namespace, "inferenceservices")]
        return [
            {
                "metadata": {"name": f"{key[2]}.{number}", "namespace": namespace},
                "involvedObject": {"kind": "ReplicaSet", "name": f"{key[2]}-predictor-5d8f"},
                "type": "Warning",
                "message": message,
            }
            for key in keys
            for number, message in enumerate(self.warnings)
        ]

    def _serve(self, call: Call) -> Reply | None:
        """A service, by the host that the request names: about, and ``/predict`` with the bundle itself."""
        key = next((key for key in self._predictors if _host(key) == call.headers.get("host")), None)
        if key is None:
            return Reply(404, {"error": f"no service is called {call.headers.get('host')}", "reason": "host"})
        if call.headers.get("authorization") != f"Bearer {self._secret_of(self.objects[key])}":
            return Reply(401, {"error": "this service asks for a token", "reason": "token"})
        predictor = self._predictors[key]
        manifest = predictor.manifest
        if (call.method, call.path) == ("GET", "/"):
            about = {
                "service": "medic",
                "deployment": key[2],
                "task": manifest.task.to_dict(),
                "model": manifest.version,
            }
            return Reply(
                200, {**about, "notice": manifest.notice, "thresholds": manifest.values["model"].get("thresholds")}
            )
        if (call.method, call.path) == ("POST", "/predict"):
            try:
                return Reply(200, predictor.answers(predictor.predict([call.body]))[0])
            except ImageError as error:
                return Reply(422, {"error": str(error), "reason": error.reason})
        return None


@contextlib.contextmanager
def kubernetes_stub(ready_after: int | None = 2) -> Iterator[KubernetesStub]:
    """Start a cluster on loopback; ``environment`` of what it gives points the target ``kserve`` at it.

    It has a token of its own in a kubeconfig that it writes, the namespaces ``default`` and ``medic``, a claim that is
    mounted here, and checks every manifest as strictly as ``check_manifest``. What it serves, it serves from the stored
    bundle.

    Args:
        ready_after: see ``KubernetesStub``.
    """
    with tempfile.TemporaryDirectory(prefix="medic-cluster-") as folder:
        stub = KubernetesStub(Path(folder), ready_after=ready_after)
        (stub.folder / "claim").mkdir()
        with Stub(stub._answer) as stub.api, Stub(stub._serve, tls=False) as stub.ingress:
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "stub",
                "clusters": [
                    {
                        "name": "stub",
                        "cluster": {"server": stub.api.url, "certificate-authority": str(stub.api.certificate)},
                    }
                ],
                "users": [{"name": "reader", "user": {"token": stub.token}}],
                "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "reader"}}],
            }
            # JSON is YAML.
            (stub.folder / "kubeconfig").write_text(json.dumps(config))
            yield stub


def _host(key: tuple[str, str, str]) -> str:
    return f"{key[2]}.{key[0]}.cluster.example"


def _status(code: int, reason: str, message: str) -> Reply:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return Reply(code, {**status, "message": message})
