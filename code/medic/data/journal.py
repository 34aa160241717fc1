"""What a preparation has finished, image by image, on disk: an interrupted one goes on from it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Entry(NamedTuple):
    """One finished image: its name, the fingerprint of its original, and its file or why there is none."""

    image: str
    fingerprint: str
    file: str | None
    reason: str | None = None
    detail: str | None = None


class Journal:
    """A file of one JSON object a line, to which finished images are added.

    Of what the file holds, only sixteen bytes an image are kept in memory (a hash of the name, the line's place), so
    that a million images cost 16 MB; a line is read again when its image is asked for. Of several lines about one
    image the last counts; a line cut off by a kill, and lines of other settings, are passed over.

    Args:
        path: the file; it need not exist, and is written only when something is added.
        settings: what the work depends on; each line carries a short digest of it.
    """

    def __init__(self, path: Path, settings: str):
        self._path = path
        self._settings = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
        self._lock = threading.Lock()
        self._earlier = open(path, "rb") if path.is_file() else None  # noqa: SIM115 (closed by __exit__)
        self._added = None
        self._hashes, self._places = self._index()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._earlier, self._added):
            if file is not None:
                file.close()

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        hashes, places, place = array("q"), array("q"), 0
        for line in self._earlier or ():
            if (entry := self._parse(line)) is not None:
                hashes.append(hash(entry.image))
                places.append(place)
            place += len(line)
        order = np.argsort(np.frombuffer(hashes, np.int64), kind="stable")
        return np.frombuffer(hashes, np.int64)[order], np.frombuffer(places, np.int64)[order]

    def _parse(self, line: bytes) -> Entry | None:
        if self._settings.encode() not in line:
            return None
        try:
            values = json.loads(line)
            return Entry(**values) if values.pop("settings") == self._settings else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def find(self, image: str) -> Entry | None:
        """What earlier runs with these settings did with an image. Safe in threads."""
        last = int(np.searchsorted(self._hashes, hash(image), side="right")) - 1
        if last < 0 or self._hashes[last] != hash(image):
            return None
        with self._lock:
            self._earlier.seek(int(self._places[last]))
            line = self._earlier.readline()
        entry = self._parse(line)
        return entry if entry is not None and entry.image == image else None

    def add(self, entry: Entry) -> None:
        """Write down a finished image; it is on disk for any later process when this returns.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        if self._added is None:
            self._added = self._open()
        values = {"image": entry.image, "fingerprint": entry.fingerprint, "settings": self._settings}
        values["file"] = entry.file
        if entry.reason is not None:
            values |= {"reason": entry.reason, "detail": entry.detail}
        self._added.write(json.dumps(values) + "\n")
        self._added.flush()

    def _open(self):
        """Open for appending, behind a line that a kill has cut off."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
        return open(self._path, "a", encoding="utf-8")
