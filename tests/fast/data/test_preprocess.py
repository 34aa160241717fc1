"""The one way from bytes to pixels: the retina is found, and the square around it shown in the size asked for."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from medic.data.images import preprocess
from medic.data.images.crop import find_disc, fundus, square, window
from medic.data.images.decode import decode
from medic.data.images.preprocess import Preprocessing
from medic.errors import ImageError, MedicError

# The retina, and the square around it

SHAPES = {
    "whole": (640, 480, 320, 240, 220),
    "cut above and below": (640, 480, 320, 240, 300),
    "off centre": (640, 480, 230, 260, 200),
    "cut at one side": (640, 480, 180, 240, 215),
    "small": (800, 600, 500, 200, 110),
    "large": (1500, 1000, 760, 495, 575),
    "tiny frame": (96, 64, 48, 32, 29),
}


@pytest.mark.parametrize(("name", "disturbed"), [*((name, False) for name in SHAPES), ("whole", True)])
def test_the_disc_is_found_and_cut_within_two_per_cent_of_its_radius(name, disturbed, photograph):
    _, _, x, y, radius = SHAPES[name]
    pixels = photograph(*SHAPES[name])
    if disturbed:  # light in the dark surround, and the notch that cameras cut into the edge
        pixels[np.random.default_rng(0).random(pixels.shape[:2]) < 0.002] = 200
        pixels[60:100, 470:520] = 180
    disc, cut = find_disc(pixels), fundus(pixels)
    assert (disc.radius, len(cut) / 2) == pytest.approx((radius, radius), rel=0.02)
    assert np.hypot(disc.x - x, disc.y - y) < 0.02 * radius
    assert cut.shape == (len(cut), len(cut), 3)


def test_all_channels_are_cut_at_the_same_place_though_one_is_dark(photograph):
    pixels = photograph(*SHAPES["off centre"], colour=(180, 80, 6))
    left, top, side = find_disc(pixels).square
    cut = fundus(pixels)
    inside = pixels[max(0, top) : top + side, max(0, left) : left + side]
    above, before = max(0, -top), max(0, -left)
    assert inside[:, :, 2].any()
    assert np.array_equal(cut[above : above + inside.shape[0], before : before + inside.shape[1]], inside)


def test_a_photograph_without_a_retina_is_kept_whole():
    noise = np.random.default_rng(0).integers(0, 9, (480, 640, 3), dtype=np.uint8)
    speck = np.zeros((480, 640, 3), np.uint8)
    speck[100:150, 100:150] = 200
    for pixels in (noise, speck):
        assert find_disc(pixels) is None
        assert np.array_equal(fundus(pixels)[80:560], pixels)


@pytest.mark.parametrize("size", [(3, 2000), (1, 1000), (1000, 1), (1, 1), (10, 30)], ids=str)
def test_odd_shapes_still_give_a_square_with_the_image_in_the_middle(size):
    pixels, side = np.full((*size, 3), 120, np.uint8), max(size)
    assert fundus(pixels).shape[0] == fundus(pixels).shape[1]
    top, left = ((side - length) // 2 for length in size)
    assert np.array_equal(square(pixels)[top : top + size[0], left : left + size[1]], pixels)
    assert square(pixels).sum() == pixels.sum(dtype=int)


# From bytes to pixels


@pytest.mark.parametrize(("radius", "size"), [(900, 384), (900, 200), (1200, 224), (400, 224), (250, 224)])
def test_reduced_decoding_looks_like_decoding_at_full_size(radius, size, photograph, encode):
    drawn = cv2.GaussianBlur(photograph(2400, 1800, 1180, 910, radius, noise=0), (0, 0), 8)
    data = encode(drawn, "JPEG", quality=95)
    shown = Preprocessing(size).pixels(data)
    assert (shown.shape, shown.dtype) == ((size, size, 3), np.uint8)
    assert cv2.PSNR(shown, cv2.resize(fundus(decode(data)), (size, size), interpolation=cv2.INTER_AREA)) >= 40


@pytest.mark.real_data
@pytest.mark.parametrize("size", [256, 384, 512])
def test_prepared_pixels_of_camera_photographs_keep_47_decibels(size, real_data):
    for path in sorted((real_data / "retinopathy" / "fullres").glob("*.jpeg")):
        data = path.read_bytes()
        frame, full = decode(data, at_least=size), decode(data)
        factor = len(full) / len(frame)
        cut = window(full, *(round(value * factor) for value in find_disc(frame).square))
        wanted = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)
        assert cv2.PSNR(Preprocessing(size).pixels(data), wanted) >= 47, path.name


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
    assert Preprocessing(**settings.to_dict()) == settings
    assert ("bits" in settings.to_dict()) == (bits is not None), "older bundles have no such key"


@pytest.mark.parametrize("size", [64, 256, 320])
@pytest.mark.parametrize("stored", ["RGB", "RGBA", "LA", "P", ".png", ".tiff"])
def test_a_radiograph_gives_the_same_pixels_however_it_is_stored(stored, size, encode):
    y, x = np.mgrid[0:256, 0:300]
    grey = np.round(y * (0.6 + 0.4 * np.cos(x / 60) ** 2)).astype(np.uint8)
    way = Preprocessing(size, crop="square", grey=True)
    expected = way.pixels(encode(grey, mode="L"))
    if stored.startswith("."):  # 12 bits of 16
        stored, way = cv2.imencode(stored, grey.astype(np.uint16) << 4)[1].tobytes(), replace(way, bits=12)
    assert np.array_equal(way.pixels(stored if isinstance(stored, bytes) else encode(grey, mode=stored)), expected)
    assert (expected == expected[:, :, :1]).all()
    assert expected.std() > 30
