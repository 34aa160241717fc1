"""MNIST's IDX files, one array a file.

A file is the bytes 0, 0, a type and the number of dimensions; then the size of each dimension as a big-endian uint32;
then the values, big-endian (yann.lecun.com/exdb/mnist). A name that ends in ``.gz`` stands for the same, compressed.
"""

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from medic.errors import MedicError
from medic.files import write_bytes

PARTS = {"train": "train", "test": "t10k"}  # the two halves of MNIST by split, and what their files' names begin with
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path: str | os.PathLike) -> np.ndarray:
    """Read one IDX file into an array in this machine's byte order, unpacked where its name ends in ``.gz``.

    Raises:
        MedicError: the file cannot be read, is no IDX file, or is shorter or longer than its header says.
    """
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            data = file.read()
        dtype, start = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
        shape = struct.unpack(f">{data[3]}I", data[4:start])
        return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
    except (OSError, EOFError, zlib.error, IndexError, KeyError, ValueError, struct.error) as error:
        why = f"is no IDX file, or not all of it is there ({error})"
        raise MedicError(f"{path} {why}; get it again, and name it .gz only if it is packed") from error


def write(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array of one of ``TYPES`` as an IDX file, compressed where its name ends in ``.gz``."""
    code = {np.dtype(name): code for code, name in TYPES.items()}[array.dtype.newbyteorder(">")]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    data = header + array.astype(TYPES[code]).tobytes()
    # No time in gzip's header: the same array is the same file.
    write_bytes(path, gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def find_file(folder: Path, split: str, what: str) -> Path | None:
    """Return the IDX file of ``images`` or ``labels`` of a split, by the names that are in use; plain before packed."""
    names = [f"{PARTS[split]}-{what}{mark}idx{3 if what == 'images' else 1}-ubyte" for mark in "-."]
    paths = [folder / f"{name}{ending}" for ending in ("", ".gz") for name in names]
    return next((path for path in paths if path.is_file()), None)


def image_names(split: str, count: int) -> list[str]:
    """Return what the images of a split are called, in their order: ``train/00042.png``."""
    return [f"{split}/{number:0{max(5, len(str(count - 1)))}d}.png" for number in range(count)]


def read_images(folder: Path) -> dict[str, np.ndarray]:
    """Read MNIST's images by their names, uint8 (H, W); files that hold no such images are a ``MedicError``."""
    found = {}
    for split in PARTS:
        if path := find_file(folder, split, "images"):
            images = read(path)
            if images.dtype != np.uint8 or images.ndim != 3:
                what = f"{images.dtype} of shape {images.shape}, not grey images as uint8 (count, height, width)"
                raise MedicError(f"{path} holds {what}; are images and labels exchanged?")
            found |= dict(zip(image_names(split, len(images)), images, strict=True))
    return found
