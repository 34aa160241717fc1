"""A person's own images, sorted into one folder a class."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pandas as pd

from medic.data.classes import with_codes
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
    source: str | os.PathLike, images: str | os.PathLike | None = None, task: Task | None = None
) -> tuple[pd.DataFrame, Store]:
    """Read folders whose names are the classes: ``cat/1.jpeg``, ``dog/2.jpeg``, in a folder or inside a zip file.

    The class folders may lie below ``train``, ``validation`` (``val``, ``valid``) and ``test``; a split that is there
    is kept, and without such folders all images come as ``train``. One folder around everything does not matter, nor
    do folders within a class.

    Folders do not tell whose images they are: each image counts as a patient of its own. Where several images show one
    patient, use a table with a patient column (``medic.data.readers.table``), or the splits mix patients.

    Args:
        source: the folder or zip file.
        images: the same, for whoever calls all readers alike; when given it is read instead of ``source``.
        task: whose classes the folders are; by default the classes are the folders' names, sorted.

    Returns:
        Records with the columns ``image``, ``patient`` (the same), ``split``, ``label`` (class code) and ``class``
        (the folder's name); and the store.

    Raises:
        MedicError: no images, images outside class folders, split folders beside others, one class only, or a class
            that does not fit the task.
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
    loose = [name for name, parts in zip(names, inside, strict=True) if len(parts) < 2]
    if loose:
        raise MedicError(
            f"{len(loose)} of {len(names)} images in {store.location} lie in no class folder, for instance {loose[0]}; "
            "move each into a folder named as its class, or list them in a table"
        )
    records = pd.DataFrame(
        {"image": names, "patient": names, "split": splits or "train", "class": [parts[0] for parts in inside]}
    )
    return with_codes(records, task, store.location), store


def _is_litter(name: str) -> bool:
    """What macOS and editors leave in archives: ``__MACOSX/._1.jpeg`` ends as images do and is none."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _without_outer_folder(inside: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Names without the folders that are around all of them, as long as each still lies in a folder."""
    while len({parts[0] for parts in inside}) == 1 and min(map(len, inside)) > 2 and not _is_split(inside[0]):
        inside = [parts[1:] for parts in inside]
    return inside


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
