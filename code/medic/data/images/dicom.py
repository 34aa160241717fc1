"""DICOM files to pixels with pydicom: the header first, a size check, then the grey or the colours that are meant."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from medic.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

_KINDS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# What pydicom tells of oddities reaches nobody who could act on it. Once for the process: to change the filters for a
# moment is not safe among threads.
warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A DICOM file with one image, its header checked and its pixels not yet decoded.

    Attributes:
        dataset: all elements, as pydicom reads them.
        kind: the photometric interpretation, such as ``MONOCHROME2``.
        bits: significant bits of a stored value.
        rows: height in pixels.
        columns: width in pixels.
    """

    dataset: Dataset
    kind: str
    bits: int
    rows: int
    columns: int


def is_dicom(data: bytes) -> bool:
    """Return whether bytes are a DICOM file, by a preamble with ``DICM`` or by a first element that begins a data set.

    Files without the preamble (PS3.10, 7.1) are common in exports: they begin with group 0002 or 0008.

    Args:
        data: a whole file, or its first 132 bytes.
    """
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8 or data[:2] not in (b"\x02\x00", b"\x08\x00") or data[3:4] != b"\x00":
        return False
    (length,) = struct.unpack("<I", data[4:8])
    return (data[4:6].isalpha() and data[4:6].isupper()) or (length % 2 == 0 and length <= 1024)


def read_dicom(data: bytes) -> DicomImage:
    """Read the elements and refuse what is no single image that can be decoded.

    Args:
        data: a whole DICOM file.

    Raises:
        ImageError: the file is damaged or cut off, holds no image or several, or pixels of a kind that is not read.
    """
    import pydicom
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGExtended12Bit

    # Its log has a stack trace for every decoder that fails, and pydicom sets the level when it is imported.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        described = "Rows" in dataset and "Columns" in dataset
        frames = int(dataset.get("NumberOfFrames") or 1)
        kind = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
        samples = int(dataset.get("SamplesPerPixel") or 1)
        bits, allocated = int(dataset.get("BitsStored") or 8), int(dataset.get("BitsAllocated") or 8)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        syntax = dataset.file_meta.TransferSyntaxUID
        compressed = syntax.is_compressed
        stored = len(dataset.PixelData) if "PixelData" in dataset else 0
    except Exception as error:  # pydicom raises nearly every exception there is for bytes that are wrong
        raise _damaged() from error
    if "PixelData" not in dataset or not stored:
        if described:
            raise ImageError("the DICOM file ends before its pixels; copy or export it again", "truncated")
        what = "holds no pixel data (a report, a directory, or floating point values)"
        raise ImageError(f"the DICOM file {what}; give the file of the image itself", "unsupported")
    if frames != 1:
        raise ImageError(
            f"the DICOM file holds {frames} frames, and one image is read; export the frame that is meant",
            "unsupported",
        )
    if kind not in _KINDS or samples not in (1, 3) or not 1 <= bits <= 16:
        what = f"{kind[:16] or 'unnamed'} pixels of {samples} samples and {bits} bits"
        raise ImageError(f"the DICOM file holds {what}, which is not read; export it as a PNG", "unsupported")
    needed = rows * columns * samples * allocated // (12 if kind == "YBR_FULL_422" else 8)
    if rows < 1 or columns < 1:
        raise _damaged()
    try:
        able = get_decoder(syntax).is_available and not (syntax == JPEGExtended12Bit and bits > 8)
    except NotImplementedError:
        able = False
    if not able:
        raise ImageError(
            f"the DICOM file's pixels are compressed as {syntax.name}, which is not undone; install pylibjpeg[all], "
            "or write the file uncompressed (gdcmconv --raw IN OUT)",
            "unsupported",
        )
    if not compressed and stored < needed:
        raise ImageError(
            f"the DICOM file has {stored} bytes of pixels and needs {needed}; copy or export it again", "truncated"
        )
    return DicomImage(dataset, kind, bits, rows, columns)


def decode_dicom(image: DicomImage) -> np.ndarray:
    """Decode the pixels as the header asks to show them (PS3.4, N.2): modality, value of interest, polarity.

    Without lookup table and window, up to 8 bits keep their range, and more are spread from the smallest to the
    largest value of the image. Pixel padding is black and takes no part in the spread. The caller has checked the size.

    Returns:
        uint8 (H, W, 3) RGB, 0..255; the three channels are equal for a monochrome image.

    Raises:
        ImageError: the pixels are damaged, or no installed decoder undoes their compression.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels import apply_color_lut, pixel_array
    from pydicom.uid import JPEGBaseline8Bit

    try:
        if image.dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
            # The decoder behind pydicom fills what is damaged inside, and says nothing.
            simplejpeg.decode_jpeg(get_frame(image.dataset.PixelData, 0, number_of_frames=1), strict=True)
        pixels = pixel_array(image.dataset)
        if image.kind.startswith("MONOCHROME"):
            shown = _grey(pixels, image)
            return np.repeat(shown[:, :, None], 3, axis=2)
        if image.kind == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, image.dataset)
        bits = 8 * pixels.itemsize if image.kind == "PALETTE COLOR" else image.bits
        return np.ascontiguousarray(pixels if bits == 8 else _to_bytes(pixels / ((1 << bits) - 1)))
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged() from error


def _grey(stored: np.ndarray, image: DicomImage) -> np.ndarray:
    """Grey, uint8 (H, W), of stored values (H, W)."""
    from pydicom.pixels import apply_modality_lut, apply_windowing

    header = image.dataset
    padding = _padding(stored, header)
    measured = apply_modality_lut(stored, header)
    if header.get("VOILUTSequence"):
        shown = _looked_up(measured, header)
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        # pydicom gives windowed values in a range of its own: two values beyond any window tell which.
        black, white = apply_windowing(np.array([-1e30, 1e30]), header)
        shown = (apply_windowing(measured, header) - black) / (white - black)
    else:
        black, white = _range(measured, padding, image)
        shown = (measured - black) / (white - black) if white > black else np.zeros(stored.shape)
    if image.kind == "MONOCHROME1":
        shown = 1 - shown
    return np.where(padding, 0, _to_bytes(shown)).astype(np.uint8)


def _looked_up(measured: np.ndarray, header: Dataset) -> np.ndarray:
    """The share of white that the lookup table gives (PS3.3, C.11.2.1.1).

    pydicom's own way goes round at entry 256 of tables of 8 bits. Tables that claim 16 bits and end at 4095 exist as
    well: other viewers go by the values, and so does this.
    """
    table = header.VOILUTSequence[0]
    count, first, _ = table.LUTDescriptor
    entries = table.LUTData
    if isinstance(entries, bytes):
        from pydicom.uid import ExplicitVRBigEndian

        order = ">" if header.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
        entries = np.frombuffer(entries, np.uint8 if len(entries) == count else f"{order}u2")
    entries = np.atleast_1d(np.asarray(entries, np.int64))
    values = entries[np.clip(np.rint(measured).astype(np.int64) - first, 0, len(entries) - 1)]
    return values / ((1 << max(8, int(entries.max()).bit_length())) - 1)


def _range(measured: np.ndarray, padding: np.ndarray, image: DicomImage) -> tuple[float, float]:
    """The values that become black and white where the file asks for none."""
    if image.bits > 8 and not padding.all():
        return float(measured[~padding].min()), float(measured[~padding].max())
    signed = image.dataset.get("PixelRepresentation") == 1
    least = -(1 << image.bits - 1) if signed else 0
    slope, intercept = (
        float(image.dataset.get(f"Rescale{name}") or none) for name, none in (("Slope", 1), ("Intercept", 0))
    )
    low, high = sorted(slope * end + intercept for end in (least, least + (1 << image.bits) - 1))
    return low, high


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Which pixels are padding (PS3.3, C.7.5.1.1.2), bool (H, W)."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = header.get("PixelPaddingRangeLimit")
    # As the bits of a pixel: files state the sign of this element wrongly.
    low, high = np.sort(np.array([first, first if last is None else last], np.int64).astype(stored.dtype))
    return (stored >= low) & (stored <= high)


def _to_bytes(shown: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def _damaged() -> ImageError:
    return ImageError("the DICOM file is damaged and cannot be decoded; copy or export it again", "unreadable")
