"""IBM watsonx.ai Runtime as a target, on IBM Cloud or Cloud Pak for Data: its own runtime runs the bundle's graph.

The service takes the ONNX file alone and scores nested lists of numbers: so images are decoded, cropped and resized
here, with the bundle's own preprocessing. ``docs/deploy_watsonx.md`` explains the settings.
"""

import contextlib
import logging
import os
import ssl
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
from ibm_watsonx_ai import APIClient, Credentials

from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle import Bundle
from medic.deployment.bundle.predictor import OUTPUTS, answers
from medic.deployment.client import Image
from medic.deployment.targets import NAME, VERSION, Deployment, Target, setting, tags_of
from medic.deployment.targets.recording import Recording, dry_running, known
from medic.errors import ImageError, MedicError
from medic.referral import Referral, appearance
from medic.task import Prediction, Task

logging.getLogger("ibm_watsonx_ai").setLevel(logging.CRITICAL)  # it logs what it raises, too
STATES = {"ready": "ready", "failed": "crashed"}


class Watsonx(Target):
    """Online deployments of IBM's deployment spaces."""

    def _put(self, bundle: Bundle, space: str) -> str:
        client, size = connect(space), bundle.manifest.preprocessing.size
        name = f"medic {bundle.task.name} {bundle.manifest.version}"
        for model in client.repository.get_model_details(get_all=True)["resources"]:
            if model["metadata"]["name"] == name:
                return model["metadata"]["id"]
        software = os.environ.get("MEDIC_WATSONX_SOFTWARE", "onnxruntime_opset_19")
        images = {"name": "images", "type": f"tensor(uint8)[-1,{size},{size},3]", "nullable": False}
        properties = {
            "name": f"{name}, unfinished",  # only a whole upload gets the name by which it is found again
            "description": bundle.manifest.notice,
            "tags": [f"{tag}:{value}" for tag, value in tags_of(bundle).items()],
            "type": os.environ.get("MEDIC_WATSONX_TYPE", "onnxruntime_1.16"),
            "software_spec": client.software_specifications.get_id_by_name(software),
            "inputDataSchema": [{"id": "images", "fields": [images]}],
        }
        with tempfile.TemporaryDirectory() as folder:
            archive = pack_graph(bundle, Path(folder) / "model.tar.gz")
            model = client.repository.store_model(model=str(archive), meta_props=properties)["metadata"]["id"]
        client.repository.update_model(model, {"name": name})
        return model

    def _make(self, bundle: Bundle, space: str, name: str) -> None:
        if name in [one.name for one in self.deployments(space)]:
            raise MedicError(f"watsonx: there is a deployment {name!r}; delete it or choose another name")
        tags, values = tags_of(bundle, name), bundle.manifest.values
        facts = {part: values["model"].get(part) for part in ("thresholds", "referral")}
        facts |= {"task": values["task"], "preprocessing": values["preprocessing"], "notice": bundle.manifest.notice}
        properties = {
            "name": name,
            "description": bundle.manifest.notice,
            "tags": [f"{tag}:{value}" for tag, value in tags.items()],
            "custom": tags | facts,  # what scoring needs, on whichever machine that will be
            "online": {},
            "hardware_spec": {"name": os.environ.get("MEDIC_WATSONX_HARDWARE", "S")},
        }
        model = self._put(bundle, space)
        # In the foreground the client would look every five seconds, without end.
        connect(space).deployments.create(model, meta_props=properties, background_mode=True)

    def _look(self, space: str) -> Iterator[Deployment]:
        for one in connect(space).deployments.get_details(get_all=True)["resources"]:
            if "custom" in one["entity"] and NAME in (told := one["entity"]["custom"]):
                status, facts = one["entity"]["status"], {"id": one["metadata"]["id"], "custom": told}
                url = f"{setting('WATSONX_URL')}/ml/v4/deployments/{facts['id']}/predictions"
                state = STATES.get(status["state"], "starting")
                yield Deployment(self, told[NAME], space, told[VERSION], url, state, status, facts)

    def _service(self, deployment: Deployment) -> contextlib.AbstractContextManager:
        client, facts = connect(deployment.space), known(deployment.facts["custom"])
        task, preprocessing = Task.from_dict(facts["task"]), Preprocessing(**facts["preprocessing"])
        rule = {"thresholds": facts["thresholds"] and tuple(facts["thresholds"])}
        rule["referral"] = Referral.from_dict(facts["referral"]) if facts.get("referral") else None
        bundle = SimpleNamespace(task=task, version=deployment.bundle, notice=facts.get("notice", ""))

        def answer(image: Image) -> dict:
            try:
                pixels = preprocessing.pixels(image if isinstance(image, bytes) else Path(image).read_bytes())[None]
            except (OSError, ImageError) as error:
                raise MedicError(f"{'image' if isinstance(image, bytes) else image}: {error}") from error
            with self._asking("score"):
                request = {"input_data": [{"values": pixels.tolist()}]}
                said = client.deployments.score(deployment.facts["id"], request)["predictions"]
            outputs = {one["id"]: np.float32(one["values"]).reshape(-1) for one in said if one["id"] in OUTPUTS}
            outputs["probabilities"] = outputs["probabilities"][None]
            outputs["brightness"], outputs["sharpness"] = appearance(pixels)
            return answers(bundle, Prediction(task, **outputs, **rule))[0]

        return contextlib.nullcontext(SimpleNamespace(answer=answer))

    def _remove(self, deployment: Deployment) -> None:
        connect(deployment.space).deployments.delete(deployment.facts["id"])

    def _remove_bundle(self, deployment: Deployment) -> None:
        client = connect(deployment.space)
        for model in client.repository.get_model_details(get_all=True)["resources"]:
            if "tags" in model["metadata"] and f"{VERSION}:{deployment.bundle}" in model["metadata"]["tags"]:
                client.repository.delete(model["metadata"]["id"], force=True)


def connect(space: str) -> APIClient:
    """Return IBM's client, signed in as the environment says, and set to a space.

    Raises:
        MedicError: a variable is missing or cannot be meant; the message says which.
    """
    if dry_running():
        client = Recording("APIClient")
    else:
        url = setting("WATSONX_URL", "https://[^@]+", "https://us-south.ml.cloud.ibm.com")
        given = {name: os.environ.get(f"WATSONX_{name.upper()}") for name in ("username", "password", "version")}
        given |= {"instance_id": "openshift"} if given["username"] else {}
        given |= {} if given["password"] else {"api_key": setting("WATSONX_APIKEY")}
        # By itself the client goes on where a certificate is not trusted, and repeats requests that create something.
        trusted = ssl.create_default_context(cafile=os.environ.get("WX_CLIENT_VERIFY_REQUESTS"))
        http = httpx.Client(verify=trusted, timeout=httpx.Timeout(120, connect=10))
        client = APIClient(Credentials(url=url, **given), httpx_client=http)
    client.set.default_space(space_id(client, space))
    return client


def space_id(client: APIClient, space: str) -> str:
    """Return the id of the deployment space of that name."""
    return client.spaces.get_id_by_name(space)


def pack_graph(bundle: Bundle, archive: Path) -> Path:
    """Write the graph alone as ``.tar.gz``: the runtime wants one ONNX file, and refuses what it does not know."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(bundle.folder / "model.onnx", "model.onnx")
    return archive


WATSONX = Watsonx()
store, deploy, deployments, find = WATSONX.store, WATSONX.deploy, WATSONX.deployments, WATSONX.find
