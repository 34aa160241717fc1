"""Bytes to pixels, and what happens to bytes that are none."""

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from medic.data.images import decode as decoding
from medic.data.images.decode import MAX_SIDE, decode, read_header, used_bits
from medic.errors import ImageError, MedicError


def refused(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A true PNG of side x side grey pixels, all zero: a thousandth of its size."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_a_lossless_file_gives_back_its_pixels_as_rgb(format, smooth, encode):
    pixels = smooth()
    assert np.array_equal(decode(encode(pixels, format)), pixels)


def test_a_jpeg_gives_rgb_close_to_what_was_encoded(smooth, encode, psnr):
    pixels = smooth()
    assert psnr(decode(encode(pixels, "JPEG", quality=95)), pixels) > 38


@pytest.mark.parametrize(
    ("format", "mode", "tolerance"),
    [("PNG", "P", 40), ("PNG", "RGBA", 0), ("TIFF", "RGBA", 0), ("TIFF", "CMYK", 2), ("JPEG", "CMYK", 12)],
)
def test_palettes_transparency_and_printing_colours_come_out_as_rgb(format, mode, tolerance, smooth, encode):
    pixels = smooth()
    decoded = decode(encode(pixels, format, mode))
    assert decoded.dtype == np.uint8
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() <= tolerance


@pytest.mark.parametrize(("format", "mode"), [("PNG", "L"), ("PNG", "LA"), ("JPEG", "L"), ("TIFF", "L"), ("PNG", "1")])
def test_grey_comes_out_as_three_equal_channels(format, mode, smooth, encode):
    decoded = decode(encode(smooth(), format, mode))
    assert decoded.shape == (300, 400, 3)
    assert (decoded == decoded[:, :, :1]).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_to_eight_not_cut(suffix, smooth):
    pixels = smooth()
    wide = pixels[:, :, ::-1].astype(np.uint16) * 257
    decoded = decode(cv2.imencode(suffix, wide)[1].tobytes())
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_grey_stored_in_sixteen_bits_comes_back_exactly(suffix, channels):
    greys = np.arange(256, dtype=np.uint16).reshape(16, 16)
    wide = np.repeat(greys[:, :, None] * 257, channels, axis=2)
    assert (decode(cv2.imencode(suffix, wide)[1].tobytes()) == greys[:, :, None]).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparency_is_dropped_and_not_blended(mode):
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(greys).convert("L" if mode == "P" else mode)
    file = io.BytesIO()
    if mode == "P":
        image.convert("P").save(file, "PNG", transparency=bytes(range(255, -1, -1)))
    else:
        image.putalpha(Image.fromarray(255 - greys))
        image.save(file, "PNG")
    assert (decode(file.getvalue()) == greys[:, :, None]).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_exif_orientation_is_applied(format, smooth, encode):
    pixels = smooth()
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held a quarter turn: show it turned clockwise
    decoded = decode(encode(pixels, format, exif=turned))
    assert decoded.shape == (400, 300, 3)
    assert np.abs(decoded.astype(int) - np.rot90(pixels, -1)).mean() < 3


def test_the_orientation_is_applied_at_reduced_scale_too(smooth, encode):
    turned = Image.Exif()
    turned[0x0112] = 6
    decoded = decode(encode(smooth(1200, 1600), "JPEG", exif=turned), at_least=200)
    assert decoded.shape == (400, 300, 3)


def test_a_large_jpeg_is_decoded_at_the_smallest_scale_that_keeps_enough_pixels(smooth, encode):
    data = encode(smooth(1200, 1600), "JPEG")
    assert decode(data).shape[:2] == (1200, 1600)
    assert decode(data, at_least=601).shape[:2] == (1200, 1600)
    assert decode(data, at_least=600).shape[:2] == (600, 800)
    assert decode(data, at_least=224).shape[:2] == (300, 400)
    assert decode(data, at_least=10).shape[:2] == (150, 200)


def test_a_header_is_read_without_its_pixels(smooth, encode):
    header = read_header(encode(smooth(30, 40), "JPEG"))
    assert (header.format, header.width, header.height) == ("JPEG", 40, 30)


def test_an_empty_file_is_called_empty():
    assert refused(b"").reason == "empty"


@pytest.mark.parametrize("data", [b"This is a text file that somebody named .jpeg.\n", b"\0" * 5000, b"\xff\xd8"])
def test_what_is_no_image_is_called_unsupported_and_the_formats_are_named(data):
    error = refused(data)
    assert error.reason == "unsupported"
    assert "JPEG, PNG, TIFF, BMP or DICOM" in str(error)


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_other_image_formats_are_unsupported(format, smooth, encode):
    assert refused(encode(smooth(), format)).reason == "unsupported"


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_off_anywhere_is_truncated(share, progressive, smooth, encode):
    data = encode(smooth(), "JPEG", quality=95, progressive=progressive)
    assert decode(data).shape == (300, 400, 3)
    assert refused(data[: int(len(data) * share)]).reason == "truncated"
    assert refused(data[:-1]).reason == "truncated"


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(smooth, encode):
    data = encode(smooth(), "JPEG") + b"camera's own notes \xff\xda and more"
    assert decode(data).shape == (300, 400, 3)


def test_a_jpeg_with_a_second_picture_behind_it_gives_the_first(smooth, encode, psnr):
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    data = file.getvalue()
    assert psnr(decode(data), smooth()) > 30
    assert decode(data, at_least=100).shape == (150, 200, 3)
    assert refused(data[: len(data) // 4]).reason == "truncated"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_png_cut_off_anywhere_is_truncated(share, smooth, encode):
    data = encode(smooth())
    assert refused(data[: int(len(data) * share)]).reason == "truncated"


@pytest.mark.parametrize("format", ["TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_tiff_or_bmp_is_refused(format, share, smooth, encode):
    data = encode(smooth(), format)
    assert refused(data[: int(len(data) * share)]).reason in ("truncated", "unreadable", "unsupported")


def test_a_png_damaged_inside_is_unreadable(smooth, encode):
    data = bytearray(encode(smooth()))
    data[len(data) // 2] ^= 0xFF
    assert refused(bytes(data)).reason == "unreadable"


def test_a_bomb_of_400_megapixels_is_refused_and_never_decoded(monkeypatch):
    data = bomb(20_000)
    assert len(data) < 1_000_000
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: pytest.fail("the bomb was decoded"))
    error = refused(data)
    assert error.reason == "too_large"
    assert "pixels" in str(error)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_than_a_hundred_megapixels_are_refused(monkeypatch):
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    assert refused(bomb(10_001)).reason == "too_large"


def test_a_strip_is_refused_because_a_square_around_it_would_fill_the_memory(encode):
    fits, too_long = (encode(np.full((2, side, 3), 99, np.uint8)) for side in (MAX_SIDE, MAX_SIDE + 1))
    assert decode(fits).shape == (2, MAX_SIDE, 3)
    assert refused(too_long).reason == "too_large"


def test_an_image_error_is_an_error_for_people():
    assert isinstance(refused(b""), MedicError)


def as_ycck(data: bytes) -> bytes:
    """The same numbers, said to be YCCK: the last byte of Adobe's segment (Adobe TN 5116, 18)."""
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


@pytest.mark.parametrize("change", [bytes, as_ycck, without_adobe], ids=["Adobe, inverted", "YCCK", "no marker"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_jpegs_for_print_come_out_as_pillow_shows_them(change, orientation, smooth, encode):
    turned = Image.Exif()
    turned[0x0112] = orientation
    data = change(encode(smooth(), "JPEG", "CMYK", quality=95, exif=turned))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    decoded = decode(data).astype(int)
    assert decoded.shape == shown.shape
    assert np.abs(decoded - shown).max() <= 3


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGB", "JPEG")]
)
def test_the_header_says_what_a_pixel_holds(mode, format, smooth, encode):
    assert read_header(encode(smooth(40, 50), format, mode)).mode == mode


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_that_use_few_of_sixteen_bits_are_scaled_by_what_their_set_uses(bits, suffix, channels):
    right = np.random.default_rng(bits).integers(0, 256, (20, 30, channels)).astype(np.uint16)
    right[0, 0] = 255
    data = cv2.imencode(suffix, right << (bits - 8))[1].tobytes()
    assert used_bits(data) == bits
    shown = decode(data, bits=bits)
    assert np.array_equal(shown, np.broadcast_to(right[:, :, ::-1], shown.shape))
    assert decode(data).max() <= 64, "by itself, the format says that all of 16 bits are used"


def test_only_images_of_sixteen_bits_use_some_of_them(smooth, encode):
    assert [used_bits(encode(smooth(), kind)) for kind in ("PNG", "TIFF", "JPEG")] == [None, None, None]


def damaged(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {
        "zero tail": data[:middle] + bytes(len(data) - middle - 2) + b"\xff\xd9",
        "zeros in the middle": data[:middle] + bytes(600) + data[middle + 600 :],
        "bytes missing": data[:middle] + data[middle + 700 :],
        "cut, with an end marker": data[:middle] + b"\xff\xd9",
    }[how]


@pytest.mark.parametrize("how", ["zero tail", "zeros in the middle", "bytes missing", "cut, with an end marker"])
@pytest.mark.parametrize("at_least", [None, 40])
def test_a_jpeg_damaged_inside_is_unreadable_at_any_scale(how, at_least, smooth, encode):
    noisy = (smooth(600, 800).astype(int) + np.random.default_rng(1).integers(-30, 30, (600, 800, 3))).clip(0, 255)
    with pytest.raises(ImageError, match="damaged inside") as error:
        decode(damaged(encode(noisy.astype(np.uint8), "JPEG", quality=90), how), at_least=at_least)
    assert error.value.reason == "unreadable"


def test_the_colours_under_the_transparency_of_a_tiff_are_kept(smooth):
    pixels = np.dstack([smooth(), np.zeros(smooth().shape[:2], np.uint8)])
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "TIFF")
    assert np.array_equal(decode(file.getvalue()), smooth())


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_tiff_of_32_bits_is_refused_with_what_to_do(kind, smooth, capfd):
    file = io.BytesIO()
    Image.fromarray(smooth()[:, :, 0].astype(kind)).save(file, "TIFF")
    assert refused(file.getvalue()).reason == "unsupported"
    assert capfd.readouterr().err == ""


def test_a_tiff_of_several_pictures_is_refused(smooth):
    file, pages = io.BytesIO(), [Image.fromarray(smooth(30, 20)), Image.fromarray(smooth())]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert "holds 2 pictures" in str(refused(file.getvalue()))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_wrong_inside_gives_pixels_or_an_image_error(given_):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    data = bytearray(cv2.imencode(given_.draw(st.sampled_from([".jpg", ".png", ".tiff", ".bmp"])), pixels)[1].tobytes())
    for _ in range(given_.draw(st.integers(1, 4))):
        data[given_.draw(st.integers(0, len(data) - 1))] = given_.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert decode(bytes(data[: given_.draw(st.integers(1, len(data)))])).dtype == np.uint8


def test_files_that_once_failed_are_right_or_refused(cases):
    for path in sorted(
        path for name in ("16bit", "alpha", "multipage", "jpeg_inside") for path in (cases / name).iterdir()
    ):
        expected = path.with_name(f"{path.name}.expected.npy")
        if path.suffix == ".npy":
            continue
        try:
            data = path.read_bytes()
            shown = decode(data, bits=used_bits(data)).astype(int)
        except ImageError:
            assert path.stem.startswith(("float", "int32", "thumb", "two_pages", "7", "cut", "zero", "png_bit")), (
                path.name
            )
            continue
        right = np.load(expected).astype(int)
        assert np.abs(shown - (right if right.ndim == 3 else right[:, :, None])).max() <= 2, path.name
