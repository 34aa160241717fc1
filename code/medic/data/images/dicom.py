"""DICOM files to pixels: pydicom reads the header and decompresses, behind checks that keep a hostile file small."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from medic.data.images.dicom_display import Stored, show_colour, show_grey, show_palette
from medic.data.images.dicom_elements import PIXEL_DATA, Element, cut_off, damaged, elements, several_frames
from medic.data.images.dicom_frame import check_rle, check_stream, read_frame
from medic.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_START = 132  # of the first element: behind the preamble and the prefix (PS3.10, 7.1)
_TRANSFER_SYNTAX = 0x00020010
_ROWS = 0x00280010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_HIGH_THROUGHPUT = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_PACKAGES = {
    **dict.fromkeys(_JPEG_LS, "pyjpegls"),
    **dict.fromkeys((*_JPEG_LOSSLESS, _JPEG_EXTENDED), "pylibjpeg pylibjpeg-libjpeg"),
    **dict.fromkeys(_HIGH_THROUGHPUT, "pylibjpeg pylibjpeg-openjpeg"),
}

# Elements of group 0028 that decide how pixels look, by their number, with the bytes that a value may have: pydicom
# makes an object of each number in it.
_FEW, _TABLE = 1 << 16, 1 << 20
_WANTED = {
    **dict.fromkeys((0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103), _FEW),
    **dict.fromkeys((0x0120, 0x0121, 0x1050, 0x1051, 0x1052, 0x1053, 0x1056, 0x1101, 0x1102, 0x1103), _FEW),
    **dict.fromkeys((0x1201, 0x1202, 0x1203, 0x3000, 0x3010), _TABLE),
}
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

# What pydicom tells of oddities goes to nobody who could act on it; what matters is an ImageError. Once for the
# process: to change the filters for a moment is not safe among threads.
warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A DICOM file with one image, its header checked and its pixels not yet touched.

    Attributes:
        data: the whole file.
        element: where its pixel data lies.
        syntax: the transfer syntax: how numbers are written and how pixels are compressed.
        header: the elements of group 0028.
        stored: how a pixel is stored.
        kind: the photometric interpretation.
        samples: numbers a pixel, 1 or 3.
        allocated: bits that each of them takes.
        rows: height in pixels.
        columns: width in pixels.
    """

    data: bytes
    element: Element
    syntax: UID
    header: Dataset
    stored: Stored
    kind: str
    samples: int
    allocated: int
    rows: int
    columns: int


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: a preamble of 128 bytes, then ``DICM`` (PS3.10, 7.1)."""
    return data[128:_START] == b"DICM"


def read_dicom(data: bytes) -> DicomImage:
    """Find the elements, refuse what is no single image that can be decoded, and check the header.

    Args:
        data: a whole DICOM file.

    Raises:
        ImageError: the file is cut off in its header or damaged, it has no image or several, its pixels are compressed
            in a way or of a kind that is not read here, or pydicom is not installed.
    """
    pydicom = _pydicom()
    syntax, start = _read_meta(data)
    little = syntax.rstrip("\0 ") != _BIG_ENDIAN
    kept, element = _sieve(data, start, little)
    if element is None:
        raise _without_pixels(_ROWS in kept)
    with _refusing("has a damaged header"):
        # The file without anything but what is wanted, so that nothing else is parsed. No name of a patient is in it.
        meta = b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax.encode()
        small = bytes(128) + b"DICM" + meta + b"".join(kept[tag] for tag in sorted(kept))
        header = pydicom.dcmread(io.BytesIO(small))
        if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
            raise several_frames(frames)
        image = DicomImage(data, element, pydicom.uid.UID(syntax.rstrip("\0 ")), header, *_pixel_module(header, little))
    _check_syntax(image)
    return image


def find_pixels(image: DicomImage) -> bytes | memoryview:
    """The pixels as in the file: as many bytes as the header wants, or one compressed frame.

    Raises:
        ImageError: some are missing, or there are several frames of them.
    """
    if image.syntax.is_encapsulated:
        if image.element.end is not None:
            raise damaged("has pixels that are not compressed, though it says they are")
        return read_frame(image.data, image.element.value)
    if image.element.end is None:
        raise damaged("has compressed pixels, though it says they are not")
    bits = image.rows * image.columns * image.samples * image.allocated
    size = ((bits * 2 // 3 if image.kind == "YBR_FULL_422" else bits) + 7) // 8
    there = min(image.element.end, len(image.data)) - image.element.value
    if there < size:
        raise ImageError(
            f"the DICOM file has {there} bytes of pixels where {image.columns} x {image.rows} need {size}; copy or "
            "export it again",
            "truncated",
        )
    if there >= 2 * size and size > 1:
        raise several_frames(there // size)
    return memoryview(image.data)[image.element.value : image.element.value + there]


def decode_dicom(image: DicomImage) -> np.ndarray:
    """Pixels as they are meant to be shown; ``medic.data.images.dicom_display`` says how.

    ``medic.data.images.decode`` calls it once the size is found to be no more than is allowed.

    Returns:
        uint8 (H, W, 3) RGB, 0..255; the three channels are equal for a monochrome image.

    Raises:
        ImageError: as ``find_pixels``, or the pixels are damaged, or lookup tables or window cannot be applied.
    """
    coded = find_pixels(image)
    with _refusing("cannot be decoded, its pixels or its header are damaged"):
        pixels, kind = _decompress(image, coded)
        if image.kind in _GREY:
            grey = show_grey(pixels, image.header, image.stored)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.kind == "PALETTE COLOR":
            return show_palette(pixels, image.header, image.stored)
        if kind != "RGB":
            raise _unsupported(f"has colours of the kind {kind}", "export it as RGB or as a PNG")
        return show_colour(pixels, image.stored)


@cache
def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError as error:
        raise ImageError(
            "this is a DICOM file, and pydicom, which reads them, is not installed here; run: pip install pydicom",
            "unsupported",
        ) from error
    # Its log has a stack trace for every decoder that fails, and pydicom itself sets the level when it is imported.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Whatever pydicom raises for bytes that are wrong, which is nearly every exception there is, as an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise damaged(what) from error


def _read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax, padded as in the file, and where the data set starts (PS3.10, 7.1)."""
    syntax, at = None, _START
    if data[at : at + 2] == b"\x02\x00":
        for element in elements(data, at):
            at = element.end or len(data)
            if at > len(data):
                raise cut_off(len(data))
            if element.tag == _TRANSFER_SYNTAX:
                syntax = data[element.value : at].decode("ascii", "replace")
            if data[at : at + 2] != b"\x02\x00":
                break
    elif len(data) - at < 8:
        raise cut_off(len(data))
    plain = (syntax or "").rstrip("\0 ")
    if not 0 < len(plain) <= 64 or not plain.replace(".", "").isdecimal() or not plain.isascii():
        raise damaged("does not say how it is written (no valid transfer syntax in its file meta information)")
    if plain in _DEFLATED:
        # It could unpack to a thousand times its size, and what follows would be read from that.
        raise _unsupported(
            f"is deflated as a whole (transfer syntax {plain})",
            "write it as Explicit VR Little Endian (gdcmconv --raw)",
        )
    return syntax + "\0" * (len(syntax) % 2), at


def _sieve(data: bytes, start: int, little: bool) -> tuple[dict[int, bytes], Element | None]:
    """The bytes of the wanted elements by tag, and the pixel data."""
    kept: dict[int, bytes] = {}
    for element in elements(data, start, little):
        if element.tag in _FLOAT_PIXELS:
            raise _unsupported("holds its pixels as floating point numbers", "export it with whole numbers")
        if element.tag == PIXEL_DATA:
            return kept, element
        if element.tag >> 16 != 0x0028 or (limit := _WANTED.get(element.tag & 0xFFFF)) is None:
            continue
        if element.end is None or element.end > len(data):
            raise cut_off(len(data))
        if element.end - element.start > limit:
            raise damaged(f"has over {limit:,} bytes in element (0028,{element.tag & 0xFFFF:04X})")
        kept[element.tag] = data[element.start : element.end]
    return kept, None


def _pixel_module(header: Dataset, little: bool) -> tuple[Stored, str, int, int, int, int]:
    """The last six attributes of a ``DicomImage``, checked (PS3.3, C.7.6.3)."""
    rows, columns = (_whole(header, name, range(1, 1 << 16)) for name in ("Rows", "Columns"))
    samples = _whole(header, "SamplesPerPixel", (1, 3))
    allocated, bits = _whole(header, "BitsAllocated", range(1, 65)), _whole(header, "BitsStored", range(1, 65))
    signed = _whole(header, "PixelRepresentation", (0, 1)) == 1
    kind = str(header.get("PhotometricInterpretation") or "").strip().upper()
    if kind not in (*_GREY, *_COLOURS, "PALETTE COLOR"):
        raise _unsupported(f"has pixels of the kind {kind[:16]!r}", "export it as MONOCHROME2 or RGB, or as a PNG")
    if allocated not in (1, 8, 16):
        raise _unsupported(f"has {allocated} bits allocated a pixel", "export it with 8 or 16")
    if bits > allocated or samples != (3 if kind in _COLOURS else 1) or (samples == 3 and (signed or allocated == 1)):
        raise damaged(f"contradicts itself: {kind} with {samples} samples of {bits} bits in {allocated}")
    if header.get("HighBit") is not None and header.HighBit != bits - 1:
        raise _unsupported(f"has its {bits} bits elsewhere than PS3.5, 8.1.1 wants them", "export it again as a PNG")
    return Stored(bits, signed, little), kind, samples, allocated, rows, columns


def _whole(header: Dataset, keyword: str, allowed: range | tuple[int, ...]) -> int:
    value = header.get(keyword)
    if value is None:
        raise damaged(f"does not say its {keyword}")
    if not isinstance(value, int) or value not in allowed:
        raise damaged(f"says {keyword} {str(value)[:16]!r}, which cannot be")
    return value


def _check_syntax(image: DicomImage) -> None:
    """Refuse compression that no installed decoder undoes."""
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(image.syntax)
        able = decoder.is_available
        if image.syntax == _JPEG_EXTENDED and image.stored.bits > 8:
            able = able and decoder.available_plugins != ("pillow",)  # which decodes 8 bits only
    except NotImplementedError:
        able = False
    if not able:
        packages = _PACKAGES.get(image.syntax)
        install = f"run: pip install {packages}, or " if packages else ""
        raise _unsupported(
            f"has pixels compressed as {image.syntax.name} ({image.syntax})",
            f"{install}write it uncompressed (gdcmconv --raw IN OUT)",
        )


def _decompress(image: DicomImage, coded: bytes | memoryview) -> tuple[np.ndarray, str]:
    """Pixels as stored, (H, W) or (H, W, 3), and their photometric interpretation now: YBR becomes RGB on the way."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    if image.syntax == _RLE:
        check_rle(coded, image.rows * image.columns, image.samples * image.allocated // 8)
    elif image.syntax.is_encapsulated:
        check_stream(coded, image.columns, image.rows, image.samples)
    options = {"planar_configuration": _whole(image.header, "PlanarConfiguration", (0, 1))} if image.samples > 1 else {}
    pixels, properties = get_decoder(image.syntax).as_array(
        encapsulate([coded], has_bot=False) if image.syntax.is_encapsulated else coded,
        rows=image.rows,
        columns=image.columns,
        samples_per_pixel=image.samples,
        bits_allocated=image.allocated,
        bits_stored=image.stored.bits,
        pixel_representation=int(image.stored.signed),
        photometric_interpretation=image.kind,
        number_of_frames=1,
        allow_excess_frames=False,
        pixel_keyword="PixelData",
        pixel_vr="OB" if image.allocated == 8 else "OW",
        **options,
    )
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), str(properties["photometric_interpretation"])


def _without_pixels(described: bool) -> ImageError:
    if described:
        return ImageError(
            "the DICOM file describes an image and ends before its pixels; copy or export it again", "truncated"
        )
    return _unsupported(
        "holds no pixel data (a report, a directory or another document, not an image)",
        "give the file of the image itself",
    )


def _unsupported(what: str, remedy: str) -> ImageError:
    """A sound DICOM file that is not read: what it is or has, and what helps."""
    return ImageError(f"the DICOM file {what}, which is not read here; {remedy}", "unsupported")
