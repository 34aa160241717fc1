"""Images sorted into folders that are named as their classes: ``cat/1.jpeg``, ``dog/2.jpeg``.

The class folders may lie below ``train``, ``validation`` (``val``, ``valid``) and ``test``; a split that is there is
kept. One folder around everything does not matter, nor do folders within a class, unless they are called like classes.
Patients are told apart by folders such as ``patient0012`` within a class or by file names such as ``5_L`` and ``5_R``;
otherwise each image counts as a patient.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import pandas as pd

from medic.data.readers.headers import known
from medic.data.readers.patients import EACH_IMAGE, is_patient_folder, patients_of
from medic.data.stores import Store
from medic.errors import MedicError


def are_there(store: Store) -> bool:
    """Whether all images lie in class folders, two at least; folders of patients are none."""
    inside = _without_outer_folder([PurePosixPath(name).parts for name in store.images()])
    classes = {parts[1 if _is_split(parts) else 0] for parts in inside if len(parts) > 1 + _is_split(parts)}
    return len(classes) > 1 and all(len(p) > 1 for p in inside) and not any(map(is_patient_folder, classes))


def records_of(store: Store, level: int | None = None) -> pd.DataFrame:
    """Records without codes: ``image``, ``patient``, ``patient_source``, ``split`` and ``class`` of each image.

    Args:
        store: with at least one image.
        level: which level of folders, from 1, names the class, below folders of splits and those around everything:
            2 for ``clinic a/cat/1.jpeg``. None takes the first, as long as no other can be meant.

    Raises:
        MedicError: images outside class folders, split folders beside others, one class within another, or two levels
            that could be meant.
    """
    names = store.images()
    inside = _without_outer_folder([PurePosixPath(name).parts for name in names])
    splits = _splits(inside, store)
    if splits is not None:
        inside = [parts[1:] for parts in inside]
    place = (1 if level is None else level) - 1
    if place < 0:
        raise MedicError(f"level={level} names no level of folders; the outermost is 1, the one within it 2")
    loose = [name for name, parts in zip(names, inside, strict=True) if len(parts) < place + 2]
    if loose and place:
        raise MedicError(
            f"{len(loose)} of {len(names)} images in {store.location} have no folder at level {level}, for instance "
            f"{loose[0]}; folders of splits and those around everything do not count: name another level"
        )
    if loose:
        sheets = [name for name in store.names() if name.lower().endswith((".xlsx", ".xls", ".ods"))]
        listed = f"save {sheets[0]} as CSV, if it lists them" if sheets else "list them in a table"
        raise MedicError(
            f"{len(loose)} of {len(names)} images in {store.location} lie in no class folder, for instance {loose[0]}; "
            f"move each into a folder named as its class, or {listed}"
        )
    if level is None:
        _refuse_nested(names, inside, store)
    below = ["/".join(parts[:place] + parts[place + 1 :]) for parts in inside]
    patients, told_by = patients_of(names, below) or (names, EACH_IMAGE)
    return pd.DataFrame(
        {
            "image": names,
            "patient": patients,
            "patient_source": told_by,
            "split": splits or "train",
            "class": [parts[place] for parts in inside],
        }
    )


def _without_outer_folder(inside: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Names without the folders that are around all of them, as long as each still lies in a folder."""
    while inside and len({p[0] for p in inside}) == 1 and min(map(len, inside)) > 2 and not _is_split(inside[0]):
        inside = [parts[1:] for parts in inside]
    return inside


def _refuse_nested(names: list[str], inside: list[tuple[str, ...]], store: Store) -> None:
    """Folders within class folders that look like classes themselves: which label is meant is not ours to guess."""
    classes = {parts[0].casefold() for parts in inside}
    within: dict[str, set[str]] = {parts[0]: set() for parts in inside}
    for name, parts in zip(names, inside, strict=True):
        other = next((part for part in parts[1:-1] if part.casefold() in classes - {parts[0].casefold()}), None)
        if other is not None:
            raise MedicError(
                f"{name} in {store.location} lies in the folders of two classes, {parts[0]} and {other}; move it to "
                "one of them"
            )
        within[parts[0]] |= set(parts[1:2]) if len(parts) > 2 else {""}
    # Folders within several others, as cat and dog within clinic a and clinic b, may be the classes. The same one
    # alone within each (images) is none, and where an image lies beside them they cannot be.
    places = Counter(name for folders in within.values() for name in folders)
    shared = sorted(name for name, count in places.items() if count > 1 and not is_patient_folder(name))
    if len(shared) > 1 and "" not in places:
        raise MedicError(
            f"{store.location} has the folders {', '.join(shared[:3])} within several of {', '.join(within)}: which "
            "are the classes? Say level=1 for the outer, level=2 for the inner ones (on the command line: --level)"
        )


def _is_split(parts: tuple[str, ...]) -> bool:
    return len(parts) > 1 and parts[0].lower() in known()["splits"]


def _splits(inside: list[tuple[str, ...]], store: Store) -> list[str] | None:
    """The split of each image by its folder; None where there are no such folders."""
    within = [parts for parts in inside if _is_split(parts)]
    if not within:
        return None
    if len(within) < len(inside):
        outside = next(parts for parts in inside if not _is_split(parts))
        raise MedicError(
            f"{store.location} has the split folder {within[0][0]} beside {'/'.join(outside)}; put every class folder "
            "below a split, or none (a class called like a split needs another name)"
        )
    return [known()["splits"][parts[0].lower()] for parts in inside]
