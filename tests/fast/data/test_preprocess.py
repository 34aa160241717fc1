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


@pytest.mark.parametrize(("radius", "size"), [(900, 384), (900, 200), (1200, 224), (400, 224), (250, 224)])
def test_reduced_decoding_looks_like_decoding_at_full_size(radius, size, photograph, encode, psnr):
    drawn = cv2.GaussianBlur(photograph(2400, 1800, 1180, 910, radius, noise=0), (0, 0), 8)
    data = encode(drawn, "JPEG", quality=95)
    shown = Preprocessing(size).pixels(data)
    assert (shown.shape, shown.dtype) == ((size, size, 3), np.uint8)
    assert psnr(shown, cv2.resize(fundus(decode(data)), (size, size), interpolation=cv2.INTER_AREA)) >= 40


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


@pytest.mark.parametrize(("radius", "sides"), [(1000, [225]), (600, [225, 450]), (400, [225, 900]), (300, [225, 900])])
def test_a_small_retina_is_decoded_again_finer_and_never_scaled_up(radius, sides, photograph, encode, monkeypatch):
    decoded = []
    monkeypatch.setattr(preprocess, "decode", lambda *a, **how: decoded.append(decode(*a, **how)) or decoded[-1])
    Preprocessing(224).pixels(encode(photograph(2400, 1800, 1200, 900, radius), "JPEG"))
    assert [len(frame) for frame in decoded] == sides
    assert len(fundus(decoded[-1])) >= 224 * 0.98


@pytest.mark.parametrize("settings", [{"size": 8}, {"size": 10_000}, {"crop": "round"}, {"bits": 8}, {"bits": 17}])
def test_settings_out_of_range_and_bytes_that_are_no_image_are_refused(settings):
    with pytest.raises(MedicError, match=r"preprocessing size|no crop|16 bits"):
        Preprocessing(**settings)
    with pytest.raises(ImageError, match="no image that is read"):
        Preprocessing().pixels(b"no image")


@pytest.mark.parametrize("bits", [None, 12])
def test_settings_come_back_from_a_manifest_as_they_were(bits):
    settings = Preprocessing(size=160, crop="square", bits=bits)
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    assert ("bits" in settings.to_dict()) == (bits is not None), "older bundles have no such key"


def png(grey: np.ndarray, mode: str) -> bytes:
    image = Image.fromarray(grey).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.rot90(grey, 2)))
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.mark.parametrize("size", [64, 256, 320])
@pytest.mark.parametrize("stored", ["RGB", "RGBA", "LA", "P", ".png", ".tiff"])
def test_a_radiograph_gives_the_same_pixels_however_it_is_stored(stored, size):
    y, x = np.mgrid[0:256, 0:300]
    grey = np.round(y * (0.6 + 0.4 * np.cos(x / 60) ** 2)).astype(np.uint8)
    way = Preprocessing(size, crop="square", grey=True)
    expected = way.pixels(png(grey, "L"))
    if stored.startswith("."):  # 12 bits of 16
        stored, way = cv2.imencode(stored, grey.astype(np.uint16) << 4)[1].tobytes(), replace(way, bits=12)
    assert np.array_equal(way.pixels(stored if isinstance(stored, bytes) else png(grey, stored)), expected)
    assert (expected == expected[:, :, :1]).all()
    assert expected.std() > 30
