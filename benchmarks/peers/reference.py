"""The reference method: how published retinopathy code commonly feeds a network, written here from its description.

Every image, in every epoch: the whole JPEG is decoded, dark borders are cut at full resolution from each colour channel
by itself, the channels are resized back to the frame, and the result to the network's side; then comes the
augmentation, one operation after the other. It is what the library is measured against, mistakes included: channels
cut by themselves no longer lie on each other.
"""

import cv2
import numpy as np

TOLERANCE = 7
"""Pixels of a channel above this (of 255) are no border."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def pixels(data: bytes, size: int) -> np.ndarray:
    """Return a JPEG file as the network's input before augmentation, uint8 (size, size, 3) RGB."""
    frame = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return cv2.resize(cut_borders(frame), (size, size))


def cut_borders(frame: np.ndarray) -> np.ndarray:
    """Cut each channel of uint8 (H, W, 3) RGB to what holds a pixel above the tolerance, and resize it back."""
    height, width = frame.shape[:2]
    channels = []
    for number in range(3):
        channel = frame[:, :, number]
        lit = channel > TOLERANCE
        if lit.any():
            channel = channel[np.ix_(lit.any(axis=1), lit.any(axis=0))]
        channels.append(cv2.resize(channel, (width, height)))
    return np.stack(channels, axis=2)


def augment(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Elastic deformation, rotation, hue, CLAHE, flip and blur, each in half of the cases and over the whole image.

    Elastic deformation as Simard, Steinkraus & Platt (ICDAR 2003, p. 958): a random displacement of every pixel,
    smoothed by a Gaussian, here of 50 pixels; CLAHE as Zuiderveld (Graphics Gems IV, 1994, p. 474), on the lightness.
    ``image`` is uint8 (S, S, 3) RGB.
    """
    side = len(image)
    elastic, rotated, coloured, equalised, flipped, blurred = random.random(6) < 0.5
    if elastic:
        right, down = (
            cv2.GaussianBlur(random.uniform(-1, 1, (side, side)).astype(np.float32), (0, 0), 50) for _ in range(2)
        )
        y, x = np.mgrid[0:side, 0:side].astype(np.float32)
        image = cv2.remap(image, x + right, y + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if rotated:
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), random.uniform(-45, 45), 1)
        image = cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    if coloured:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
        hsv[:, :, 0] = (hsv[:, :, 0] + random.integers(-10, 11)) % 180
        hsv[:, :, 1:] = (hsv[:, :, 1:] + random.integers(-15, 16, 2)).clip(0, 255)
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    if equalised:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[:, :, 0] = cv2.createCLAHE(clipLimit=random.uniform(1, 4), tileGridSize=(8, 8)).apply(lab[:, :, 0])
        image = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    if flipped:
        image = np.ascontiguousarray(image[:, ::-1])
    if blurred:
        image = cv2.blur(image, (int(random.choice([3, 5])),) * 2)
    return image


def normalise(image: np.ndarray) -> np.ndarray:
    """One image as the network wants it: float32 (3, S, S), ImageNet's mean and deviation."""
    return np.ascontiguousarray(((image / np.float32(255) - MEAN) / DEVIATION).transpose(2, 0, 1))
