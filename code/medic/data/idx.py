"""The IDX format: one array a file, as MNIST is published (yann.lecun.com/exdb/mnist, "The IDX file format").

A file is the bytes 0, 0, a type and the number of dimensions; then the size of each dimension as a big-endian uint32;
then the values, big-endian, the last dimension fastest. A name that ends in ``.gz`` stands for the same, compressed.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medic.errors import MedicError
from medic.files import replacing

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The format's type codes and what they are in NumPy."""
MAX_BYTES = 2 * 1024**3
"""No array is larger unpacked (MNIST has 47 MB); a header that claims more is refused before memory is asked for."""
MAX_DIMENSIONS = 8

_GZIP_START = b"\x1f\x8b"


def read(path: str | os.PathLike) -> np.ndarray:
    """Read one IDX file.

    Args:
        path: the file; unpacked on the way when its name ends in ``.gz``, and never further than the size its header
            promises.

    Returns:
        The array, in this machine's byte order: uint8, int8, int16, int32, float32 or float64.

    Raises:
        MedicError: there is no such file, it is no IDX file, its type is unknown, it claims more than ``MAX_BYTES``,
            it is shorter or longer than its header says, or its compression is damaged.
    """
    path = Path(path)
    with _opened(path) as file:
        dtype, shape = _header(file, path)
        array = np.empty(shape, dtype)
        missing = array.nbytes - _fill(file, array)
        if missing:
            raise MedicError(
                f"{path} is cut off: its header promises {_shown(shape)} values and {missing:,} of {array.nbytes:,} "
                "bytes are missing; copy or download it again"
            )
        if file.read(1):
            raise MedicError(
                f"{path} is longer than the {_shown(shape)} values of its header; it is damaged or no plain IDX file, "
                "copy or download it again"
            )
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_header(path: str | os.PathLike) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of the array in an IDX file, without its values; raises as ``read`` does."""
    path = Path(path)
    with _opened(path) as file:
        dtype, shape = _header(file, path)
    return dtype.newbyteorder("="), shape


def write(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write one IDX file, whole or not at all; the same array gives the same bytes (with the same zlib).

    Args:
        path: the file; compressed when its name ends in ``.gz``.
        array: of 1 to 8 dimensions; uint8, int8, int16, int32, float32 or float64.

    Raises:
        MedicError: the format has no such type or shape, or the file cannot be written.
    """
    path = Path(path)
    array = np.asarray(array)
    codes = {np.dtype(name): code for code, name in TYPES.items()}
    code = codes.get(array.dtype.newbyteorder(">"))
    if code is None:
        raise MedicError(
            f"cannot write {path}: IDX has no type for {array.dtype}; convert the array, for instance with "
            ".astype(np.int32)"
        )
    if not 1 <= array.ndim <= MAX_DIMENSIONS or max(array.shape) >= 2**32 or array.nbytes > MAX_BYTES:
        raise MedicError(
            f"cannot write {path}: an array of shape {array.shape} is not one of 1 to {MAX_DIMENSIONS} dimensions and "
            f"at most {MAX_BYTES:,} bytes; write it in parts"
        )
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    values = np.ascontiguousarray(array, TYPES[code]).reshape(-1).view(np.uint8)
    with replacing(path) as temporary, open(temporary, "wb") as plain:
        if not _is_packed(path):
            plain.write(header)
            plain.write(values)
            return
        # Neither name nor time in the gzip header: the same array is the same file.
        with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as packed:
            packed.write(header)
            packed.write(values)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading, unpacked where its name says so; what goes wrong in it becomes a sentence."""
    try:
        with gzip.open(path, "rb") if _is_packed(path) else open(path, "rb") as file:
            yield file
    except EOFError as error:
        raise MedicError(f"{path} is cut off inside its compressed data; copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        with open(path, "rb") as file:
            packed = file.read(2) == _GZIP_START
        raise MedicError(
            f"{path} cannot be unpacked ({error}); copy or download it again"
            if packed
            else f"{path} is not compressed, though its name says so; rename it without .gz"
        ) from error
    except OSError as error:
        raise MedicError(
            f"cannot read {path}: {error.strerror or error}; see that the file is there and may be read"
        ) from error


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _header(file: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape, refused where they cannot be meant."""
    magic = file.read(4)
    if magic.startswith(_GZIP_START):
        raise MedicError(f"{path} is compressed, though its name does not say so; rename it to {path.name}.gz")
    if len(magic) < 4 or magic[:2] != b"\0\0":
        begins = magic.hex(" ") or "nothing"
        raise MedicError(f"{path} is no IDX file: it begins with {begins}, not with 00 00; name an IDX file")
    code, dimensions = magic[2], magic[3]
    if code not in TYPES:
        known = ", ".join(f"{known:#04x}" for known in TYPES)
        raise MedicError(f"{path} is no IDX file: its type is {code:#04x}, and there is {known}; name an IDX file")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise MedicError(
            f"{path} claims {dimensions} dimensions, and 1 to {MAX_DIMENSIONS} are read; it is damaged or no IDX file"
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise MedicError(
            f"{path} is cut off in its header: {4 * dimensions - len(sizes)} of {4 + 4 * dimensions} bytes are "
            "missing; copy or download it again"
        )
    dtype, shape = np.dtype(TYPES[code]), struct.unpack(f">{dimensions}I", sizes)
    # A size of nothing makes the array empty, but NumPy still multiplies the others.
    if dtype.itemsize * math.prod(max(1, size) for size in shape) > MAX_BYTES:
        raise MedicError(
            f"{path} claims {_shown(shape)} values of {dtype.itemsize} bytes, more than the {MAX_BYTES:,} bytes "
            "allowed; it is damaged, or has to be read in parts"
        )
    return dtype, shape


def _fill(file: BinaryIO, array: np.ndarray) -> int:
    """Read the array's values into it, and no further; how many bytes there were."""
    view = memoryview(array.reshape(-1).view(np.uint8))
    done = 0
    while done < len(view) and (read := file.readinto(view[done:])):
        done += read
    return done


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
