"""Images sorted into folders that are named as their classes: ``cat/1.jpeg``, ``dog/2.jpeg``.

The class folders may lie below ``train``, ``validation`` (``val``, ``valid``) and ``test``; a split that is there is
kept. One folder around everything does not matter, nor do folders within a class, unless they are called like classes.
Patients are told apart by folders such as ``patient0012`` within a class or by file names such as ``5_L`` and ``5_R``;
otherwise each image counts as a patient.
"""

from collections import Counter

import pandas as pd

from medic.data.readers.listing import known
from medic.data.readers.patients import EACH_IMAGE, is_patient_folder, patients_of
from medic.data.stores import Store
from medic.errors import MedicError


def are_there(store: Store) -> bool:
    """Whether all images lie in class folders, two at least; folders of patients are none."""
    inside = [parts[1:] if _split(parts) else parts for parts in _without_outer_folders(store)]
    classes = {parts[0] for parts in inside}
    return len(classes) > 1 and min(map(len, inside)) > 1 and not any(map(is_patient_folder, classes))


def records_of(store: Store, level: int | None = None) -> pd.DataFrame:
    """Make records without codes: ``image``, ``patient``, ``patient_source``, ``split`` and ``class`` of each image.

    Args:
        store: with at least one image.
        level: which level of folders, from 1, names the class, below folders of splits and those around everything:
            2 for ``clinic a/cat/1.jpeg``. None takes the first, as long as no other can be meant.

    Raises:
        MedicError: images outside class folders or splits, or several folders that could be the class.
    """
    names, inside, place = store.images(), _without_outer_folders(store), 0 if level is None else level - 1
    splits = [_split(parts) for parts in inside]
    if any(splits):
        if None in splits:
            outside = "/".join(inside[splits.index(None)])
            raise MedicError(f"{store.location} has split folders beside {outside}; put all classes below one, or none")
        inside = [parts[1:] for parts in inside]
    loose = [name for name, parts in zip(names, inside, strict=True) if not 0 <= place < len(parts) - 1]
    if loose:
        some = f"{len(loose)} of {len(names)} images in {store.location} lie in no class folder at level {place + 1}"
        raise MedicError(f"{some}, such as {loose[0]}; move them, name another --level, or list them in a table")
    if level is None:
        _refuse_nested(inside, store)
    below = ["/".join(parts[:place] + parts[place + 1 :]) for parts in inside]
    patients, told_by = patients_of(names, below) or (names, EACH_IMAGE)
    records = pd.DataFrame({"image": names, "patient": patients, "patient_source": told_by})
    return records.assign(split=splits if any(splits) else "train", **{"class": [parts[place] for parts in inside]})


def _without_outer_folders(store: Store) -> list[list[str]]:
    """The parts of each name without the folders that are around all images."""
    inside = [name.split("/") for name in store.images()]
    while inside and len({p[0] for p in inside}) == 1 and min(map(len, inside)) > 2 and not _split(inside[0]):
        inside = [parts[1:] for parts in inside]
    return inside


def _split(parts: list[str]) -> str | None:
    return known()["splits"].get(parts[0].lower()) if len(parts) > 1 else None


def _refuse_nested(inside: list[list[str]], store: Store) -> None:
    """Folders within class folders that may be the classes themselves: which label is meant is not ours to guess."""
    classes = {parts[0].casefold() for parts in inside}
    for parts in inside:
        if twice := [part for part in parts[1:-1] if part.casefold() in classes - {parts[0].casefold()}]:
            what = f"lies in the folders of two classes, {parts[0]} and {twice[0]}; move it"
            raise MedicError(f"{'/'.join(parts)} in {store.location} {what}")
    # cat and dog within clinic a and clinic b may be the classes. The same one alone within each (images) is none, and
    # where an image lies beside them they cannot be.
    places = Counter(name for _, name in {(parts[0], parts[1] if len(parts) > 2 else "") for parts in inside})
    shared = sorted(name for name, count in places.items() if count > 1 and not is_patient_folder(name))
    if len(shared) > 1 and "" not in places:
        outer = ", ".join(sorted({parts[0] for parts in inside})[:3])
        what = f"has {', '.join(shared[:3])} within several of {outer}: which are the classes?"
        raise MedicError(f"{store.location} {what} Say level=1 for the outer, 2 for the inner ones (--level)")
