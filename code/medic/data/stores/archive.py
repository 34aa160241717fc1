"""A zip file as a store: its members are read in place, whoever packed it."""

from __future__ import annotations

import glob
import os
import threading
import zipfile
import zlib
from functools import cached_property
from pathlib import Path, PurePosixPath

from medic.data.stores.folder import DICOM_START, MAX_BYTES, Listed, composed, is_litter, too_large
from medic.errors import ImageError, MedicError

_ENCRYPTED, _UTF8 = 0x1, 0x800  # bits of a member's general purpose flags: PKWARE APPNOTE 6.3.10, 4.4.4
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class ZipStore(Listed):
    """Members of a zip file. Threads share one handle, and each process opens its own: workers may share a store."""

    def __init__(self, location: Path):
        self.location = location
        self._opened: tuple[int, zipfile.ZipFile, threading.Lock] | None = None
        self._refuse_parts()
        escaping = [name for name in self._open()[0].namelist() if _escapes(name)]
        if escaping:
            raise MedicError(
                f"{location} has member names that lead out of the archive ({escaping[0]!r}, {len(escaping)} in all); "
                "do not trust it, get it again from its source"
            )
        packed = [member for member in self._listed.values() if member.compress_type not in _UNPACKED]
        if packed:
            raise MedicError(
                f"{location} packs {len(packed)} of {len(self._listed)} files in a way that is not read (method "
                f"{packed[0].compress_type}; 9 is Deflate64); unpack it, and name the folder"
            )

    def __getstate__(self) -> dict:
        return {"location": Path(os.path.abspath(self.location))}

    def __setstate__(self, state: dict) -> None:
        self.location, self._opened = state["location"], None

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

    def _refuse_parts(self) -> None:
        """Of an archive in several volumes only the last looks like a zip file, and it lists what is in the others."""
        others = [path.name for path in self.location.parent.glob(f"{glob.escape(self.location.stem)}.[zZ][0-9]*")]
        members = [] if others else self._open()[0].infolist()
        if others or any(member.volume or member.header_offset < 0 for member in members):
            raise MedicError(
                f"{self.location} is one part of a split archive ({', '.join(sorted(others)) or 'others missing'}); "
                "unpack all its parts together, and name the folder"
            )

    @cached_property
    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        for member in self._open()[0].infolist():
            name = _member_name(member)
            if not name.endswith("/") and not is_litter(name):
                both = name in found and found[name].filename != member.filename
                found[member.filename if both else name] = member
        return found

    def read(self, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            MedicError: there is no such member.
            ImageError: it is damaged (its checksum is wrong), encrypted, or too large.
        """
        member = self._member(name)
        if member.file_size > MAX_BYTES:
            raise too_large(name, member.file_size)
        return self._read(member, name, -1)

    def _read(self, member: zipfile.ZipInfo, name: str, count: int) -> bytes:
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
                return opened.read(count)
            finally:
                with lock:
                    opened.close()
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
            raise ImageError(
                f"{name} in {self.location} cannot be unpacked ({error}); get the archive again", "unreadable"
            ) from error

    def _start(self, name: str) -> bytes:
        try:
            return self._read(self._member(name), name, DICOM_START)
        except ImageError:
            return b""

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
            return self._listed[composed(name)]
        except KeyError as error:
            raise MedicError(f"{self.location} has no member {name}; see that the archive is complete") from error


def _member_name(member: zipfile.ZipInfo) -> str:
    """A member's name as its packer meant it: some write UTF-8 without saying so, some backslashes."""
    name = member.filename
    if not name.isascii() and not member.flag_bits & _UTF8:
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = member.filename
    return composed(name).replace("\\", "/")


def _escapes(name: str) -> bool:
    # Archives have a hundred thousand names, and nearly none of them has any of these marks.
    if not name.startswith(("/", "\\")) and ".." not in name and ":" not in name:
        return False
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]
