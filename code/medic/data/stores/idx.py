"""MNIST's IDX files: one array a file, and those of images as a store in which each image is a PNG file by name.

A file is the bytes 0, 0, a type and the number of dimensions; then the size of each dimension as a big-endian uint32;
then the values, big-endian (yann.lecun.com/exdb/mnist). A name that ends in ``.gz`` stands for the same, compressed.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import threading
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from medic.data.stores.folder import FolderStore, Listed, is_image_name
from medic.errors import ImageError, MedicError
from medic.files import replacing

PARTS = {"train": "train", "test": "t10k"}
"""The two halves of MNIST by split, and what their files' names begin with."""
MAX_BYTES = 2 * 1024**3
"""No array is larger unpacked (MNIST has 47 MB); a header that claims more is refused before memory is asked for."""
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path: str | os.PathLike) -> np.ndarray:
    """Read one IDX file into an array in this machine's byte order, unpacked where its name ends in ``.gz``.

    Raises:
        MedicError: the file cannot be read, is no IDX file, or is shorter or longer than its header says.
    """
    dtype, shape, values = _read(Path(path), everything=True)
    wanted = math.prod(shape) * dtype.itemsize
    if len(values) != wanted:
        raise MedicError(
            f"{path} has {len(values):,} bytes of values, and its header promises {wanted:,}; get it again"
        )
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read_shape(path: str | os.PathLike) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of the array in an IDX file, without its values; raises as ``read`` does."""
    return _read(Path(path), everything=False)[:2]


def write(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write one IDX file, whole or not at all; the same array gives the same bytes.

    Args:
        path: the file; compressed when its name ends in ``.gz``.
        array: of 1 to 8 dimensions; uint8, int8, int16, int32, float32 or float64.

    Raises:
        MedicError: the format has no such type or shape, or the file cannot be written.
    """
    array = np.asarray(array)
    code = {np.dtype(name): code for code, name in TYPES.items()}.get(array.dtype.newbyteorder(">"))
    if code is None or not 1 <= array.ndim <= 8:
        raise MedicError(f"cannot write {path}: IDX has no {array.dtype} of shape {array.shape}; convert it to int32")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    data = header + np.ascontiguousarray(array, TYPES[code]).tobytes()
    with replacing(path) as temporary:
        # No time in gzip's header: the same array is the same file.
        temporary.write_bytes(gzip.compress(data, mtime=0) if _is_packed(Path(path)) else data)


def _read(path: Path, everything: bool) -> tuple[np.dtype, tuple[int, ...], bytes]:
    try:
        with gzip.open(path) if _is_packed(path) else open(path, "rb") as file:
            magic = file.read(4)
            code, dimensions = (magic[2], magic[3]) if len(magic) == 4 and magic[:2] == b"\0\0" else (0, 0)
            sizes = file.read(4 * dimensions)
            if code not in TYPES or not 1 <= dimensions <= 8 or len(sizes) < 4 * dimensions:
                raise MedicError(f"{path} is no IDX file (it begins with {magic.hex(' ') or 'nothing'}); get it again")
            dtype, shape = np.dtype(TYPES[code]), struct.unpack(f">{dimensions}I", sizes)
            size = math.prod(shape) * dtype.itemsize
            if math.prod(max(1, side) for side in shape) * dtype.itemsize > MAX_BYTES:
                raise MedicError(f"{path} claims {size:,} bytes, more than the {MAX_BYTES:,} allowed; get it again")
            return dtype, shape, file.read(size + 1) if everything else b""
    except (OSError, EOFError, zlib.error) as error:
        raise MedicError(
            f"cannot read {path} ({getattr(error, 'strerror', None) or error}); get it again, and name it .gz only "
            "where it is compressed"
        ) from error


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def find_file(folder: Path, split: str, what: str) -> Path | None:
    """The IDX file of ``images`` or ``labels`` of a split, by the names under which it is handed on; plain first."""
    names = [f"{PARTS[split]}-{what}{mark}idx{3 if what == 'images' else 1}-ubyte" for mark in "-."]
    paths = [folder / f"{name}{ending}" for ending in ("", ".gz") for name in names]
    return next((path for path in paths if path.is_file()), None)


def holds_idx_images(folder: Path) -> bool:
    """Whether a folder holds IDX files of images, and no image files beside them."""
    if not any(find_file(folder, split, "images") for split in PARTS):
        return False
    return not any(map(is_image_name, FolderStore(folder).names()))


class IdxStore(Listed):
    """A folder in which each image inside its IDX files is a PNG file too, such as ``train/00042.png``.

    The files that lie in the folder can be read by their own names as well. The images of a split are held in memory
    once one is read (47 MB for MNIST): threads share them, and each process reads its own.
    """

    def __init__(self, location: Path):
        self.location = location
        self._opened: tuple[int, dict[str, np.ndarray], threading.Lock] | None = None

    def __getstate__(self) -> dict:
        return {"location": Path(os.path.abspath(self.location))}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["location"])

    @cached_property
    def _folder(self) -> FolderStore:
        return FolderStore(self.location)

    @cached_property
    def _numbers(self) -> dict[str, tuple[str, int]]:
        """Split and position of each image, from the files' headers."""
        found = {split: find_file(self.location, split, "images") for split in sorted(PARTS)}
        counts = {split: _count(path) for split, path in found.items() if path is not None}
        return {image_name(split, n, count): (split, n) for split, count in counts.items() for n in range(count)}

    @cached_property
    def _listed(self) -> dict[str, object]:
        return self._numbers | dict.fromkeys(self._folder.names())

    def read(self, name: str) -> bytes:
        """One image as a PNG file; a file of the folder as it is.

        Raises:
            MedicError: the IDX file is damaged.
            ImageError: there is no such image or file.
        """
        if name not in self._numbers:
            return self._folder.read(name)
        import cv2  # opening a store should not cost the time that loading OpenCV takes

        split, number = self._numbers[name]
        written, data = cv2.imencode(".png", self._pixels(split)[number])
        if not written:
            raise ImageError(f"{name} in {self.location} cannot be written as PNG; its size is 0", "unreadable")
        return data.tobytes()

    def fingerprint(self, name: str) -> str:
        """Changes when the image's IDX file does: its size and time of change."""
        return self._folder.fingerprint(self._file(name).name if name in self._numbers else name)

    def size(self, name: str) -> int:
        """Bytes of one image as a PNG file, for which it is made."""
        return len(self.read(name)) if name in self._numbers else self._folder.size(name)

    def _file(self, name: str) -> Path:
        path = find_file(self.location, self._numbers[name][0], "images")
        if path is None:
            raise MedicError(f"the IDX file of {name} is gone from {self.location}; put it back")
        return path

    def _pixels(self, split: str) -> np.ndarray:
        """All images of a split, uint8 (N, H, W)."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            # A lock that was held while the process forked would stay locked for ever in the child.
            opened = self._opened = (os.getpid(), opened[1] if opened else {}, threading.Lock())
        _, arrays, lock = opened
        with lock:
            if split not in arrays:
                arrays[split] = read(find_file(self.location, split, "images"))
        return arrays[split]


def image_name(split: str, number: int, count: int) -> str:
    """What the image at a position of a split is called, among so many that its zeros are filled up."""
    return f"{split}/{number:0{max(5, len(str(count - 1)))}d}.png"


def _count(path: Path) -> int:
    dtype, shape = read_shape(path)
    if dtype != np.uint8 or len(shape) != 3 or 0 in shape[1:]:
        raise MedicError(
            f"{path} holds {dtype} of shape {shape}, not grey images as uint8 (count, height, width); "
            "are images and labels exchanged?"
        )
    return shape[0]
