"""Bytes to pixels: Pillow reads the header and guards; simplejpeg, OpenCV and pydicom decode.

Decoding is strict: libjpeg fills what is damaged inside with whatever comes, and only warns; here that is an error.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from medic.errors import ImageError

MAX_PIXELS = 100_000_000
"""More pixels than any fundus camera or X-ray detector gives; a header that claims more is refused unread."""
MAX_SIDE = 12_000
"""Pixels of the longer side: crops pad to a square, so that a strip of one pixel's height would fill the memory."""

_TOO_LARGE = (
    f"the image has too many pixels; at most {MAX_PIXELS:,} and {MAX_SIDE:,} a side are read; scale it down first"
)
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
# A first element of group 0002 or 0008, with its type in two letters or, in other files, a length below 1024.
_FIRST_ELEMENT = re.compile(rb"[\x02\x08]\0.\0(?:[A-Z]{2}|.[\0-\3]\0\0)", re.DOTALL)
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}
# Pillow only warns between one and two times its own limit, and of broken EXIF; OpenCV writes its own lines about each
# file that it cannot decode. Once for the process: to change this for a moment is not safe among threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded."""

    format: str  # JPEG, PNG, TIFF, BMP or DICOM
    width: int  # pixels, as stored
    height: int
    mode: str  # what a pixel holds, in Pillow's words: L (grey), RGB, RGBA, P (palette), CMYK, I;16
    bits: int = 8  # of a stored sample
    orientation: int = 1  # of EXIF, 1 (upright) to 8


def is_dicom(data: bytes) -> bool:
    """Return whether bytes, a whole file or its first 132, are DICOM, also without a preamble (PS3.10, 7.1)."""
    return data[128:132] == b"DICM" or _FIRST_ELEMENT.match(data) is not None


def read_header(data: bytes) -> Header:
    """Read format and size of a whole image file without decoding, and refuse what must not be decoded.

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
    header, decoder = _open(data, at_least)
    pixels, bits = _run(decoder, header), bits or 16
    return pixels if pixels.dtype == np.uint8 else (np.minimum(pixels, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)


def used_bits(data: bytes) -> int | None:
    """Return how many bits an image of 16 bits a sample uses; None for others and DICOM. Raises as ``decode``."""
    header, decoder = _open(data)
    if header.format == "DICOM" or header.bits != 16:
        return None
    pixels = _run(decoder, header)
    return int(pixels.max()).bit_length() if pixels.dtype == np.uint16 else None


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """Scale an image (H, W, 3) so that neither side is longer than ``side`` pixels; a smaller one stays as it is."""
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _open(data: bytes, at_least: int | None = None) -> tuple[Header, Callable[[], np.ndarray]]:
    """The header, and what gives the pixels: RGB of 8 or 16 bits, upright."""
    if not data:
        raise ImageError("the image file is empty (0 bytes); copy or download it again", "empty")
    # From the end, where it is: to search a megabyte from the start takes a millisecond.
    if any(data.startswith(start) and data.rfind(end) < 0 for start, end in _ENDS.items()):
        what = f"the image is cut off after {len(data)} bytes, its end is missing; copy or download it again"
        raise ImageError(what, "truncated")
    if is_dicom(data):
        from medic.data.images.dicom import decode_dicom, read_dicom  # a bundle need not have pydicom

        dicom = read_dicom(data)
        mode = {"P": "P", "M": "L"}.get(dicom.PhotometricInterpretation[0], "RGB")  # of PALETTE and MONOCHROME
        header = Header("DICOM", dicom.Columns, dicom.Rows, mode, dicom.BitsStored)
        decoder = partial(decode_dicom, dicom)
    else:
        header = _read_with_pillow(data)
        decoder = partial(_decode, data, header, at_least)
    if header.width * header.height > MAX_PIXELS or max(header.width, header.height) > MAX_SIDE:
        raise ImageError(_TOO_LARGE, "too_large")
    return header, decoder


def _read_with_pillow(data: bytes) -> Header:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            # MPO is a JPEG with further ones behind it (a preview, say), as some cameras write; the first is meant.
            kind = "JPEG" if image.format == "MPO" else image.format
            pages = image.n_frames if kind == "TIFF" else 1
            tags = image.tag_v2 if kind == "TIFF" else {}
            bits = max(tags.get(258, (1,))) if tags else data[24] if kind == "PNG" else 8
            odd = {
                f"{bits} bits a sample": bits > 16,
                "signed or fractional numbers": {*tags.get(339, (1,))} != {1},
                # OpenCV takes the one for black, and mixes up the others.
                "16 bits, 0 being white,": bits > 8 and tags.get(262) == 0,
                "16 bits in separate planes": bits > 8 and tags.get(277, 1) > 1 and tags.get(284) == 2,
            }
            orientation = image.getexif().get(0x0112, 1) if kind == "JPEG" else 1
            header = Header(kind, *image.size, image.mode, bits, orientation)
    except Image.DecompressionBombError as error:
        raise ImageError(_TOO_LARGE, "too_large") from error
    except Exception as error:  # Pillow raises nearly every exception there is for bytes that are wrong
        what = f"these {len(data)} bytes are no image that is read; give a JPEG, PNG, TIFF, BMP or DICOM file"
        raise ImageError(what, "unsupported") from error
    if pages > 1:
        what = f"the TIFF holds {pages} pictures, and one is read; save the one that is meant by itself"
        raise ImageError(what, "unsupported")
    for kind in (kind for kind, found in odd.items() if found):
        raise ImageError(f"a TIFF of {kind} is not read; save it as PNG of 8 or 16 bits", "unsupported")
    return header


def _run(decoder: Callable[[], np.ndarray], header: Header) -> np.ndarray:
    try:
        return decoder()
    except MemoryError:
        raise
    except Exception as error:  # as above, and so do simplejpeg, OpenCV and pydicom
        what = f"the {header.format} of {header.width} x {header.height} pixels is damaged inside and cannot be decoded"
        rare = ", or save a rare kind as PNG" * (header.format == "TIFF")
        raise ImageError(f"{what}; copy or download it again{rare}", "unreadable") from error


def _decode(data: bytes, header: Header, at_least: int | None) -> np.ndarray:
    if header.format == "JPEG" and header.mode != "CMYK":
        return _decode_jpeg(data, header, at_least)
    if header.format == "JPEG":
        simplejpeg.decode_jpeg(data, "CMYK", strict=True)  # what follows takes damage for colours, and says nothing
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if header.format == "PNG":
            image.verify()  # likewise
        elif header.mode in ("RGBA", "LA", "PA", "CMYK") and header.bits < 16:  # OpenCV blends them with black
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _decode_jpeg(data: bytes, header: Header, at_least: int | None) -> np.ndarray:
    """Decode at the smallest scale that keeps enough pixels, and turn as EXIF says (CIPA DC-008, 4.6.5.1.6)."""
    shorter, turn = min(header.width, header.height), header.orientation
    factor = max((f for f in (1, 2, 4, 8) if shorter // f >= (at_least or shorter)), default=1)
    height, width = -(-header.height // factor), -(-header.width // factor)
    pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True, min_factor=factor, min_height=height, min_width=width)
    pixels = pixels.swapaxes(0, 1) if turn in (5, 6, 7, 8) else pixels
    down, right = (-1 if turn in turned else 1 for turned in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(pixels[::down, ::right])
