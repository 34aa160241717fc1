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


def watsonx(_: object) -> StandIn:
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

    def software(_: Call) -> Answer:
        there = {"name": "onnxruntime_opset_19", "asset_id": str(uuid.UUID(int=2)), "href": "/", "asset_type": "any"}
        found = [{"metadata": there, "entity": {"software_specification": {}}}]
        return 200, {"total_results": 1, "resources": found}

    def create(things: dict, status: int) -> object:
        def made(call: Call) -> Answer:
            given, identity = call.json(), str(uuid.uuid4())
            metadata = {"id": identity, **{name: given[name] for name in ("name", "tags") if name in given}}
            things[identity] = {"metadata": metadata, "entity": {**given, "status": {"state": "initializing"}}}
            return status, things[identity]

        return made

    def listed(things: dict) -> object:
        def show(_: Call) -> Answer:
            for one in deployments.values():
                one["entity"]["status"] = held.state
            return 200, {"resources": list(things.values())}

        return show

    def upload(call: Call, identity: str) -> Answer:
        with tarfile.open(fileobj=io.BytesIO(call.body)) as archive:
            graphs[identity] = archive.extractfile("model.onnx").read()
        return 201, {}

    def rename(call: Call, identity: str) -> Answer:
        models[identity]["metadata"]["name"] = call.json()[0]["value"]
        return 200, models[identity]

    def predict(call: Call, identity: str) -> Answer:
        graph = graphs[deployments[identity]["entity"]["asset"]["id"]]
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        values = np.array(call.json()["input_data"][0]["values"], np.uint8)
        outputs = zip(session.get_outputs(), session.run(None, {"images": values}), strict=True)
        return 200, {"predictions": [{"id": output.name, "values": rows.tolist()} for output, rows in outputs]}

    return StandIn(
        [
            ("POST", "/identity/token", sign_in),
            ("GET", "/v2/spaces", lambda _: (200, {"resources": [space()]})),
            ("GET", f"/v2/spaces/{UUID}", lambda _, identity: (200, space(identity))),
            ("GET", "/v2/software_specifications", software),
            ("GET", "/ml/v4/models", listed(models)),
            ("POST", "/ml/v4/models", create(models, 201)),
            ("GET", f"/ml/v4/models/{UUID}", lambda _, identity: (200, models[identity])),
            ("PATCH", f"/ml/v4/models/{UUID}", rename),
            ("PUT", f"/ml/v4/models/{UUID}/content", upload),
            ("DELETE", f"/v2/assets/{UUID}", lambda _, identity: (204, models.pop(identity) and None)),
            ("GET", "/ml/v4/deployments", listed(deployments)),
            ("POST", "/ml/v4/deployments", create(deployments, 202)),
            ("GET", f"/ml/v4/deployments/{UUID}", lambda _, identity: (200, deployments[identity])),
            ("DELETE", f"/ml/v4/deployments/{UUID}", lambda _, identity: (204, deployments.pop(identity) and None)),
            ("POST", f"/ml/v4/deployments/{UUID}/predictions", predict),
        ],
        held,
    )
