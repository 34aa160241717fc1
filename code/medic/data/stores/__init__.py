"""Where image bytes come from: a folder, a zip file, several of them, or IDX files; read by name, never unpacked."""

import glob
import io
import os
import re
import socket
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import IO

import numpy as np

from medic.data.stores import idx
from medic.errors import ImageError, MedicError
from medic.files import write_text

SYNTHETIC_MARK = "SYNTHETIC.md"  # a set of generated images holds a file of this name, which says how they were made
PRODUCT_MARK = ".medic-product"
"""A folder that medic wrote holds a file of this name (``mark_product``): below a data folder, it is passed over."""
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
# Not read, but listed, to be refused: otherwise a class of such images is missing, and nothing says so.
IMAGE_SUFFIXES += (".gif", ".webp", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".nii", ".svs", ".ndpi")
IMAGE_SUFFIXES += (".dng", ".cr2", ".cr3", ".nef", ".arw")
ARCHIVES = (".tar", ".tgz", ".gz", ".tbz", ".tbz2", ".bz2", ".txz", ".xz", ".tzst", ".zst", ".7z", ".rar")  # not read
_LITTER = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"}

_PART = "is one part of a split archive; unpack all its parts together, and name the folder"
# What people name as data and is neither folder nor zip file.
_OTHERS = {
    (".xlsx", ".xls", ".ods", ".numbers"): "is a spreadsheet; save it as CSV, and name the CSV file",
    ARCHIVES: "is an archive that is not read; unpack it, and name the folder",
    (".z01", ".z02", ".001"): _PART,
    IMAGE_SUFFIXES: "is a single image; name the folder that holds all images",
}
_UTF8 = 0x800  # of a member's general purpose flags: PKWARE APPNOTE 6.3.10, 4.4.4
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Store:
    """Files by name, with forward slashes and composed accents; a pickled store opens its location again.

    Attributes:
        location: the folder or file; for several together, what messages call them.
    """

    def __init__(self, location: Path):
        self.location = location

    def __getstate__(self) -> dict:
        return {"location": self.location.absolute()}

    def __contains__(self, name: str) -> bool:
        return composed(name) in self._listed

    @cached_property
    def _listed(self) -> Mapping[str, Callable[[], IO[bytes]]]:
        found = dict(listed := [*self._list()])  # by each name what opens the file
        if len(found) < len(listed):
            twice = next(name for name, count in Counter(name for name, _ in listed).items() if count > 1)
            said = f"{len(listed) - len(found)} files whose names others have, such as {twice}"
            raise MedicError(f"{self.location} holds {said}; rename or remove them")
        return found

    def names(self) -> list[str]:
        """Return all names, sorted; hidden files and what systems leave in folders and archives are left out."""
        return sorted(self._listed)

    def images(self) -> list[str]:
        """Return the names of images, sorted: those that end so, and DICOM files by content, however they end."""
        return list(self._images)

    @cached_property
    def _images(self) -> list[str]:
        return [name for name in self.names() if name.lower().endswith(IMAGE_SUFFIXES) or self._is_dicom(name)]

    def _is_dicom(self, name: str) -> bool:
        from medic.data.images.decode import is_dicom  # for most stores it is not needed

        with suppress(ImageError):
            return name.rpartition("/")[2].upper() != "DICOMDIR" and is_dicom(self.read(name, 132))
        return False

    def read(self, name: str, count: int = -1) -> bytes:
        """Return the bytes of one file, all or the first ``count``.

        Raises:
            ImageError: there is no such file, or it cannot be read or is damaged.
        """
        try:
            with self._listed[composed(name)]() as file:
                return file.read(count)
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            why = "no such file" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
            said = f"cannot read {name} in {self.location} ({why}); see that it is whole and may be read"
            raise ImageError(said, "unreadable") from error


class FolderStore(Store):
    """Files under a folder; a name is the path below it. Links are followed.

    In a folder whose images are all inside MNIST's IDX files, each is a PNG file such as ``train/00042.png``; all of
    them are held in memory (55 MB for MNIST).

    Raises:
        MedicError: there is no such folder, or its IDX files hold no images; said when its files are first asked for.
    """

    def _list(self) -> list[tuple[str, Callable[[], IO[bytes]]]]:
        if not self.location.is_dir():
            host = socket.gethostname()
            raise MedicError(f"{host} does not see {self.location}; give a folder that all workers share at one place")
        # A name that is no UTF-8 text can be read, but not be written to any table.
        files = ((os.fsencode(file).decode(errors="replace"), file) for file in _files_below(str(self.location)))
        found = [(composed(name), partial(open, self.location / file, "rb")) for name, file in files]
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name, _ in found):
            return found
        inside = idx.read_images(self.location).items()
        return found + [(name, partial(_as_png, pixels)) for name, pixels in inside]


def _as_png(pixels: np.ndarray) -> IO[bytes]:
    import cv2  # opening a store should not cost the time that loading OpenCV takes

    return io.BytesIO(cv2.imencode(".png", pixels)[1])


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
            below[:] = [name for name in below if not is_litter(name)]
            tops += [path for name in below if os.path.islink(path := os.path.join(folder, name))]
            yield from (os.path.normpath(f"{inside}/{name}") for name in files if not is_litter(name))


class ZipStore(Store):
    """Members of a zip file. Threads share one handle, and each process opens its own.

    Raises:
        MedicError: it is damaged, locked, one part of several, or packed with Deflate64 or another method not read.
    """

    _opened: tuple[int, zipfile.ZipFile] | None = None

    def __init__(self, location: Path):
        super().__init__(location)
        # Of an archive in parts only the last looks like a zip file, and it lists what is in the others.
        parts = any(location.parent.glob(f"{glob.escape(location.stem)}.[zZ][0-9]*"))
        members = [] if parts else self._archive().infolist()
        if parts or any(member.volume or member.header_offset < 0 for member in members):
            raise MedicError(f"{location} {_PART}")
        if locked := sum(member.flag_bits & 1 for member in members):
            raise MedicError(f"{location} has {locked} files under a password; unpack it with that, name the folder")
        if unread := [member.compress_type for member in members if member.compress_type not in _UNPACKED]:
            how = f"{len(unread)} of {len(members)} files by method {unread[0]} (9 is Deflate64), which is not read"
            raise MedicError(f"{location} packs {how}; unpack it, and name the folder")

    def _archive(self) -> zipfile.ZipFile:
        """Open the archive, once a process. Of a file that it is given, it does not count who reads, as threads may."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), zipfile.ZipFile(self.location.open("rb"))
            except (zipfile.BadZipFile, OSError) as error:
                what = f"is neither a folder nor a zip file that can be read ({error}); name another, or get it again"
                raise MedicError(f"{self.location} {what}") from error
        return self._opened[1]

    def _list(self) -> list[tuple[str, Callable[[], IO[bytes]]]]:
        found = [(_name(member), partial(self._open, member)) for member in self._archive().infolist()]
        return [(name, opened) for name, opened in found if not name.endswith("/") and not is_litter(name)]

    def _open(self, member: zipfile.ZipInfo) -> IO[bytes]:
        return self._archive().open(member)


def _name(member: zipfile.ZipInfo) -> str:
    """A member's name as its packer meant it: some write UTF-8 without saying so, some backslashes."""
    name = member.filename
    if not name.isascii() and not member.flag_bits & _UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return re.sub(r"^(\.{0,2}/)+", "", composed(name).replace("\\", "/"))  # some begin with ./ or /


class JointStore(Store):
    """Several ``stores`` by key as one: a name is the key, a slash, and the name in that store."""

    def __init__(self, stores: Mapping[str, Store]):
        super().__init__(Path(" + ".join(store.location.name or "." for store in stores.values())))
        self.stores = dict(stores)

    def __getstate__(self) -> dict:
        return {"stores": self.stores, "location": self.location}

    def _list(self) -> list[tuple[str, Callable[[], IO[bytes]]]]:
        parts = self.stores.items()
        return [(f"{key}/{name}", opened) for key, store in parts for name, opened in store._listed.items()]


def open_store(location: str | os.PathLike) -> Store:
    """Open a folder or a zip file.

    Raises:
        MedicError: nothing is there, it is neither folder nor zip file, or the archive cannot be read in place.
    """
    path = Path(location)
    if path.is_dir():
        return FolderStore(path)
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


def mark_product(folder: str | os.PathLike) -> None:
    """Make a folder known as one that medic wrote: its tables are no labels and its images no originals."""
    write_text(Path(folder) / PRODUCT_MARK, "medic wrote this folder: nothing in it is read as data\n")


def is_litter(name: str) -> bool:
    """Return whether a name is hidden or what systems add to folders: ``__MACOSX/._1.jpeg`` is no image."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in name.split("/"))


def composed(name: str) -> str:
    """Return a name with accented letters as one character each: files from a Mac have two, tables one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
