"""A bundle's folder as one file, ``.tar.gz``, and back."""

import gzip
import io
import tarfile
from pathlib import Path

from medic.deployment.bundle.manifest import list_files
from medic.errors import MedicError

MAX_UNPACKED = 4 << 30
"""Bytes that an archive may unpack to."""


def pack(folder: Path, name: str) -> bytes:
    """Return a folder as ``.tar.gz``. The same files give the same bytes: sorted, without times, owners or caches."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in list_files(folder):
            data, entry = (folder / path).read_bytes(), tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), compresslevel=6, mtime=0)


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a bundle's archive below ``into``; nothing may leave that folder."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            if sum(member.size for member in members) > MAX_UNPACKED:
                raise ValueError(f"it unpacks to over {MAX_UNPACKED >> 30} GiB")
            if other := [member.name for member in members if not (member.isfile() or member.isdir())]:
                raise ValueError(f"{other[0]} is a link or a device")
            tar.extractall(into, members, filter="data")
        [top] = into.iterdir()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise MedicError(
            f"{archive} is no bundle's archive or is damaged ({error}); get it again from its source"
        ) from error
    return top
