"""Azure Machine Learning as a target: a space is a workspace, a deployment a managed online endpoint.

The whole bundle becomes a registered model, and its ``score.py`` runs in Azure's own inference server: it takes image
files as they are. ``docs/deploy_azureml.md`` explains the settings.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import jinja2
import yaml
from azure.ai.ml import MLClient, load_environment, load_online_deployment, load_online_endpoint
from azure.ai.ml.entities import Model
from azure.identity import DefaultAzureCredential

from medic.deployment import targets
from medic.deployment.bundle import Bundle
from medic.deployment.client import Image, bearer, prediction_of
from medic.deployment.targets import NAME, VERSION, Deployment, asking
from medic.deployment.targets.recording import Recording, dry_running, known
from medic.errors import MedicError
from medic.task import Prediction, Task

MODEL = "medic-bundle"
STATUS = {"succeeded": "ready", "creating": "starting", "updating": "starting", "deleting": "stopped"}
"""Our word for each of Azure's states; the others mean that it failed."""
REMEDIES = {
    401: "sign in with az login, or check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    403: "ask for the role 'AzureML Data Scientist' on the workspace",
    404: "check AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and the workspace's name",
    429: "ask for more quota, or set MEDIC_AZUREML_INSTANCE_TYPE to a smaller size",
    None: "mend that and try again; medic deployments --target azureml lists what was made",
}


@asking("azureml: the bundle was not stored", REMEDIES)
def store(bundle: Bundle | str | Path, space: str = "default") -> str:
    """Register a bundle as a custom model of the workspace, under its version; return ``NAME:VERSION``.

    Files that are there already are not sent again, those of an upload that broke off neither.

    Raises:
        MedicError: the bundle is not sound, or Azure refuses; the message says why.
    """
    bundle = targets.open_bundle(bundle)
    model = Model(
        name=MODEL,
        version=bundle.manifest.version,
        type="custom_model",
        path=str(bundle.folder.resolve()),
        description=bundle.manifest.notice,
        tags=targets.tags_of(bundle),
        # What scoring needs, on whichever machine that will be.
        properties={"medic": json.dumps(targets.facts_of(bundle))},
    )
    connect(space).models.create_or_update(model)
    return f"{MODEL}:{model.version}"


@asking("azureml: the bundle was not deployed", REMEDIES)
def deploy(bundle: Bundle | str | Path, space: str = "default", name: str | None = None) -> Deployment:
    """Store a bundle, put it behind a managed online endpoint, and wait until it answers: it costs money from then on.

    Args:
        bundle: a bundle, its folder or its archive.
        space: the workspace's name; ``default`` is that of ``AZUREML_WORKSPACE_NAME``.
        name: the endpoint's, unique in the region; the task's name with six random digits when None.

    Raises:
        MedicError: the name is taken, or a step failed; the message says why.
    """
    bundle = targets.open_bundle(bundle)
    name, allowed = name or targets.new_name(bundle), "[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]"
    client = connect(space)
    targets.check_name(name, allowed, "3 to 32 letters, digits and '-', a letter first")
    if any(one.name == name for one in client.online_endpoints.list()):
        raise MedicError(f"azureml: there is an endpoint {name!r}; delete it or choose another name")
    model = store(bundle, space)
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        code.mkdir()
        shutil.copy(bundle.folder / "score.py", code)
        environment, endpoint, behind = wanted(bundle, name, model, code)
        client.environments.create_or_update(environment)
        client.online_endpoints.begin_create_or_update(endpoint).result()
        client.online_deployments.begin_create_or_update(behind).result()
    endpoint.traffic = {behind.name: 100}
    client.online_endpoints.begin_create_or_update(endpoint).result()
    deployment = find(name, space)
    targets.wait_until_ready(deployment, lambda: (status(deployment), "its log is in Azure's studio"))
    return deployment


@asking("azureml: the endpoints cannot be listed", REMEDIES)
def deployments(space: str = "default") -> list[Deployment]:
    """Return the endpoints of a workspace that carry our tags, by name, from whichever machine they were made."""
    ours = [one for one in connect(space).online_endpoints.list() if NAME in one.tags]
    found = [Deployment("azureml", space, one.tags[NAME], one.tags[VERSION], one.scoring_uri) for one in ours]
    return sorted(found, key=lambda one: one.name)


def find(name: str, space: str = "default") -> Deployment:
    """Return the deployment of that name; a ``MedicError`` lists those there are."""
    return targets.named(name, space, deployments(space))


@asking("azureml: the status cannot be asked for", REMEDIES)
def status(deployment: Deployment) -> str:
    """Return ``ready``, ``starting``, ``crashed`` (failed there, or half-made) or ``stopped`` (it is not there)."""
    client = connect(deployment.space)

    def look() -> str:
        endpoint = client.online_endpoints.get(deployment.name)
        behind = client.online_deployments.get(f"bundle-{deployment.bundle}", deployment.name)
        state = STATUS.get(str(behind.provisioning_state).rpartition(".")[2].lower(), "crashed")
        # Half-made: no request goes there. Azure's client fills in 0 where nothing is said.
        return "crashed" if state == "ready" and endpoint.traffic[behind.name] == 0 else state

    return targets.or_stopped(look)


@asking("azureml: the endpoint gave no scores", REMEDIES)
def score(deployment: Deployment, images: Sequence[Image]) -> Prediction:
    """Send image files (bytes or paths) to an endpoint, one a request; its key is fetched, and kept nowhere.

    Raises:
        MedicError: there is no image, one cannot be read, or the endpoint refuses one; the message says which and why.
    """
    if not images:
        raise MedicError("there is no image to score; give one or more")
    client, answers = connect(deployment.space), []
    key = client.online_endpoints.get_keys(deployment.name).primary_key
    with Recording("http") if dry_running() else httpx.Client(timeout=65) as http:
        for image in images:
            data = image if isinstance(image, bytes) else Path(image).read_bytes()
            headers = {"Content-Type": "application/octet-stream", **bearer(key)}
            answer = known(http.post(deployment.url, content=data, headers=headers))
            if not answer.is_success:
                where = f"an image of {len(data)} bytes" if isinstance(image, bytes) else image
                # Azure's front door answers 424, and says in a header what the container answered.
                status = answer.headers.get("ms-azureml-model-error-statuscode", answer.status_code)
                raise MedicError(f"{where}: {deployment.name} refused with {status}: {answer.text[:300]}")
            answers.append(answer.json())
    facts = json.loads(client.models.get(MODEL, deployment.bundle).properties["medic"])
    return prediction_of(Task.from_dict(facts["task"]), facts["thresholds"], answers)


@asking("azureml: not everything was deleted", REMEDIES)
def delete(deployment: Deployment, bundle: bool = False) -> None:
    """Delete an endpoint and what is behind it, and wait until it is gone.

    With ``bundle`` the registered model is archived, which hides it, unless another deployment serves it: Azure's
    client deletes neither its entry nor its files in the workspace's storage.
    """
    client = connect(deployment.space)
    client.online_endpoints.begin_delete(deployment.name).result()
    if bundle and deployment.bundle not in {one.bundle for one in deployments(deployment.space)}:
        client.models.archive(MODEL, deployment.bundle)


def connect(space: str) -> MLClient:
    """Return Azure's client for a workspace, signed in as ``DefaultAzureCredential`` finds.

    Raises:
        MedicError: the environment does not say where the workspace is.
    """
    if dry_running():
        return Recording("client", f"MLClient(DefaultAzureCredential(), $AZURE_SUBSCRIPTION_ID, ..., {space!r})")
    variables = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", *(["AZUREML_WORKSPACE_NAME"] * (space == "default")))
    if missing := [name for name in variables if not os.environ.get(name)]:
        raise MedicError(f"azureml: the environment does not say where the workspace is; set {' and '.join(missing)}")
    subscription, group, workspace = [*map(os.environ.get, variables), space][:3]
    # Without its progress bar this client never looks whether a file was sent, and waits for ever if one was not.
    options = {"enable_telemetry": False, "show_progress": True}
    return MLClient(DefaultAzureCredential(), subscription, group, workspace, **options)


def wanted(bundle: Bundle, name: str, model: str, code: Path) -> list[Any]:
    """Return the environment, the endpoint and the deployment of ``azureml.yaml.j2``, checked by Azure's own schemas.

    The environment's packages are those that the bundle was proved with, or else those that are installed here.
    """
    made_with = bundle.manifest.values["created"]
    images = ("opencv-python-headless", "pillow", "simplejpeg", "pydicom")
    packages = ("onnxruntime", "numpy", *images, "azureml-inference-server-http")
    pinned = [f"{package}=={made_with.get(package) or importlib.metadata.version(package)}" for package in packages]
    text = jinja2.Template((Path(__file__).parent / "azureml.yaml.j2").read_text()).render(
        tags=targets.tags_of(bundle, name),
        version=hashlib.sha256(" ".join([made_with["python"], *pinned]).encode()).hexdigest()[:12],
        python=".".join(made_with["python"].split(".")[:2]),
        packages=pinned,
        name=name,
        notice=bundle.manifest.notice,
        behind=f"bundle-{bundle.manifest.version}",
        model=model,
        code=code,
        instance_type=os.environ.get("MEDIC_AZUREML_INSTANCE_TYPE", "Standard_DS3_v2"),
        instance_count=os.environ.get("MEDIC_AZUREML_INSTANCE_COUNT", 1),
    )
    documents = [io.StringIO(yaml.safe_dump(one, sort_keys=False)) for one in yaml.safe_load_all(text)]
    loads = (load_environment, load_online_endpoint, load_online_deployment)
    return [load(document) for load, document in zip(loads, documents, strict=True)]
