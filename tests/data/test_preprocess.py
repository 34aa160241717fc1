"""The one way from bytes to pixels."""

import cv2
import numpy as np
import pytest

from medic.data import preprocess
from medic.data.crop import find_disc, fundus, window
from medic.data.decode import decode
from medic.data.preprocess import Preprocessing
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
def test_the_short_way_looks_like_the_long_way_on_real_photographs(real_data, psnr):
    photographs = sorted((real_data / "retinopathy" / "fullres").glob("*.jp*g"))
    assert photographs
    for path in photographs:
        data = path.read_bytes()
        assert psnr(Preprocessing(384).pixels(data), at_full_size(data, 384)) >= 40, path.name


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


def scales_decoded(monkeypatch, data: bytes, size: int) -> list[int]:
    """The shorter sides of the frames that were decoded on the way."""
    sides = []

    def watching(data: bytes, at_least: int | None = None) -> np.ndarray:
        pixels = decode(data, at_least)
        sides.append(min(pixels.shape[:2]))
        return pixels

    monkeypatch.setattr(preprocess, "decode", watching)
    Preprocessing(size).pixels(data)
    return sides


def test_a_retina_that_fills_the_frame_is_decoded_once_and_small(photograph, encode, monkeypatch):
    data = encode(photograph(2400, 1800, 1200, 900, 1000), "JPEG")
    assert scales_decoded(monkeypatch, data, 224) == [225]


def test_a_small_retina_in_a_big_frame_is_decoded_again_and_finer(photograph, encode, monkeypatch):
    data = encode(photograph(2400, 1800, 1200, 900, 400), "JPEG")
    assert scales_decoded(monkeypatch, data, 224) == [225, 900]


def test_nothing_is_scaled_up_that_the_file_holds_sharp(photograph, encode, monkeypatch):
    shrinking = []
    resize = cv2.resize
    for radius in (890, 600, 400, 240, 160):
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


@pytest.mark.parametrize("settings", [{"size": 8}, {"size": 10_000}, {"crop": "round"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(MedicError):
        Preprocessing(**settings)


def test_settings_come_back_from_a_manifest_as_they_were():
    settings = Preprocessing(size=160, crop="square")
    assert Preprocessing.from_dict(settings.to_dict()) == settings
