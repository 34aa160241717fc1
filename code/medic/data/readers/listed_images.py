"""The images that a table lists, found in their store, wherever they lie; and who is on them, told by their names."""

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medic.data.stores import ARCHIVES, IMAGE_SUFFIXES, JointStore, Store, ZipStore, composed, open_store
from medic.errors import MedicError

EACH_IMAGE, BY_EYES, BY_PATHS = "image", "file names (left/right)", "paths"
"""What ``patient_source`` says where no column names the patient."""
_ARCHIVES = (".zip", ".z01", ".001", *ARCHIVES)
_SIDES = dict.fromkeys(("left", "l", "os", "og", "le", "links", "izquierdo"), "left")
_SIDES |= dict.fromkeys(("right", "r", "od", "re", "rechts", "derecho"), "right")
_EYE = rf"(?P<eye>{'|'.join(sorted(_SIDES, key=len, reverse=True))})(?:[\s_.-]?eye)?"
_NAMES_OF_EYES = (
    rf"(?P<patient>.+?)(?:[\s_.-]+|(?<=\d)){_EYE}(?:[\s_.-]*\(?\d+\)?)?",  # 5_L, 05-OD, 7R, a_R_2, a_R(2)
    rf"{_EYE}(?:[\s_.-]+|(?=\d))(?P<patient>.+)",  # L_1
    rf".+?[\s_.-]+{_EYE}[\s_.-]*(?P<patient>\d+)",  # eye_L_1, where all names begin alike
)
_PATIENT_FOLDER = re.compile(r"(?:^|/)((?:patient|pat|subject|subj|sub|case)[\s_-]?\d+|p\d{5,})(?=/)", re.IGNORECASE)


def open_images(location: str | os.PathLike) -> Store:
    """Open the images in a folder or a zip file; of a folder without images the zip files in it.

    Returns:
        The folder or the zip file itself, or a joint store of several zip files, in which the key of each is its name
        without the ending. A folder without any image is a store too: all that is listed is absent.

    Raises:
        MedicError: as ``open_store``; zip files lie inside a zip file; archives that are not read take their place.
    """
    store = open_store(location)
    packed = [name for name in store.names() if name.lower().endswith(_ARCHIVES) and not name.endswith("ubyte.gz")]
    if store.images():
        if packed:
            print(f"{', '.join(packed[:3])} beside the images of {location} is not read", file=sys.stderr)
        return store
    if packed and isinstance(store, ZipStore):
        raise MedicError(f"{location} holds archives ({packed[0]}, ...) instead of images; unpack it once, not those")
    opened = {Path(name).stem: open_images(store.location / name) for name in packed}
    archives = {key: archive for key, archive in opened.items() if archive.images()}
    return JointStore(archives) if len(archives) > 1 else next(iter(archives.values()), store)


def find_images(listed: Sequence[str], store: Store) -> list[str]:
    """Find for each listed image its name in the store; where it is absent, it keeps its listed name.

    Names are compared without endings of images and in small letters; folders in both must agree as far as both have
    them. Of several files the one that is written as listed counts, then the one in the folder that has most of the
    listed images. A match by another ending, and a choice between folders, are said on stderr.

    Raises:
        MedicError: a listed image could be two files, and neither folder has more of the listed ones.
    """
    files = defaultdict(list)
    for file in store.images():
        files[stem(file).casefold()].append(file)
    taken, several, other = {}, {}, []
    for name in dict.fromkeys(listed):
        path = composed(name.replace("\\", "/").removeprefix("./"))
        base = path.rpartition("/")[2]
        found = [file for file in files.get(stem(path).casefold(), ()) if _agree(file, path)]
        if len(found) > 1:
            alike = [file for file in found if os.path.basename(file) == base] or found
            found = [path] if path in alike else alike
        if len(found) > 1:
            several[name] = found
        taken[name] = found[0] if found else path if path in store else name
        if found and not found[0].endswith(base) and stem(base) != base:
            other.append(name)
    covered = Counter(os.path.dirname(file) for name, file in taken.items() if name not in several)
    for name, found in several.items():
        first, second = sorted(found, key=lambda file: -covered[os.path.dirname(file)])[:2]
        if covered[os.path.dirname(first)] == covered[os.path.dirname(second)]:
            places = f"{first} and {second}; name the folder or zip file that is meant (images=..., --images)"
            raise MedicError(f"{store.location} holds the image {name} at two places, {places}")
        taken[name] = first
    for names, what, why in (
        (several, "lie at several places", "is taken: its folder has more of the listed images"),
        (other, "have another ending", "is taken as the same"),
    ):
        for name in list(names)[:1]:
            such = f"such as {name}; {taken[name]} {why}"
            print(f"{len(names)} listed images {what} in {store.location.name}, {such}", file=sys.stderr)
    return [taken[name] for name in listed]


def open_folders(cells: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Give each image of a listed folder a row: MURA's table labels studies, ``patient00001/study1_positive/``."""
    if not cells["image"].str.endswith("/").any():
        return cells
    inside = defaultdict(list)
    for file in store.images():
        inside[os.path.basename(os.path.dirname(file)).casefold()].append(file)

    def images(name: str) -> list[str] | str:
        files = inside[os.path.basename(name[:-1]).casefold()] if name.endswith("/") else []
        return [file for file in files if _agree(file, composed(name))] or name

    return cells.assign(image=cells["image"].map(images)).explode("image")


def stem(name: str) -> str:
    """Return a file's name without its folder and without the ending of an image file."""
    file = composed(name).replace("\\", "/").rpartition("/")[2]
    base, _, ending = file.rpartition(".")
    return base if base and f".{ending.lower()}" in IMAGE_SUFFIXES else file


def _agree(file: str, path: str) -> bool:
    """Whether the folders of two names are the same, from the inner to the outer, as far as both have them."""
    if "/" not in path:
        return True
    one, other = (name.casefold().split("/")[-2::-1] for name in (file, path))
    return all(map(str.__eq__, one, other))


def is_patient_folder(name: str) -> bool:
    """Return whether a folder is called as a patient's: ``patient00012``, ``subject_7``, ``p10000032``."""
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
        several = sides.groupby(table["patient"]).nunique()
        if sides.notna().all() and len(several) > 1 and several.max() == 2:
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
