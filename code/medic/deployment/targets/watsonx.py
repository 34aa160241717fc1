"""IBM watsonx.ai Runtime as a target, on IBM Cloud or Cloud Pak for Data: its own runtime runs the bundle's graph.

The service takes the ONNX file alone and scores nested lists of numbers: so images are decoded, cropped and resized
here, with the bundle's own preprocessing. ``docs/deploy_watsonx.md`` explains the settings.
"""

from __future__ import annotations

import logging
import os
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from ibm_watsonx_ai import APIClient, Credentials

from medic.data.images.preprocess import Preprocessing
from medic.deployment import targets
from medic.deployment.bundle import Bundle
from medic.deployment.client import Image
from medic.deployment.targets import NAME, VERSION, Deployment, asking
from medic.deployment.targets.recording import Recording, dry_running, known
from medic.errors import ImageError, MedicError
from medic.task import Prediction, Task

logging.getLogger("ibm_watsonx_ai").setLevel(logging.CRITICAL)  # it logs what it raises, too
REQUEST_BYTES = 4 << 20
"""How long one scoring request may become, unless one image alone is longer: a pixel takes 14 bytes of JSON."""
STATUS = {"ready": "ready", "failed": "crashed"}
REMEDIES = {
    400: "check WATSONX_APIKEY, and that MEDIC_WATSONX_SOFTWARE and MEDIC_WATSONX_TYPE go together",
    401: "check WATSONX_APIKEY or WATSONX_PASSWORD",
    403: "ask for the Editor role in the space for the key's owner",
    429: "wait, delete what is no longer needed (medic deployments --target watsonx), or change the plan",
    None: "check WATSONX_URL, WATSONX_APIKEY, the space's name and the network, then try again",
}


@asking("watsonx: the graph was not stored", REMEDIES)
def store(bundle: Bundle | str | Path, space: str = "default", client: APIClient | None = None) -> str:
    """Upload a bundle's graph into a deployment space, unless that version is there; return the model's id there.

    ``client`` is one of ``connect(space)``, where the caller has it already.

    Raises:
        MedicError: the bundle is not sound, or the service refuses; the message says why.
    """
    bundle, client = targets.open_bundle(bundle), client or connect(space)
    name, size = f"medic {bundle.task.name} {bundle.manifest.version}", bundle.manifest.preprocessing.size
    for model in client.repository.get_model_details(get_all=True)["resources"]:
        if model["metadata"]["name"] == name:
            return model["metadata"]["id"]
    software = os.environ.get("MEDIC_WATSONX_SOFTWARE", "onnxruntime_opset_19")
    images = {"name": "images", "type": f"tensor(uint8)[-1,{size},{size},3]", "nullable": False}
    properties = {
        # Only a whole upload gets the name by which it is found again.
        "name": f"{name}, unfinished",
        "description": bundle.manifest.notice,
        "tags": [f"{tag}:{value}" for tag, value in targets.tags_of(bundle).items()],
        "type": os.environ.get("MEDIC_WATSONX_TYPE", "onnxruntime_1.16"),
        "software_spec": client.software_specifications.get_id_by_name(software),
        "inputDataSchema": [{"id": "images", "fields": [images]}],
    }
    with tempfile.TemporaryDirectory() as folder:
        archive = pack_graph(bundle, Path(folder) / "model.tar.gz")
        model = client.repository.store_model(model=str(archive), meta_props=properties)["metadata"]["id"]
    client.repository.update_model(model, {"name": name})
    return model


@asking("watsonx: the bundle was not deployed", REMEDIES)
def deploy(bundle: Bundle | str | Path, space: str = "default", name: str | None = None) -> Deployment:
    """Store a bundle's graph, put it online, and wait until it is ready. From now on it costs money.

    Args:
        bundle: a bundle, its folder or its archive.
        space: the deployment space's name.
        name: unique in the space; the task's name with six random digits when None.

    Raises:
        MedicError: the name is taken, or a step failed; the message says why.
    """
    bundle = targets.open_bundle(bundle)
    client, name = connect(space), targets.check_name(name or targets.new_name(bundle))
    if any(one.name == name for one in deployments(space, client)):
        raise MedicError(f"watsonx: the space {space!r} has a deployment {name!r}; delete it or choose another name")
    tags = targets.tags_of(bundle, name)
    properties = {
        "name": name,
        "description": bundle.manifest.notice,
        "tags": [f"{tag}:{value}" for tag, value in tags.items()],
        # What scoring needs, on whichever machine that will be.
        "custom": {**tags, **targets.facts_of(bundle)},
        "online": {},
        "hardware_spec": {"name": os.environ.get("MEDIC_WATSONX_HARDWARE", "S")},
    }
    # In the foreground the client would look every five seconds, without end.
    made = client.deployments.create(store(bundle, space, client), meta_props=properties, background_mode=True)
    deployment = _deployment(space, {"metadata": made["metadata"], "entity": {"custom": properties["custom"]}})
    targets.wait_until_ready(deployment, lambda: _look(client, deployment))
    return deployment


@asking("watsonx: the deployments cannot be listed", REMEDIES)
def deployments(space: str = "default", client: APIClient | None = None) -> list[Deployment]:
    """Return what medic deployed into a space, by name, from whichever machine; ``client`` as for ``store``."""
    there = (client or connect(space)).deployments.get_details(get_all=True)["resources"]
    ours = [one for one in there if "custom" in one["entity"] and NAME in one["entity"]["custom"]]
    return sorted((_deployment(space, one) for one in ours), key=lambda one: one.name)


def find(name: str, space: str = "default") -> Deployment:
    """Return the deployment of that name; a ``MedicError`` lists those there are."""
    return targets.named(name, space, deployments(space))


@asking("watsonx: the status cannot be asked for", REMEDIES)
def status(deployment: Deployment) -> str:
    """Return ``ready``, ``starting``, ``crashed`` (failed there) or ``stopped`` (it is not there)."""
    client = connect(deployment.space)
    return targets.or_stopped(lambda: _look(client, deployment)[0])


@asking("watsonx: the deployment gave no scores", REMEDIES)
def score(deployment: Deployment, images: Sequence[Image]) -> Prediction:
    """Prepare image files (bytes or paths) here, and send their pixels to a deployment, a few at a time.

    Raises:
        ImageError: an image cannot become pixels; the message names it.
        MedicError: there is no image, one cannot be read, or the service refuses.
    """
    if not images:
        raise MedicError("there is no image to score; give one or more")
    client, facts = connect(deployment.space), deployment.facts
    task, preprocessing = Task.from_dict(known(facts["task"])), Preprocessing.from_dict(facts["preprocessing"])
    thresholds = None if facts["thresholds"] is None else tuple(facts["thresholds"])
    size, parts = max(1, REQUEST_BYTES // (14 * preprocessing.size**2)), []
    for start in range(0, len(images), size):
        pixels = np.stack([_pixels(preprocessing, image) for image in images[start : start + size]])
        answer = client.deployments.score(facts["id"], {"input_data": [{"values": pixels.tolist()}]})
        outputs = {one["id"]: np.array(one["values"], np.float32) for one in known(answer)["predictions"]}
        grade = outputs["grade"].reshape(len(pixels)) if task.kind == "ordinal" else None
        parts.append(Prediction(task, outputs["probabilities"].reshape(len(pixels), -1), grade, thresholds))
    return Prediction.joined(parts)


@asking("watsonx: not everything was deleted", REMEDIES)
def delete(deployment: Deployment, bundle: bool = False) -> None:
    """Delete a deployment; with ``bundle`` the models that carry its version as a tag, unless another one serves it."""
    client = connect(deployment.space)
    client.deployments.delete(deployment.facts["id"])
    if bundle and deployment.bundle not in {one.bundle for one in deployments(deployment.space, client)}:
        for model in client.repository.get_model_details(get_all=True)["resources"]:
            if "tags" in model["metadata"] and f"{VERSION}:{deployment.bundle}" in model["metadata"]["tags"]:
                client.repository.delete(model["metadata"]["id"], force=True)


def connect(space: str) -> APIClient:
    """Return IBM's client, signed in as the environment says, and set to a space.

    Raises:
        MedicError: a variable is missing or cannot be meant; the message says which.
    """
    if dry_running():
        client = Recording("client", "APIClient(Credentials(url=$WATSONX_URL, api_key=$WATSONX_APIKEY))")
    else:
        given = {name: os.environ.get(f"WATSONX_{name.upper()}") for name in ("url", "username", "version")}
        secret = {name: os.environ.get(f"WATSONX_{name.replace('_', '').upper()}") for name in ("api_key", "password")}
        if not re.fullmatch("https://[^@]+", given["url"] or ""):
            raise MedicError(
                "watsonx: WATSONX_URL is no https address; set it to the service's, such as "
                "https://us-south.ml.cloud.ibm.com"
            )
        if not any(secret.values()):
            raise MedicError("watsonx: there is no key; set WATSONX_APIKEY")
        cluster = {"instance_id": "openshift"} if given["username"] else {}
        # By itself the client goes on where a certificate is not trusted, and repeats requests that create something.
        trusted = httpx.create_ssl_context()
        if authority := os.environ.get("WX_CLIENT_VERIFY_REQUESTS"):
            trusted.load_verify_locations(authority)
        http = httpx.Client(verify=trusted, timeout=httpx.Timeout(120, connect=10))
        client = APIClient(Credentials(**given, **secret, **cluster), httpx_client=http)
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


def _deployment(space: str, details: Any) -> Deployment:
    told, identity = details["entity"]["custom"], details["metadata"]["id"]
    facts = {name: told[name] for name in ("task", "preprocessing", "thresholds")} | {"id": identity}
    url = f"{os.environ.get('WATSONX_URL', '$WATSONX_URL')}/ml/v4/deployments/{identity}/predictions"
    return Deployment("watsonx", space, told[NAME], told[VERSION], url, facts)


def _look(client: APIClient, deployment: Deployment) -> tuple[str, object]:
    told = client.deployments.get_details(deployment.facts["id"])["entity"]["status"]
    return STATUS.get(told["state"], "starting"), told["failure"] if "failure" in told else told["state"]


def _pixels(preprocessing: Preprocessing, image: Image) -> np.ndarray:
    try:
        return preprocessing.pixels(image if isinstance(image, bytes) else Path(image).read_bytes())
    except ImageError as error:
        name = f"an image of {len(image)} bytes" if isinstance(image, bytes) else image
        raise ImageError(f"{name}: {error}", error.reason) from error
    except OSError as error:
        raise MedicError(f"cannot read {image} ({error.strerror}); correct the path") from error
