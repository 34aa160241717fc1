"""The images that a table lists, found in their store: with or without folder and ending, wherever they lie."""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medic.data.stores import IdxStore, JointStore, Store, ZipStore, open_store
from medic.data.stores.folder import IMAGE_SUFFIXES, composed, is_image_name
from medic.errors import MedicError

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".z01", ".001")


def open_images(location: str | os.PathLike) -> Store:
    """Open the images in a folder or a zip file; of a folder without images the zip files in it.

    Returns:
        The folder or the zip file itself, or a joint store of several zip files, in which the key of each is its name
        without the ending. A folder without any image is a store too: all that is listed is absent.

    Raises:
        MedicError: as ``open_store``; zip files lie inside a zip file; archives that are not read take their place.
    """
    store = open_store(location)
    packed = [name for name in store.names() if name.lower().endswith(_ARCHIVES)]
    if store.images():
        if packed and not isinstance(store, IdxStore):
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
        if found and not found[0].endswith(base) and is_image_name(base):
            other.append(name)
    if several:
        covered = Counter(os.path.dirname(file) for name, file in taken.items() if name not in several)
        for name, found in several.items():
            first, second = sorted(found, key=lambda file: -covered[os.path.dirname(file)])[:2]
            if covered[os.path.dirname(first)] == covered[os.path.dirname(second)]:
                places = f"{first} and {second}; name the folder or zip file that is meant (images=..., --images)"
                raise MedicError(f"{store.location} holds the image {name} at two places, {places}")
            taken[name] = first
        such = f"{first} and such are taken: their folder has more of the listed images"
        print(f"{len(several)} listed images lie at several places in {store.location.name}; {such}", file=sys.stderr)
    if other:
        such = f"such as {taken[other[0]]} for {other[0]}; they are taken as the same"
        print(f"{len(other)} listed images have another ending in {store.location.name}, {such}", file=sys.stderr)
    return [taken[name] for name in listed]


def open_folders(cells: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Give each image of a listed folder a row: MURA's table labels studies, ``patient00001/study1_positive/``."""
    folders = cells["image"].str.endswith("/")
    if not folders.any():
        return cells
    inside = defaultdict(list)
    for file in store.images():
        inside[os.path.basename(os.path.dirname(file)).casefold()].append(file)
    names = [
        [file for file in inside[os.path.basename(name[:-1]).casefold()] if _agree(file, composed(name))] or name
        if folder
        else name
        for name, folder in zip(cells["image"], folders, strict=True)
    ]
    return cells.assign(image=names).explode("image")


def stem(name: str) -> str:
    """Return a file's name without its folder and without the ending of an image file."""
    file = composed(name).replace("\\", "/").rpartition("/")[2]
    base, _, ending = file.rpartition(".")
    return base if base and f".{ending.lower()}" in IMAGE_SUFFIXES else file


def _agree(file: str, path: str) -> bool:
    """Whether the folders of two names are the same, from the inner to the outer, as far as both have them."""
    if "/" not in file or "/" not in path:
        return True
    one, other = (name.casefold().split("/")[-2::-1] for name in (file, path))
    return all(map(str.__eq__, one, other))
