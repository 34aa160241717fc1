"""A stand-in for Azure Machine Learning: sign-in, management, storage and endpoints, as its real client calls them.

An endpoint here scores by running what was uploaded: the files are laid out as Azure does, and Azure's own inference
server runs the uploaded ``score.py`` on them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import certifi
import httpx

from medic.deployment.stubs.inference_server import inference_server
from medic.deployment.stubs.server import Call, Reply, Stub

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
TENANT = "00000000-0000-4000-8000-000000000002"
GROUP, WORKSPACE, STORE = "rehearsal", "rehearsal-workspace", "workspaceblobstore"
CONTAINER = "azureml-blobstore"
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)
AGAIN = {"x-ms-retry-after-ms": "20"}
"""What Azure says in whole seconds: when to ask again."""


@contextlib.contextmanager
def azureml_stub() -> Iterator[AzureMlStub]:
    """The stub, until the block ends; ``environment`` points the target ``azureml`` at it."""
    with AzureMlStub() as stub:
        yield stub


@dataclass
class _Endpoint:
    body: dict
    keys: tuple[str, str]
    deployments: dict[str, dict] = field(default_factory=dict)
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    address: str | None = None


class AzureMlStub(Stub):
    """Azure with one subscription, one resource group and one workspace, all empty.

    Attributes:
        environment: the variables that point the target at it, credentials included.
        blobs: the storage: content by path inside the container.
        assets: what was registered: bodies by ``models/NAME/versions/VERSION`` and alike.
        endpoints: by name.
        polls: how often a long operation is asked for before it ends.
        broken: why deployments fail here; None while they work.
    """

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.blobs: dict[str, bytes] = {}
        self.assets: dict[str, dict] = {}
        self.endpoints: dict[str, _Endpoint] = {}
        self.polls = 2
        self.broken: str | None = None
        self._metadata: dict[str, dict[str, str]] = {}
        self._operations: dict[str, list] = {}
        self._secret, self._token, self._signature = (secrets.token_urlsafe(24) for _ in range(3))
        self._account = f"{self.url.removeprefix('https://')}/storage"
        self.environment = {
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": GROUP,
            "AZUREML_WORKSPACE_NAME": WORKSPACE,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": str(uuid.UUID(int=3)),
            "AZURE_CLIENT_SECRET": self._secret,
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "AZUREML_CURRENT_CLOUD": "MedicStub",
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata/endpoints",
            **self._trusted(),
            **_not_through_a_proxy(),
        }
        self._routes: list[tuple[str, str, Callable[..., Reply]]] = [
            ("GET", "", lambda call: Reply(200, {"id": SCOPE, "name": WORKSPACE, "location": "westeurope", **_EMPTY})),
            ("GET", f"/datastores/{STORE}", lambda call: Reply(200, self._datastore())),
            ("POST", f"/datastores/{STORE}/listSecrets", self._secrets),
            ("POST", "/codes/([^/]+)/versions/([^/]+)/startPendingUpload", self._pending),
            ("GET", "/(models|codes|environments)/([^/]+)/versions", self._list),
            ("GET", "/((?:models|codes|environments)/[^/]+/versions/[^/]+)", self._asset),
            ("PUT", "/((?:models|codes|environments)/[^/]+/versions/[^/]+)", self._register),
            ("GET", "/onlineEndpoints/([^/]+)", self._endpoint),
            ("PUT", "/onlineEndpoints/([^/]+)", self._open),
            ("DELETE", "/onlineEndpoints/([^/]+)", self._close),
            ("POST", "/onlineEndpoints/([^/]+)/listKeys", self._keys),
            ("GET", "/onlineEndpoints/([^/]+)/deployments", self._deployments),
            ("GET", "/onlineEndpoints/([^/]+)/deployments/([^/]+)", self._deployment),
            ("PUT", "/onlineEndpoints/([^/]+)/deployments/([^/]+)", self._deploy),
            ("POST", "/onlineEndpoints/([^/]+)/deployments/([^/]+)/getLogs", self._logs),
            ("GET", "/operations/([^/]+)", self._operation),
        ]

    def close(self) -> None:
        """Stop listening, and end the servers behind the endpoints."""
        for endpoint in self.endpoints.values():
            endpoint.running.close()
        super().close()

    def _trusted(self) -> dict[str, str]:
        """Let this stub be trusted beside what was trusted before: other targets of the program are the real ones."""
        variables = {}
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            before = Path(os.environ.get(name) or certifi.where())
            both = Path(self._folder.name) / f"{name.lower()}.pem"
            usual = before if before.is_file() else Path(certifi.where())
            both.write_bytes(usual.read_bytes() + b"\n" + self.certificate.read_bytes())
            variables[name] = str(both)
        return variables

    def _reply(self, call: Call) -> Reply | None:
        if call.path == "/metadata/endpoints":
            return Reply(200, [self._cloud()])
        if re.fullmatch(f"/{TENANT}/.*", call.path):
            return self._sign_in(call)
        if call.path.startswith("/storage.blob."):
            return self._storage(call)
        if match := re.fullmatch("/score/([^/]+)", call.path):
            return self._score(call, match[1])
        return self._manage(call)

    def _cloud(self) -> dict:
        return {
            "name": "MedicStub",
            "portal": "https://portal.stub.invalid",
            "resourceManager": self.url,
            "authentication": {"loginEndpoint": self.url},
            "suffixes": {"storage": "core.windows.net"},
        }

    def _sign_in(self, call: Call) -> Reply:
        authority = f"{self.url}/{TENANT}"
        if call.path.endswith("openid-configuration"):
            names = {"issuer": f"{authority}/v2.0", "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize"}
            return Reply(200, {**names, "token_endpoint": f"{authority}/oauth2/v2.0/token"})
        if parse_qs(call.body.decode()).get("client_secret") != [self._secret]:
            refused = "AADSTS7000215: Invalid client secret provided."
            return Reply(401, {"error": "invalid_client", "error_description": refused})
        return Reply(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": self._token})

    def _manage(self, call: Call) -> Reply | None:
        if call.headers.get("authorization") != f"Bearer {self._token}":
            return _error(401, "AuthenticationFailed", "Authentication failed.")
        if not re.fullmatch(f"{SCOPE}(/.*)?", call.path, re.IGNORECASE):
            return _error(404, "ResourceNotFound", f"The resource {call.path} was not found.")
        rest = unquote(call.path[len(SCOPE) :])
        for method, path, answer in self._routes:
            if method == call.method and (match := re.fullmatch(path, rest)):
                return answer(call, *match.groups())
        return None

    # Storage: a blob is there once it was put, and metadata confirm an upload that is complete.

    def _datastore(self) -> dict:
        properties = {
            "datastoreType": "AzureBlob",
            "accountName": self._account,
            "containerName": CONTAINER,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "credentials": {"credentialsType": "Sas"},
        }
        return {"id": f"{SCOPE}/datastores/{STORE}", "name": STORE, "properties": properties}

    def _secrets(self, call: Call) -> Reply:
        return Reply(200, {"secretsType": "Sas", "sasToken": f"sv=2024-11-04&sr=c&sp=rcw&sig={self._signature}"})

    def _pending(self, call: Call, name: str, version: str) -> Reply:
        uri = f"https://{self._account}.blob.core.windows.net/{version}"
        credential = {"credentialType": "SAS", "sasUri": f"{uri}?sv=2024-11-04&sr=c&sp=rcw&sig={self._signature}"}
        reference = {"blobUri": uri, "storageAccountArmId": "", "credential": credential}
        return Reply(200, {"pendingUploadType": "TemporaryBlobReference", "blobReferenceForConsumption": reference})

    def _storage(self, call: Call) -> Reply:
        if call.query.get("sig") != [self._signature]:
            return Reply(403, b"<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code></Error>")
        path = unquote(call.path).removeprefix("/storage.blob.core.windows.net/")
        if call.method == "HEAD":
            if path not in self.blobs:
                return Reply(404, None, {"x-ms-error-code": "BlobNotFound"})
            return Reply(200, self.blobs[path], {"ETag": '"1"', **self._metadata.get(path, {})})
        if call.query.get("comp") == ["metadata"]:
            self._metadata[path] = {
                name: value for name, value in call.headers.items() if name.startswith("x-ms-meta-")
            }
            return Reply(200, None, {"ETag": '"1"'})
        if call.headers.get("if-none-match") == "*" and path in self.blobs:
            return Reply(409, None, {"x-ms-error-code": "BlobAlreadyExists"})
        self.blobs[path] = call.body
        return Reply(201, None, {"ETag": '"1"', "x-ms-request-server-encrypted": "true"})

    # Models, code and environments: names, versions, bodies.

    def _asset(self, call: Call, path: str) -> Reply:
        body = self.assets.get(path)
        return Reply(200, body) if body else _error(404, "UserError", f"The specified asset {path} was not found.")

    def _list(self, call: Call, kind: str, name: str) -> Reply:
        archived = call.query.get("listViewType") == ["ArchivedOnly"]
        found = [
            body
            for path, body in self.assets.items()
            if path.startswith(f"{kind}/{name}/") and bool(body["properties"].get("isArchived")) == archived
        ]
        return Reply(200, {"value": found})

    def _register(self, call: Call, path: str) -> Reply:
        body = call.json()
        uri = body["properties"].get("modelUri") or body["properties"].get("codeUri")
        if uri and not self._files(uri):
            return _error(400, "UserError", f"There is nothing at {uri}.")
        known = path in self.assets
        if path.startswith("models/"):
            body["properties"].setdefault("flavors", {})
        self.assets[path] = {**body, "id": f"{SCOPE}/{path}", "name": path.split("/")[-1], "systemData": _MADE}
        return Reply(200 if known else 201, self.assets[path])

    def _files(self, uri: str) -> dict[str, bytes]:
        """The blobs below an address, by their path from the folder that holds its last part."""
        prefix = unquote(uri.split("/paths/")[1] if "/paths/" in uri else uri.split(".blob.core.windows.net/")[1])
        prefix = (f"{CONTAINER}/{prefix}" if "/paths/" in uri else prefix).rstrip("/")
        above = prefix.rpartition("/")[0]
        found = {path: content for path, content in self.blobs.items() if path.startswith(f"{prefix}/")}
        return {path.removeprefix(f"{above}/"): content for path, content in found.items()}

    # Endpoints: long operations, which are asked for until they end.

    def _endpoint(self, call: Call, name: str) -> Reply:
        there = self.endpoints.get(name)
        return Reply(200, there.body) if there else _error(404, "ResourceNotFound", f"There is no endpoint {name}.")

    def _open(self, call: Call, name: str) -> Reply:
        body = call.json()
        if name not in self.endpoints:
            keys = (secrets.token_urlsafe(24), secrets.token_urlsafe(24))
            self.endpoints[name] = _Endpoint(body, keys)
        unknown = set(body["properties"].get("traffic") or {}) - self.endpoints[name].deployments.keys()
        if unknown:
            return _error(400, "UserError", f"Traffic goes to {unknown}, which are not there.")
        properties = {**body["properties"], "scoringUri": f"{self.url}/score/{name}", "provisioningState": "Succeeded"}
        body = {**body, "id": f"{SCOPE}/onlineEndpoints/{name}", "name": name, "properties": properties}
        self.endpoints[name].body = body
        return self._begin(201, {**body, "properties": {**properties, "provisioningState": "Creating"}}, None)

    def _close(self, call: Call, name: str) -> Reply:
        if name not in self.endpoints:
            return Reply(204)
        self.endpoints.pop(name).running.close()
        return self._begin(202, None, None)

    def _keys(self, call: Call, name: str) -> Reply:
        primary, secondary = self.endpoints[name].keys
        return Reply(200, {"primaryKey": primary, "secondaryKey": secondary})

    def _deployments(self, call: Call, name: str) -> Reply:
        return Reply(200, {"value": list(self.endpoints[name].deployments.values())})

    def _deployment(self, call: Call, name: str, deployment: str) -> Reply:
        body = self.endpoints[name].deployments.get(deployment) if name in self.endpoints else None
        return Reply(200, body) if body else _error(404, "ResourceNotFound", f"There is no {name}/{deployment}.")

    def _deploy(self, call: Call, name: str, deployment: str) -> Reply:
        body = call.json()
        properties = body["properties"]
        needed = (properties["model"], properties["environmentId"], properties["codeConfiguration"]["codeId"])
        for asset in needed:
            if asset.removeprefix("azureml:").removeprefix(SCOPE).strip("/") not in self.assets:
                return _error(400, "UserError", f"The asset {asset} was not found.")
        state = "Failed" if self.broken else "Succeeded"
        body = {**body, "id": f"{SCOPE}/onlineEndpoints/{name}/deployments/{deployment}", "name": deployment}
        body["properties"] = {"scaleSettings": {"scaleType": "Default"}, **properties, "provisioningState": state}
        self.endpoints[name].deployments[deployment] = body
        creating = {**body, "properties": {**body["properties"], "provisioningState": "Creating"}}
        return self._begin(201, creating, self.broken)

    def _logs(self, call: Call, name: str, deployment: str) -> Reply:
        return Reply(200, {"content": f"Exception in init(): {self.broken}\n" if self.broken else "ready\n"})

    def _begin(self, status: int, body: Any, failure: str | None) -> Reply:
        number = str(len(self._operations))
        self._operations[number] = [self.polls, failure]
        return Reply(status, body, {"Azure-AsyncOperation": f"{self.url}{SCOPE}/operations/{number}", **AGAIN})

    def _operation(self, call: Call, number: str) -> Reply:
        left, failure = self._operations[number]
        self._operations[number][0] -= 1
        if left > 1:
            return Reply(200, {"status": "InProgress"}, AGAIN)
        if failure is None:
            return Reply(200, {"status": "Succeeded"})
        return Reply(200, {"status": "Failed", "error": {"code": "ResourceNotReady", "message": failure}})

    # Scoring: what was uploaded, laid out as Azure lays it out, run by Azure's own server.

    def _score(self, call: Call, name: str) -> Reply:
        endpoint = self.endpoints.get(name)
        if endpoint is None or call.headers.get("authorization", "").removeprefix("Bearer ") not in endpoint.keys:
            return Reply(401, {"message": "Please check this guide to understand why this error code might have been."})
        traffic = endpoint.body["properties"].get("traffic") or {}
        chosen = [deployment for deployment, share in traffic.items() if share == 100]
        if not chosen:
            return Reply(404, {"message": "no deployment gets all requests"})
        with self._lock:
            endpoint.address = endpoint.address or self._run(endpoint, chosen[0])
        headers = {"Content-Type": call.headers.get("content-type", "")}
        with httpx.Client(trust_env=False, timeout=60) as http:
            answer = http.post(f"{endpoint.address}/score", content=call.body, headers=headers)
        if answer.is_success:
            return Reply(200, answer.content, {"Content-Type": "application/json"})
        refused = {"ms-azureml-model-error-statuscode": str(answer.status_code), "Content-Type": "application/json"}
        return Reply(424, answer.content, {**refused, "ms-azureml-model-error-reason": "model_error"})

    def _run(self, endpoint: _Endpoint, deployment: str) -> str:
        properties = endpoint.deployments[deployment]["properties"]
        root = Path(endpoint.running.enter_context(tempfile.TemporaryDirectory(prefix="medic-azureml-")))
        found = {}
        for kind, asset in (("model", properties["model"]), ("code", properties["codeConfiguration"]["codeId"])):
            body = self.assets[asset.removeprefix("azureml:").removeprefix(SCOPE).strip("/")]["properties"]
            for path, content in self._files(body.get("modelUri") or body.get("codeUri")).items():
                found[kind, path] = root / kind / path
                found[kind, path].parent.mkdir(parents=True, exist_ok=True)
                found[kind, path].write_bytes(content)
        script = properties["codeConfiguration"]["scoringScript"]
        [entry] = [path for (kind, name), path in found.items() if kind == "code" and name.endswith(script)]
        variables = properties.get("environmentVariables") or {}
        return endpoint.running.enter_context(inference_server(entry, root / "model", variables))


def _not_through_a_proxy() -> dict[str, str]:
    """This machine's loopback addresses beside what goes through no proxy anyway; programs read either spelling."""
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    value = before if before == "*" else ",".join(filter(None, [before, "127.0.0.1,localhost"]))
    return {"no_proxy": value, "NO_PROXY": value}


_MADE = {"createdAt": "2026-01-01T00:00:00Z", "createdBy": "medic", "createdByType": "Application"}
_EMPTY: dict = {"properties": {}, "tags": {}}


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"error": {"code": code, "message": message}})
