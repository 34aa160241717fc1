"""DICOM files become the grey or the colours that other viewers show, or an error that says what is wrong."""

import contextlib
import io

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from medic.data.images.decode import decode, read_header
from medic.data.images.dicom import is_dicom
from medic.errors import ImageError

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def dicom(pixels: np.ndarray = RAMP, bits: int = 12, syntax: UID = ExplicitVRLittleEndian, **elements) -> bytes:
    """A file with these stored values (H, W) or (H, W, 3); further elements by keyword, None leaves one out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def table(entries: list[int], depth: int, first: int = 0) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, depth]
    item.LUTData = entries
    item["LUTDescriptor"].VR = "US"
    item["LUTData"].VR = "US"
    return item


WHOLE = np.rint(RAMP / RAMP.max() * 255)
SHOWN = {
    "spread without a window": (dicom(), WHOLE),
    "eight bits keep their range": (dicom(np.full((4, 4), 100, np.uint8), bits=8), np.full((4, 4), 100)),
    "a window": (dicom(WindowCenter=1024, WindowWidth=2048), np.clip((RAMP - 1023.5) / 2047 + 0.5, 0, 1) * 255),
    "the first of several windows": (
        dicom(WindowCenter=[1024, 2], WindowWidth=[2048, 3]),
        np.clip((RAMP - 1023.5) / 2047 + 0.5, 0, 1) * 255,
    ),
    "a window of rescaled values": (
        dicom(RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=1000),
        np.clip((2.0 * RAMP - 1024 + 0.5) / 999 + 0.5, 0, 1) * 255,
    ),
    "white is black": (dicom(PhotometricInterpretation="MONOCHROME1"), 255 - WHOLE),
    "signed values": (dicom(RAMP.astype(np.int16) - 2048), WHOLE),
    "a lookup table": (dicom(VOILUTSequence=[table(list(range(4096)), 12)]), RAMP / 4095 * 255),
    "a lookup table that claims more bits than it uses": (
        dicom(VOILUTSequence=[table(list(range(4096)), 16)]),
        RAMP / 4095 * 255,
    ),
    "a lookup table of eight bits and more than 256 entries": (
        dicom(VOILUTSequence=[table([value // 16 for value in range(4096)], 8)]),
        RAMP // 16,
    ),
    "run lengths": (dicom(syntax=RLELossless), WHOLE),
    "big endian": (dicom(syntax=ExplicitVRBigEndian), WHOLE),
    "implicit types": (dicom(syntax=ImplicitVRLittleEndian), WHOLE),
}


@pytest.mark.parametrize("how", SHOWN)
def test_values_are_shown_as_the_header_asks(how):
    data, expected = SHOWN[how]
    shown = decode(data)
    assert shown.dtype == np.uint8
    assert np.abs(shown.astype(float) - np.asarray(expected)[:, :, None]).max() <= 1
    assert read_header(data).format == "DICOM"


def test_colours_come_as_they_are_stored():
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(decode(dicom(colours, bits=8)), colours)


@pytest.mark.parametrize(("padding", "limit"), [(4080, None), (4000, 4095)])
def test_padding_is_black_and_takes_no_part_in_the_spread(padding, limit):
    elements = {"PixelPaddingValue": padding} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    shown = decode(dicom(**elements))[:, :, 0]
    assert shown[padding <= RAMP].max() == 0
    assert shown[padding > RAMP].max() == 255


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_data_set_without_preamble_is_read_whatever_it_is_called(syntax):
    whole = pydicom.dcmread(io.BytesIO(dicom(syntax=syntax)))
    file = io.BytesIO()
    pydicom.dcmwrite(file, whole, enforce_file_format=False, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    bare = file.getvalue()[file.getvalue().index(b"\x08\x00\x16\x00") :]
    assert is_dicom(bare)
    assert np.abs(decode(bare)[:, :, 0] - WHOLE).max() <= 1
    assert not is_dicom(b"image,label\n1.png,0\n" * 20)


REFUSED = {
    "several frames": (dicom(NumberOfFrames=4, Rows=4), "unsupported", "4 frames"),
    "a report": (dicom(PixelData=None, Rows=None), "unsupported", "no pixel data"),
    "no pixels": (dicom(PixelData=None), "truncated", "before its pixels"),
    "too few pixels": (dicom(Rows=64), "truncated", "512 bytes of pixels and needs 2048"),
    "too large": (dicom(Rows=20_000, Columns=20_000, PixelData=bytes(2)), "truncated", "needs"),
    "an unknown kind": (dicom(PhotometricInterpretation="XYZ"), "unsupported", "XYZ"),
    "a window of no width": (dicom(WindowCenter=1, WindowWidth=0), "unreadable", "damaged|too narrow"),
    "no type of value": (dicom(PixelRepresentation=None), "unreadable", "damaged"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_single_image_is_refused_with_a_sentence(what):
    data, reason, told = REFUSED[what]
    with pytest.raises(ImageError, match=told) as refused:
        decode(data)
    assert refused.value.reason == reason
    assert len(str(refused.value).split()) <= 30


def test_a_jpeg_damaged_inside_a_dicom_file_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (96, 96)).astype(np.uint8)
    sound = cv2.imencode(".jpg", noise)[1].tobytes()
    middle = len(sound) // 2
    for frame, fine in [(sound, True), (sound[:middle] + bytes(300) + sound[middle + 300 :], False)]:
        dataset = pydicom.dcmread(io.BytesIO(dicom(noise, bits=8)))
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file := io.BytesIO(), enforce_file_format=True)
        if fine:
            assert np.abs(decode(file.getvalue())[:, :, 0].astype(int) - noise).mean() < 10
        else:
            with pytest.raises(ImageError, match="damaged"):
                decode(file.getvalue())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_wrong_inside_gives_pixels_or_an_image_error(given_):
    data = bytearray(given_.draw(st.sampled_from([dicom(), dicom(syntax=RLELossless)])))
    for _ in range(given_.draw(st.integers(1, 4))):
        data[given_.draw(st.integers(0, len(data) - 1))] = given_.draw(st.integers(0, 255))
    data = bytes(data[: given_.draw(st.integers(1, len(data)))])
    with contextlib.suppress(ImageError):
        assert decode(data).dtype == np.uint8
