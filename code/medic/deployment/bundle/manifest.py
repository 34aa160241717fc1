"""What a bundle says of itself: its manifest, read once every file is the one that it names.

Only the standard library and NumPy are needed here, because this file travels inside every bundle.
"""

import json
from pathlib import Path

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.files import sha256
from medic.referral import Referral
from medic.task import Task

FORMAT, VERSION, MANIFEST = "medic-bundle", 1, "manifest.json"
NOTICE = "Not a medical device. For teaching and research only; it must not guide the care of any person."
SYNTHETIC = "Trained on synthetic drawings, not on photographs of people: its answers mean nothing clinically."


class Manifest:
    """The content of ``manifest.json``, read. Missing or malformed values raise what Python raises for them.

    Attributes:
        values: everything the file holds.
        task: what is predicted.
        preprocessing: how bytes become the graph's input.
        precision: ``fp32`` or ``int8``.
        tolerance: how far an answer for a golden image may lie from the expected one (probability and grade).
        synthetic: whether the model was trained on synthetic images.
        files: SHA-256 of each other file by its path inside the bundle, ``/`` between folders.
        calibration: on what the probabilities are calibrated, or that they are not.
        notice: what must be said wherever an answer shows.
        digest: SHA-256 of the manifest itself, and so of the whole bundle; "" before it is written.
        version: the first twelve digits of the digest, the bundle's name for itself.
    """

    def __init__(self, values: dict, digest: str = ""):
        self.values, self.digest, self.version = values, digest, digest[:12]
        self.task = Task.from_dict(values["task"])
        self.preprocessing = Preprocessing(**values["preprocessing"])
        self.precision, self.tolerance = values["precision"], float(values["tolerance"])
        self.synthetic, self.files = bool(values["data"]["synthetic"]), dict(values["files"])
        referral = values["model"].get("referral")
        self.calibration = "not calibrated" if referral is None else str(Referral.from_dict(referral))
        self.notice = f"{NOTICE} {SYNTHETIC}" if self.synthetic else NOTICE


def read_manifest(folder: str | Path) -> Manifest:
    """Read a bundle's manifest, and check that the folder holds exactly its files, each unchanged.

    Python's own ``__pycache__`` folders, which running ``score.py`` may leave, are passed over.

    Raises:
        MedicError: the folder is no bundle, a newer medic wrote it, the manifest is damaged, or a file is missing,
            changed, or not named in it.
    """
    path, again = Path(folder) / MANIFEST, "package the model again or copy the bundle again"
    try:
        values = json.loads(path.read_bytes())
        if (said := (values.get("format"), values.get("version"))) != (FORMAT, VERSION):
            raise MedicError(
                f"{folder} is no bundle that this medic reads (format {said[0]!r}, version "
                f"{said[1]!r}, not {FORMAT!r}, {VERSION}); take the medic that wrote it or {again}"
            )
        manifest = Manifest(values, sha256(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MedicError(f"{folder} is no bundle (it has no {MANIFEST}); make one with medic package") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MedicError(f"{path} is damaged (at {error}); {again}") from error
    there = set(list_files(path.parent)) - {MANIFEST}
    for name in sorted(there | manifest.files.keys()):
        if name not in there:
            raise MedicError(f"the bundle {folder} lacks {name}; {again}")
        if name not in manifest.files:
            raise MedicError(f"the bundle {folder} holds a file its manifest does not name: {name}; {again}")
        if sha256(path.parent / name) != manifest.files[name]:
            raise MedicError(f"the bundle {folder} was changed or damaged at {name}; {again}")
    return manifest


def list_files(folder: Path) -> list[str]:
    """Return every file below a folder, sorted, ``/`` between folders; links are files, ``__pycache__`` is left out."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(path.as_posix() for path in found if "__pycache__" not in path.parts)
