"""One compressed frame of a DICOM file: its fragments joined, and its claims checked before a decoder believes them."""

from __future__ import annotations

from itertools import pairwise
from struct import Struct

from medic.data.images.dicom_elements import MAX_ELEMENTS, cut_off, damaged, several_frames

_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD  # PS3.5, 7.5
_JPEG_START, _J2K_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
# Start of frame of every JPEG process (ITU-T T.81, table B.1) and of JPEG-LS (ITU-T T.87, C.2.2).
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = {0x01, *range(0xD0, 0xD8)}
_RLE_HEADER = Struct("<16L")


def read_frame(data: bytes, at: int) -> bytes:
    """Join the fragments of compressed pixel data that holds one frame (PS3.5, A.4).

    Args:
        data: the whole file.
        at: offset of the pixel data's value.

    Raises:
        ImageError: the file ends before the fragments do, they are no fragments, or they are of several frames.
    """
    unpack = Struct("<HHL").unpack_from
    joined, table = bytearray(), True
    for _ in range(MAX_ELEMENTS):
        if at + 8 > len(data):
            raise cut_off(len(data))
        group, number, length = unpack(data, at)
        at += 8
        if group << 16 | number == _SEQUENCE_END and not table:
            # As some writers do, a JP2 file instead of the stream in it; the standard wants the stream (PS3.5, A.4.4).
            return bytes(joined[max(0, joined.find(_J2K_START)) :] if joined.startswith(_JP2_START) else joined)
        if group << 16 | number != _ITEM or length == 0xFFFFFFFF:
            raise damaged("has compressed pixels that are not in fragments")
        if at + length > len(data):
            raise cut_off(len(data))
        if table and length > 4:  # offsets, four bytes a frame
            raise several_frames(length // 4)
        if not table:
            joined += data[at : at + length]
        table, at = False, at + length
    raise damaged(f"has over {MAX_ELEMENTS:,} fragments")


def check_stream(frame: bytes, width: int, height: int, samples: int) -> None:
    """See that a JPEG, JPEG-LS or JPEG 2000 stream is as large as the DICOM header says, by which memory is bounded.

    Raises:
        ImageError: it is another size, or no such stream.
    """
    claimed = _jpeg_size(frame) if frame.startswith(_JPEG_START) else _j2k_size(frame)
    if claimed is None:
        raise damaged("has compressed pixels that are no JPEG")
    if claimed != (width, height, samples):
        raise damaged(
            f"says {width} x {height} pixels of {samples} samples, and its compressed pixels say {claimed[0]} x "
            f"{claimed[1]} of {claimed[2]}"
        )


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = Struct(">HH").unpack_from(frame, at + 5)
            return width, height, frame[at + 9]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _j2k_size(frame: bytes) -> tuple[int, int, int] | None:
    """From the SIZ segment, which must come first (ITU-T T.800, A.5.1)."""
    if not frame.startswith(_J2K_START) or len(frame) < 42:
        return None
    right, bottom, left, top = Struct(">4L").unpack_from(frame, 8)
    return right - left, bottom - top, int.from_bytes(frame[40:42], "big")


def check_rle(frame: bytes, pixels: int, segments: int) -> None:
    """See that each run-length coded segment gives one byte a pixel (PS3.5, annex G), which is cheap to count.

    Two bytes can stand for 128, and segments could share theirs: thirty megabytes would unpack to gigabytes.

    Args:
        frame: the frame.
        pixels: rows times columns.
        segments: samples a pixel times bytes a sample.

    Raises:
        ImageError: a segment gives less or more, or the segments are not those of such an image.
    """
    count, *offsets = _RLE_HEADER.unpack_from(frame) if len(frame) >= _RLE_HEADER.size else (0,)
    bounds = [*offsets[:segments], len(frame)]
    if count != segments or offsets[0] < _RLE_HEADER.size or any(start > end for start, end in pairwise(bounds)):
        raise damaged(f"has pixels in {count} run-length segments that are not the {segments} of its header")
    for at, end in pairwise(bounds):
        given = 0
        if end - at > 2 * pixels + 256:
            raise damaged("has run-length coded pixels that are more than its image")
        while at < end and given <= pixels + 256:
            run = frame[at]
            given += run + 1 if run < 128 else 257 - run if run > 128 else 0
            at += run + 2 if run < 128 else 2 if run > 128 else 1
        # What fills a segment up to an even length may read as one run more.
        if not pixels <= given <= pixels + 256:
            raise damaged("has run-length coded pixels that are not as many as its image's")
