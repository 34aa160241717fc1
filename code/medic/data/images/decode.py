"""Bytes to pixels. Pillow reads the header and guards; OpenCV decodes, at reduced scale where that is enough.

DICOM files go their own way, through ``medic.data.images.dicom`` and pydicom, and come out as the same pixels.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medic.data.images.dicom import DicomImage, decode_dicom, find_pixels, is_dicom, read_dicom
from medic.errors import ImageError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
"""What Pillow and OpenCV read; DICOM comes beside them."""
MAX_PIXELS = 100_000_000
"""More pixels than any fundus camera or X-ray detector gives; a header that claims more is refused unread."""
MAX_SIDE = 12_000
"""Pixels of the longer side: crops pad to a square, so that a strip of one pixel's height would fill the memory."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
# Inside a JPEG's scan FF is followed by 00 (stuffing), D0 to D7 (restart) or FF (fill): any other pair is a marker.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Pillow only warns between one and two times its own limit; ours is an error and lower. Once for the process: to
# change the filters for a moment is not safe among threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded.

    Attributes:
        format: ``JPEG``, ``PNG``, ``TIFF``, ``BMP`` or ``DICOM``.
        width: pixels as stored.
        height: pixels as stored.
        mode: what a pixel holds, in Pillow's words: ``L`` grey, ``RGB``, ``RGBA``, ``P`` palette, ``CMYK``, ...
    """

    format: str
    width: int
    height: int
    mode: str


def read_header(data: bytes) -> Header:
    """Read format and size without decoding, and refuse what must not be decoded.

    Args:
        data: a whole JPEG, PNG, TIFF, BMP or DICOM file.

    Raises:
        ImageError: empty; no image of these formats; cut off before its end; more than ``MAX_PIXELS`` pixels or
            a side longer than ``MAX_SIDE``; of DICOM also what ``medic.data.images.dicom`` refuses.
    """
    return _open(data)[0]


def _open(data: bytes) -> tuple[Header, DicomImage | None]:
    """The header, and of a DICOM file what else was read for it."""
    if not data:
        raise ImageError("the image file is empty (0 bytes); copy or download it again", "empty")
    dicom = read_dicom(data) if is_dicom(data) else None
    header = _read_with_pillow(data) if dicom is None else _of_dicom(dicom)
    if header.width * header.height > MAX_PIXELS:
        raise _too_large(f"{header.width} x {header.height}")
    if max(header.width, header.height) > MAX_SIDE:
        raise ImageError(
            f"the image claims {header.width} x {header.height} pixels, a side longer than the {MAX_SIDE:,} allowed; "
            "scale it down first",
            "too_large",
        )
    if dicom is not None:
        find_pixels(dicom)
    elif _cut_off(data):
        raise _truncated(len(data))
    return header, dicom


def _read_with_pillow(data: bytes) -> Header:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # MPO is a JPEG with further ones behind it (a preview, say), as some cameras write; the first is meant.
            return Header("JPEG" if image.format == "MPO" else image.format, *image.size, image.mode)
    except Image.DecompressionBombError as error:
        raise _too_large(str(error)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if _cut_off(data):
            raise _truncated(len(data)) from error
        if kind := _other_format(data):
            raise ImageError(
                f"this is {kind}, a format that is not read; save the picture that is meant as PNG or JPEG",
                "unsupported",
            ) from error
        raise ImageError(
            f"these {len(data)} bytes are no readable image; give a JPEG, PNG, TIFF, BMP or DICOM file",
            "unsupported",
        ) from error


def _of_dicom(dicom: DicomImage) -> Header:
    mode = "P" if dicom.kind == "PALETTE COLOR" else "L" if dicom.samples == 1 else "RGB"
    return Header("DICOM", dicom.columns, dicom.rows, mode)


def _other_format(data: bytes) -> str:
    """What a picture in another widespread format is called; empty for anything else."""
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "an animated GIF, which holds several pictures" if _is_animated(data) else "a GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        # The flag of the extended header (RFC 9649, 2.7.1.1).
        animated = data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 2
        return "an animated WebP, which holds several pictures" if animated else "a WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"):
        return "an AVIF" if data[8:11] == b"avi" else "a HEIC photograph, as telephones write them"
    if data[:12] == b"\x00\x00\x00\x0cjP  \r\n\x87\n":
        return "a JPEG 2000"
    return ""


def _is_animated(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=("GIF",)) as image:
            return image.is_animated
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return False


def _cut_off(data: bytes) -> bool:
    """Whether the end of a JPEG or PNG file is missing (decoders would fill the rest with grey, and say nothing)."""
    if data.startswith(_PNG_START):
        return b"IEND" not in data[-4096:]
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    # From marker to marker, over each segment's length: a thumbnail in the header has an end marker of its own.
    at = 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        if found[0] == b"\xff\xd9":
            return False
        if found[0] == b"\xff\xda" and data.endswith(b"\xff\xd9"):  # the common case, without a walk over the scan
            return False
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return True


def _too_large(size: str) -> ImageError:
    return ImageError(
        f"the image claims {size} pixels, more than the {MAX_PIXELS:,} allowed; scale it down first",
        "too_large",
    )


def _truncated(length: int) -> ImageError:
    return ImageError(
        f"the image is cut off after {length} bytes, its end is missing; copy or download it again",
        "truncated",
    )


def decode(data: bytes, at_least: int | None = None) -> np.ndarray:
    """Decode an image to RGB, with its EXIF orientation applied.

    Grey becomes three equal channels. Transparency is dropped, not blended: the colours are those under it. Of 16 bits
    the upper eight count, for the format has its values fill the whole range; a PNG that says (sBIT) that only some
    bits are significant, and keeps them at the lower end although it should not, is brightened by as many.
    DICOM is shown as its header asks (``medic.data.images.dicom_display``).

    Args:
        data: a whole image file.
        at_least: pixels that the shorter side must keep. A JPEG much larger than that is decoded at 1/2, 1/4 or 1/8
            scale, which the format allows at a fraction of the work. None decodes at full size.

    Returns:
        uint8 (H, W, 3) RGB, values 0..255.

    Raises:
        ImageError: as ``read_header``, or the image is damaged inside.
    """
    return decode_with_header(data, at_least)[1]


def decode_with_header(data: bytes, at_least: int | None = None) -> tuple[Header, np.ndarray]:
    """The same, with what the file says of itself: for who wants both, and the header read once."""
    header, dicom = _open(data)
    if dicom is not None:
        return header, decode_dicom(dicom)
    factor = 1
    if at_least is not None and header.format == "JPEG":
        shorter = min(header.width, header.height)
        factor = max((f for f in (2, 4, 8) if shorter // f >= at_least), default=1)
    reduced = {
        1: 0,
        2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
        4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
        8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    }
    bits = _significant_bits(data)
    # The reduction's flag and the RGB flag together: the pixels come out of the decoder in our order.
    flags = reduced[factor] | cv2.IMREAD_COLOR_RGB | (0 if bits is None else cv2.IMREAD_ANYDEPTH)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _unreadable(header) from error
    if pixels is None:
        raise _unreadable(header)
    return header, pixels if bits is None else _to_eight_bits(pixels, bits)


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, 3) of which neither side is longer than ``side`` pixels; a smaller one is given back as it is."""
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _significant_bits(data: bytes) -> int | None:
    """Significant bits of a PNG of 16 bits a sample that states fewer (PNG, 11.3.2.7: sBIT); None for all others."""
    if not data.startswith(_PNG_START) or data[24:25] != b"\x10":
        return None
    at = len(_PNG_START)
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) not in (b"IDAT", b"IEND"):
        length = int.from_bytes(data[at : at + 4], "big")
        if kind == b"sBIT":
            stated = max(data[at + 8 : at + 8 + min(length, 3 if data[25] & 2 else 1)], default=0)
            return stated if 8 <= stated < 16 else None
        at += 12 + length
    return None


def _to_eight_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Scale uint16 samples of which so many bits are significant to uint8.

    By the PNG standard (13.12) such samples fill all 16 bits, and the bits below the significant ones are zeros or
    repeat the upper ones. Samples that stay small and use just those bits were written as they came from the detector.
    """
    if pixels.dtype != np.uint16:
        return pixels
    if pixels.max() >> bits == 0 and (pixels & ((1 << 16 - bits) - 1)).any():
        return (pixels >> bits - 8).astype(np.uint8)
    return (pixels >> 8).astype(np.uint8)


def _unreadable(header: Header) -> ImageError:
    return ImageError(
        f"the {header.format} of {header.width} x {header.height} pixels is damaged inside and cannot be decoded; "
        "copy or download it again",
        "unreadable",
    )
