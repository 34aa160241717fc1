"""DICOM files to pixels with pydicom: the header first, then the grey or the colours that it means."""

import io
import logging
import warnings
from contextlib import suppress

import numpy as np
import pydicom
import simplejpeg
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, get_decoder, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit

from medic.errors import ImageError

_KINDS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_NUMBERS = {"NumberOfFrames": 1, "SamplesPerPixel": 1, "BitsStored": 8, "BitsAllocated": 8, "Rows": 0, "Columns": 0}
_BY_FRAME = "PerFrameFunctionalGroupsSequence"
# What pydicom says of oddities and of decoders that fail helps no reader. Once for the process: to change this for a
# moment is not safe among threads.
warnings.filterwarnings("ignore", module="pydicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def read_dicom(data: bytes) -> pydicom.Dataset:
    """Read the elements of a whole DICOM file, and refuse what is no single image that can be decoded.

    Returns:
        pydicom's data set, pixels not yet decoded; size, bits, samples and ``PhotometricInterpretation`` make sense.

    Raises:
        ImageError: the file is damaged or cut off, holds no image or several, or pixels of a kind that is not read.
    """
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        for keyword, usual in _NUMBERS.items():
            setattr(dataset, keyword, int(dataset.get(keyword) or usual))
        # What an enhanced image says of its frames holds for its only one.
        for group in [*dataset.get("SharedFunctionalGroupsSequence", []), *dataset.get(_BY_FRAME, [])][:2]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                dataset.update((group.get(macro) or [{}])[0])
        dataset.PhotometricInterpretation = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
        fault = _fault(dataset)
    except Exception as error:  # pydicom raises nearly every exception there is for bytes that are wrong
        what = "the DICOM file is damaged and cannot be decoded; copy or export it again"
        raise ImageError(what, "unreadable") from error
    if fault:
        raise ImageError(f"the DICOM file {fault}", "unsupported")
    return dataset


def _fault(dataset: pydicom.Dataset) -> str | None:
    """Why a data set is no single image that can be decoded, as far as its header says, and what to do."""
    kind, samples, bits = dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.BitsStored
    if not dataset.get("PixelData"):
        return "holds no pixels (a report, or a file that was cut off); give the whole file of the image itself"
    if dataset.NumberOfFrames != 1:
        return f"holds {dataset.NumberOfFrames} frames, and one image is read; export the frame that is meant"
    if kind not in _KINDS or samples not in (1, 3) or not 1 <= bits <= 16:
        what = f"{kind[:16] or 'unnamed'} pixels of {samples} samples and {bits} bits"
        return f"holds {what}, which is not read; export it as a PNG"
    syntax, able = dataset.file_meta.TransferSyntaxUID, False
    with suppress(NotImplementedError):
        able = get_decoder(syntax).is_available and not (syntax == JPEGExtended12Bit and bits > 8)
    if not able:
        remedy = "install pylibjpeg[all], or write it uncompressed (gdcmconv --raw IN OUT)"
        return f"has pixels compressed as {syntax.name}, which is not undone; {remedy}"
    return None


def decode_dicom(dataset: pydicom.Dataset) -> np.ndarray:
    """Decode what ``read_dicom`` gave as its header asks (PS3.4, N.2): modality, value of interest, polarity.

    Without lookup table and window, up to 8 bits keep their range, and more are spread from the smallest to the
    largest value of the image. Pixel padding is black and takes no part in the spread.

    Returns:
        uint8 (H, W, 3) RGB, 0..255; the three channels are equal for a monochrome image.

    Raises:
        Exception: whatever pydicom and its decoders raise for pixels that are damaged.
    """
    if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
        # The decoder behind pydicom fills what is damaged inside, and says nothing.
        simplejpeg.decode_jpeg(get_frame(dataset.PixelData, 0, number_of_frames=1), strict=True)
    pixels, bits = pixel_array(dataset), dataset.BitsStored
    if dataset.SamplesPerPixel == 1 and dataset.PhotometricInterpretation != "PALETTE COLOR":
        return np.repeat(_grey(pixels, dataset)[:, :, None], 3, axis=2)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        bits = 8 if pixels.max() < 256 else 16  # tables that claim 16 bits and hold 8 exist
    return np.ascontiguousarray(pixels, np.uint8) if bits == 8 else _to_bytes(pixels, 0, (1 << bits) - 1)


def _grey(stored: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """Grey, uint8 (H, W), of stored values (H, W)."""
    first, bits = header.get("PixelPaddingValue"), header.BitsStored
    # As the bits of a pixel: files state the sign of the padding wrongly (PS3.3, C.7.5.1.1.2).
    limits = np.array([first or 0, header.get("PixelPaddingRangeLimit", first) or 0], np.int64).astype(stored.dtype)
    padding = (first is not None) & (stored >= limits.min()) & (stored <= limits.max())
    values = apply_modality_lut(stored, header)
    if header.get("VOILUTSequence"):
        # By hand: pydicom goes round at entry 256 of tables of 8 bits (PS3.3, C.11.2.1.1).
        table = header.VOILUTSequence[0]
        (count, first, _), entries = table.LUTDescriptor, table.LUTData
        first -= (first >= 1 << 15 and values.min() < 0) * (1 << 16)  # a negative one, written without its sign
        if isinstance(entries, bytes):
            wide = "<u2" if header.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
            entries = np.frombuffer(entries, "u1" if len(entries) == count else wide)
        entries = np.asarray(entries, np.int64)
        values = entries[np.clip(np.rint(values).astype(int) - first, 0, len(entries) - 1)]
        # Tables that claim 16 bits and end at 4095 exist: other viewers go by the values, and so does this.
        ends = 0, (1 << max(8, int(entries.max()).bit_length())) - 1
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        # pydicom gives windowed values in a range of its own: two values beyond any window tell which.
        ends = apply_windowing(np.array([-1e30, 1e30]), header)
        values = apply_windowing(values, header)
    elif bits > 8 and not padding.all():
        ends = values[~padding].min(), values[~padding].max()
    else:
        least = -(1 << bits - 1) if header.get("PixelRepresentation") == 1 else 0
        ends = np.sort(apply_modality_lut(np.array([least, least + (1 << bits) - 1]), header))
    shown = _to_bytes(values, *ends)
    shown = 255 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown
    return np.where(padding, 0, shown).astype(np.uint8)


def _to_bytes(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Spread values from black (0) to white (255), which may be the smaller; all are black where both are one."""
    return np.rint(255 * np.clip((values - black) / ((white - black) or 1), 0, 1)).astype(np.uint8)
