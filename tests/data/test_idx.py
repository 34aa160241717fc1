"""The IDX format, byte by byte, and files that only claim to be of it."""

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from medic.data import idx
from medic.errors import MedicError

TYPES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def header(code: int, *sizes: int) -> bytes:
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def lay(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(params=["set", "set.gz"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0,), (0, 28, 28), (1, 1, 1, 1, 2)])
def test_what_is_written_is_read_back(type, shape, place):
    array = np.random.default_rng(1).normal(0, 60, shape).clip(0, 120).astype(type)
    idx.write(place, array)
    again = idx.read(place)
    assert again.dtype == array.dtype
    assert again.dtype.isnative
    assert np.array_equal(again, array)
    assert idx.read_header(place) == (array.dtype, shape)


@pytest.mark.parametrize("type", TYPES)
def test_the_bytes_are_those_of_the_format(type, tmp_path):
    values = [0, 1, 100]
    idx.write(tmp_path / "set", np.array(values, type))
    letter = {"uint8": "B", "int8": "b", "int16": "h", "int32": "i", "float32": "f", "float64": "d"}[type]
    expected = header(TYPES[type], 3) + struct.pack(f">3{letter}", *values)
    assert (tmp_path / "set").read_bytes() == expected


def test_the_last_dimension_runs_fastest_however_the_array_lies_in_memory(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    idx.write(tmp_path / "set", array.T)
    assert (tmp_path / "set").read_bytes() == header(8, 3, 2) + bytes([0, 3, 1, 4, 2, 5])


def test_the_same_array_gives_the_same_compressed_bytes(tmp_path):
    array = np.arange(1000, dtype=np.int16)
    for name in ("one.gz", "other name.gz"):
        idx.write(tmp_path / name, array)
    one, other = ((tmp_path / name).read_bytes() for name in ("one.gz", "other name.gz"))
    assert one == other
    assert one[4:8] == bytes(4)  # the gzip header's time: RFC 1952, 2.3
    assert gzip.decompress(one) == header(0x0B, 1000) + array.astype(">i2").tobytes()


@pytest.mark.parametrize(
    "array", [np.zeros(3, np.int64), np.zeros(3, bool), np.array(["a"]), np.uint8(3), np.zeros((1,) * 9, np.uint8)]
)
def test_what_the_format_has_no_word_for_is_refused_and_nothing_is_written(array, tmp_path):
    with pytest.raises(MedicError, match="cannot write"):
        idx.write(tmp_path / "set", array)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(unwritable):
    with pytest.raises(MedicError, match="cannot write"):
        idx.write(unwritable / "set", np.zeros(3, np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file: it begins with nothing"),
        (b"\0\0", "no IDX file"),
        (b"\x89PNG\r\n\x1a\n", "no IDX file: it begins with 89 50 4e 47"),
        (header(0x0A, 3) + b"abc", "its type is 0x0a"),
        (b"\0\0\x08\0", "claims 0 dimensions"),
        (b"\0\0\x08\xff" + bytes(2000), "claims 255 dimensions"),
        (header(8, 2, 3)[:7], "cut off in its header: 5 of 12 bytes are missing"),
        (header(8, 2, 3) + b"12345", r"promises 2 x 3 values and 1 of 6 bytes are missing"),
        (header(0x0C, 4), r"16 of 16 bytes are missing"),
        (header(8, 2, 3) + b"1234567", "longer than the 2 x 3 values"),
        (header(8, 0) + b"1", "longer than the 0 values"),
        (header(8, 60000, 65536), r"claims 60,000 x 65,536 values of 1 bytes, more than the"),
        (header(8, 0, 2**32 - 1, 2**32 - 1), "more than the"),
    ],
)
def test_each_fault_is_named(content, message, place):
    with pytest.raises(MedicError, match=message) as caught:
        idx.read(lay(place, content))
    assert str(place) in str(caught.value)


def test_an_absurd_size_costs_no_memory(tmp_path):
    path = lay(tmp_path / "set", header(0x0E, 2**31, 2**31) + bytes(100))
    tracemalloc.start()
    with pytest.raises(MedicError, match="claims"):
        idx.read(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    bomb = tmp_path / "set.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(header(8, 10))
        for _ in range(256):
            file.write(bytes(1024**2))
    tracemalloc.start()
    with pytest.raises(MedicError, match="longer than the 10 values"):
        idx.read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_damaged_compression_is_named(tmp_path):
    good = gzip.compress(header(8, 5000) + np.random.default_rng(0).bytes(5000))
    flipped = bytearray(good)
    flipped[-6] ^= 0xFF  # the checksum of the content: RFC 1952, 2.3.1
    for name, content, message in (
        ("cut.gz", good[: len(good) // 2], "cut off inside its compressed data"),
        ("flipped.gz", bytes(flipped), "cannot be unpacked"),
        ("inside.gz", good[:200] + b"\xff" * 50 + good[250:], "cannot be unpacked"),
        ("trailing.gz", good + b"rubbish", "cannot be unpacked|longer"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MedicError, match=message):
            idx.read(tmp_path / name)


def test_a_name_that_does_not_fit_the_content_is_explained(tmp_path):
    content = header(8, 3) + b"abc"
    (tmp_path / "set.gz").write_bytes(content)  # as browsers leave it that unpack on the way
    with pytest.raises(MedicError, match=r"rename it without \.gz"):
        idx.read(tmp_path / "set.gz")
    (tmp_path / "set").write_bytes(gzip.compress(content))
    with pytest.raises(MedicError, match=r"rename it to set\.gz"):
        idx.read(tmp_path / "set")


def test_a_file_that_is_not_there_and_a_folder_are_errors(tmp_path):
    for path in (tmp_path / "nothing", tmp_path / "nothing.gz", tmp_path):
        with pytest.raises(MedicError, match="cannot read"):
            idx.read(path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "shape", "md5"),
    [
        ("train-images-idx3-ubyte", (60000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
        ("train-labels-idx1-ubyte", (60000,), "a25bea736e30d166cdddb491f175f624"),
        ("t10k-images-idx3-ubyte", (10000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
        ("t10k-labels-idx1-ubyte", (10000,), "27ae3e4e09519cfbb04c329615203637"),
    ],
)
def test_mnist_is_read_and_written_bit_for_bit(name, shape, md5, real_data, tmp_path):
    array = idx.read(real_data / "digits" / f"{name}.gz")
    assert (array.dtype, array.shape) == (np.uint8, shape)
    idx.write(tmp_path / name, array)
    assert hashlib.md5((tmp_path / name).read_bytes()).hexdigest() == md5
