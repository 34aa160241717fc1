"""Where a bundle is put so that a KServe cluster can read it: a mounted folder, or a store that another tool fills."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from medic.deployment.bundle import Bundle
from medic.deployment.targets import local
from medic.deployment.targets.kserve.inference_service import MODEL_FOLDER, check_namespace
from medic.errors import MedicError

SCHEMES = ("pvc", "s3", "gs", "https", "file")


@dataclass(frozen=True)
class Stored:
    """A bundle where a cluster reads it.

    Attributes:
        uri: what the cluster reads.
        version: the bundle's.
        inside: where the bundle will lie in the container.
        folder: the copy, where this machine sees it; None where another tool put it there.
    """

    uri: str
    version: str
    inside: str
    folder: Path | None

    def __str__(self) -> str:
        return f"bundle {self.version} at {self.uri}"


def store(bundle: Bundle | str | Path, space: str = "default") -> Stored:
    """Put a bundle where the cluster reads it, below ``MEDIC_KSERVE_STORAGE``, whole or not at all.

    ``MEDIC_KSERVE_STORAGE`` is a URI in the cluster's words: ``pvc://CLAIM/PATH``, ``s3://BUCKET/PATH``,
    ``gs://BUCKET/PATH``, ``https://HOST/PATH`` or ``file:///PATH``. Where the same storage is mounted on this machine,
    ``MEDIC_KSERVE_MOUNT`` names that folder (``file://`` is its own mount), and a verified copy is made there.
    Otherwise no installed library can write to it: the error says which command does, and
    ``MEDIC_KSERVE_UPLOADED=VERSION`` says that it was done.

    Raises:
        MedicError: a setting is missing or wrong, the bundle is not sound, or it has to be uploaded first.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    root, scheme, mount = _place()
    version = bundle.manifest.version
    uri = f"{root}/{check_namespace(space)}/bundles/{version}"
    inside = MODEL_FOLDER
    if scheme == "https":
        # The storage initializer fetches one file and unpacks it; its folder then lies in that of the model.
        uri, inside = f"{uri}.tar.gz", f"{MODEL_FOLDER}/{bundle.folder.name}"
    elif mount is not None:
        if not mount.is_dir():
            raise MedicError(f"kserve: there is no folder {mount} to store into; mount the storage there, or make it")
        return Stored(uri, version, inside, local.store(bundle, mount / space).folder)
    if os.environ.get("MEDIC_KSERVE_UPLOADED") != version:
        raise MedicError(
            f"kserve: nothing installed here can write to {scheme}://; {_upload(bundle, scheme, uri)}, then set "
            f"MEDIC_KSERVE_UPLOADED={version} and try again"
        )
    return Stored(uri, version, inside, None)


def remove_stored(uri: str, space: str) -> bool:
    """Remove a stored bundle where this machine sees the storage that it lies in; whether it is gone."""
    try:
        root, scheme, mount = _place()
    except MedicError:
        return False
    above, _, version = uri.rpartition("/")
    if scheme == "https" or mount is None or above != f"{root}/{space}/bundles":
        return False
    bundles = mount / space / "bundles"
    # Without that folder something else is mounted there now, or nothing.
    if not bundles.is_dir():
        return False
    shutil.rmtree(bundles / version, ignore_errors=True)
    return not (bundles / version).exists()


def removal(uri: str) -> str:
    """What removes a stored bundle that this machine does not see: a command where one is known."""
    scheme, _, place = uri.partition("://")
    if scheme == "s3":
        return f"run aws s3 rm --recursive {uri}"
    if scheme == "gs":
        return f"run gcloud storage rm --recursive {uri}"
    if scheme == "pvc":
        claim, _, folder = place.partition("/")
        return f"remove {folder} from a pod that mounts the claim {claim} (kubectl exec POD -- rm -r MOUNT/{folder})"
    if scheme == "file":
        return f"run rm -r {shlex.quote(unquote(urlsplit(uri).path))} on the machine that has it"
    return "remove it there with that server's own tool"


def _place() -> tuple[str, str, Path | None]:
    """The storage's URI without a slash at its end, its scheme, and the folder where it is mounted here."""
    root = os.environ.get("MEDIC_KSERVE_STORAGE", "").rstrip("/")
    split = urlsplit(root if "://" in root else f"//{root}")
    if "@" in split.netloc or split.query:
        raise MedicError(
            "kserve: MEDIC_KSERVE_STORAGE has a name, a password or a query in it, and would be kept in the journal "
            "and shown; give the place alone there, and credentials to the account of MEDIC_KSERVE_SERVICE_ACCOUNT"
        )
    scheme = root.partition("://")[0]
    if "://" not in root or scheme not in SCHEMES:
        raise MedicError(
            f"kserve: MEDIC_KSERVE_STORAGE is {root!r}; set it to where the cluster reads bundles, such as "
            f"pvc://CLAIM/medic or s3://BUCKET/medic (one of {', '.join(SCHEMES)})"
        )
    if scheme == "file":
        return root, scheme, Path(unquote(urlsplit(root).path))
    mount = os.environ.get("MEDIC_KSERVE_MOUNT")
    return root, scheme, Path(mount) if mount else None


def _upload(bundle: Bundle, scheme: str, uri: str) -> str:
    """The command that puts a bundle's folder, or for https its archive, at a URI."""
    archived = bundle.archive is not None and bundle.archive.parent != bundle.folder.parent
    folder = bundle.folder.name if archived else bundle.folder
    unpack = f"tar -xzf {bundle.archive} && " if archived else ""
    if scheme == "https":
        return f"put {bundle.archive or 'its archive (medic package writes one)'} at {uri} with that server's own tool"
    if scheme == "s3":
        return f"run {unpack}aws s3 cp --recursive {folder} {uri}"
    if scheme == "gs":
        return f"run {unpack}gcloud storage rsync --recursive {folder} {uri}"
    return f"mount the claim here and set MEDIC_KSERVE_MOUNT to it, or copy {folder} to {uri} with kubectl cp"
