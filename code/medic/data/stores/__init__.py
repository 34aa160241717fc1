"""Where image bytes come from: a folder, a zip file, several of them, or IDX files; read by name, never unpacked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from medic.data.stores.archive import ZipStore
from medic.data.stores.folder import (
    IMAGE_SUFFIXES,
    MAX_BYTES,
    NOT_READ,
    PRODUCT_MARK,
    FolderStore,
    Listed,
    composed,
    is_image_name,
    is_litter,
    mark_product,
)
from medic.data.stores.idx import IdxStore, holds_idx_images
from medic.errors import MedicError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "NOT_READ",
    "PRODUCT_MARK",
    "FolderStore",
    "IdxStore",
    "JointStore",
    "Store",
    "ZipStore",
    "composed",
    "is_image_name",
    "is_litter",
    "is_synthetic",
    "location_from",
    "mark_product",
    "open_from",
    "open_store",
]

SYNTHETIC_MARK = "SYNTHETIC.md"
"""A set of generated images holds a file of this name, which says how they were made."""
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What people name as data and is neither folder nor zip file: by ending, what it is and what to do.
_OTHERS = {
    TARS: "is a tar archive, from which single images cannot be read; unpack it once (tar -xf) and name the folder",
    (".xlsx", ".xls", ".ods", ".numbers"): "is a spreadsheet; save it as CSV, and name the CSV file",
    (".7z", ".rar", ".gz"): "is an archive that is not read; unpack it, and name the folder",
    (".z01", ".z02", ".001"): "is one part of a split archive; unpack all its parts together, and name the folder",
    IMAGE_SUFFIXES: "is a single image; name the folder that holds all images",
}


class JointStore(Listed):
    """Several stores as one: a name is the key of a store, a slash, and the name in that store.

    Attributes:
        stores: by key, in the order given.
        location: what messages call it, such as ``main.zip + extra.zip``; no path that could be opened.
    """

    def __init__(self, stores: Mapping[str, Store]):
        unfit = [key for key in stores if not key or "/" in key]
        if unfit or not stores:
            raise MedicError(f"a joint store needs stores by keys without a slash, not {unfit or 'none'}; name each")
        self.stores = dict(stores)
        self.location = Path(" + ".join(store.location.name or "." for store in stores.values()))

    def __getstate__(self) -> dict:
        return {"stores": self.stores, "location": self.location}

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(f"{key}/{name}" for key, store in self.stores.items() for name in store.names())

    @cached_property
    def _images(self) -> list[str]:
        return sorted(f"{key}/{name}" for key, store in self.stores.items() for name in store.images())

    def __contains__(self, name: str) -> bool:
        key, _, inside = name.partition("/")
        return key in self.stores and inside in self.stores[key]

    def read(self, name: str) -> bytes:
        """The bytes of one image; raises as the store that holds it."""
        store, inside = self._part(name)
        return store.read(inside)

    def fingerprint(self, name: str) -> str:
        """Changes when the image does, as told by the store that holds it."""
        store, inside = self._part(name)
        return store.fingerprint(inside)

    def size(self, name: str) -> int:
        """Bytes of one image."""
        store, inside = self._part(name)
        return store.size(inside)

    def checksum(self, name: str) -> int:
        """CRC-32 of one image's bytes, comparable between the stores."""
        store, inside = self._part(name)
        return store.checksum(inside)

    def _part(self, name: str) -> tuple[Store, str]:
        key, _, inside = name.partition("/")
        if key not in self.stores:
            raise MedicError(f"the name {name!r} begins with none of the keys {', '.join(self.stores)}; correct it")
        return self.stores[key], inside


Store: TypeAlias = FolderStore | ZipStore | JointStore | IdxStore


def open_store(location: str | os.PathLike | Mapping[str, str | os.PathLike]) -> Store:
    """Open a folder, a zip file, or several of them by key as one ``JointStore``.

    A folder that holds images only inside IDX files, as MNIST is published, becomes an ``IdxStore``.

    Raises:
        MedicError: nothing is there, it is neither folder nor zip file (the message says what it is), or the archive
            cannot be read in place: damaged, one part of several, packed with Deflate64, or with unsafe names.
    """
    if isinstance(location, Mapping):
        return JointStore({key: open_store(path) for key, path in location.items()})
    path = Path(location)
    if path.is_dir():
        return IdxStore(path) if holds_idx_images(path) else FolderStore(path)
    if not path.exists():
        raise MedicError(f"there is no folder or zip file {path}; correct the path")
    for endings, advice in _OTHERS.items():
        if path.name.lower().endswith(endings):
            raise MedicError(f"{path} {advice}")
    return ZipStore(path)


def location_from(folder: Path, store: Store) -> str | dict[str, str]:
    """Where a store lies as seen from a folder, for JSON: a relative path, or one by key for a joint store."""
    if isinstance(store, JointStore):
        return {key: location_from(folder, part) for key, part in store.stores.items()}
    return Path(os.path.relpath(store.location, folder)).as_posix()


def open_from(folder: Path, location: str | dict[str, str]) -> Store:
    """Open the store that ``location_from`` described, from wherever the two have been moved to together.

    Raises:
        MedicError: as ``open_store``.
    """
    if isinstance(location, dict):
        return JointStore({key: open_from(folder, path) for key, path in location.items()})
    return open_store(Path(os.path.normpath(folder / location)))


def is_synthetic(store: Store) -> bool:
    """Whether the images are generated: the store holds ``SYNTHETIC.md``."""
    return any(name.rpartition("/")[2] == SYNTHETIC_MARK for name in store.names())
