"""What became of originals in earlier runs: an interrupted or repeated preparation goes on from it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np

from medic.data.stores import PRODUCT_MARK
from medic.errors import MedicError


class Index:
    """What became of originals in earlier runs, so that a repeated run neither reads nor decodes them.

    One line of ``index.txt`` an original: the digest of settings, name and fingerprint (size and time of change, or
    the checksum inside a zip file), and the digest that its prepared file is called by. An original that changed has
    another line; a line that a kill has cut off is dropped; a lost index costs time and nothing else. In memory it
    takes 32 bytes an image. Pickled, it is opened again by whoever gets it, also on another machine.
    """

    _LINE = np.dtype([("original", "S24"), ("space", "S1"), ("file", "S32"), ("end", "S1")])

    def __init__(self, folder: Path):
        self.folder, self._added = folder, None
        path = folder / "index.txt"
        lines = path.stat().st_size // self._LINE.itemsize if path.is_file() else 0
        self._lines = np.memmap(path, self._LINE, "r", shape=lines) if lines else np.empty(0, self._LINE)
        self._order = np.argsort(self._lines["original"], kind="stable")
        self._sorted = self._lines["original"][self._order]

    def __getstate__(self) -> Path:
        return Path(os.path.abspath(self.folder))

    def __setstate__(self, folder: Path) -> None:
        if not (folder / PRODUCT_MARK).is_file():
            raise MedicError(
                f"{socket.gethostname()} does not see {folder}; give a folder that all workers share, under one path"
            )
        self.__init__(folder)

    def find(self, original: bytes) -> bytes | None:
        """The digest that an original's file is called by, from the last line about it."""
        last = int(np.searchsorted(self._sorted, original, side="right")) - 1
        if last < 0 or self._sorted[last] != original:
            return None
        return bytes(self._lines["file"][self._order[last]])

    def add(self, original: bytes, file: bytes) -> None:
        """Write a line, behind whole lines only; it is there for any later process when this returns."""
        if self._added is None:
            path = self.folder / "index.txt"
            self._added = open(path, "ab")  # noqa: SIM115 (open as long as the index is)
            self._added.truncate(self._added.tell() // self._LINE.itemsize * self._LINE.itemsize)
        self._added.write(original + b" " + file + b"\n")
        self._added.flush()

    def close(self) -> None:
        """Close the file."""
        if self._added is not None:
            self._added.close()
