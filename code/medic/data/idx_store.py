"""IDX files of images as a store: each image in them is a file by name, as in any other store."""

from __future__ import annotations

import os
import threading
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from medic.data import idx
from medic.data.stores import FolderStore, is_image_name
from medic.errors import ImageError, MedicError

PARTS = {"train": "train", "test": "t10k"}
"""The two halves of MNIST by split, and what their files' names begin with."""
_DIGITS_IN_A_NAME = 5


def find_file(folder: Path, split: str, what: str, dimensions: int) -> Path | None:
    """The IDX file of a split, by the names under which it is handed on: plain before compressed.

    Args:
        folder: where it lies.
        split: ``train`` or ``test``.
        what: ``images`` or ``labels``.
        dimensions: 3 for images, 1 for labels; part of the name.
    """
    names = [f"{PARTS[split]}-{what}{mark}idx{dimensions}-ubyte" for mark in "-."]
    paths = [folder / f"{name}{ending}" for ending in ("", ".gz") for name in names]
    return next((path for path in paths if path.is_file()), None)


def holds_idx_images(folder: Path) -> bool:
    """Whether a folder holds IDX files of images, and no image files beside them."""
    if not any(find_file(folder, split, "images", 3) for split in PARTS):
        return False
    return not any(map(is_image_name, FolderStore(folder).names()))


class IdxStore:
    """A folder in which each image inside its IDX files is a PNG file too, such as ``train/00042.png``.

    The files that lie in the folder can be read by their own names as well. The images of a split are held in memory
    once one is read (47 MB for MNIST): threads share them, and each process reads its own.
    """

    def __init__(self, location: Path):
        self.location = location
        self._opened: tuple[int, dict[str, np.ndarray], threading.Lock] | None = None

    def __getstate__(self) -> dict:
        return {"location": self.location}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["location"])

    @cached_property
    def _folder(self) -> FolderStore:
        return FolderStore(self.location)

    @cached_property
    def _counts(self) -> dict[str, int]:
        """Images a split, from the files' headers."""
        found = {split: find_file(self.location, split, "images", 3) for split in PARTS}
        return {split: _count(path) for split, path in found.items() if path is not None}

    @cached_property
    def _listed(self) -> dict[str, tuple[str, int]]:
        return {
            image_name(split, number, count): (split, number)
            for split, count in sorted(self._counts.items())
            for number in range(count)
        }

    def names(self) -> list[str]:
        """All names, sorted: those of the images, and the files in the folder."""
        return sorted([*self._listed, *self._folder.names()])

    def __contains__(self, name: str) -> bool:
        return name in self._listed or name in self._folder

    def read(self, name: str) -> bytes:
        """One image as a PNG file; a file of the folder as it is.

        Raises:
            MedicError: the IDX file is damaged.
            ImageError: there is no such image or file.
        """
        if name not in self._listed:
            return self._folder.read(name)
        import cv2  # opening a store should not cost the time that loading OpenCV takes

        split, number = self._listed[name]
        written, data = cv2.imencode(".png", self._images(split)[number])
        if not written:
            raise ImageError(f"{name} in {self.location} cannot be written as PNG; its size is 0", "unreadable")
        return data.tobytes()

    def fingerprint(self, name: str) -> str:
        """Changes when the image's IDX file does: its size and time of change."""
        return self._folder.fingerprint(self._file(name).name if name in self._listed else name)

    def size(self, name: str) -> int:
        """Bytes of one image as a PNG file, for which it is made."""
        return len(self.read(name)) if name in self._listed else self._folder.size(name)

    def checksum(self, name: str) -> int:
        """CRC-32 of one image's PNG file, for which it is made."""
        return zlib.crc32(self.read(name))

    def _file(self, name: str) -> Path:
        path = find_file(self.location, self._listed[name][0], "images", 3)
        if path is None:
            raise MedicError(f"the IDX file of {name} is gone from {self.location}; put it back")
        return path

    def _images(self, split: str) -> np.ndarray:
        """All images of a split, uint8 (N, H, W)."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            # A lock that was held while the process forked would stay locked for ever in the child.
            opened = self._opened = (os.getpid(), opened[1] if opened else {}, threading.Lock())
        _, arrays, lock = opened
        with lock:
            if split not in arrays:
                arrays[split] = idx.read(find_file(self.location, split, "images", 3))
        return arrays[split]


def image_name(split: str, number: int, count: int) -> str:
    """What the image at a position of a split is called, among so many that its zeros are filled up."""
    return f"{split}/{number:0{max(_DIGITS_IN_A_NAME, len(str(count - 1)))}d}.png"


def _count(path: Path) -> int:
    dtype, shape = idx.read_header(path)
    if dtype != np.uint8 or len(shape) != 3 or 0 in shape[1:]:
        raise MedicError(
            f"{path} holds {dtype} of shape {shape}, not grey images as uint8 (count, height, width); "
            "are images and labels exchanged?"
        )
    return shape[0]
