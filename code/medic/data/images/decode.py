"""Bytes to pixels. Pillow reads the header and guards; simplejpeg, OpenCV and pydicom decode.

A JPEG is decoded at reduced scale where that is enough, and strictly: libjpeg fills what is damaged inside with
whatever comes, and only warns; here that is an error.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from medic.data.images.dicom import DicomImage, decode_dicom, is_dicom, read_dicom
from medic.errors import ImageError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
"""What Pillow and OpenCV read; DICOM comes beside them."""
MAX_PIXELS = 100_000_000
"""More pixels than any fundus camera or X-ray detector gives; a header that claims more is refused unread."""
MAX_SIDE = 12_000
"""Pixels of the longer side: crops pad to a square, so that a strip of one pixel's height would fill the memory."""

_OTHERS = (
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyp", "a HEIC photograph, as telephones write them"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
)
# Pillow only warns between one and two times its own limit, and of broken EXIF; OpenCV writes its own lines about each
# file that it cannot decode, where an error says it. Once for the process: to change this for a moment is not safe
# among threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded.

    Attributes:
        format: ``JPEG``, ``PNG``, ``TIFF``, ``BMP`` or ``DICOM``.
        width: pixels as stored.
        height: pixels as stored.
        mode: what a pixel holds, in Pillow's words: ``L`` grey, ``RGB``, ``RGBA``, ``P`` palette, ``CMYK``, ``I;16``.
        orientation: of EXIF, 1 (upright) to 8.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int = 1


def read_header(data: bytes) -> Header:
    """Read format and size without decoding, and refuse what must not be decoded.

    Args:
        data: a whole JPEG, PNG, TIFF, BMP or DICOM file.

    Raises:
        ImageError: empty; no image of these formats; several pictures in one TIFF; 32 bits a sample; cut off before its
            end; more than ``MAX_PIXELS`` pixels or a side longer than ``MAX_SIDE``.
    """
    return _open(data)[0]


def decode(data: bytes, at_least: int | None = None, bits: int | None = None) -> np.ndarray:
    """Decode an image to RGB, with its EXIF orientation applied.

    Grey becomes three equal channels. Transparency is dropped, not blended: the colours are those under it. DICOM is
    shown as its header asks (``medic.data.images.dicom``).

    Args:
        data: a whole image file.
        at_least: pixels that the shorter side must keep. A JPEG much larger than that is decoded at 1/2, 1/4 or 1/8
            scale, which the format allows at a fraction of the work. None decodes at full size.
        bits: how many of 16 bits a PNG or TIFF uses, as its whole set does (``used_bits``); None takes all 16.

    Returns:
        uint8 (H, W, 3) RGB, values 0..255.

    Raises:
        ImageError: as ``read_header``, or the image is damaged inside.
    """
    return decode_with_header(data, at_least, bits)[1]


def decode_with_header(data: bytes, at_least: int | None = None, bits: int | None = None) -> tuple[Header, np.ndarray]:
    """Decode as ``decode`` does, and return the header as well, read once."""
    header, dicom = _open(data)
    if dicom is not None:
        return header, decode_dicom(dicom)
    pixels = _decode(data, header, at_least)
    return header, pixels if pixels.dtype == np.uint8 else _scaled(pixels, bits or 16)


def used_bits(data: bytes) -> int | None:
    """Return how many bits the values of an image of 16 bits a sample use; None for all other images and for DICOM.

    Raises:
        ImageError: as ``read_header``.
    """
    header, dicom = _open(data)
    sixteen = data[24:25] == b"\x10" if header.format == "PNG" else header.format == "TIFF"
    if dicom is not None or not sixteen:
        return None
    pixels = _decode(data, header, None)
    return int(pixels.max()).bit_length() if pixels.dtype == np.uint16 else None


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """Scale an image (H, W, 3) so that neither side is longer than ``side`` pixels; a smaller one stays as it is."""
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _open(data: bytes) -> tuple[Header, DicomImage | None]:
    """The header, and of a DICOM file what else was read for it."""
    if not data:
        raise ImageError("the image file is empty (0 bytes); copy or download it again", "empty")
    dicom = read_dicom(data) if is_dicom(data) else None
    header = _read_with_pillow(data) if dicom is None else _of_dicom(dicom)
    if header.width * header.height > MAX_PIXELS or max(header.width, header.height) > MAX_SIDE:
        raise _too_large()
    if dicom is None and _cut_off(data, header.format):
        raise _truncated(len(data))
    return header, dicom


def _read_with_pillow(data: bytes) -> Header:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # MPO is a JPEG with further ones behind it (a preview, say), as some cameras write; the first is meant.
            kind = "JPEG" if image.format == "MPO" else image.format
            pages = image.n_frames if kind == "TIFF" else 1
            orientation = image.getexif().get(0x0112, 1) if kind == "JPEG" else 1
            header = Header(kind, *image.size, image.mode, orientation)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except MemoryError:
        raise
    except Exception as error:
        if data[:3] == b"\xff\xd8\xff" and _cut_off(data, "JPEG"):
            raise _truncated(len(data)) from error
        if kind := next((kind for at, start, kind in _OTHERS if data[at:].startswith(start)), ""):
            raise ImageError(
                f"this is {kind}, a format that is not read; save the picture that is meant as PNG or JPEG",
                "unsupported",
            ) from error
        raise ImageError(
            f"these {len(data)} bytes are no image that is read; give a JPEG, PNG, TIFF, BMP or DICOM file",
            "unsupported",
        ) from error
    if pages > 1:
        raise ImageError(
            f"the TIFF holds {pages} pictures, and one is read; save the one that is meant by itself", "unsupported"
        )
    if kind == "TIFF" and header.mode in ("F", "I"):
        raise ImageError("a TIFF of 32 bits a sample is not read; save it with 8 or 16 bits", "unsupported")
    return header


def _of_dicom(dicom: DicomImage) -> Header:
    mode = "P" if dicom.kind == "PALETTE COLOR" else "L" if dicom.kind.startswith("MONOCHROME") else "RGB"
    return Header("DICOM", dicom.columns, dicom.rows, mode)


def _cut_off(data: bytes, kind: str) -> bool:
    """Whether the end marker of a JPEG or PNG file is missing (decoders would fill the rest, and say nothing)."""
    # From the end, where it is: to search a megabyte from the start takes a millisecond.
    return data.rfind({"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(kind, b"")) < 2


def _decode(data: bytes, header: Header, at_least: int | None) -> np.ndarray:
    """RGB of 8 or 16 bits, as stored, upright."""
    try:
        pixels = _decode_strictly(data, header, at_least)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises nearly every exception there is for bytes that are wrong
        raise _damaged(header) from error
    if pixels is None:
        raise _damaged(header)
    return pixels


def _decode_strictly(data: bytes, header: Header, at_least: int | None) -> np.ndarray | None:
    if header.format == "JPEG" and header.mode != "CMYK":
        return _upright(_decode_jpeg(data, header, at_least), header.orientation)
    if header.format == "TIFF" and header.mode in ("RGBA", "LA", "PA"):
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return np.ascontiguousarray(np.array(ImageOps.exif_transpose(image).convert("RGBA"))[:, :, :3])
    # Inside these, OpenCV takes damage for colours and says nothing.
    if header.format == "JPEG":
        simplejpeg.decode_jpeg(data, "CMYK", strict=True)
    elif header.format == "PNG":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH)
    return pixels if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _decode_jpeg(data: bytes, header: Header, at_least: int | None) -> np.ndarray:
    shorter = min(header.width, header.height)
    factor = 1 if at_least is None else max((f for f in (2, 4, 8) if shorter // f >= at_least), default=1)
    wanted = {} if factor == 1 else {"min_height": -(-header.height // factor), "min_width": -(-header.width // factor)}
    return simplejpeg.decode_jpeg(data, "RGB", strict=True, min_factor=factor, **wanted)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as EXIF's orientation says (CIPA DC-008, 4.6.5.1.6)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _scaled(pixels: np.ndarray, bits: int) -> np.ndarray:
    """uint16 of which so many bits are used to uint8."""
    return (np.minimum(pixels, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)


def _too_large() -> ImageError:
    return ImageError(
        f"the image has too many pixels; at most {MAX_PIXELS:,} and {MAX_SIDE:,} a side are read; scale it down first",
        "too_large",
    )


def _truncated(length: int) -> ImageError:
    return ImageError(
        f"the image is cut off after {length} bytes, its end is missing; copy or download it again", "truncated"
    )


def _damaged(header: Header) -> ImageError:
    return ImageError(
        f"the {header.format} of {header.width} x {header.height} pixels is damaged inside and cannot be decoded; "
        "copy or download it again",
        "unreadable",
    )
