"""Where image bytes come from: a folder, a zip file, several of them, or IDX files; read by name, never unpacked."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from medic.data.stores.archive import ZipStore
from medic.data.stores.folder import IMAGE_SUFFIXES, FolderStore, Store, is_image_name
from medic.data.stores.idx import IdxStore, find_file
from medic.errors import MedicError

SYNTHETIC_MARK = "SYNTHETIC.md"
"""A set of generated images holds a file of this name, which says how they were made."""
# What people name as data and is neither folder nor zip file.
_OTHERS = {
    (".xlsx", ".xls", ".ods", ".numbers"): "is a spreadsheet; save it as CSV, and name the CSV file",
    (".tar", ".tgz", ".gz", ".xz", ".7z", ".rar"): "is an archive that is not read; unpack it, and name the folder",
    (".z01", ".z02", ".001"): "is one part of a split archive; unpack all its parts together, and name the folder",
    IMAGE_SUFFIXES: "is a single image; name the folder that holds all images",
}


class JointStore(Store):
    """Several ``stores`` by key as one: a name is the key, a slash, and the name in that store."""

    def __init__(self, stores: Mapping[str, Store]):
        self.stores = dict(stores)
        self.location = Path(" + ".join(store.location.name or "." for store in stores.values()))

    def __getstate__(self) -> dict:
        return {"stores": self.stores, "location": self.location}

    def _list(self) -> dict[str, tuple[Store, Any]]:
        listed = ((key, store, *item) for key, store in self.stores.items() for item in store._listed.items())
        return {f"{key}/{name}": (store, entry) for key, store, name, entry in listed}

    def _open(self, entry: tuple[Store, Any]) -> AbstractContextManager[IO[bytes]]:
        return entry[0]._open(entry[1])

    def _size(self, entry: tuple[Store, Any]) -> int:
        return entry[0]._size(entry[1])


def open_store(location: str | os.PathLike) -> Store:
    """Open a folder or a zip file; a folder with images only inside IDX files, as MNIST, becomes an ``IdxStore``.

    Raises:
        MedicError: nothing is there, it is neither folder nor zip file, or the archive cannot be read in place.
    """
    path = Path(location)
    if path.is_dir():
        folder, packed = FolderStore(path), find_file(path, "train", "images") or find_file(path, "test", "images")
        return IdxStore(path) if packed and not any(map(is_image_name, folder.names())) else folder
    if not path.exists():
        raise MedicError(f"there is no folder or zip file {path}; correct the path")
    for endings, advice in _OTHERS.items():
        if path.name.lower().endswith(endings):
            raise MedicError(f"{path} {advice}")
    return ZipStore(path)


def location_from(folder: Path, store: Store) -> str | dict[str, str]:
    """Return where a store lies as seen from a folder, for JSON: a relative path, or one by key for a joint store."""
    if isinstance(store, JointStore):
        return {key: location_from(folder, part) for key, part in store.stores.items()}
    return Path(os.path.relpath(store.location, folder)).as_posix()


def open_from(folder: Path, location: str | dict[str, str]) -> Store:
    """Open what ``location_from`` described, wherever both were moved to together; raises as ``open_store``."""
    if isinstance(location, dict):
        return JointStore({key: open_from(folder, path) for key, path in location.items()})
    return open_store(os.path.normpath(folder / location))


def is_synthetic(store: Store) -> bool:
    """Return whether the images are generated: the store holds ``SYNTHETIC.md``."""
    return any(name.rpartition("/")[2] == SYNTHETIC_MARK for name in store.names())
