"""All files that bring a bundle onto a KServe cluster by hand: manifest, image, and a repository for other servers."""

from __future__ import annotations

from pathlib import Path

from medic.deployment.bundle import Bundle, whole_or_nothing
from medic.deployment.targets.kserve.container_image import write_image_files
from medic.deployment.targets.kserve.inference_service import TOKEN_FILE, ClusterSettings, inference_service
from medic.deployment.targets.kserve.model_repository import write_model_repository
from medic.deployment.targets.kserve.strict_manifest import check_manifest
from medic.errors import MedicError
from medic.files import write_text

MANIFEST_FILE = "inference_service.yaml"


def write_cluster_files(bundle: Bundle | str | Path, folder: str | Path, settings: ClusterSettings) -> Path:
    """Write the files for a cluster, all or none: the target ``kserve`` does by itself what they do by hand.

    ``inference_service.yaml`` is the manifest, ``image/`` what ``docker build`` needs, ``model_repository/`` the graph
    for Triton or OpenVINO Model Server, and ``README.md`` the commands in their order.

    Args:
        bundle: a bundle, its folder or its archive.
        folder: where to; older files of this function there are replaced.
        settings: how it is to run.

    Returns:
        The folder.

    Raises:
        MedicError: the bundle is not sound, the settings make no valid manifest, or the folder holds something else.
    """
    import yaml

    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST_FILE).is_file())):
        raise MedicError(f"{folder} exists and holds something else; choose another folder or remove it")
    manifest = inference_service(settings)
    check_manifest(manifest)
    with whole_or_nothing(folder) as new:
        # Without aliases: a label that stands twice is written twice, as a person would.
        dumper = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
        write_text(new / MANIFEST_FILE, yaml.dump(manifest, Dumper=dumper, sort_keys=False))
        write_image_files(new / "image")
        write_model_repository(bundle, new / "model_repository", settings.name)
        write_text(new / "README.md", _steps(bundle, settings))
    return folder


def _steps(bundle: Bundle, settings: ClusterSettings) -> str:
    space = f"--namespace {settings.namespace}"
    return f"""\
# {settings.name} on KServe

{bundle.manifest.notice}

Bundle {bundle.manifest.version}, {bundle.task.name}. It must lie at `{settings.storage}` before step 3.

1. Build the image and push it to where the cluster pulls from:

       docker build --tag {settings.image} image
       docker push {settings.image}

2. Make the token that callers must send, as a Secret:

       python -c "import secrets; print(secrets.token_urlsafe(32), end='')" \\
         | kubectl create secret generic {settings.secret} {space} --from-file={TOKEN_FILE}=/dev/stdin

3. Create the service and wait:

       kubectl create --filename {MANIFEST_FILE}
       kubectl wait --for=condition=Ready inferenceservice/{settings.name} {space} --timeout=10m

4. Remove it:

       kubectl delete inferenceservice/{settings.name} secret/{settings.secret} {space}

`model_repository/` is for servers that load ONNX themselves and take prepared pixels, not photographs:

    tritonserver --model-repository=model_repository
    ovms --model_name {settings.name} --model_path model_repository/{settings.name} --rest_port 8080
"""
