"""A Kubernetes cluster with KServe in a test: its API keeps what it is given, and its services answer with a bundle."""

import base64
from types import SimpleNamespace

from medic.deployment.bundle import Bundle
from stand_in import Answer, Call, StandIn, answer_of

SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/demo/inferenceservices"
SECRETS = "/api/v1/namespaces/demo/secrets"
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://cluster.example"}}]
users: [{name: test, user: {token: a-token-of-nobody}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
"""
ENVIRONMENT = {"MEDIC_KSERVE_IMAGE": "registry.example/medic:1", "MEDIC_KSERVE_STORAGE": "pvc://bundles/medic"}


def kserve(bundle: Bundle) -> StandIn:
    """A cluster with the namespace ``demo``; ``held.status`` is the status that its services reach."""
    ready = {"url": "http://eyes.demo.example", "conditions": [{"type": "Ready", "status": "True"}]}
    held = SimpleNamespace(services={}, secrets={}, status=ready)

    def create(things: dict) -> object:
        def made(call: Call) -> Answer:
            given = call.json()
            if given["metadata"]["name"] in things:
                return 409, {"kind": "Status", "status": "Failure", "message": "it already exists"}
            things[given["metadata"]["name"]] = given
            return 201, given

        return made

    def listed(call: Call) -> Answer:
        label = call.query["labelSelector"][0]
        ours = [one for one in held.services.values() if label in one["metadata"].get("labels", {})]
        return 200, {"items": [one | {"status": held.status} for one in ours]}

    def secret(_: Call, name: str) -> Answer:
        return 200, {"data": {"token": base64.b64encode(held.secrets[name]["stringData"]["token"].encode()).decode()}}

    def clear(call: Call) -> Answer:
        label, value = call.query["labelSelector"][0].split("=")
        for name in [name for name, one in held.secrets.items() if one["metadata"]["labels"][label] == value]:
            del held.secrets[name]
        return 200, {"kind": "Status"}

    def predict(call: Call) -> Answer:
        return answer_of(bundle, call, held.secrets["eyes-token"]["stringData"]["token"], refused=422)

    return StandIn(
        [
            ("POST", SERVICES, create(held.services)),
            ("GET", SERVICES, listed),
            ("DELETE", f"{SERVICES}/(.+)", lambda _, name: (200, held.services.pop(name))),
            ("POST", SECRETS, create(held.secrets)),
            ("GET", f"{SECRETS}/(.+)", secret),
            ("DELETE", SECRETS, clear),
            ("POST", "/predict", predict),
        ],
        held,
    )
