"""What a bundle says of itself: its manifest, and the check that every file is the one the manifest names.

Only the standard library and NumPy are needed here, because this file travels inside every bundle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.files import sha256
from medic.referral import Referral
from medic.task import Task

FORMAT = "medic-bundle"
VERSION = 1
MANIFEST = "manifest.json"
NOTICE = "Not a medical device. For teaching and research only; it must not guide the care of any person."
SYNTHETIC = "Trained on synthetic drawings, not on photographs of people: its answers mean nothing clinically."


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``, read.

    Attributes:
        task: what is predicted.
        preprocessing: how bytes become the graph's input.
        precision: ``fp32`` or ``int8``.
        tolerance: how far an answer for a golden image may lie from the expected one (probability and grade).
        synthetic: whether the model was trained on synthetic images.
        files: SHA-256 of each other file by its path inside the bundle, ``/`` between folders.
        values: everything the file holds, for what has no attribute here.
        digest: SHA-256 of the manifest itself, and so of the whole bundle.
    """

    task: Task
    preprocessing: Preprocessing
    precision: str
    tolerance: float
    synthetic: bool
    files: dict[str, str]
    values: dict
    digest: str

    @property
    def version(self) -> str:
        """The first twelve digits of the digest: the bundle's name for itself."""
        return self.digest[:12]

    @property
    def calibration(self) -> str:
        """On what the probabilities are calibrated, or that they are not."""
        referral = self.values["model"].get("referral")
        return "not calibrated" if referral is None else str(Referral.from_dict(referral))

    @property
    def notice(self) -> str:
        """What must be said wherever an answer shows."""
        return f"{NOTICE} {SYNTHETIC}" if self.synthetic else NOTICE


def read_manifest(folder: str | Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        MedicError: the folder is no bundle, the manifest is damaged, or a newer medic wrote it.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MedicError(f"{folder} is no bundle (it has no {MANIFEST}); make one with medic package") from error
    except ValueError as error:
        raise MedicError(f"{path} is damaged ({error}); package the model again or copy the bundle again") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise MedicError(f"{folder} is no bundle ({path.name} is not of medic); make one with medic package")
    if values.get("version") != VERSION:
        raise MedicError(
            f"the bundle {folder} has format version {values.get('version')!r}, this medic reads version {VERSION}; "
            "install the medic that wrote it or package the model again"
        )
    try:
        return Manifest(
            task=Task.from_dict(values["task"]),
            preprocessing=Preprocessing.from_dict(values["preprocessing"]),
            precision=values["precision"],
            tolerance=float(values["tolerance"]),
            synthetic=bool(values["data"]["synthetic"]),
            files={str(name): str(digest) for name, digest in values["files"].items()},
            values=values,
            digest=sha256(path),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MedicError(f"{path} is damaged (at {error}); package the model again or copy the bundle again") from error


def verify_files(folder: str | Path, manifest: Manifest) -> None:
    """Check that the folder holds exactly the files of the manifest, each unchanged.

    Python's own ``__pycache__`` folders, which running ``score.py`` may leave, are passed over.

    Raises:
        MedicError: a file is missing, changed, or not named in the manifest.
    """
    folder = Path(folder)
    there = {name for name in list_files(folder) if name != MANIFEST}
    again = "copy the bundle again or package the model again"
    if missing := sorted(manifest.files.keys() - there):
        raise MedicError(f"the bundle {folder} lacks {', '.join(missing)}; {again}")
    if extra := sorted(there - manifest.files.keys()):
        raise MedicError(f"the bundle {folder} holds files its manifest does not name: {', '.join(extra)}; {again}")
    changed = [name for name, digest in manifest.files.items() if sha256(folder / name) != digest]
    if changed:
        raise MedicError(f"the bundle {folder} was changed or damaged at {', '.join(sorted(changed))}; {again}")


def list_files(folder: Path) -> list[str]:
    """Every file below a folder, sorted, ``/`` between folders; links count as files, ``__pycache__`` is left out."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(
        path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.relative_to(folder).parts
    )
