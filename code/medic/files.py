"""Files that are written whole or not at all: to a temporary name in the same folder, then renamed."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medic.errors import MedicError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``, for a file or a folder; rename it to ``path`` when the block ends well.

    A folder that stands at ``path`` is moved aside first, and removed once the new one is in its place. Where the block
    fails, ``path`` stays as it was, and what the block wrote is removed. Links are followed.

    Raises:
        MedicError: the folder cannot be written, the disk is full, or a device or a pipe stands there.
    """
    path, given = Path(os.path.realpath(path)), path
    if path.exists() and not path.is_file() and not path.is_dir():
        raise MedicError(f"cannot write {given}: it is neither file nor folder; name one")
    temporary, old = (path.with_name(f".{path.name}.{uuid.uuid4().hex}.{part}") for part in ("part", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir() and temporary.is_dir():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        raise MedicError(
            f"cannot write {given}: {error.strerror or error}; free some space or choose a folder that can be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            if old.exists() and not path.exists():
                os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 ``text`` to ``path``, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(settings: Any) -> dict:
    """Return the fields of a dataclass as JSON holds them: tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
