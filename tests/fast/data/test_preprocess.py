"""The one way from bytes to pixels."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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

    def watching(data: bytes, **how: int | None) -> np.ndarray:
        pixels = decode(data, **how)
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


def dicom(pixels: np.ndarray, **elements: object) -> bytes:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid(entropy_srcs=["medic"])
    made.Rows, made.Columns, made.SamplesPerPixel, made.PixelRepresentation = *pixels.shape, 1, 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    made.HighBit = made.BitsStored - 1
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


STORED = {
    "RGB PNG": lambda grey: png(grey, "RGB"),
    "RGBA PNG": lambda grey: png(grey, "RGBA"),
    "PNG with alpha": lambda grey: png(grey, "LA"),
    "palette PNG": lambda grey: png(grey, "P"),
    "16-bit PNG": lambda grey: cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes(),
    "16-bit TIFF": lambda grey: cv2.imencode(".tiff", grey.astype(np.uint16) * 257)[1].tobytes(),
    "DICOM": dicom,
    "DICOM, white is zero": lambda grey: dicom(255 - grey, PhotometricInterpretation="MONOCHROME1"),
    "DICOM of 12 bits": lambda grey: dicom(np.rint(grey * (4095 / 255)).astype(np.uint16), BitsStored=12),
    "DICOM of 16 bits, windowed": lambda grey: dicom(
        grey.astype(np.uint16) * 257, WindowCenter=32768, WindowWidth=65536
    ),
}


@pytest.mark.parametrize("size", [64, 256, 320])
@pytest.mark.parametrize("stored", STORED)
def test_a_radiograph_gives_the_same_pixels_however_it_is_stored(stored, size, radiograph):
    way = Preprocessing(size, crop="square", grey=True)
    expected = way.pixels(png(radiograph, "L"))
    assert np.array_equal(way.pixels(STORED[stored](radiograph)), expected)
    assert (expected == expected[:, :, :1]).all()
    assert expected.std() > 30


@pytest.mark.parametrize("width", [1, 7, 16, 33, 256])
def test_making_one_grey_of_three_equal_channels_changes_no_value(width):
    greys = np.resize(np.arange(256, dtype=np.uint8), (-(-256 // width), width))
    assert np.array_equal(cv2.cvtColor(np.repeat(greys[:, :, None], 3, axis=2), cv2.COLOR_RGB2GRAY), greys)


@pytest.mark.real_data
def test_real_radiographs_come_out_grey_whether_rgb_or_rgba(real_data):
    folder = real_data / "chest_xray_64px" / "images"
    if not folder.is_dir():
        pytest.skip("the small chest radiographs are not here: no chest_xray_64px/images in the real data")
    way, modes = Preprocessing(64, crop="square", grey=True), {"RGB": 0, "RGBA": 0}
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            modes[image.mode] += 1
            assert image.size == (64, 64)
            stored = np.asarray(image)
        assert (stored[:, :, :3] == stored[:, :, :1]).all(), path.name
        assert stored.shape[2] == 3 or stored[:, :, 3].min() == 255, path.name
        assert (way.pixels(path.read_bytes()) == stored[:, :, :1]).all(), path.name
    assert modes == {"RGB": 751, "RGBA": 17}
