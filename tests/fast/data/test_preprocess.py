"""The one way from bytes to pixels."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from medic.data.images import preprocess
from medic.data.images.crop import find_disc, fundus, window
from medic.data.images.decode import decode
from medic.data.images.preprocess import Preprocessing
from medic.errors import ImageError, MedicError


def at_full_size(data: bytes, size: int) -> np.ndarray:
    return cv2.resize(fundus(decode(data)), (size, size), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("size", [64, 224, 384])
def test_every_image_comes_out_as_a_square_of_the_asked_size(size, photograph, encode):
    pixels = Preprocessing(size=size).pixels(encode(photograph(640, 480, 320, 240, 220), "JPEG"))
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(("radius", "size"), [(900, 384), (900, 200), (1200, 224), (400, 224), (250, 224)])
def test_the_short_way_over_reduced_decoding_looks_like_the_long_way(radius, size, photograph, encode, psnr):
    drawn = cv2.GaussianBlur(photograph(2400, 1800, 1180, 910, radius, noise=0), (0, 0), 8)
    data = encode(drawn, "JPEG", quality=95)
    assert psnr(Preprocessing(size).pixels(data), at_full_size(data, size)) >= 40


@pytest.mark.real_data
@pytest.mark.parametrize("size", [256, 384, 512])
def test_prepared_pixels_of_camera_photographs_keep_47_decibels(size, real_data, psnr):
    for path in sorted((real_data / "retinopathy" / "fullres").glob("*.jpeg")):
        data = path.read_bytes()
        frame, full = decode(data, at_least=size), decode(data)
        factor = len(full) / len(frame)
        cut = window(full, *(round(value * factor) for value in find_disc(frame).square))
        wanted = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)
        assert psnr(Preprocessing(size).pixels(data), wanted) >= 47, path.name


@pytest.mark.parametrize(("radius", "decoded"), [(1000, [225]), (400, [225, 900])])
def test_a_retina_that_fills_the_frame_is_decoded_once_and_a_small_one_again_finer(
    radius, decoded, photograph, encode, monkeypatch
):
    sides = []

    def watching(data: bytes, **how: int | None) -> np.ndarray:
        pixels = decode(data, **how)
        sides.append(min(pixels.shape[:2]))
        return pixels

    monkeypatch.setattr(preprocess, "decode", watching)
    Preprocessing(224).pixels(encode(photograph(2400, 1800, 1200, 900, radius), "JPEG"))
    assert sides == decoded


def test_nothing_is_scaled_up_that_the_file_holds_sharp(photograph, encode, monkeypatch):
    shrinking = []
    resize = cv2.resize
    for radius in (600, 240):
        data = encode(photograph(2400, 1800, 1200, 900, radius), "JPEG")
        with monkeypatch.context() as patch:
            patch.setattr(
                preprocess.cv2,
                "resize",
                lambda image, size, **how: (shrinking.append((len(image), size[0])), resize(image, size, **how))[1],
            )
            Preprocessing(224).pixels(data)
        before, after = shrinking[-1]
        assert before >= after * 0.98, radius


def test_a_small_image_is_scaled_up_to_the_size_that_the_network_needs(photograph, encode):
    pixels = Preprocessing(128).pixels(encode(photograph(64, 48, 32, 24, 22), "PNG"))
    assert pixels.shape == (128, 128, 3)
    assert pixels[64, 64].max() > 100


def test_damaged_bytes_are_refused_with_the_reason():
    with pytest.raises(ImageError) as caught:
        Preprocessing().pixels(b"no image")
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("settings", [{"size": 8}, {"size": 10_000}, {"crop": "round"}, {"bits": 8}, {"bits": 17}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(MedicError):
        Preprocessing(**settings)


@pytest.mark.parametrize("bits", [None, 12])
def test_settings_come_back_from_a_manifest_as_they_were(bits):
    settings = Preprocessing(size=160, crop="square", bits=bits)
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    assert ("bits" in settings.to_dict()) == (bits is not None), "older bundles have no such key"


@pytest.fixture(scope="module")
def radiograph() -> np.ndarray:
    """Smooth grey with every value from 0 to 255: uint8 (256, 300)."""
    y, x = np.mgrid[0:256, 0:300]
    drawn = np.round(y * (0.6 + 0.4 * np.cos(x / 60) ** 2)).astype(np.uint8)
    drawn[:, 0] = np.arange(256)
    return drawn


def png(pixels: np.ndarray, mode: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.rot90(pixels, 2)))
    image.save(file, "PNG")
    return file.getvalue()


STORED = {
    "RGB PNG": lambda grey: png(grey, "RGB"),
    "RGBA PNG": lambda grey: png(grey, "RGBA"),
    "PNG with alpha": lambda grey: png(grey, "LA"),
    "palette PNG": lambda grey: png(grey, "P"),
    "16-bit PNG": lambda grey: cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes(),
    "16-bit TIFF": lambda grey: cv2.imencode(".tiff", grey.astype(np.uint16) * 257)[1].tobytes(),
    "PNG of 12 bits": lambda grey: cv2.imencode(".png", grey.astype(np.uint16) << 4)[1].tobytes(),
}


@pytest.mark.parametrize("size", [64, 256, 320])
@pytest.mark.parametrize("stored", STORED)
def test_a_radiograph_gives_the_same_pixels_however_it_is_stored(stored, size, radiograph):
    way = Preprocessing(size, crop="square", grey=True)
    expected = way.pixels(png(radiograph, "L"))
    read = replace(way, bits=12) if "12" in stored else way
    assert np.array_equal(read.pixels(STORED[stored](radiograph)), expected)
    assert (expected == expected[:, :, :1]).all()
    assert expected.std() > 30
