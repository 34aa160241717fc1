"""IBM watsonx.ai Runtime in a test: it keeps models and deployments, and really runs the graph that was uploaded."""

import base64
import io
import json
import tarfile
import time
import uuid
from types import SimpleNamespace

import numpy as np
import onnxruntime

from stand_in import Answer, Call, StandIn

ENVIRONMENT = {"WATSONX_URL": "https://us-south.ml.cloud.ibm.com", "WATSONX_APIKEY": "a-key-of-nobody"}
SPACE = str(uuid.UUID(int=1))
UUID = "([0-9a-f-]{36})"


def watsonx() -> StandIn:
    """A service with the space ``demo``; ``held.state`` is the state that its deployments reach."""
    models, deployments, graphs = {}, {}, {}
    held = SimpleNamespace(models=models, deployments=deployments, state={"state": "ready"})

    def sign_in(_: Call) -> Answer:
        parts = ({"alg": "none"}, {"iam_id": "nobody", "exp": int(time.time()) + 3600, "iat": int(time.time())})
        token = ".".join([base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts] + ["x"])
        return 200, {"access_token": token, "expires_in": 3600}

    def space(identity: str = SPACE) -> dict:
        compute = [{"type": "machine_learning", "guid": str(uuid.UUID(int=0)), "name": "any"}]
        return {"metadata": {"id": identity}, "entity": {"name": "demo", "compute": compute}}

    def spaces(call: Call) -> Answer:
        return 200, {"resources": [space()] * (call.query.get("name", ["demo"]) == ["demo"])}

    def software(call: Call) -> Answer:
        there = {"name": "onnxruntime_opset_19", "asset_id": str(uuid.UUID(int=2)), "href": "/", "asset_type": "any"}
        named = call.query.get("name", [there["name"]]) == [there["name"]]
        return 200, {
            "total_results": int(named),
            "resources": [{"metadata": there, "entity": {"software_specification": {}}}] * named,
        }

    def create(things: dict, status: int) -> object:
        def made(call: Call) -> Answer:
            given, identity = call.json(), str(uuid.uuid4())
            metadata = {"id": identity, **{name: given[name] for name in ("name", "tags") if name in given}}
            entity = {**given, "status": {"state": "initializing"}}
            things[identity] = {"metadata": metadata, "entity": entity}
            return status, things[identity]

        return made

    def show(things: dict) -> object:
        missing = {"errors": [{"code": "not_found", "message": "It does not exist."}]}
        return lambda _, identity: (200, things[identity]) if identity in things else (404, missing)

    def upload(call: Call, identity: str) -> Answer:
        with tarfile.open(fileobj=io.BytesIO(call.body)) as archive:
            graphs[identity] = archive.extractfile("model.onnx").read()
        return 201, {}

    def rename(call: Call, identity: str) -> Answer:
        models[identity]["metadata"]["name"] = call.json()[0]["value"]
        return 200, models[identity]

    def look(call: Call, identity: str) -> Answer:
        if identity in deployments:
            deployments[identity]["entity"]["status"] = held.state
        return show(deployments)(call, identity)

    def predict(call: Call, identity: str) -> Answer:
        graph = graphs[deployments[identity]["entity"]["asset"]["id"]]
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        values = np.array(call.json()["input_data"][0]["values"], np.uint8)
        outputs = zip(session.get_outputs(), session.run(None, {"images": values}), strict=True)
        return 200, {"predictions": [{"id": output.name, "values": rows.tolist()} for output, rows in outputs]}

    def delete(things: dict) -> object:
        return lambda _, identity: (204, None) if things.pop(identity, None) else (404, {})

    return StandIn(
        [
            ("POST", "/identity/token", sign_in),
            ("GET", "/v2/spaces", spaces),
            ("GET", f"/v2/spaces/{UUID}", lambda _, identity: (200, space(identity))),
            ("GET", "/v2/software_specifications", software),
            ("GET", "/ml/v4/models", lambda _: (200, {"resources": list(models.values())})),
            ("POST", "/ml/v4/models", create(models, 201)),
            ("GET", f"/ml/v4/models/{UUID}", show(models)),
            ("PATCH", f"/ml/v4/models/{UUID}", rename),
            ("PUT", f"/ml/v4/models/{UUID}/content", upload),
            ("DELETE", f"/v2/assets/{UUID}", delete(models)),
            ("GET", "/ml/v4/deployments", lambda _: (200, {"resources": list(deployments.values())})),
            ("POST", "/ml/v4/deployments", create(deployments, 202)),
            ("GET", f"/ml/v4/deployments/{UUID}", look),
            ("DELETE", f"/ml/v4/deployments/{UUID}", delete(deployments)),
            ("POST", f"/ml/v4/deployments/{UUID}/predictions", predict),
        ],
        held=held,
    )
