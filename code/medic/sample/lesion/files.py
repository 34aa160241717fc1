"""The image files of synthetic skin lesions: JPEG as it should be, and the ways in which real files are not.

All carry the name of a JPEG file, as those do that somebody renamed.
"""

import io

import cv2
import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4 A
QUARTER_TURN = 6  # its value for an image that is to be turned clockwise to be upright
TEXT = b"This is not a photograph. It is a text file that somebody named .jpg.\n"
IN_THE_FILE = {  # fault: detail
    "truncated": "the JPEG ends after two fifths of its bytes",
    "not an image": "a text file named .jpg",
    "animated GIF": "three frames, named .jpg",
    "CMYK": "a JPEG of four channels, for printing",
    "grey": "a JPEG of one channel",
    "palette": "a PNG of 128 colours, named .jpg",
    "rotated": "stored on its side; the EXIF orientation says how to turn it",
    "small": "a quarter of the width and height of the others",
    "blurred": "far out of focus",
    "too dark": "exposed 12 times too short",
}


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Pixels, uint8 (height, width, 3) RGB, as a JPEG file."""
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def spoil(pixels: np.ndarray, fault: str, quality: int) -> bytes:
    """An image file with a fault.

    Args:
        pixels: uint8 (height, width, 3) RGB.
        fault: of ``IN_THE_FILE``; another leaves the file as it should be.
        quality: of JPEG files, 1-100.
    """
    height, width = pixels.shape[:2]
    if fault == "not an image":
        return TEXT
    if fault == "truncated":
        data = jpeg(pixels, quality)
        return data[: len(data) * 2 // 5]
    if fault == "blurred":
        return jpeg(cv2.GaussianBlur(pixels, (0, 0), width / 56), 95)  # the noise of a coarse JPEG would look sharp
    if fault == "too dark":
        return jpeg(pixels // 12, quality)
    if fault == "small":
        return jpeg(cv2.resize(pixels, (width // 4, height // 4), interpolation=cv2.INTER_AREA), quality)
    image = Image.fromarray(pixels)
    if fault == "animated GIF":
        frames = [image.quantize(64), *(image.point(lambda v, by=by: v * by // 10).quantize(64) for by in (8, 6))]
        return _saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=400, loop=0)
    if fault == "CMYK":
        return _saved(image.convert("CMYK"), "JPEG", quality=quality)
    if fault == "grey":
        return _saved(image.convert("L"), "JPEG", quality=quality)
    if fault == "palette":
        return _saved(image.quantize(128), "PNG", optimize=True)
    if fault == "rotated":
        exif = Image.Exif()
        exif[ORIENTATION] = QUARTER_TURN
        return _saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=quality, exif=exif)
    return jpeg(pixels, quality)


def near_duplicate(data: bytes) -> bytes:
    """The same image as another file shows, 6 % smaller and compressed once more."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    size = (round(pixels.shape[1] * 0.94), round(pixels.shape[0] * 0.94))
    return jpeg(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)[..., ::-1], 72)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
