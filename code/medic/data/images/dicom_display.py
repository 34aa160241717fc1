"""From the values that a DICOM file stores to the grey or the colours it means, 0 to 255 (PS3.3, C.7.6.3, C.11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medic.data.images.dicom_elements import damaged
from medic.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

_BAND = 1 << 22  # pixels looked up at a time: NumPy widens every index to eight bytes


class Stored(NamedTuple):
    """How pixels are stored: significant bits, whether negative ones occur, and the byte order of tables."""

    bits: int
    signed: bool
    little: bool


def show_grey(pixels: np.ndarray, header: Dataset, stored: Stored) -> np.ndarray:
    """Apply what the header asks for: modality, value of interest, polarity (PS3.4, N.2).

    The pipeline runs once over every value that can be stored, at most 65,536, and the pixels are looked up in what
    comes out; its numbers need no memory of the image's size.

    - Modality LUT, or rescale slope and intercept (PS3.3, C.11.1).
    - VOI LUT, else window: the first of several (PS3.3, C.11.2). With neither, up to 8 stored bits keep their range,
      and more are spread from the smallest to the largest value of the image.
    - MONOCHROME1 is turned (PS3.3, C.7.6.3.1.2). Presentation LUT Shape says the same once more (PS3.3, C.8.11.3.1.2)
      and is not applied.
    - Pixel padding is black and takes no part in the spread (PS3.3, C.7.5.1.1.2).

    Args:
        pixels: uint8, int8, uint16 or int16 (H, W), as stored.
        header: the elements of group 0028.
        stored: how they are stored.

    Returns:
        uint8 (H, W), 0 black to 255 white.

    Raises:
        ImageError: a table, a window or the rescaling cannot be applied.
    """
    codes = pixels.view(f"u{pixels.itemsize}")
    values = np.arange(1 << 8 * pixels.itemsize, dtype=codes.dtype).view(pixels.dtype).astype(np.int32)
    padding = _padding(values, header)
    measured, low, high = _modality(values, header, stored)
    if header.get("VOILUTSequence"):
        table, depth = _table(header.VOILUTSequence[0], stored.little)
        shown = table.look_up(np.rint(measured).astype(np.int64)) / ((1 << depth) - 1)
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        shown = _window(measured, header)
    else:
        if stored.bits > 8:
            present = np.zeros(len(values), bool)
            for rows in _bands(codes):
                present[codes[rows]] = True
            if (present := present & ~padding).any():
                low, high = measured[present].min(), measured[present].max()
        shown = (measured - low) / (high - low) if high > low else np.zeros(len(values))
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    shown[padding] = 0
    return _looked_up(_to_bytes(shown), codes)


def show_palette(pixels: np.ndarray, header: Dataset, stored: Stored) -> np.ndarray:
    """Look colours up in the file's palette (PS3.3, C.7.6.3.1.5 and C.7.6.3.1.6).

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ImageError: the palette is missing, segmented or damaged.
    """
    codes = pixels.view(f"u{pixels.itemsize}")
    values = np.arange(1 << 8 * pixels.itemsize, dtype=codes.dtype).view(pixels.dtype).astype(np.int64)
    channels = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        if header.get(f"{name}Data") is None:
            raise ImageError(
                "the DICOM file's palette is segmented or missing, which is not read; export the image as a "
                "PNG as it is shown",
                "unsupported",
            )
        table, depth = _parse_table(header.get(f"{name}Descriptor"), header.get(f"{name}Data"), stored.little)
        channels.append(_to_bytes(table.look_up(values) / ((1 << depth) - 1)))
    return _looked_up(np.stack(channels, axis=1), codes)


def show_colour(pixels: np.ndarray, stored: Stored) -> np.ndarray:
    """RGB of any depth as RGB of 8 bits: unsigned (H, W, 3) to uint8 (H, W, 3)."""
    if stored.bits == 8 and pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    largest = (1 << stored.bits) - 1
    return _looked_up(_to_bytes(np.arange(1 << 8 * pixels.itemsize) / largest), pixels)


class _Table(NamedTuple):
    """A lookup table: the value that its first entry is for, and the entries."""

    first: int
    entries: np.ndarray

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entries for some values; below the first and above the last, those (PS3.3, C.11.1.1)."""
        return self.entries[np.clip(values - self.first, 0, len(self.entries) - 1)]


def _table(item: Dataset, little: bool) -> tuple[_Table, int]:
    return _parse_table(item.get("LUTDescriptor"), item.get("LUTData"), little)


def _parse_table(
    descriptor: Sequence[int] | None, data: bytes | int | Sequence[int] | None, little: bool
) -> tuple[_Table, int]:
    """A table and the bits of its entries (PS3.3, C.11.1.1).

    pydicom's own functions count places in the width of the pixels or of the entries: a table of 4,096 entries of
    8 bits, which the standard allows, would wrap around.
    """
    if descriptor is None or data is None or len(descriptor) != 3:
        raise damaged("has a lookup table without a descriptor of three numbers or without data")
    count, first, depth = (int(number) for number in descriptor)
    count = count & 0xFFFF or 1 << 16
    if isinstance(data, bytes):
        width = 2 if len(data) >= 2 * count else 1
        entries = np.frombuffer(data[: len(data) // width * width], ("<" if little else ">") + f"u{width}")
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64))
    if not 1 <= depth <= 16 or len(entries) < count:
        raise damaged(f"describes a lookup table of {count} entries of {depth} bits and holds {len(entries)}")
    return _Table(first, np.clip(entries[:count].astype(np.int64), 0, (1 << depth) - 1)), depth


def _modality(values: np.ndarray, header: Dataset, stored: Stored) -> tuple[np.ndarray, float, float]:
    """Measured values of the stored ones, and the smallest and largest that this many bits can give."""
    if header.get("ModalityLUTSequence"):
        table, depth = _table(header.ModalityLUTSequence[0], stored.little)
        return table.look_up(values).astype(np.float64), 0.0, float((1 << depth) - 1)
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise damaged("has a rescale slope of 0, by which every pixel is the same")
    least = -(1 << stored.bits - 1) if stored.signed else 0
    low, high = sorted(slope * end + intercept for end in (least, least + (1 << stored.bits) - 1))
    return values * slope + intercept, low, high


def _window(measured: np.ndarray, header: Dataset) -> np.ndarray:
    """The share of white, 0..1, that the first window gives (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ImageError(
            f"the DICOM file's window is of the kind {function[:16]!r}, none of LINEAR, LINEAR_EXACT and SIGMOID; "
            "export the image as a PNG as it is shown",
            "unsupported",
        )
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ImageError(
            f"the DICOM file's window is {width:g} wide, too narrow to show anything; correct its Window Width or "
            "remove its window",
            "unreadable",
        )
    if function == "SIGMOID":
        # An exponent beyond 50 changes no digit of a byte and could overflow.
        return 1 / (1 + np.exp(np.clip(-4 * (measured - centre) / width, -50, 50)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (measured > centre).astype(np.float64)
    return np.clip((measured - centre) / width + 0.5, 0, 1)


def _number(header: Dataset, keyword: str, default: float = 0.0) -> float:
    value = header.get(keyword)
    if value is None:
        return default
    number = float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
    if not np.isfinite(number):
        raise damaged(f"has {keyword} {number}")
    return number


def _padding(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Which stored values are padding; taken as bits, because files state the sign of this element wrongly."""
    count, none = len(values), np.zeros(len(values), bool)
    ends = [header.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    first, last = (ends[0] if end is None else int(end) for end in ends)
    if first is None or not (-count // 2 <= min(first, last) and max(first, last) < count):
        return none
    first, last = sorted((int(values[first % count]), int(values[last % count])))
    return (values >= first) & (values <= last)


def _to_bytes(shown: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def _looked_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """``table[codes]``, some rows at a time."""
    shown = np.empty(codes.shape + table.shape[1:], np.uint8)
    for rows in _bands(codes):
        shown[rows] = table[codes[rows]]
    return shown


def _bands(codes: np.ndarray) -> Iterator[slice]:
    step = max(1, _BAND * len(codes) // codes.size)
    return (slice(start, start + step) for start in range(0, len(codes), step))
