"""Where image bytes come from: a folder or a zip file, read by name, never unpacked."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from functools import cached_property
from pathlib import Path, PurePosixPath

from medic.errors import ImageError, MedicError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp")
MAX_BYTES = 256 * 1024**2
"""No single image file is larger; one that claims more is refused before it is read."""


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
        return dict.fromkeys(sorted(found))

    def names(self) -> list[str]:
        """All names, sorted; hidden files and folders are left out."""
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
        try:
            status = self._path(name).stat()
        except OSError as error:
            raise _cannot_read(name, self.location, error) from error
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _path(self, name: str) -> Path:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise MedicError(f"the name {name!r} leads out of {self.location}; names must stay inside their store")
        return self.location / name


class ZipStore:
    """Members of a zip file. Each thread of each process opens its own handle, so workers may share one store."""

    def __init__(self, location: Path):
        self.location = location
        self._handles = threading.local()
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
        self._handles = threading.local()

    def _archive(self) -> zipfile.ZipFile:
        opened = getattr(self._handles, "opened", None)
        if opened is None or opened[0] != os.getpid():
            try:
                opened = (os.getpid(), zipfile.ZipFile(self.location))
            except (zipfile.BadZipFile, OSError) as error:
                raise MedicError(f"{self.location} is no zip file that can be read ({error}); get it again") from error
            self._handles.opened = opened
        return opened[1]

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
        archive = self._archive()
        try:
            size = archive.getinfo(name).file_size
            if size > MAX_BYTES:
                raise _too_large(name, size)
            return archive.read(name)
        except KeyError as error:
            raise MedicError(f"{self.location} has no member {name}; see that the archive is complete") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
            raise ImageError(
                f"{name} in {self.location} cannot be unpacked ({error}); get the archive again", "unreadable"
            ) from error

    def fingerprint(self, name: str) -> str:
        """Changes when the member does: its size and checksum."""
        information = self._archive().getinfo(name)
        return f"{information.file_size}-{information.CRC:08x}"


Store = FolderStore | ZipStore


def open_store(location: str | os.PathLike) -> Store:
    """Open a folder or a zip file.

    Raises:
        MedicError: nothing is there, it is no zip file, or the archive has names that lead out of it.
    """
    path = Path(location)
    if path.is_dir():
        return FolderStore(path)
    if not path.exists():
        raise MedicError(f"there is no folder or zip file {path}; correct the path")
    return ZipStore(path)


SYNTHETIC_MARK = "SYNTHETIC.md"
"""A set of generated images holds a file of this name, which says how they were made."""


def is_synthetic(store: Store) -> bool:
    """Whether the images are generated: the store holds ``SYNTHETIC.md``."""
    return any(PurePosixPath(name).name == SYNTHETIC_MARK for name in store.names())


def _escapes(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0] if parts.parts else False


def _cannot_read(name: str, location: Path, error: OSError) -> ImageError:
    return ImageError(
        f"cannot read {name} in {location}: {error.strerror}; see that the file is there and may be read", "unreadable"
    )


def _too_large(name: str, size: int) -> ImageError:
    return ImageError(f"{name} has {size} bytes, more than the {MAX_BYTES} allowed for one image", "too_large")
