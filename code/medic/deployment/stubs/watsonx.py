"""IBM watsonx.ai Runtime's stand-in: it checks what it is sent as the service would, and really runs what is deployed.

Its answers have the form of those in IBM's own notebooks (github.com/IBM/watsonx-ai-samples, "Use ONNX model converted
from PyTorch" and its neighbours), which were executed on the service.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import time
import uuid
from collections.abc import Callable
from urllib.parse import parse_qs

import numpy as np
import onnxruntime

from medic.deployment.stubs.server import Call, Reply, Stub

KEY = "stub-key-that-is-no-secret"
USER, PASSWORD = "stub-user", "stub-password"
SOFTWARE = {"onnxruntime_opset_19": "onnxruntime_1.16", "onnxruntime_opset_21": "onnxruntime_1.17"}
"""Software specifications that run ONNX, and the model type that goes with each."""
IR_VERSION, OPSET = 9, 19
"""The newest that onnxruntime 1.16 reads."""
PAGE = 2
"""Entries in one answer to a list; the service gives up to 200."""

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class WatsonxStub(Stub):
    """The service on loopback, with models and deployments kept in memory.

    Args:
        cloud: as IBM Cloud signs in, with an API key; otherwise as Cloud Pak for Data does, with a user.
        spaces: names of the spaces there are.

    Attributes:
        environment: the variables that make the target talk to it.
        models: each model's ``name``, ``type``, ``description``, ``schemas`` and ``content`` by its id.
        deployments: each deployment's ``name``, ``asset``, ``looks``, ``session`` and ``reason`` by its id.
        looks: how often a deployment is looked at before it is ready.
        reason: why deployments fail; None lets them succeed if their graph loads.
    """

    def __init__(self, cloud: bool = True, spaces: tuple[str, ...] = ("demo", "default")):
        super().__init__(self._reply)
        self.spaces = {name: str(uuid.uuid4()) for name in spaces}
        self.models: dict[str, dict] = {}
        self.deployments: dict[str, dict] = {}
        self.looks = 1
        self.reason: str | None = None
        self._cloud = cloud
        self._software = {name: str(uuid.uuid4()) for name in (*SOFTWARE, "runtime-25.1-py3.12")}
        self._token = _token()
        self.environment = {
            "WATSONX_URL": self.url,
            "WATSONX_APIKEY": KEY,
            "WX_CLIENT_VERIFY_REQUESTS": str(self.certificate),
            "MEDIC_WATSONX_POLL_SECONDS": "0.02",
        }
        if cloud:
            self.environment |= {"WATSONX_PLATFORM_URL": self.url, "WATSONX_AUTH_URL": f"{self.url}/identity/token"}
            # Empty counts as not set: whose environment names a user still gets the cloud.
            self.environment["WATSONX_USERNAME"] = ""
        else:
            self.environment |= {"WATSONX_USERNAME": USER, "WATSONX_VERSION": "5.1"}
        self._routes: list[tuple[str, str, Callable[..., Reply]]] = [
            ("GET", "/v2/spaces", self._list_spaces),
            ("GET", f"/v2/spaces/({UUID})", self._show_space),
            ("GET", "/v2/software_specifications", self._list_software),
            ("GET", "/ml/v4/models", self._list_models),
            ("POST", "/ml/v4/models", self._create_model),
            ("GET", f"/ml/v4/models/({UUID})", self._show_model),
            ("PATCH", f"/ml/v4/models/({UUID})", self._rename_model),
            ("PUT", f"/ml/v4/models/({UUID})/content", self._upload),
            ("DELETE", f"/v2/assets/({UUID})", self._delete_model),
            ("GET", "/ml/v4/deployments", self._list_deployments),
            ("POST", "/ml/v4/deployments", self._create_deployment),
            ("GET", f"/ml/v4/deployments/({UUID})", self._look),
            ("DELETE", f"/ml/v4/deployments/({UUID})", self._delete_deployment),
            ("POST", f"/ml/v4/deployments/({UUID})/predictions", self._score),
        ]

    def _reply(self, call: Call) -> Reply | None:
        if call.path == "/identity/token" and self._cloud:
            return self._sign_in_cloud(call)
        if call.path == "/icp4d-api/v1/authorize" and not self._cloud:
            return self._sign_in_user(call)
        if call.path == "/ml/wml_services/v2/version" and not self._cloud:
            return Reply(200, {"version": "5.1.3"})
        if call.headers.get("authorization") != f"Bearer {self._token}":
            return _refused(401, "authentication_token_not_valid", "The token is missing, wrong or expired.")
        if call.path.startswith("/ml/") and "version" not in call.query:
            return _refused(400, "missing_version", "The query parameter 'version' is missing.")
        for method, path, route in self._routes:
            if call.method == method and (match := re.fullmatch(path, call.path)):
                return route(call, *match.groups())
        return None

    def _sign_in_cloud(self, call: Call) -> Reply:
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        if form.get("grant_type") != "urn:ibm:params:oauth:grant-type:apikey":
            return Reply(400, {"errorCode": "BXNIM0105E", "errorMessage": "Property missing or empty: grant_type"})
        if form.get("apikey") != KEY:
            return Reply(400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."})
        return Reply(200, {"access_token": self._token, "expires_in": 3600, "token_type": "Bearer"})

    def _sign_in_user(self, call: Call) -> Reply:
        given = call.json()
        if given.get("username") != USER or (given.get("api_key") != KEY and given.get("password") != PASSWORD):
            return Reply(401, {"_messageCode_": "401", "message": "Wrong user name, password or key."})
        return Reply(200, {"token": self._token})

    def _list_spaces(self, call: Call) -> Reply:
        wanted = call.query.get("name")
        there = [self._space(name) for name in self.spaces if wanted is None or name in wanted]
        return self._page(call, there)

    def _show_space(self, call: Call, identity: str) -> Reply:
        name = next((name for name, own in self.spaces.items() if own == identity), None)
        return Reply(200, self._space(name)) if name else _missing("space", identity)

    def _space(self, name: str) -> dict:
        compute = [{"type": "machine_learning", "guid": "00000000-0000-0000-0000-000000000000", "name": "stub"}]
        return {"metadata": {"id": self.spaces[name]}, "entity": {"name": name, "compute": compute}}

    def _list_software(self, call: Call) -> Reply:
        wanted = call.query.get("name")
        there = [
            {
                "metadata": {
                    "name": name,
                    "asset_id": identity,
                    "href": f"/v2/software_specifications/{identity}",
                    "asset_type": "software_specification",
                    "created_at": "2026-01-01T00:00:00Z",
                },
                "entity": {"software_specification": {"type": "base"}},
            }
            for name, identity in self._software.items()
            if wanted is None or name in wanted
        ]
        return Reply(200, {"total_results": len(there), "resources": there})

    def _list_models(self, call: Call) -> Reply:
        return self._page(call, [self._model(identity) for identity in self.models])

    def _create_model(self, call: Call) -> Reply:
        given = call.json()
        if given.get("space_id") not in self.spaces.values():
            return _missing("space", given.get("space_id"))
        software = {own: name for name, own in self._software.items()}.get(given.get("software_spec", {}).get("id"))
        if software is None:
            return _refused(400, "invalid_request_entity", "Invalid request entity: Unsupported software specification")
        if SOFTWARE.get(software) != given.get("type"):
            return _refused(
                400,
                "invalid_request_entity",
                f"Unsupported model type and software specification combination: {given.get('type')}, {software}",
            )
        identity = str(uuid.uuid4())
        self.models[identity] = {**given, "content": None}
        return Reply(201, self._model(identity))

    def _show_model(self, call: Call, identity: str) -> Reply:
        return Reply(200, self._model(identity)) if identity in self.models else _missing("model", identity)

    def _rename_model(self, call: Call, identity: str) -> Reply:
        if identity not in self.models:
            return _missing("model", identity)
        for change in call.json():
            if change["op"] != "replace" or change["path"] != "/name":
                return _refused(400, "invalid_patch", f"{change} cannot be done")
            self.models[identity]["name"] = change["value"]
        return Reply(200, self._model(identity))

    def _upload(self, call: Call, identity: str) -> Reply:
        if identity not in self.models:
            return _missing("model", identity)
        if call.query.get("content_format") != ["native"]:
            return _refused(400, "invalid_content_format", "The query parameter 'content_format' must be 'native'.")
        try:
            with tarfile.open(fileobj=io.BytesIO(call.body), mode="r:gz") as archive:
                names = archive.getnames()
                content = archive.extractfile(names[0]).read()
        except (tarfile.TarError, OSError, EOFError, IndexError, AttributeError) as error:
            return _refused(400, "invalid_archive", f"The content is no .tar.gz with a model in it: {error}")
        if len(names) != 1 or not names[0].endswith(".onnx") or "/" in names[0]:
            return _refused(400, "invalid_archive", f"The archive must hold one .onnx file and nothing else: {names}")
        self.models[identity]["content"] = content
        return Reply(201, {})

    def _delete_model(self, call: Call, identity: str) -> Reply:
        if call.query.get("purge_on_delete") != ["true"]:
            return _refused(400, "not_purged", "The stub removes assets for good only.")
        if any(one["asset"] == identity for one in self.deployments.values()):
            return _refused(409, "asset_in_use", "The model has deployments.")
        return Reply(204) if self.models.pop(identity, None) else _missing("asset", identity)

    def _list_deployments(self, call: Call) -> Reply:
        return self._page(call, [self._deployment(identity) for identity in self.deployments])

    def _create_deployment(self, call: Call) -> Reply:
        given = call.json()
        model = self.models.get(given.get("asset", {}).get("id"))
        if given.get("space_id") not in self.spaces.values():
            return _missing("space", given.get("space_id"))
        if model is None or model["content"] is None:
            return _refused(400, "invalid_asset", "The asset is missing or has no content.")
        if given.get("online") != {} or given.get("hardware_spec", {}).get("name") not in ("S", "M", "L", "XL"):
            return _refused(400, "invalid_deployment", "It must be online, with a hardware specification.")
        identity = str(uuid.uuid4())
        session, reason = _load(model["content"])
        self.deployments[identity] = {
            "name": given["name"],
            "asset": given["asset"]["id"],
            "looks": 0,
            "session": session,
            "reason": self.reason or reason,
        }
        return Reply(202, self._deployment(identity))

    def _look(self, call: Call, identity: str) -> Reply:
        if identity not in self.deployments:
            return _missing("deployment", identity)
        self.deployments[identity]["looks"] += 1
        return Reply(200, self._deployment(identity))

    def _delete_deployment(self, call: Call, identity: str) -> Reply:
        return Reply(204) if self.deployments.pop(identity, None) else _missing("deployment", identity)

    def _score(self, call: Call, identity: str) -> Reply:
        if identity not in self.deployments:
            return _missing("deployment", identity)
        if self._deployment(identity)["entity"]["status"]["state"] != "ready":
            return _refused(400, "deployment_not_ready", "The deployment is not ready.")
        session = self.deployments[identity]["session"]
        try:
            values = np.array(call.json()["input_data"][0]["values"])
            if values.min() < 0 or values.max() > 255:
                raise ValueError("the values do not fit uint8")
            outputs = session.run(None, {session.get_inputs()[0].name: values.astype(np.uint8)})
        except Exception as error:  # whatever the graph says of what it was given
            return _refused(400, "invalid_input", f"The input does not fit the model: {error}")
        named = zip(session.get_outputs(), outputs, strict=True)
        return Reply(200, {"predictions": [{"id": output.name, "values": rows.tolist()} for output, rows in named]})

    def _model(self, identity: str) -> dict:
        model = self.models[identity]
        entity = {"type": model["type"], "software_spec": model["software_spec"]}
        return {"metadata": {"id": identity, "name": model["name"], "space_id": model["space_id"]}, "entity": entity}

    def _deployment(self, identity: str) -> dict:
        one = self.deployments[identity]
        status: dict = {"state": "initializing"}
        if one["looks"] >= self.looks:
            url = f"{self.url}/ml/v4/deployments/{identity}/predictions"
            status = {"state": "ready", "inference": [{"url": url}], "online_url": {"url": url}}
            if one["reason"]:
                errors = [{"code": "deployment_failed", "message": one["reason"]}]
                status = {"state": "failed", "failure": {"trace": "stub", "errors": errors}}
        return {
            "metadata": {"id": identity, "name": one["name"]},
            "entity": {"asset": {"id": one["asset"]}, "online": {}, "status": status},
            "system": {"warnings": [{"id": "stub", "message": "online_url is deprecated. Use inference instead."}]},
        }

    def _page(self, call: Call, there: list[dict]) -> Reply:
        start = int(call.query.get("start", ["0"])[0])
        answer: dict = {"resources": there[start : start + PAGE], "limit": PAGE}
        if start + PAGE < len(there):
            query = "&".join(f"{name}={values[0]}" for name, values in call.query.items() if name != "start")
            answer["next"] = {"href": f"{self.url}{call.path}?{query}&start={start + PAGE}"}
        return Reply(200, answer)


def watsonx_stub(cloud: bool = True, spaces: tuple[str, ...] = ("demo", "default")) -> WatsonxStub:
    """The service on loopback, for a ``with`` block; see ``WatsonxStub``."""
    return WatsonxStub(cloud, spaces)


def _load(content: bytes) -> tuple[onnxruntime.InferenceSession | None, str | None]:
    """A graph, loaded as the service's runtime would, or else why it cannot be."""
    import onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    try:
        graph = onnx.load_model_from_string(content)
        newest = max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
        if graph.ir_version > IR_VERSION or newest > OPSET:
            return (
                None,
                f"onnxruntime 1.16 reads IR {IR_VERSION} and opset {OPSET}, not {graph.ir_version} and {newest}",
            )
        return onnxruntime.InferenceSession(content, options), None
    except Exception as error:  # the libraries' own exceptions share no base
        return None, f"the runtime cannot load the model: {error}"


def _token() -> str:
    """A token in the form that the client reads for its end: three parts, the second with ``exp``."""
    parts = ({"alg": "none"}, {"iam_id": "IBMid-stub", "exp": int(time.time()) + 3600, "iat": int(time.time())})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, uuid.uuid4().hex])


def _refused(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"trace": "stub", "errors": [{"code": code, "message": message}], "status_code": status})


def _missing(kind: str, identity: str | None) -> Reply:
    return _refused(404, f"{kind}_does_not_exist", f"There is no {kind} {identity}.")
