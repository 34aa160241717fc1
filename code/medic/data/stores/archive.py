"""A zip file as a store: its members are read in place, whoever packed it."""

import glob
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from medic.data.stores.folder import Store, composed, is_litter
from medic.errors import MedicError

_UTF8 = 0x800  # of a member's general purpose flags: PKWARE APPNOTE 6.3.10, 4.4.4
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class ZipStore(Store):
    """Members of a zip file. Threads share one handle, and each process opens its own.

    Raises:
        MedicError: it is damaged, one part of several, or packed with Deflate64 or another method that is not read.
    """

    _opened: tuple[int, zipfile.ZipFile] | None = None

    def __init__(self, location: Path):
        self.location = location
        # Of an archive in parts only the last looks like a zip file, and it lists what is in the others.
        parts = any(location.parent.glob(f"{glob.escape(location.stem)}.[zZ][0-9]*"))
        members = [] if parts else self._archive().infolist()
        if parts or any(member.volume or member.header_offset < 0 for member in members):
            raise MedicError(f"{location} is one part of a split archive; unpack all together, and name the folder")
        if unread := [member.compress_type for member in members if member.compress_type not in _UNPACKED]:
            how = f"{len(unread)} of {len(members)} files by method {unread[0]} (9 is Deflate64), which is not read"
            raise MedicError(f"{location} packs {how}; unpack it, and name the folder")

    def _archive(self) -> zipfile.ZipFile:
        """Open the archive, once a process. Of a file that it is given, it does not count who reads, as threads may."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), zipfile.ZipFile(self.location.open("rb"))
            except (zipfile.BadZipFile, OSError) as error:
                raise MedicError(f"{self.location} is no zip file that can be read ({error}); get it again") from error
        return self._opened[1]

    def _list(self) -> dict[str, zipfile.ZipInfo]:
        found = {_name(member): member for member in self._archive().infolist()}
        return {name: member for name, member in found.items() if not name.endswith("/") and not is_litter(name)}

    def _open(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        return self._archive().open(entry)

    def _size(self, entry: zipfile.ZipInfo) -> int:
        return entry.file_size


def _name(member: zipfile.ZipInfo) -> str:
    """A member's name as its packer meant it: some write UTF-8 without saying so, some backslashes."""
    name = member.filename
    if not name.isascii() and not member.flag_bits & _UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return composed(name).replace("\\", "/")
