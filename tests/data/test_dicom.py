"""DICOM files: the pixels that they mean, and what is refused before it can do harm. Every file is made here."""

import io
import struct
import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from medic.data.images import decode as decoding
from medic.data.images import dicom as dicom_module
from medic.data.images.decode import MAX_SIDE, decode, read_header
from medic.data.images.dicom_elements import MAX_ELEMENTS
from medic.errors import ImageError

GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
NAME = "Doe^Jane"


def dataset(pixels: np.ndarray | None, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Dataset:
    """A radiograph's data set: MONOCHROME2 or RGB after the array's shape; elements given here replace these."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid(entropy_srcs=["medic"])
    made.PatientName = NAME
    made.SpecificCharacterSet = "ISO_IR 192"
    if pixels is not None:
        made.Rows, made.Columns = pixels.shape[:2]
        made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
        made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        if pixels.ndim == 3:
            made.PlanarConfiguration = 0
        bits = 8 * pixels.dtype.itemsize
        made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
        made.PixelRepresentation = int(pixels.dtype.kind == "i")
        # An even number of bytes, as the standard wants it.
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        made.PixelData = (stored := pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()) + bytes(len(stored) % 2)
        made["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
        if keyword == "BitsStored":
            made.HighBit = value - 1
    return made


def written(made: Dataset) -> bytes:
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def dicom(pixels: np.ndarray | None, syntax: str = ExplicitVRLittleEndian, **elements: object) -> bytes:
    return written(dataset(pixels, syntax, **elements))


def compressed(frame: bytes, syntax: str, like: np.ndarray, **elements: object) -> bytes:
    made = dataset(like, syntax, **elements)
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    return written(made)


def patched(data: bytes, element: bytes, value: bytes) -> bytes:
    """A file whose explicit element, known by its tag, type and length, has another value."""
    assert data.count(element) == 1
    at = data.index(element) + len(element)
    return data[:at] + value + data[at + len(value) :]


def shown(data: bytes) -> np.ndarray:
    """The grey of a monochrome image, its three channels found equal."""
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


def refused(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value


def lut(descriptor: list[int], entries: np.ndarray) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US" if descriptor[1] >= 0 else "SS", descriptor)
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_grey_comes_back_however_numbers_are_written(syntax, dtype):
    made = dataset(GREYS.astype(dtype), syntax if syntax != RLELossless else ExplicitVRLittleEndian)
    if syntax == RLELossless:
        made.compress(RLELossless)
    assert np.array_equal(shown(written(made)), GREYS)


def test_the_header_says_format_width_and_height():
    header = read_header(dicom(np.zeros((30, 41), np.uint8)))
    assert (header.format, header.width, header.height) == ("DICOM", 41, 30)


def test_monochrome1_is_turned():
    assert np.array_equal(shown(dicom(255 - GREYS, PhotometricInterpretation="MONOCHROME1")), GREYS)


def test_presentation_lut_shape_does_not_turn_it_back():
    data = dicom(255 - GREYS, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(shown(data), GREYS)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_more_than_eight_bits_are_spread_from_the_smallest_to_the_largest_value(bits, signed):
    wide = np.rint(GREYS.astype(float) * ((1 << bits) - 1) / 255).astype(np.int64)
    wide = (wide - (1 << bits - 1)).astype(np.int16) if signed else wide.astype(np.uint16)
    assert np.array_equal(shown(dicom(wide, BitsStored=bits)), GREYS)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_few_bits_fill_the_range_of_their_bits_not_of_the_image(bits):
    pixels = np.array([[0, 1], [1, 0]], np.uint8)
    assert shown(dicom(pixels, BitsStored=bits)).max() == round(255 / ((1 << bits) - 1))


def test_one_bit_a_pixel_is_unpacked():
    pixels = np.tile(np.array([0, 1, 1, 0, 1, 0, 0, 1], np.uint8), (4, 1))
    made = dataset(pixels, BitsAllocated=1, BitsStored=1, HighBit=0)
    made.PixelData = np.packbits(pixels, bitorder="little").tobytes()
    assert np.array_equal(shown(written(made)), 255 * pixels)


def test_a_dull_eight_bit_image_is_shown_as_it_is():
    dull = 100 + GREYS // 8
    assert np.array_equal(shown(dicom(dull)), dull)


def test_bits_above_those_stored_are_ignored():
    wide = GREYS.astype(np.uint16) * 16 | 0xA000
    assert np.array_equal(shown(dicom(wide, BitsStored=12)), shown(dicom(wide & 0xFFF, BitsStored=12)))


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (1000, 350.5), (40, 1.5), (-300, 900)])
def test_a_window_shows_what_pydicom_shows(function, centre, width):
    values = np.random.default_rng(7).integers(0, 4096, (40, 50)).astype(np.uint16)
    made = dataset(values, BitsStored=12, WindowCenter=centre, WindowWidth=width)
    if function is not None:
        made.VOILUTFunction = function
    expected = apply_voi_lut(values, made) / 4095 * 255
    assert np.abs(shown(written(made)) - expected).max() <= 0.5 + 1e-6


def test_the_window_is_of_rescaled_values():
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    elements = {"BitsStored": 12, "RescaleSlope": 0.5, "RescaleIntercept": -1024}
    windowed = shown(dicom(values, WindowCenter=40, WindowWidth=400, **elements))
    expected = np.clip((values * 0.5 - 1024 - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(windowed - expected).max() <= 0.5 + 1e-6
    assert (windowed[0, 0], windowed[-1, -1]) == (0, 255)


def test_a_negative_slope_turns_the_image():
    data = dicom(255 - GREYS, RescaleSlope=-1, RescaleIntercept=0)
    assert np.array_equal(shown(data), GREYS)


def test_of_several_windows_the_first_counts():
    wide = GREYS.astype(np.uint16) * 257
    data = dicom(wide, WindowCenter=[32768, 100], WindowWidth=[65536, 10])
    assert np.array_equal(shown(data), GREYS)


def test_a_window_one_wide_is_a_threshold():
    assert np.array_equal(shown(dicom(GREYS, WindowCenter=100, WindowWidth=1)), np.where(GREYS >= 100, 255, 0))


def test_a_table_of_values_of_interest_comes_before_a_window():
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    root = np.rint(np.sqrt(np.arange(4096) / 4095) * 1023)
    table = Sequence([lut([4096, 0, 10], root), lut([4096, 0, 10], root[::-1])])
    data = dicom(values, BitsStored=12, VOILUTSequence=table, WindowCenter=5, WindowWidth=3)
    expected = np.rint(root / 1023 * 255).reshape(64, 64)
    assert np.array_equal(shown(data), expected)
    implicit = dicom(values, ImplicitVRLittleEndian, BitsStored=12, VOILUTSequence=table)
    assert np.array_equal(shown(implicit), expected)


def test_a_table_of_many_entries_of_eight_bits_does_not_wrap_around():
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    table = Sequence([lut([4096, 0, 8], np.arange(4096) // 16)])
    assert np.array_equal(shown(dicom(values, BitsStored=12, VOILUTSequence=table)), values // 16)


def test_values_outside_a_table_take_its_ends():
    values = np.array([[-5, -2, 0], [1, 3, 100]], np.int16)
    table = Sequence([lut([4, -2, 8], np.array([10, 20, 30, 40]))])
    assert shown(dicom(values, VOILUTSequence=table)).tolist() == [[10, 10, 30], [40, 40, 40]]


def test_a_modality_table_keeps_the_range_of_its_entries():
    table = Sequence([lut([256, 0, 8], 255 - np.arange(256))])
    assert np.array_equal(shown(dicom(255 - GREYS, ModalityLUTSequence=table)), GREYS)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_not_part_of_the_spread(kind):
    values = np.linspace(-1000, 1000, 64).round().astype(np.int16).reshape(8, 8)
    framed = np.pad(values, 2, constant_values=-2000)
    made = dataset(framed, PhotometricInterpretation=kind)
    made.add_new(0x00280120, "SS", -2000)
    pixels = shown(written(made))
    plain = shown(dicom(values, PhotometricInterpretation=kind))
    assert np.array_equal(pixels[2:-2, 2:-2], plain)
    assert not pixels[:2].any()


def test_padding_of_the_wrong_sign_and_as_a_range_is_understood():
    values = np.array([[-2000, -1990, 0, 500]], np.int16)
    made = dataset(values)
    made.add_new(0x00280120, "US", 65536 - 2000)
    made.add_new(0x00280121, "US", 65536 - 1990)
    assert shown(written(made)).tolist() == [[0, 0, 0, 255]]


def test_padding_that_no_pixel_can_have_is_not_looked_for():
    made = dataset(GREYS)
    made.add_new(0x00280120, "US", 65535)
    assert np.array_equal(shown(written(made)), GREYS)


def test_an_even_image_is_black_and_no_error():
    assert not shown(dicom(np.full((4, 4), 700, np.uint16))).any()


def test_rgb_by_pixel_and_by_plane(smooth):
    pixels = smooth()
    assert np.array_equal(decode(dicom(pixels)), pixels)
    made = dataset(pixels, PlanarConfiguration=1)
    made.PixelData = pixels.transpose(2, 0, 1).tobytes()
    assert np.array_equal(decode(written(made)), pixels)


def test_rgb_of_sixteen_bits(smooth):
    assert np.array_equal(decode(dicom(smooth().astype(np.uint16) * 257)), smooth())


def test_luma_and_chroma_become_rgb(smooth):
    pixels = smooth()
    ybr = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]
    assert np.abs(decode(dicom(ybr, PhotometricInterpretation="YBR_FULL")).astype(int) - pixels).max() <= 2
    even = cv2.GaussianBlur(ybr, (0, 0), 3)
    pairs = np.stack([even[:, ::2, 0], even[:, 1::2, 0], even[:, ::2, 1], even[:, ::2, 2]], axis=2)
    made = dataset(even, PhotometricInterpretation="YBR_FULL_422")
    made.PixelData = pairs.tobytes()
    expected = decode(dicom(even, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(decode(written(made)).astype(int) - expected).max() <= 6


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_rgb(bits):
    palette = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2]).astype(np.uint8)
    made = dataset(GREYS, PhotometricInterpretation="PALETTE COLOR")
    for number, channel in enumerate(palette):
        entries = channel.astype("<u2") * 257 if bits == 16 else channel
        made.add_new(0x00281101 + number, "US", [256, 0, bits])
        made.add_new(0x00281201 + number, "OW", entries.tobytes())
    assert np.array_equal(decode(written(made)), palette.T[GREYS])


def test_a_jpeg_inside_gives_what_the_jpeg_gives(smooth, encode):
    grey = cv2.cvtColor(smooth(), cv2.COLOR_RGB2GRAY)
    jpeg = encode(grey, "JPEG", "L", quality=92)
    assert np.abs(shown(compressed(jpeg, JPEGBaseline8Bit, grey)).astype(int) - decode(jpeg)[:, :, 0]).max() <= 1
    colour = encode(smooth(), "JPEG", quality=92, subsampling=0)
    data = compressed(colour, JPEGBaseline8Bit, smooth(), PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(decode(data).astype(int) - decode(colour)).mean() < 1


def test_a_lossless_jpeg_2000_inside_gives_back_its_pixels(encode):
    stream = encode(GREYS, "JPEG2000", "L", irreversible=False, no_jp2=True)
    boxed = encode(GREYS, "JPEG2000", "L", irreversible=False)
    assert np.array_equal(shown(compressed(stream, JPEG2000Lossless, GREYS)), GREYS)
    assert np.array_equal(shown(compressed(boxed, JPEG2000Lossless, GREYS)), GREYS)


def test_a_frame_in_several_fragments_is_joined(smooth, encode):
    grey = cv2.cvtColor(smooth(), cv2.COLOR_RGB2GRAY)
    jpeg = encode(grey, "JPEG", "L")
    made = dataset(grey, JPEGBaseline8Bit)
    made.PixelData = encapsulate([jpeg], fragments_per_frame=3)
    made["PixelData"].is_undefined_length = True
    assert np.array_equal(decode(written(made)), decode(compressed(jpeg, JPEGBaseline8Bit, grey)))


def test_sequences_before_the_pixels_are_passed_over_however_they_are_written():
    inner = dataset(GREYS[:2, :2], PixelRepresentation=1)
    del inner.file_meta
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([inner, Dataset()])
    outer["ReferencedImageSequence"].is_undefined_length = True
    made = dataset(GREYS, SourceImageSequence=Sequence([outer, outer]), IconImageSequence=Sequence([inner]))
    made["SourceImageSequence"].is_undefined_length = True
    for item in made.SourceImageSequence:
        item.is_undefined_length_sequence_item = True
    made.add_new(0x00091001, "UN", b"\x7f\xe0" * 50)
    assert np.array_equal(shown(written(made)), GREYS)


def test_a_sequence_of_unknown_type_is_read_as_implicit():
    data = dicom(GREYS)
    item = b"\x08\x00\x05\x00\x4c\x42\x00\x00" + bytes(0x424C)  # a length that reads like the type "LB"
    unknown = b"\x09\x00\x01\x10UN\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" + item
    unknown += b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    at = data.index(b"\x10\x00\x10\x00PN")
    assert np.array_equal(shown(data[:at] + unknown + data[at:]), GREYS)


def test_what_follows_the_pixels_does_no_harm():
    assert np.array_equal(shown(dicom(GREYS) + b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0" + b"junk" * 3), GREYS)


def test_names_and_other_text_are_not_even_parsed(monkeypatch):
    import pydicom

    seen = []
    dcmread = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda file: seen.append(file.getvalue()) or dcmread(file))
    decode(dicom(GREYS))
    assert len(seen) == 1
    assert NAME.encode() not in seen[0]


# What is refused.


def test_a_report_has_no_pixel_data():
    error = refused(dicom(None, Modality="SR"))
    assert error.reason == "unsupported"
    assert "no pixel data" in str(error)
    assert "image itself" in str(error)


@pytest.mark.parametrize(
    ("syntax", "name", "remedy"),
    [
        (JPEGLSLossless, "JPEG-LS", "pip install pyjpegls"),
        (JPEGLosslessSV1, "JPEG Lossless", "pip install pylibjpeg pylibjpeg-libjpeg"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4", "gdcmconv --raw"),
    ],
)
def test_compression_that_is_not_undone_here_is_named_with_the_remedy(syntax, name, remedy):
    error = refused(compressed(b"anything", syntax, GREYS))
    assert error.reason == "unsupported"
    for said in (name, syntax, remedy):
        assert said in str(error)


def test_compression_that_nobody_knows_is_named_by_its_number():
    data = compressed(b"anything", JPEGLSLossless, GREYS).replace(JPEGLSLossless.encode(), b"1.2.276.0.7230010.3.12")
    assert "1.2.276.0.7230010.3.12" in str(refused(data))


def test_twelve_bit_jpeg_is_named_though_eight_bits_would_do():
    error = refused(compressed(b"anything", JPEGExtended12Bit, GREYS.astype(np.uint16), BitsStored=12))
    assert error.reason == "unsupported"
    assert "pylibjpeg" in str(error)


def test_a_deflated_file_is_refused_and_never_inflated(monkeypatch):
    data = dicom(np.zeros((4000, 4000), np.uint8), DeflatedExplicitVRLittleEndian)
    assert len(data) < 50_000
    monkeypatch.setattr("zlib.decompress", lambda *_: pytest.fail("it was inflated"))
    error = refused(data)
    assert error.reason == "unsupported"
    assert "deflated" in str(error)


@pytest.mark.parametrize("stated", [True, False])
def test_several_frames_are_counted(stated):
    made = dataset(GREYS, **({"NumberOfFrames": 3} if stated else {}))
    made.PixelData = made.PixelData * 3
    error = refused(written(made))
    assert error.reason == "unsupported"
    assert "3 frames" in str(error)
    assert "file of its own" in str(error)


def test_compressed_frames_are_counted_too(encode):
    made = dataset(GREYS, JPEGBaseline8Bit)
    made.PixelData = encapsulate([encode(GREYS, "JPEG", "L")] * 2)
    made["PixelData"].is_undefined_length = True
    assert "2 frames" in str(refused(written(made)))


@pytest.mark.parametrize("share", [0.15, 0.2, 0.3, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_file_cut_off_anywhere_is_truncated(share, syntax):
    made = dataset(np.random.default_rng(1).integers(0, 255, (20, 20), np.uint8))
    if syntax == RLELossless:
        made.compress(RLELossless)
    else:
        made.file_meta.TransferSyntaxUID = syntax
    data = written(made)
    for kept in (int(len(data) * share), int(len(data) * share) - 1):
        with pytest.raises(ImageError) as caught:
            read_header(data[:kept])
        assert caught.value.reason == "truncated", kept
        assert refused(data[:kept]).reason == "truncated"


def test_a_cut_between_header_and_pixels_is_no_report():
    data = dicom(GREYS)
    error = refused(data[: data.index(b"\xe0\x7f\x10\x00")])
    assert error.reason == "truncated"
    assert "before its pixels" in str(error)


@pytest.mark.parametrize(
    "keyword",
    [
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "SamplesPerPixel",
        "PixelRepresentation",
    ],
)
def test_a_header_without_what_it_must_say_is_named(keyword):
    made = dataset(GREYS)
    del made[keyword]
    error = refused(written(made))
    assert error.reason == "unreadable"
    assert keyword in str(error)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 0}, "unreadable"),
        ({"BitsStored": 9}, "unreadable"),
        ({"SamplesPerPixel": 3}, "unreadable"),
        ({"SamplesPerPixel": 2}, "unreadable"),
        ({"BitsAllocated": 32}, "unsupported"),
        ({"HighBit": 11}, "unsupported"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "unreadable"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "unsupported"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "unreadable"),
        ({"VOILUTSequence": Sequence([Dataset()])}, "unreadable"),
        ({"VOILUTSequence": Sequence([lut([256, 0, 8], np.arange(9))])}, "unreadable"),
        ({"ModalityLUTSequence": Sequence([lut([256, 0, 0], np.arange(256))])}, "unreadable"),
        ({"NumberOfFrames": 5}, "unsupported"),
    ],
)
def test_a_header_that_cannot_be_is_refused_with_a_sentence(elements, reason):
    error = refused(dicom(GREYS, **elements))
    assert error.reason == reason
    assert "the DICOM file" in str(error)
    assert "; " in str(error), "what to do comes after the semicolon"


def test_floating_point_pixels_are_named():
    made = dataset(GREYS)
    del made.PixelData
    made.add_new(0x7FE00008, "OF", GREYS.astype("<f4").tobytes())
    assert "floating point" in str(refused(written(made)))


@pytest.mark.parametrize("at", [132, 140, 160, 200])
def test_noise_in_the_header_is_refused_and_nothing_else_happens(at):
    rng = np.random.default_rng(at)
    for _ in range(60):
        data = bytearray(dicom(GREYS))
        data[at : at + 24] = rng.bytes(24)
        try:
            assert decode(bytes(data)).shape[2] == 3
        except ImageError:
            continue


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_single_bytes_changed_anywhere_raise_nothing_but_an_image_error(encode):
    rng = np.random.default_rng(11)
    files = [
        dicom(GREYS, WindowCenter=5, WindowWidth=9, VOILUTSequence=Sequence([lut([256, 0, 8], np.arange(256))])),
        compressed(encode(GREYS, "JPEG", "L"), JPEGBaseline8Bit, GREYS),
    ]
    for data in files:
        for at in rng.integers(132, len(data), 400):
            changed = bytearray(data)
            changed[at] ^= int(rng.integers(1, 256))
            try:
                assert decode(bytes(changed)).dtype == np.uint8
            except ImageError:
                continue


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, RLELossless])
def test_garbage_in_place_of_a_frame_is_unreadable(syntax):
    garbage = np.random.default_rng(3).bytes(2000)
    assert refused(compressed(garbage, syntax, GREYS)).reason == "unreadable"


def test_plain_pixels_under_a_compressed_syntax_are_unreadable():
    data = dicom(GREYS).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    assert refused(data).reason == "unreadable"


def test_pixels_are_looked_at_only_after_the_size(monkeypatch):
    monkeypatch.setattr(dicom_module, "_decompress", lambda *_: pytest.fail("it was decoded"))
    too_many = patched(dicom(GREYS), b"\x28\x00\x10\x00US\x02\x00", struct.pack("<H", 11_000))
    too_many = patched(too_many, b"\x28\x00\x11\x00US\x02\x00", struct.pack("<H", 11_000))
    assert refused(too_many).reason == "too_large"
    too_long = patched(dicom(GREYS), b"\x28\x00\x11\x00US\x02\x00", struct.pack("<H", MAX_SIDE + 1))
    assert refused(too_long).reason == "too_large"


def peak(data: bytes) -> tuple[int, ImageError]:
    """Bytes that Python and NumPy had allocated at once on the way to the refusal, and the refusal."""
    decode(dicom(GREYS))
    tracemalloc.start()
    try:
        error = refused(data)
        return tracemalloc.get_traced_memory()[1], error
    finally:
        tracemalloc.stop()


def rle_bomb(segments: int) -> bytes:
    runs = b"\x81\x00" * 500_000  # each gives 128 bytes: 64 MB a segment
    return struct.pack("<16L", segments, *([64] * segments), *([0] * (15 - segments))) + runs


@pytest.mark.parametrize("segments", [1, 2, 15])
def test_a_run_length_bomb_does_not_go_off(segments):
    like = np.zeros((1000, 1000), np.uint8 if segments == 1 else np.uint16)
    allocated, error = peak(compressed(rle_bomb(segments), RLELossless, like))
    assert error.reason == "unreadable"
    assert allocated < 20e6


def test_a_stream_larger_than_its_header_is_not_decoded(encode):
    large = np.zeros((3000, 3000), np.uint8)
    for format, syntax in (("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)):
        allocated, error = peak(compressed(encode(large, format, "L"), syntax, GREYS))
        assert "3000 x 3000" in str(error)
        assert allocated < 5e6


ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"


def with_elements(elements: bytes) -> bytes:
    """A file with elements put before those of the image."""
    data = dicom(GREYS)
    at = data.index(b"\x28\x00\x02\x00US")
    return data[:at] + elements + data[at:]


def test_a_hundred_thousand_empty_items_cost_no_memory():
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + ITEM * 100_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = with_elements(sequence)
    tracemalloc.start()
    assert np.array_equal(shown(data), GREYS)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert allocated < 5e6


def test_more_elements_than_any_image_has_are_refused():
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + ITEM * MAX_ELEMENTS
    assert "elements" in str(refused(with_elements(sequence)))


@pytest.mark.parametrize("tag", [b"\x08\x00\x40\x11", b"\x28\x00\x10\x30"])
def test_sequences_nested_deeply_neither_recurse_nor_fill_the_memory(tag):
    nested = (tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 40_000
    closed = nested + (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * 40_000
    if tag[0] == 0x08:
        assert np.array_equal(shown(with_elements(closed)), GREYS)
    else:
        allocated, error = peak(with_elements(closed))
        assert error.reason == "unreadable"
        assert allocated < 50e6
    assert refused(with_elements(nested)).reason == "truncated"


def test_a_window_of_a_million_numbers_is_not_parsed():
    many = b"1\\" * 1_000_000
    data = dicom(GREYS, ImplicitVRLittleEndian)
    at = data.index(b"\xe0\x7f\x10\x00")
    element = b"\x28\x00\x50\x10" + struct.pack("<L", len(many)) + many
    allocated, error = peak(data[:at] + element + data[at:])
    assert "(0028,1050)" in str(error)
    assert allocated < 10e6


def test_a_table_of_offsets_is_not_unpacked():
    made = dataset(GREYS, JPEGBaseline8Bit)
    made.PixelData = b"\xfe\xff\x00\xe0" + struct.pack("<L", 4_000_000) + bytes(4_000_000)
    made["PixelData"].is_undefined_length = True
    allocated, error = peak(written(made))
    assert "1000000 frames" in str(error)
    assert allocated < 5e6


def test_a_large_image_takes_little_more_than_its_pixels():
    rng = np.random.default_rng(2)
    large = rng.integers(0, 4096, (3000, 4000)).astype(np.uint16)
    data = dicom(large, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    tracemalloc.start()
    decode(data)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert allocated < 10 * large.size


PROGRAM = """
import sys, warnings, logging
logging.basicConfig(level=logging.DEBUG)
{before}
import medic.data.images.decode as d
assert sys.modules.get("pydicom") is None, "pydicom is imported though nothing asked for it"
data = sys.stdin.buffer.read()
try:
    print(d.decode(data).shape)
except d.ImageError as error:
    print(error.reason, error)
"""


def run(data: bytes, before: str = "") -> subprocess.CompletedProcess:
    program = [sys.executable, "-c", PROGRAM.format(before=before)]
    return subprocess.run(program, input=data, capture_output=True, check=True)


def test_pydicom_is_imported_only_for_a_dicom_file_and_says_nothing_to_the_reader(encode):
    assert run(encode(GREYS, "PNG", "L")).stdout == b"(16, 16, 3)\n"
    odd = patched(dicom(GREYS), b"\x28\x00\x04\x00CS\x0c\x00", b"monochrome2 ")
    ended = run(odd)
    assert ended.stdout == b"(16, 16, 3)\n"
    assert ended.stderr == b""
    broken = run(compressed(encode(GREYS, "JPEG", "L")[:-40], JPEGBaseline8Bit, GREYS))
    assert broken.stdout.startswith(b"unreadable")
    assert broken.stderr == b""


def test_without_pydicom_the_remedy_is_named():
    ended = run(dicom(GREYS), before="sys.modules['pydicom'] = None\n").stdout.decode()
    assert "pip install pydicom" in ended


def test_png_and_dicom_names_are_image_names():
    from medic.data.stores import is_image_name

    assert all(is_image_name(name) for name in ("a.png", "a.dcm", "IM/0001.DCM", "b.dicom"))
    assert not is_image_name("DICOMDIR")


def test_a_dicom_file_is_one_of_the_formats_that_are_offered():
    with pytest.raises(ImageError, match="BMP or DICOM file"):
        decoding.decode(b"text")
