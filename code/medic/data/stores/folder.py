"""A folder as a store, and what all stores share: files by name, some of them images."""

from __future__ import annotations

import os
import socket
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from medic.errors import ImageError, MedicError
from medic.files import write_text

NOT_READ = (".gif", ".webp", ".heic", ".heif", ".avif", ".jp2")
"""Endings of pictures in formats that are not read, such as the HEIC of telephones. They are listed, to be refused."""
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", *NOT_READ)
# fmt: off
NO_IMAGES = (
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".htm", ".css", ".js", ".md",
    ".rst", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".py", ".ipynb", ".sh", ".log", ".zip",
    ".gz", ".tgz", ".tar", ".bz2", ".xz", ".7z", ".rar", ".npy", ".npz", ".h5", ".hdf5", ".mat", ".pt", ".pth", ".ckpt",
    ".onnx", ".db", ".sqlite", ".parquet", ".mp4", ".avi", ".mov", ".nii", ".lnk", ".url", ".ini", ".exe", ".part",
)
# fmt: on
"""Endings of files that are not opened to see whether they are DICOM."""
MAX_BYTES = 256 * 1024**2
"""No single image file is larger; one that claims more is refused before it is read."""
PRODUCT_MARK = ".medic-product"
"""A folder that medic wrote holds a file of this name (``mark_product``): below a data folder, it is passed over."""

DICOM_START = 132
"""Bytes by which a DICOM file is known."""


def mark_product(folder: str | os.PathLike) -> None:
    """Make a folder known as one that medic wrote, whose tables are no labels and whose images no originals.

    Raises:
        MedicError: the folder cannot be written.
    """
    write_text(Path(folder) / PRODUCT_MARK, "medic wrote this folder: nothing in it is read as data\n")


def is_image_name(name: str) -> bool:
    """Whether a name ends as image files do, in upper or lower case; what macOS leaves beside files is no image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_litter(name)


def composed(name: str) -> str:
    """A name with accented letters as one character each: files that were on a Mac have two, tables one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class Listed:
    """What all stores share: names, with composed accents, and what each stands for."""

    location: Path
    _listed: Mapping[str, object]

    def names(self) -> list[str]:
        """All names, sorted; hidden files and what macOS leaves in archives are left out."""
        return sorted(self._listed)

    def images(self) -> list[str]:
        """Names of the images, sorted: by their endings, and of files with no or an unknown ending those in DICOM."""
        return list(self._images)

    @cached_property
    def _images(self) -> list[str]:
        return [name for name in self.names() if name.lower().endswith(IMAGE_SUFFIXES) or self._is_dicom(name)]

    def __contains__(self, name: str) -> bool:
        return composed(name) in self._listed

    def checksum(self, name: str) -> int:
        """CRC-32 of one file's bytes, for which it is read; raises as ``read``."""
        return zlib.crc32(self.read(name))

    def _is_dicom(self, name: str) -> bool:
        """By content, of which the first bytes are read."""
        from medic.data.images.dicom import is_dicom  # for most stores it is not needed

        file = name.rpartition("/")[2]
        if file.upper() == "DICOMDIR" or file.lower().endswith(NO_IMAGES):
            return False
        return is_dicom(self._start(name))

    def _start(self, name: str) -> bytes:
        return self.read(name)[:DICOM_START]


class FolderStore(Listed):
    """Files under a folder; a name is the path below it, with forward slashes. Links are followed, each folder once."""

    def __init__(self, location: Path):
        self.location = location

    def __getstate__(self) -> dict:
        return {"location": Path(os.path.abspath(self.location))}

    def __setstate__(self, state: dict) -> None:
        self.location = state["location"]
        if not self.location.is_dir():
            raise MedicError(
                f"{socket.gethostname()} does not see {self.location}; give a folder that all workers share under the "
                "same path"
            )

    @cached_property
    def _listed(self) -> dict[str, str]:
        found, unfit = {}, []
        for file in sorted(_files_below(self.location)):
            name = composed(file)
            found[file if name in found else name] = file
            if not _is_text(file):
                # Such a name could be read, but not be written to any table.
                unfit += [file] if is_image_name(file) else []
        if unfit:
            raise MedicError(
                f"{len(unfit)} images in {self.location} have names that are no UTF-8 text, for instance "
                f"{unfit[0]!r}; rename them"
            )
        return found

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            MedicError: the name leads out of the folder.
            ImageError: it is not in the folder, cannot be read, or is too large.
        """
        size = self.size(name)
        if size > MAX_BYTES:
            raise too_large(name, size)
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise self._cannot_read(name, error) from error

    def fingerprint(self, name: str) -> str:
        """Changes when the file does: its size and time of change; raises as ``size``."""
        status = self._status(name)
        return f"{status.st_size}-{status.st_mtime_ns}"

    def size(self, name: str) -> int:
        """Bytes of one file, without reading it.

        Raises:
            ImageError: the file is gone, or a link leads nowhere.
        """
        return self._status(name).st_size

    def _start(self, name: str) -> bytes:
        try:
            with open(self._path(name), "rb") as file:
                return file.read(DICOM_START)
        except OSError:
            return b""

    def _status(self, name: str) -> os.stat_result:
        try:
            return self._path(name).stat()
        except OSError as error:
            raise self._cannot_read(name, error) from error

    def _path(self, name: str) -> Path:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise MedicError(f"the name {name!r} leads out of {self.location}; names must stay inside their store")
        # Most names are ASCII and need no listing of the whole folder.
        return self.location / (name if name.isascii() else self._listed.get(composed(name), name))

    def _cannot_read(self, name: str, error: OSError) -> ImageError:
        return ImageError(
            f"cannot read {name} in {self.location}: {error.strerror}; see that the file is there and may be read",
            "unreadable",
        )


def is_litter(name: str) -> bool:
    """Whether a name is hidden or what macOS adds to archives: ``__MACOSX/._1.jpeg`` ends as images do and is none."""
    return name.startswith((".", "__MACOSX/")) or "/." in name or "/__MACOSX/" in name


def too_large(name: str, size: int) -> ImageError:
    """The refusal of an image file of that many bytes."""
    return ImageError(f"{name} has {size} bytes, more than the {MAX_BYTES} allowed for one image", "too_large")


def _files_below(root: Path) -> Iterator[str]:
    """Paths below a folder. Links to folders come last and each folder once: links that lead in a circle end there."""
    seen, waiting, links = set(), [""], []
    while waiting or links:
        below = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(root / below)
            entries = list(os.scandir(root / below))
        except OSError:
            continue
        place = (status.st_dev, status.st_ino)
        if place in seen or (below and any(entry.name == PRODUCT_MARK for entry in entries)):
            continue
        seen.add(place)
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if os.path.isdir(entry.path):  # a link in a circle is none, and no error
                (links if entry.is_symlink() else waiting).append(path)
            else:
                yield path


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
