"""Azure Machine Learning as a target: a space is a workspace, a deployment a managed online endpoint.

The whole bundle becomes a registered model, and its ``score.py`` runs in Azure's own inference server: it takes image
files as they are. ``docs/deploy_azureml.md`` explains the settings.
"""

import importlib.metadata
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from azure.ai.ml import MLClient, load_online_deployment, load_online_endpoint
from azure.ai.ml.entities import Model
from azure.identity import DefaultAzureCredential

from medic.deployment.bundle import Bundle
from medic.deployment.client import Client, bearer
from medic.deployment.targets import NAME, VERSION, Deployment, Target, setting, tags_of
from medic.deployment.targets.recording import Recording, dry_running
from medic.errors import MedicError

MODEL = "medic-bundle"
STATES = {"succeeded": "ready", "creating": "starting", "updating": "starting"}
"""Our word for each of Azure's states; the others mean that it failed."""


class AzureML(Target):
    """Managed online endpoints of a workspace; the space ``default`` is that of ``AZUREML_WORKSPACE_NAME``."""

    def _put(self, bundle: Bundle, space: str) -> str:
        about = {"type": "custom_model", "description": bundle.manifest.notice, "tags": tags_of(bundle)}
        model = Model(name=MODEL, version=bundle.manifest.version, path=str(bundle.folder.resolve()), **about)
        connect(space).models.create_or_update(model)
        return f"{MODEL}:{bundle.manifest.version}"

    def _make(self, bundle: Bundle, space: str, name: str) -> None:
        client = connect(space)
        if name in [one.name for one in client.online_endpoints.list()]:
            raise MedicError(f"azureml: there is an endpoint {name!r}; delete it or choose another name")
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(bundle.folder / "score.py", folder)
            endpoint, behind = wanted(bundle, name, self._put(bundle, space), folder)
            client.online_endpoints.begin_create_or_update(endpoint).result()
            client.online_deployments.begin_create_or_update(behind).result()
        endpoint.traffic = {behind.name: 100}
        client.online_endpoints.begin_create_or_update(endpoint).result()

    def _look(self, space: str) -> Iterator[Deployment]:
        client = connect(space)
        for one in client.online_endpoints.list():
            if NAME in one.tags:
                # Half-made, nothing is behind it, or no request goes there.
                there, traffic = client.online_deployments.list(one.name), one.traffic
                behind = [each for each in there if each.name in traffic and traffic[each.name]]  # noqa: RUF019
                states = [str(each.provisioning_state).rpartition(".")[2].lower() for each in behind]
                state, said = STATES.get("".join(states), "crashed"), "its log is in Azure's studio"
                yield Deployment(self, one.tags[NAME], space, one.tags[VERSION], one.scoring_uri, state, said)

    def _service(self, deployment: Deployment) -> Client:
        key = connect(deployment.space).online_endpoints.get_keys(deployment.name).primary_key
        if dry_running():
            return Recording("Client")
        address, path = deployment.url.rsplit("/", 1)
        return Client(address, timeout=65, headers=bearer(key), path=path)

    def _remove(self, deployment: Deployment) -> None:
        connect(deployment.space).online_endpoints.begin_delete(deployment.name).result()

    def _remove_bundle(self, deployment: Deployment) -> None:
        # Azure's client deletes neither a model's entry nor its files.
        connect(deployment.space).models.archive(MODEL, deployment.bundle)


def connect(space: str) -> MLClient:
    """Return Azure's client for a workspace, signed in as ``DefaultAzureCredential`` finds.

    Raises:
        MedicError: the environment does not say where the workspace is.
    """
    if dry_running():
        return Recording("MLClient")
    where = setting("AZURE_SUBSCRIPTION_ID"), setting("AZURE_RESOURCE_GROUP")
    workspace = setting("AZUREML_WORKSPACE_NAME") if space == "default" else space
    # Without its progress bar this client never looks whether a file was sent, and waits for ever if one was not.
    return MLClient(DefaultAzureCredential(), *where, workspace, enable_telemetry=False, show_progress=True)


def wanted(bundle: Bundle, name: str, model: str, code: str) -> list[Any]:
    """Return the endpoint and the deployment of ``azureml.yaml.j2``, checked by Azure's own schemas.

    The environment's packages are those that the bundle was proved with, or else those that are installed here.
    """
    made_with = bundle.manifest.values["created"]
    images = ("opencv-python-headless", "pillow", "simplejpeg", "pydicom")
    packages = ("onnxruntime", "numpy", *images, "azureml-inference-server-http")
    text = jinja2.Template((Path(__file__).parent / "azureml.yaml.j2").read_text()).render(
        bundle=bundle.manifest,
        tags=tags_of(bundle, name),
        python=made_with["python"].rpartition(".")[0],
        packages=[f"{one}=={made_with.get(one) or importlib.metadata.version(one)}" for one in packages],
        model=model,
        code=code,
        instance_type=os.environ.get("MEDIC_AZUREML_INSTANCE_TYPE", "Standard_DS3_v2"),
        instance_count=os.environ.get("MEDIC_AZUREML_INSTANCE_COUNT", 1),
    )
    endpoint, behind = map(io.StringIO, text.split("\n---\n"))
    return [load_online_endpoint(endpoint), load_online_deployment(behind)]


AZUREML = AzureML()
store, deploy, deployments, find = AZUREML.store, AZUREML.deploy, AZUREML.deployments, AZUREML.find
