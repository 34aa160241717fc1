"""A folder as a store, and what all stores share: files by name, some of them images; read one by one, in place."""

import os
import socket
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from medic.errors import ImageError, MedicError
from medic.files import write_text

NOT_READ = (".gif", ".webp", ".heic", ".heif", ".avif", ".jp2")
"""Endings of pictures in formats that are not read, such as the HEIC of telephones. They are listed, to be refused."""
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", *NOT_READ)
PRODUCT_MARK = ".medic-product"
"""A folder that medic wrote holds a file of this name (``mark_product``): below a data folder, it is passed over."""


class Store:
    """Files by name, with forward slashes and composed accents; a pickled store opens its location again.

    Attributes:
        location: the folder or file; for several together, what messages call them.
    """

    location: Path

    def __getstate__(self) -> dict:
        return {"location": self.location.absolute()}

    def __contains__(self, name: str) -> bool:
        return composed(name) in self._listed

    @cached_property
    def _listed(self) -> Mapping[str, Any]:
        return self._list()  # what stands for each name: ``_open`` gives its bytes, ``_size`` their number

    def names(self) -> list[str]:
        """Return all names, sorted; hidden files and what macOS leaves in archives are left out."""
        return sorted(self._listed)

    def images(self) -> list[str]:
        """Return the names of images, sorted: those that end so, and DICOM files by content, however they end."""
        return list(self._images)

    @cached_property
    def _images(self) -> list[str]:
        return [name for name in self.names() if name.lower().endswith(IMAGE_SUFFIXES) or self._is_dicom(name)]

    def _is_dicom(self, name: str) -> bool:
        from medic.data.images.decode import is_dicom  # for most stores it is not needed

        try:
            return name.rpartition("/")[2].upper() != "DICOMDIR" and is_dicom(self.read(name, 132))
        except ImageError:
            return False

    def read(self, name: str, count: int = -1) -> bytes:
        """Return the bytes of one file, all or the first ``count``.

        Raises:
            ImageError: there is no such file, or it cannot be read, is damaged or encrypted.
        """
        with self._entry(name) as entry, self._open(entry) as file:
            return file.read(count)

    def size(self, name: str) -> int:
        """Return how many bytes a file has, without reading it; raises as ``read``."""
        with self._entry(name) as entry:
            return self._size(entry)

    @contextmanager
    def _entry(self, name: str) -> Iterator[Any]:
        try:
            yield self._listed[composed(name)]
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            why = "no such file" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
            said = f"cannot read {name} in {self.location} ({why}); see that it is whole, may be read, has no password"
            raise ImageError(said, "unreadable") from error


class FolderStore(Store):
    """Files under a folder; a name is the path below it. Links are followed.

    Raises:
        MedicError: there is no such folder; said when its files are first asked for.
    """

    def __init__(self, location: Path):
        self.location = location

    def _list(self) -> dict[str, Path]:
        if not self.location.is_dir():
            host = socket.gethostname()
            raise MedicError(f"{host} does not see {self.location}; give a folder that all workers share at one place")
        # A name that is no UTF-8 text can be read, but not be written to any table.
        files = ((os.fsencode(file).decode(errors="replace"), file) for file in _files_below(str(self.location)))
        return {composed(name): self.location / file for name, file in files}

    def _open(self, entry: Path) -> IO[bytes]:
        return open(entry, "rb")

    def _size(self, entry: Path) -> int:
        return entry.stat().st_size


def _files_below(root: str) -> Iterator[str]:
    """Paths below a folder. Links to folders come last and each folder once: links that lead in a circle end there."""
    seen, tops = set(), [root]
    for top in tops:
        for folder, below, files in os.walk(top):
            real, inside = os.path.realpath(folder), os.path.relpath(folder, root)
            if real in seen or (inside != "." and PRODUCT_MARK in files):
                below.clear()
                continue
            seen.add(real)
            below[:] = [name for name in below if not is_litter(f"{name}/")]
            tops += [path for name in below if os.path.islink(path := os.path.join(folder, name))]
            yield from (os.path.normpath(f"{inside}/{name}") for name in files if not is_litter(name))


def mark_product(folder: str | os.PathLike) -> None:
    """Make a folder known as one that medic wrote: its tables are no labels and its images no originals."""
    write_text(Path(folder) / PRODUCT_MARK, "medic wrote this folder: nothing in it is read as data\n")


def is_image_name(name: str) -> bool:
    """Return whether a name ends as image files do, in upper or lower case, and is no litter."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_litter(name)


def is_litter(name: str) -> bool:
    """Return whether a name is hidden or what macOS adds to archives: ``__MACOSX/._1.jpeg`` is no image."""
    return name.startswith((".", "__MACOSX/")) or "/." in name or "/__MACOSX/" in name


def composed(name: str) -> str:
    """Return a name with accented letters as one character each: files from a Mac have two, tables one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
