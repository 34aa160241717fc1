"""Who is on an image, told by the names of files and folders where no table says it."""

import re
from collections.abc import Sequence

import pandas as pd

from medic.data.readers.listed_images import stem

EACH_IMAGE, BY_EYES, BY_PATHS = "image", "file names (left/right)", "paths"
"""What ``patient_source`` says where no column names the patient."""
_SIDES = dict.fromkeys(("left", "l", "os", "le", "links", "izquierdo"), "left")
_SIDES |= dict.fromkeys(("right", "r", "od", "re", "rechts", "derecho"), "right")
_EYE = f"(?P<eye>{'|'.join(sorted(_SIDES, key=len, reverse=True))})"
_NAMES_OF_EYES = (
    rf"(?P<patient>.+?)(?:[\s_.-]+|(?<=\d)){_EYE}(?:[\s_.-]*\d+)?",  # 5_L, 05-OD, 7R, a_R_2
    rf"{_EYE}(?:[\s_.-]+|(?=\d))(?P<patient>.+)",  # L_1
)
_PATIENT_FOLDER = re.compile(r"(?:^|/)((?:patient|pat|subject|subj|sub|case)[\s_-]?\d+|p\d{5,})(?=/)", re.IGNORECASE)


def is_patient_folder(name: str) -> bool:
    """Whether a folder is called as a patient's: ``patient00012``, ``subject_7``, ``p10000032``."""
    return _PATIENT_FOLDER.match(f"{name}/") is not None


def eyes(names: Sequence[str]) -> pd.DataFrame:
    """Tell whose eyes photographs show, by their names: ``image``, ``patient``, ``eye`` (``left``, ``right``, missing).

    A name that ends in ``_left`` or ``_right`` tells both. Where none does, all names may follow another pattern such
    as ``5_L`` or ``05-OD``, and two folders that number alike are of different patients. Any other image is a patient's
    own.
    """
    stems, names = pd.Series(names, dtype=object).map(stem), pd.Series(names, dtype=object)
    found = stems.str.extract(r"(?i)^(?P<patient>.+)_(?P<eye>left|right)$")
    for pattern in _NAMES_OF_EYES if found["eye"].isna().all() else ():
        table = stems.str.extract(f"(?i)^{pattern}$")
        folders = names.str.rpartition("/")[0] if stems.duplicated().any() else ""
        table["patient"] = (folders + "/" + table["patient"]).str.removeprefix("/")
        sides = table["eye"].str.lower().map(_SIDES)
        if sides.notna().all() and sides.groupby(table["patient"]).nunique().max() == 2:
            found = table.assign(eye=sides)
    eye = found["eye"].str.lower().astype("string")
    return pd.DataFrame({"image": names, "patient": found["patient"].fillna(stems), "eye": eye})


def patients_of(names: Sequence[str], below: Sequence[str] | None = None) -> tuple[list[str], str] | None:
    """Tell the patients by the folders or the file names, and which of the two; None where neither tells.

    Args:
        names: of the images in their store, or as listed.
        below: the same names without the folders of splits and classes; by default the names.
    """
    found = [_PATIENT_FOLDER.search(name) for name in (names if below is None else below)]
    if found and all(found) and len({match[1].lower() for match in found}) > 1:
        return [match[1] for match in found], BY_PATHS
    table = eyes(names)
    return (table["patient"].tolist(), BY_EYES) if table["eye"].notna().any() else None
