"""Where image bytes come from: a folder, a zip file or several of them, read by name, never unpacked."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from medic.errors import ImageError, MedicError

if TYPE_CHECKING:
    from medic.data.idx_store import IdxStore

NOT_READ = (".gif", ".webp", ".heic", ".heif", ".avif", ".jp2")
"""Endings of pictures in formats that are not read, such as the HEIC of telephones."""
# They are listed all the same: an image that is refused by name is seen, one passed over is not. Browsers save JPEG
# files as .jfif.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", *NOT_READ)
MAX_BYTES = 256 * 1024**2
"""No single image file is larger; one that claims more is refused before it is read."""

_ENCRYPTED = 0x1  # bit 0 of a member's general purpose flags: PKWARE APPNOTE 6.3.10, 4.4.4


def is_image_name(name: str) -> bool:
    """Whether a name ends as image files do, in upper or lower case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


class FolderStore:
    """Files under a folder; a name is the path below it, with forward slashes."""

    def __init__(self, location: Path):
        self.location = location

    @cached_property
    def _listed(self) -> dict[str, None]:
        found = []
        for folder, folders, files in os.walk(self.location):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(folder).relative_to(self.location)
            found += [(inside / file).as_posix() for file in files if not file.startswith(".")]
        try:
            "".join(found).encode()
        except UnicodeEncodeError:
            # Such a name could be read, but not be written to any table.
            unfit = [name for name in found if is_image_name(name) and not _is_text(name)]
            if unfit:
                raise MedicError(
                    f"{len(unfit)} images in {self.location} have names that are no UTF-8 text, for instance "
                    f"{unfit[0]!r}; rename them"
                ) from None
        return dict.fromkeys(sorted(found))

    def names(self) -> list[str]:
        """All names, sorted; hidden files and folders are left out.

        Raises:
            MedicError: the name of an image is no UTF-8 text.
        """
        return list(self._listed)

    def __contains__(self, name: str) -> bool:
        return name in self._listed

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            MedicError: the name leads out of the folder.
            ImageError: it is not in the folder, cannot be read, or is too large.
        """
        path = self._path(name)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise _too_large(name, path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise _cannot_read(name, self.location, error) from error

    def fingerprint(self, name: str) -> str:
        """Changes when the file does: its size and time of change.

        Raises:
            ImageError: the file is gone, or a link leads nowhere.
        """
        status = self._status(name)
        return f"{status.st_size}-{status.st_mtime_ns}"

    def size(self, name: str) -> int:
        """Bytes of one file, without reading it; raises as ``fingerprint``."""
        return self._status(name).st_size

    def checksum(self, name: str) -> int:
        """CRC-32 of one file's bytes, for which it is read; raises as ``read``."""
        return zlib.crc32(self.read(name))

    def _status(self, name: str) -> os.stat_result:
        try:
            return self._path(name).stat()
        except OSError as error:
            raise _cannot_read(name, self.location, error) from error

    def _path(self, name: str) -> Path:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise MedicError(f"the name {name!r} leads out of {self.location}; names must stay inside their store")
        return self.location / name


class ZipStore:
    """Members of a zip file. Threads share one handle, and each process opens its own: workers may share a store."""

    def __init__(self, location: Path):
        self.location = location
        self._opened: tuple[int, zipfile.ZipFile, threading.Lock] | None = None
        escaping = [name for name in self._archive().namelist() if _escapes(name)]
        if escaping:
            raise MedicError(
                f"{location} has member names that lead out of the archive ({escaping[0]!r}, {len(escaping)} in all); "
                "do not trust it, get it again from its source"
            )

    def __getstate__(self) -> dict:
        return {"location": self.location}

    def __setstate__(self, state: dict) -> None:
        self.location = state["location"]
        self._opened = None

    def _open(self) -> tuple[zipfile.ZipFile, threading.Lock]:
        """The archive, and the lock under which members are opened and closed: the archive counts them."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            try:
                opened = (os.getpid(), zipfile.ZipFile(self.location), threading.Lock())
            except (zipfile.BadZipFile, OSError) as error:
                raise MedicError(f"{self.location} is no zip file that can be read ({error}); get it again") from error
            self._opened = opened
        return opened[1:]

    def _archive(self) -> zipfile.ZipFile:
        return self._open()[0]

    @cached_property
    def _listed(self) -> dict[str, None]:
        return dict.fromkeys(sorted(name for name in self._archive().namelist() if not name.endswith("/")))

    def names(self) -> list[str]:
        """All member names, sorted."""
        return list(self._listed)

    def __contains__(self, name: str) -> bool:
        return name in self._listed

    def read(self, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            MedicError: there is no such member.
            ImageError: it is damaged (its checksum is wrong), encrypted, or too large.
        """
        member = self._member(name)
        if member.file_size > MAX_BYTES:
            raise _too_large(name, member.file_size)
        if member.flag_bits & _ENCRYPTED:
            raise ImageError(
                f"{name} in {self.location} is encrypted; unpack the archive with its password and pack it without one",
                "unreadable",
            )
        archive, lock = self._open()
        try:
            with lock:
                opened = archive.open(member)
            try:
                return opened.read()
            finally:
                with lock:
                    opened.close()
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
            raise ImageError(
                f"{name} in {self.location} cannot be unpacked ({error}); get the archive again", "unreadable"
            ) from error

    def fingerprint(self, name: str) -> str:
        """Changes when the member does: its size and checksum."""
        member = self._member(name)
        return f"{member.file_size}-{member.CRC:08x}"

    def size(self, name: str) -> int:
        """Bytes of one member when unpacked, from the archive's directory."""
        return self._member(name).file_size

    def checksum(self, name: str) -> int:
        """CRC-32 of one member's bytes, from the archive's directory: nothing is read."""
        return self._member(name).CRC

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._archive().getinfo(name)
        except KeyError as error:
            raise MedicError(f"{self.location} has no member {name}; see that the archive is complete") from error


class JointStore:
    """Several stores as one: a name is the key of a store, a slash, and the name in that store.

    Attributes:
        stores: by key, in the order given.
        location: what messages call it, such as ``main.zip + extra.zip``; no path that could be opened.
    """

    def __init__(self, stores: Mapping[str, FolderStore | ZipStore]):
        unfit = [key for key in stores if not key or "/" in key]
        if unfit or not stores:
            raise MedicError(f"a joint store needs stores by keys without a slash, not {unfit or 'none'}; name each")
        self.stores = dict(stores)
        self.location = Path(" + ".join(store.location.name or "." for store in stores.values()))

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(f"{key}/{name}" for key, store in self.stores.items() for name in store.names())

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

    def _part(self, name: str) -> tuple[FolderStore | ZipStore, str]:
        key, _, inside = name.partition("/")
        if key not in self.stores:
            raise MedicError(f"the name {name!r} begins with none of the keys {', '.join(self.stores)}; correct it")
        return self.stores[key], inside


Store: TypeAlias = "FolderStore | ZipStore | JointStore | IdxStore"


def open_store(location: str | os.PathLike | Mapping[str, str | os.PathLike]) -> Store:
    """Open a folder, a zip file, or several of them by key as one ``JointStore``.

    A folder that holds images only inside IDX files, as MNIST is published, becomes an ``IdxStore``.

    Raises:
        MedicError: nothing is there, it is no zip file, or the archive has names that lead out of it.
    """
    if isinstance(location, Mapping):
        return JointStore({key: open_store(path) for key, path in location.items()})
    path = Path(location)
    if path.is_dir():
        from medic.data.idx_store import IdxStore, holds_idx_images  # it builds on FolderStore

        return IdxStore(path) if holds_idx_images(path) else FolderStore(path)
    if not path.exists():
        raise MedicError(f"there is no folder or zip file {path}; correct the path")
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


SYNTHETIC_MARK = "SYNTHETIC.md"
"""A set of generated images holds a file of this name, which says how they were made."""


def is_synthetic(store: Store) -> bool:
    """Whether the images are generated: the store holds ``SYNTHETIC.md``."""
    return any(name.rpartition("/")[2] == SYNTHETIC_MARK for name in store.names())


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escapes(name: str) -> bool:
    # Archives have a hundred thousand names, and nearly none of them has any of these marks.
    if not name.startswith(("/", "\\")) and ".." not in name and ":" not in name:
        return False
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0] if parts.parts else False


def _cannot_read(name: str, location: Path, error: OSError) -> ImageError:
    return ImageError(
        f"cannot read {name} in {location}: {error.strerror}; see that the file is there and may be read", "unreadable"
    )


def _too_large(name: str, size: int) -> ImageError:
    return ImageError(f"{name} has {size} bytes, more than the {MAX_BYTES} allowed for one image", "too_large")
