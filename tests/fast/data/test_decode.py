"""Bytes to pixels, and what happens to bytes that are none."""

import contextlib
import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydicom.data import get_testdata_file

from medic.data.images import decode as decoding
from medic.data.images.decode import MAX_SIDE, decode, read_header, used_bits
from medic.errors import ImageError

GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
GREY = Image.fromarray(GREYS)


def refused(data: bytes, **how: int) -> str:
    """The reason; the message is a short sentence."""
    with pytest.raises(ImageError) as caught:
        decode(data, **how)
    assert len(str(caught.value).split()) <= 30
    return caught.value.reason


def saved(image: Image.Image, format: str, **how: object) -> bytes:
    image.save(file := io.BytesIO(), format, **how)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "mode", "tolerance"),
    [
        *(("PNG", mode, 0) for mode in ("RGB", "RGBA", "L", "LA", "1")),
        *(("TIFF", mode, 0) for mode in ("RGB", "RGBA", "L")),
        *(("BMP", "RGB", 0), ("PNG", "P", 6), ("TIFF", "CMYK", 2)),
        *(("JPEG", mode, 3) for mode in ("RGB", "L")),
        ("JPEG", "CMYK", 12),
    ],
)
def test_pixels_come_out_as_rgb_however_they_are_stored_and_not_blended_with_what_is_transparent(
    format, mode, tolerance, smooth
):
    image = Image.fromarray(pixels := smooth())
    image = image.quantize() if mode == "P" else image.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(pixels[:, :, 1]))
    palette = {"transparency": bytes(range(256))} if mode == "P" else {}
    decoded = decode(data := saved(image, format, **palette))
    right = np.asarray(Image.fromarray(pixels).convert(mode).convert("RGB") if mode in ("L", "LA", "1") else pixels)
    assert (decoded.dtype, decoded.shape) == (np.uint8, pixels.shape)
    assert np.abs(decoded.astype(int) - right).mean() <= tolerance
    header = read_header(data)
    assert (header.format, header.width, header.height, header.mode) == (format, 400, 300, mode)
    assert used_bits(data) is None


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_sixteen_bits_are_scaled_by_the_bits_that_their_set_uses(suffix, channels, bits):
    right = np.random.default_rng(bits).permutation(np.resize(255 - GREYS, (20, 30, channels)))
    data = cv2.imencode(suffix, right.astype(np.uint16) << (bits - 8))[1].tobytes()
    assert used_bits(data) == bits
    shown = decode(data, bits=bits)
    assert np.array_equal(shown, np.broadcast_to(right[:, :, :3][:, :, ::-1], shown.shape))
    assert decode(data).max() == 255 >> (16 - bits), "by itself, the format says that all of 16 bits are used"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("TIFF", "RGBA")])
def test_the_exif_orientation_is_applied_at_any_scale(format, mode, orientation, smooth, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(), format, mode, exif=exif)
    right = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.abs(decode(data).astype(int) - right).mean() < 3
    small = decode(data, at_least=150)
    assert np.abs(small - cv2.resize(right, small.shape[1::-1]).astype(int)).mean() < 4


def test_a_large_jpeg_is_decoded_at_the_smallest_scale_that_keeps_enough_pixels(smooth, encode):
    data = encode(smooth(1200, 1600), "JPEG")
    heights = {None: 1200, 601: 1200, 600: 600, 224: 300, 10: 150}
    assert {least: decode(data, at_least=least).shape[0] for least in heights} == heights


@pytest.mark.parametrize("behind", [b"camera's own notes \xff\xda and more", bytes(5000), "a second picture"])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_what_stands_behind_the_end_does_no_harm(behind, format, smooth, encode):
    data = encode(smooth(), format)
    if isinstance(behind, str):  # as in the MPO of some cameras
        behind = encode(255 - smooth(), "MPO", save_all=True, append_images=[Image.fromarray(smooth())])
    assert np.array_equal(decode(data + behind), decode(data))


TEXT, HEIC = b"This is a text file that is named .jpeg.\n", b"\0\0\0\x18ftypheic" + bytes(99)
TWO_PAGES = saved(GREY.resize((4, 4)), "TIFF", save_all=True, append_images=[GREY])
THIRTY_TWO_BITS = [saved(GREY.convert(mode), "TIFF") for mode in "FI"]
OTHERS = [TEXT, bytes(5000), b"\xff\xd8", HEIC, saved(GREY, "GIF"), saved(GREY, "WEBP"), TWO_PAGES, *THIRTY_TWO_BITS]
SIXTEEN_BITS = [cv2.imencode(".tiff", np.zeros((4, 4, n), np.uint16))[1].tobytes() for n in (1, 3)]
for tag, value, data in ((262, 0, SIXTEEN_BITS[0]), (339, 2, SIXTEEN_BITS[0]), (284, 2, SIXTEEN_BITS[1])):
    start, _, rest = data.partition(entry := struct.pack("<HHI", tag, 3, 1))  # white is 0, signed, in separate planes
    OTHERS.append(start + entry + bytes([value]) + rest[1:])
LARGE = [saved(Image.new("1", size), "PNG") for size in ((MAX_SIDE + 1, 2), (10_001, 10_001), (14_001, 14_001))]


@pytest.mark.parametrize(("reason", "files"), [("empty", [b""]), ("unsupported", OTHERS), ("too_large", LARGE)])
def test_what_is_not_read_is_refused_with_the_reason_and_not_decoded(reason, files, monkeypatch, capfd):
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    assert {refused(data) for data in files} == {reason}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"format": "PNG"}, {"format": "TIFF"}, {"format": "BMP"}])
def test_a_file_cut_off_anywhere_is_refused(share, how, smooth, encode, capfd):
    data = encode(smooth(), **{"format": "JPEG", **how})
    without_end = {"unreadable", "unsupported"} if how.get("format") in ("TIFF", "BMP") else set()
    assert refused(data[: int(len(data) * share)]) in {"truncated", *without_end}
    assert capfd.readouterr().err == ""


DAMAGED = {
    "zero tail": lambda half, rest: half + bytes(len(rest) - 2) + b"\xff\xd9",
    "zeros in the middle": lambda half, rest: half + bytes(600) + rest[600:],
    "bytes missing": lambda half, rest: half + rest[700:],
    "cut, with an end marker": lambda half, _: half + b"\xff\xd9",
}


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}], ids=str)
def test_a_jpeg_damaged_inside_is_unreadable_at_any_scale(how, kind, smooth, encode):
    noisy = (smooth().astype(int) + np.random.default_rng(1).integers(-30, 30, (300, 400, 3))).clip(0, 255)
    data = encode(noisy.astype(np.uint8), "JPEG", quality=90, **kind)
    damaged = DAMAGED[how](data[: len(data) // 2], data[len(data) // 2 :])
    assert {refused(damaged, at_least=least) for least in (10_000, 30)} == {"unreadable"}


def test_a_png_of_which_a_bit_has_flipped_is_unreadable_and_no_library_says_so_itself(smooth, encode, capfd):
    data = encode(smooth())
    middle = len(data) // 2
    assert refused(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]) == "unreadable"
    assert capfd.readouterr().err == ""


DICOM = ("SC_rgb_small_odd.dcm", "SC_rgb_rle.dcm", "MR_small_RLE.dcm")
FUZZED = [
    *(saved(GREY.convert("RGB"), format) for format in ("JPEG", "PNG", "BMP")),
    *(saved(GREY.convert(mode), "TIFF", compression=how) for mode in ("RGB", "RGBA") for how in ("raw", "tiff_lzw")),
    *(Path(get_testdata_file(name)).read_bytes() for name in DICOM),
]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_wrong_inside_gives_pixels_or_an_image_error(given_):
    data = bytearray(given_.draw(st.sampled_from(FUZZED)))
    for _ in range(given_.draw(st.integers(1, 4))):
        data[given_.draw(st.integers(0, len(data) - 1))] = given_.draw(st.integers(0, 255))
    data = bytes(data[: given_.draw(st.integers(1, len(data)))])
    with contextlib.suppress(ImageError):
        assert decode(data).dtype == np.uint8
    with contextlib.suppress(ImageError):
        assert (used_bits(data) or 16) <= 16
