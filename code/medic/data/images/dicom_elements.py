"""The outline of a DICOM file: where each element lies, found without reading a value (DICOM PS3.5, chapter 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from medic.errors import ImageError

PIXEL_DATA = 0x7FE00010
MAX_ELEMENTS = 1_000_000
"""Elements and items of one file, those inside its sequences included; a second's walk."""

_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD  # PS3.5, 7.5
_UNDEFINED = 0xFFFFFFFF
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # PS3.5, 7.1.2


@dataclass(frozen=True)
class Element:
    """Where one element of the outermost level lies.

    Attributes:
        tag: group and element number as one, such as 0x00280010.
        start: offset of its first byte.
        value: offset of its value.
        end: offset behind it; None for pixel data in fragments, whose end was not looked for.
    """

    tag: int
    start: int
    value: int
    end: int | None


def elements(data: bytes, at: int, little: bool = True) -> Iterator[Element]:
    """Go over the outermost elements, up to the pixel data; sequences are passed over, however deep.

    A parser builds objects for every item of a sequence, so that 8 bytes cost a kilobyte, and recurses. Here nothing
    is kept and the depth is a number.

    Args:
        data: the whole file.
        at: offset of the first element.
        little: whether numbers are little endian.

    Raises:
        ImageError: the file ends inside an element, is no list of elements, or has over ``MAX_ELEMENTS``.
    """
    order = "<" if little else ">"
    two_shorts, one_short, one_long = (Struct(order + format).unpack_from for format in ("HH", "H", "L"))
    # What the file holds decides, not what its transfer syntax claims: the two disagree in files of some devices.
    implicit = not _names_a_type(data[at + 4 : at + 6])
    depth, unknown, outer = 0, None, (0, 0, 0)
    for _ in range(MAX_ELEMENTS):
        if at == len(data) and depth == 0:
            return
        if at + 8 > len(data):
            raise cut_off(len(data))
        group, number = two_shorts(data, at)
        tag, kind = group << 16 | number, data[at + 4 : at + 6]
        if group == 0xFFFE or implicit or (unknown is not None and depth > unknown) or not _names_a_type(kind):
            length, value = one_long(data, at + 4)[0], at + 8
        elif kind not in _LONG:
            length, value = one_short(data, at + 6)[0], at + 8
        elif at + 12 > len(data):
            raise cut_off(len(data))
        else:
            length, value = one_long(data, at + 8)[0], at + 12
        if depth == 0:
            if group == 0xFFFE:
                raise damaged("has a delimiter where an element should be")
            if tag >= PIXEL_DATA:
                yield Element(tag, at, value, None if length == _UNDEFINED else value + length)
                return
            outer = (tag, at, value)
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth, at = depth - 1, value
            if unknown is not None and depth <= unknown:
                unknown = None
        elif length == _UNDEFINED:
            # Within an element of unknown type, elements have no type of their own: PS3.5, 6.2.2, note 2.
            if kind == b"UN" and unknown is None and group != 0xFFFE:
                unknown = depth
            depth, at = depth + 1, value
        else:
            at = value + length
        if depth == 0:
            yield Element(*outer, at)
    raise damaged(f"has over {MAX_ELEMENTS:,} elements")


def _names_a_type(kind: bytes) -> bool:
    return kind.isalpha() and kind.isupper()


def damaged(what: str) -> ImageError:
    """A DICOM file that contradicts itself or the standard: what it does, after "the DICOM file"."""
    return ImageError(f"the DICOM file {what}; export it again from where it came", "unreadable")


def cut_off(length: int) -> ImageError:
    """A DICOM file whose end is missing."""
    return ImageError(
        f"the DICOM file is cut off after {length} bytes, its end is missing; copy or export it again", "truncated"
    )


def several_frames(count: int) -> ImageError:
    """A DICOM file with more than one image in it."""
    return ImageError(
        f"the DICOM file holds {count} frames, and one image is wanted; save the frame that is meant as a file of its "
        "own, a PNG for instance",
        "unsupported",
    )
