"""DICOM files become the grey or the colours that other viewers show, or an error that says what is wrong."""

import io

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from medic.data.images.decode import decode, is_dicom, read_header
from medic.errors import ImageError

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
WHOLE = np.rint(RAMP / RAMP.max() * 255)
NOISE = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
GREY = NOISE[:, :, 0]
JPEG = cv2.imencode(".jpg", GREY)[1].tobytes()
DAMAGED = JPEG[: len(JPEG) // 2] + bytes(300) + JPEG[len(JPEG) // 2 + 300 :]


def dicom(pixels: np.ndarray = RAMP, bits: int = 12, syntax: UID = ExplicitVRLittleEndian, **elements) -> bytes:
    """A file with these stored values (H, W) or (H, W, 3); further elements by keyword, None leaves one out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.set_pixel_data(pixels, "MONOCHROME2" if pixels.ndim == 2 else "RGB", bits, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian:  # in words of 16 bits, whatever a value has
        dataset.PixelData = np.frombuffer(pixels.tobytes(), np.uint16).byteswap().tobytes()
        dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value) if value is not None else delattr(dataset, keyword)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(file := io.BytesIO(), enforce_file_format=True)
    return file.getvalue()


def table(entries: list[int], depth: int, kind: str = "", first: int = 0) -> list[Dataset]:
    """A lookup table; its entries as numbers, or as bytes of a NumPy type."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, depth])
    item.add_new("LUTData", "OW" if kind else "US", np.array(entries, kind).tobytes() if kind else entries)
    return [item]


TABLE, EIGHT = list(range(4096)), [value // 16 for value in range(4096)]
WINDOWED = np.clip((RAMP - 1023.5) / 2047 + 0.5, 0, 1) * 255
PADDED = {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}
RESCALED = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 1000}
BELOW_0 = {"VOILUTSequence": table(TABLE, 12, first=65536 - 2048)}
PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"}
for channel, colour in enumerate(("Red", "Green", "Blue")):
    PALETTE[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
    PALETTE[f"{colour}PaletteColorLookupTableData"] = NOISE[0].repeat(3, 0)[:256, channel].astype("<u2").tobytes()
ENHANCED = Dataset()
ENHANCED.FrameVOILUTSequence = [Dataset()]
ENHANCED.FrameVOILUTSequence[0].WindowCenter, ENHANCED.FrameVOILUTSequence[0].WindowWidth = 1024, 2048
IN_WORDS = {"BitsAllocated": 16, "PixelData": NOISE.astype(np.uint16).tobytes()}
SHOWN = {
    "spread without a window": (dicom(), WHOLE),
    "eight bits keep their range": (dicom(np.full((4, 4), 100, np.uint8), bits=8), np.full((4, 4), 100)),
    "a window": (dicom(WindowCenter=1024, WindowWidth=2048), WINDOWED),
    "the first of several windows": (dicom(WindowCenter=[1024, 2], WindowWidth=[2048, 3]), WINDOWED),
    "a window of rescaled values": (dicom(**RESCALED), np.clip((2.0 * RAMP - 1023.5) / 999 + 0.5, 0, 1) * 255),
    "the window of an enhanced image": (dicom(SharedFunctionalGroupsSequence=[ENHANCED]), WINDOWED),
    "a falling slope": (
        dicom(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=3071, WindowWidth=2048),
        255 - np.clip((RAMP - 1024.5) / 2047 + 0.5, 0, 1) * 255,
    ),
    "white is black": (dicom(PhotometricInterpretation="MONOCHROME1"), 255 - WHOLE),
    "signed values": (dicom(RAMP.astype(np.int16) - 2048), WHOLE),
    "a lookup table": (dicom(VOILUTSequence=table(TABLE, 12)), RAMP / 4095 * 255),
    "one in bytes": (dicom(VOILUTSequence=table(TABLE, 12, "<u2")), RAMP / 4095 * 255),
    "one that claims more bits than it uses": (dicom(VOILUTSequence=table(TABLE, 16)), RAMP / 4095 * 255),
    "one of eight bits and 4096 entries": (dicom(VOILUTSequence=table(EIGHT, 8)), RAMP // 16),
    "one of eight bits in bytes": (dicom(VOILUTSequence=table(EIGHT, 8, "u1")), RAMP // 16),
    "one that begins below zero, without its sign": (dicom(RAMP.astype(np.int16) - 2048, **BELOW_0), RAMP / 4095 * 255),
    "a palette that claims more bits than it uses": (dicom(GREY, 8, **PALETTE), NOISE[0].repeat(3, 0)[GREY]),
    "colours of eight bits in words": (dicom(NOISE, 8, **IN_WORDS), NOISE),
    "padding": (dicom(PixelPaddingValue=4080), np.where(RAMP < 4080, RAMP / 4064 * 255, 0)),
    "a range of padding": (dicom(**PADDED), np.where(RAMP < 4000, RAMP / 3984 * 255, 0)),
    "run lengths": (dicom(syntax=RLELossless), WHOLE),
    "big endian": (dicom(syntax=ExplicitVRBigEndian), WHOLE),
    "big endian, two values a word": (dicom(GREY, 8, ExplicitVRBigEndian), GREY),
    "a JPEG": (
        dicom(GREY, 8, JPEGBaseline8Bit, PixelData=encapsulate([JPEG])),
        cv2.imdecode(np.frombuffer(JPEG, "u1"), 0),
    ),
    "implicit types": (dicom(syntax=ImplicitVRLittleEndian), WHOLE),
    "colours": (dicom(NOISE, bits=8), NOISE),
}


@pytest.mark.parametrize("how", SHOWN)
def test_values_are_shown_as_the_header_asks(how):
    data, expected = SHOWN[how]
    shown = decode(data)
    assert shown.dtype == np.uint8
    assert np.abs(shown.astype(float) - expected.reshape(*expected.shape[:2], -1)).max() <= 1
    assert read_header(data).format == "DICOM"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_data_set_without_preamble_is_read_whatever_it_is_called(syntax):
    whole = dicom(syntax=syntax)
    bare = whole[whole.index(b"\x08\x00\x16\x00") :]
    assert is_dicom(bare)
    assert np.abs(decode(bare)[:, :, 0] - WHOLE).max() <= 1
    assert not is_dicom(b"image,label\n1.png,0\n" * 20)


REFUSED = {
    "several frames": (dicom(NumberOfFrames=4, Rows=4), "unsupported", "4 frames"),
    "a report": (dicom(PixelData=None, Rows=None), "unsupported", "no pixels"),
    "too few pixels": (dicom(Rows=64), "unreadable", "damaged"),
    "too large": (dicom(Rows=20_000, Columns=20_000), "too_large", "too many pixels"),
    "a narrow strip": (dicom(np.zeros((1, 12_001), np.uint16)), "too_large", "too many pixels"),
    "an unknown kind": (dicom(PhotometricInterpretation="XYZ"), "unsupported", "XYZ"),
    "a film": (dicom(syntax=MPEG2MPML, PixelData=encapsulate([b"film"])), "unsupported", "compressed as MPEG2"),
    "a damaged JPEG": (dicom(GREY, 8, JPEGBaseline8Bit, PixelData=encapsulate([DAMAGED])), "unreadable", "damaged"),
    "no height": (dicom(Rows=None), "unreadable", "damaged"),
    "a window of no width": (dicom(WindowCenter=1, WindowWidth=0), "unreadable", "damaged"),
    "no type of value": (dicom(PixelRepresentation=None), "unreadable", "damaged"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_single_image_is_refused_with_a_sentence(what):
    data, reason, told = REFUSED[what]
    with pytest.raises(ImageError, match=told) as refused:
        decode(data)
    assert refused.value.reason == reason
    assert len(str(refused.value).split()) <= 30
