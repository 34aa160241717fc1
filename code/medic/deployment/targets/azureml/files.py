"""What Azure Machine Learning is asked for, as files: the same YAML serves ``az ml`` and the target ``azureml``."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from medic.deployment.bundle import Bundle
from medic.errors import MedicError
from medic.files import write_bytes, write_text


@dataclass(frozen=True)
class Settings:
    """On what a bundle runs in the cloud, and how long to wait for it.

    Attributes:
        instance_type: the machines' size; it decides what they cost. Ones smaller than the default may run out of
            memory while they start (not tried).
        instance_count: machines that run day and night until the deployment is deleted.
        image: the Docker image that the packages are installed into.
        workers: requests that one machine works on at the same time.
        request_seconds: time for one answer; Azure allows up to 180.
        start_seconds: time for a machine to load the bundle once its image runs.
        wait_seconds: time for each of Azure's steps, of which the first deployment's, that builds an image, is the
            longest.
    """

    instance_type: str = "Standard_DS3_v2"
    instance_count: int = 1
    image: str = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
    workers: int = 2
    request_seconds: int = 60
    start_seconds: int = 300
    wait_seconds: float = 3600.0

    @classmethod
    def from_environment(cls) -> Settings:
        """The defaults, but for those that the environment names, such as ``MEDIC_AZUREML_INSTANCE_TYPE``.

        Raises:
            MedicError: one that should be a number is none.
        """
        given: dict[str, Any] = {}
        for setting in fields(cls):
            variable = f"MEDIC_AZUREML_{setting.name.upper()}"
            if text := os.environ.get(variable):
                try:
                    given[setting.name] = type(setting.default)(text)
                except ValueError as error:
                    raise MedicError(f"{variable} is {text!r}, which is no number; correct or unset it") from error
        return cls(**given)


@dataclass(frozen=True)
class Files:
    """The written files: ``conda.yml`` and ``code/score.py``, to which these refer, lie beside them.

    Attributes:
        endpoint: the address and its keys.
        deployment: the bundle behind it.
        environment: the packages it runs on.
    """

    endpoint: Path
    deployment: Path
    environment: Path


def model_of(bundle: Bundle) -> tuple[str, str]:
    """The name and the version under which a bundle is registered; Azure takes letters, digits, ``-`` and ``_``."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", bundle.manifest.values["name"]).strip("-_") or bundle.task.name
    return name[:200], bundle.manifest.version


def environment_of(bundle: Bundle, settings: Settings) -> tuple[str, str]:
    """The name and the version of the environment; the version follows from all that it consists of."""
    content = f"{settings.image}\n{_conda(bundle)}"
    return "medic-serving", hashlib.sha256(content.encode()).hexdigest()[:12]


def deployment_of(bundle: Bundle) -> str:
    """What the deployment behind the endpoint is called."""
    return f"bundle-{bundle.manifest.version}"


def write(folder: Path, bundle: Bundle, name: str, settings: Settings) -> Files:
    """Write what the endpoint ``name`` with ``bundle`` behind it consists of.

    Args:
        folder: where to; files of the same names are replaced.
        bundle: registered as ``model_of`` says.
        name: the endpoint's.
        settings: on what it runs.
    """
    model, environment = model_of(bundle), environment_of(bundle, settings)
    said = {
        "description": f"{bundle.task.name}. {bundle.manifest.notice}",
        "tags": {"made_by": "medic", "bundle": bundle.manifest.version},
    }
    write_bytes(folder / "code" / "score.py", (bundle.folder / "score.py").read_bytes())
    write_text(folder / "conda.yml", _conda(bundle))
    files = Files(folder / "endpoint.yml", folder / "deployment.yml", folder / "environment.yml")
    _write(
        files.environment,
        "az ml environment create -f environment.yml",
        {"name": environment[0], "version": environment[1], "image": settings.image, "conda_file": "conda.yml"},
    )
    _write(files.endpoint, "az ml online-endpoint create -f endpoint.yml", {"name": name, "auth_mode": "key", **said})
    # The probes ask Azure's server, which listens only once the bundle is loaded.
    probe = {"period": 10, "timeout": 5, "success_threshold": 1, "failure_threshold": 30}
    _write(
        files.deployment,
        "az ml online-deployment create -f deployment.yml --all-traffic",
        {
            "name": deployment_of(bundle),
            "endpoint_name": name,
            "model": f"azureml:{model[0]}:{model[1]}",
            "environment": f"azureml:{environment[0]}:{environment[1]}",
            "code_configuration": {"code": "code", "scoring_script": "score.py"},
            "instance_type": settings.instance_type,
            "instance_count": settings.instance_count,
            "environment_variables": {"WORKER_COUNT": str(settings.workers)},
            "request_settings": {
                "request_timeout_ms": 1000 * settings.request_seconds,
                "max_concurrent_requests_per_instance": settings.workers,
            },
            "liveness_probe": {"initial_delay": settings.start_seconds, **probe},
            "readiness_probe": {
                "initial_delay": 10,
                **probe,
                "failure_threshold": max(1, settings.start_seconds // 10),
            },
            # Requests are images of people; nothing of them goes to a log.
            "app_insights_enabled": False,
            **said,
        },
    )
    return files


def _conda(bundle: Bundle) -> str:
    """The packages, each in the version that the bundle was proved with, or that is installed here."""
    made_with = bundle.manifest.values["created"]
    images = ("opencv-python-headless", "pillow", "simplejpeg", "pydicom")
    packages = ("onnxruntime", "numpy", *images, "azureml-inference-server-http")
    pinned = [f"{name}=={made_with.get(name) or importlib.metadata.version(name)}" for name in packages]
    python = ".".join(made_with["python"].split(".")[:2])
    content = {
        "name": "medic",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pinned}],
    }
    return yaml.safe_dump(content, sort_keys=False)


def _write(path: Path, command: str, content: dict) -> None:
    write_text(path, f"# {command}\n{yaml.safe_dump(content, sort_keys=False, width=110)}")
