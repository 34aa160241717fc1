"""A workspace of Azure Machine Learning in a test: management, storage and endpoints, as Azure's client calls them."""

import uuid
from types import SimpleNamespace

from medic.deployment.bundle import Bundle
from stand_in import Answer, Call, StandIn, answer_of

SCOPE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/demo"
ENVIRONMENT = {"AZURE_SUBSCRIPTION_ID": "s", "AZURE_RESOURCE_GROUP": "g", "AZURE_CORE_RETRY_TOTAL": "0"}
ACCOUNT = "https://account.blob.core.windows.net"
WORKSPACE = {"id": SCOPE, "name": "demo", "location": "westeurope", "properties": {}, "tags": {}}


def azureml(bundle: Bundle) -> StandIn:
    """A workspace called ``demo``; ``held.state`` is the state that deployments reach behind their endpoints."""
    held = SimpleNamespace(blobs={}, assets={}, endpoints={}, behind={}, state="Succeeded")

    def refused(status: int, message: str) -> Answer:
        return status, {"error": {"code": "Refused", "message": message}}

    def datastore(_: Call) -> Answer:
        where = {"datastoreType": "AzureBlob", "accountName": "account", "containerName": "files", "protocol": "https"}
        properties = {**where, "endpoint": "core.windows.net", "credentials": {"credentialsType": "Sas"}}
        return 200, {"id": f"{SCOPE}/datastores/workspaceblobstore", "properties": properties}

    def pending(_: Call, name: str, version: str) -> Answer:
        uri = f"{ACCOUNT}/{version}"
        credential = {"credentialType": "SAS", "sasUri": f"{uri}?sig=signature"}
        return 200, {"blobReferenceForConsumption": {"blobUri": uri, "credential": credential}}

    def blob(call: Call, path: str) -> Answer:
        if call.method == "HEAD" and path not in held.blobs:
            return 404, (None, {"x-ms-error-code": "BlobNotFound"})
        if call.method == "HEAD" or "comp" in call.query:  # metadata
            return 200, (None, {"ETag": '"1"', "x-ms-meta-upload_status": "completed"})
        held.blobs[path] = call.body
        return 201, (None, {"ETag": '"1"', "x-ms-request-server-encrypted": "true"})

    def register(call: Call, path: str) -> Answer:
        made = call.json()
        made["properties"].setdefault("flavors", {})
        held.assets[path] = {**made, "id": call.path, "name": path.split("/")[-1], "systemData": {}}
        return 201, held.assets[path]

    def put(things: dict) -> object:
        def made(call: Call, name: str) -> Answer:
            given, last = call.json(), name.split("/")[-1]
            state = "Succeeded" if things is held.endpoints else held.state
            told = {"scoringUri": f"https://{last}.example/score", "provisioningState": state}
            properties = {**given["properties"], **told, "scaleSettings": {"scaleType": "Default"}}
            things[name] = {**given, "id": call.path, "name": last, "properties": properties}
            return 201, things[name]

        return made

    def show(things: dict) -> object:
        return lambda _, name: (200, things[name]) if name in things else refused(404, f"there is no {name}")

    def listed(things: dict, below: str = "") -> Answer:
        return 200, {"value": [one for name, one in things.items() if name.startswith(below)]}

    def delete(_: Call, name: str) -> Answer:
        del held.endpoints[name]
        for behind in [behind for behind in held.behind if behind.startswith(f"{name}/")]:
            del held.behind[behind]
        return 204, None

    def predict(call: Call) -> Answer:
        return answer_of(bundle, call, "a-key-of-nobody", refused=424)

    store, assets = "/datastores/workspaceblobstore", "((?:models|codes|environments)/[^/]+/versions/[^/]+)"
    endpoint, behind = "/onlineEndpoints/([^/]+)", "/onlineEndpoints/([^/]+/)deployments/([^/]+)"
    routes = [
        ("GET", "", lambda _: (200, WORKSPACE)),
        ("GET", store, datastore),
        ("POST", f"{store}/listSecrets", lambda _: (200, {"secretsType": "Sas", "sasToken": "sig=s"})),
        ("POST", "/codes/([^/]+)/versions/([^/]+)/startPendingUpload", pending),
        ("GET", "/(?:models|codes|environments)/[^/]+/versions", lambda _: listed({})),
        ("GET", f"/{assets}", show(held.assets)),
        ("PUT", f"/{assets}", register),
        ("GET", "/onlineEndpoints", lambda _: listed(held.endpoints)),
        ("GET", endpoint, show(held.endpoints)),
        ("PUT", endpoint, put(held.endpoints)),
        ("DELETE", endpoint, delete),
        ("POST", f"{endpoint}/listKeys", lambda _, name: (200, {"primaryKey": "a-key-of-nobody"})),
        ("GET", f"{endpoint}/deployments", lambda _, name: listed(held.behind, f"{name}/")),
        ("GET", behind, lambda call, *names: show(held.behind)(call, "".join(names))),
        ("PUT", behind, lambda call, *names: put(held.behind)(call, "".join(names))),
    ]
    storage = [(method, "/((?:files|[0-9a-f-]+)/.*)", blob) for method in ("HEAD", "PUT")]
    return StandIn([(m, f"{SCOPE}{p}", a) for m, p, a in routes] + storage + [("POST", "/score", predict)], held)


class Credential:
    """Signs in nobody: the token is not checked."""

    def get_token(self, *_: str, **__: object) -> object:
        return SimpleNamespace(token=str(uuid.UUID(int=0)), expires_on=4_000_000_000)
