"""A person's own images, sorted into one folder a class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePosixPath

import pandas as pd

from medic.data.corrections import corrected
from medic.data.records import task_of, with_codes, without_gaps
from medic.data.stores import Store, is_image_name, open_store
from medic.errors import MedicError
from medic.task import Task

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
"""What the folders of splits are called, in any case, and the split they stand for."""


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    task: Task | None = None,
    level: int | None = None,
) -> tuple[pd.DataFrame, Store]:
    """Read folders whose names are the classes: ``cat/1.jpeg``, ``dog/2.jpeg``, in a folder or inside a zip file.

    The class folders may lie below ``train``, ``validation`` (``val``, ``valid``) and ``test``; a split that is there
    is kept, and without such folders all images come as ``train``. One folder around everything does not matter, nor
    do folders within a class, unless they are called like classes.

    Folders do not tell whose images they are: each image counts as a patient of its own. Where several images show one
    patient, use a table with a patient column (``medic.data.readers.table``), or the splits mix patients.

    Args:
        source: the folder or zip file.
        images: the same, for whoever calls all readers alike; when given it is read instead of ``source``.
        task: whose classes the folders are; by default the classes are the folders' names, sorted.
        level: which level of folders, from 1, names the class, below folders of splits and those around everything:
            2 for ``clinic a/cat/1.jpeg``, ``clinic b/cat/2.jpeg``. None takes the first, as long as no other can be
            meant.

    Returns:
        Records with the columns ``image``, ``patient`` (the same), ``split``, ``label`` (class code) and ``class``
        (the folder's name); and the store.

    Raises:
        MedicError: no images, images outside class folders, split folders beside others, one class within another,
            two levels that could be meant, one class only, or a class that does not fit the task.
    """
    store = open_store(source if images is None else images)
    names = [name for name in store.names() if is_image_name(name) and not _is_litter(name)]
    if not names:
        raise MedicError(
            f"{store.location} holds no images (.jpeg, .png, .tif, .bmp, ...); name a folder with one folder a class"
        )
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
        raise MedicError(
            f"{len(loose)} of {len(names)} images in {store.location} lie in no class folder, for instance {loose[0]}; "
            "move each into a folder named as its class, or list them in a table"
        )
    classes = [parts[place] for parts in inside]
    if level is None:
        _refuse_nested(names, inside, store)
    records = pd.DataFrame({"image": names, "patient": names, "split": splits or "train", "class": classes})
    labelled = with_codes(records, task, store.location)
    listed = task or task_of(labelled, "own")
    given = corrected(labelled, store, listed)
    return (given if task else without_gaps(given, listed)), store


def _is_litter(name: str) -> bool:
    """What macOS and editors leave in archives: ``__MACOSX/._1.jpeg`` ends as images do and is none."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _without_outer_folder(inside: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Names without the folders that are around all of them, as long as each still lies in a folder."""
    while len({parts[0] for parts in inside}) == 1 and min(map(len, inside)) > 2 and not _is_split(inside[0]):
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
    shared = sorted(name for name, count in places.items() if count > 1)
    if len(shared) > 1 and "" not in places:
        raise MedicError(
            f"{store.location} has the folders {', '.join(shared[:3])} within several of {', '.join(within)}: which "
            "are the classes? Say level=1 for the outer, level=2 for the inner ones (on the command line: --level)"
        )


def _is_split(parts: tuple[str, ...]) -> bool:
    return len(parts) > 1 and parts[0].lower() in SPLIT_FOLDERS


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
    return [SPLIT_FOLDERS[parts[0].lower()] for parts in inside]
