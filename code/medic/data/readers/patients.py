"""Who is on an image, told by the names of files and folders where no table says it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from medic.data.readers.listed_images import stem

EACH_IMAGE, BY_EYES, BY_PATHS = "image", "file names (left/right)", "paths"
"""What ``patient_source`` says where no column names the patient."""
_SIDES = {"left": "left", "l": "left", "os": "left", "le": "left", "links": "left", "izquierdo": "left"}
_SIDES |= {"right": "right", "r": "right", "od": "right", "re": "right", "rechts": "right", "derecho": "right"}
_WORDS = "|".join(sorted(_SIDES, key=len, reverse=True))
_AGAIN = r"(?:[\s_.-]*\d+)?"  # a second photograph of the same eye
_EYES = (
    re.compile(rf"(?P<patient>.+?)[\s_.-]+(?P<eye>{_WORDS}){_AGAIN}", re.IGNORECASE),
    re.compile(rf"(?P<patient>.*\d)(?P<eye>{_WORDS}){_AGAIN}", re.IGNORECASE),
    re.compile(rf"(?P<eye>{_WORDS})[\s_.-]+(?P<patient>.+)", re.IGNORECASE),
    re.compile(rf"(?P<eye>{_WORDS})(?P<patient>\d.*)", re.IGNORECASE),
)
_PATIENT_FOLDER = re.compile(r"(?:^|/)((?:patient|pat|subject|subj|sub|case)[\s_-]?\d+|p\d{5,})(?=/)", re.IGNORECASE)


def is_patient_folder(name: str) -> bool:
    """Whether a folder is called as a patient's: ``patient00012``, ``subject_7``, ``p10000032``."""
    return _PATIENT_FOLDER.match(f"{name}/") is not None


def eyes(names: Sequence[str]) -> pd.DataFrame | None:
    """Patient and eye of each image, where all names say so: ``5_L`` and ``5_R``, ``05-OD``, ``406_left`` and others.

    Returns:
        ``patient`` and ``eye`` (``left``, ``right``), or None unless every name has a side and at least one patient
        has both. Where two folders number their images alike, the folder is part of the patient.
    """
    stems = [stem(name) for name in names]
    for pattern in _EYES:
        found = [pattern.fullmatch(name) for name in stems]
        if not found or not all(found):
            continue
        alike = len(set(stems)) < len(stems)
        folders = [name.rpartition("/")[0] + "/" if alike and "/" in name else "" for name in names]
        table = pd.DataFrame(
            {
                "patient": [folder + match["patient"] for folder, match in zip(folders, found, strict=True)],
                "eye": [_SIDES[match["eye"].lower()] for match in found],
            }
        )
        if table.groupby("patient")["eye"].nunique().max() == 2:
            return table
    return None


def patients_of(names: Sequence[str], below: Sequence[str] | None = None) -> tuple[list[str], str] | None:
    """Patients by the folders or the file names, and which of the two; None where neither tells.

    Args:
        names: of the images in their store, or as listed.
        below: the same names without the folders of splits and classes; by default the names.
    """
    found = [_PATIENT_FOLDER.search(name) for name in (names if below is None else below)]
    if found and all(found) and len({match[1].lower() for match in found}) > 1:
        return [match[1] for match in found], BY_PATHS
    table = eyes(names)
    return None if table is None else (table["patient"].tolist(), BY_EYES)
