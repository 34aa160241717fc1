"""The same picture under two names is found by what it shows; pictures that only look alike are not."""

import io

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.data.check import check
from medic.data.check.duplicates import TURNS, fingerprint, near_duplicates
from medic.data.readers import DATA_SETS


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Thirty drawn retinas, all of one kind: a disc with vessels and spots of its own."""
    drawn = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        pixels = np.zeros((240, 320, 3), np.uint8)
        cv2.circle(pixels, (160, 120), 110, (170, 90, 40), -1)
        for _ in range(9):
            points = np.cumsum(random.normal(0, 14, (12, 2)), axis=0) + random.uniform(90, 170, 2)
            cv2.polylines(pixels, [points.astype(np.int32)], False, (110, 40, 20), 3)
        for x, y in random.uniform(60, 220, (12, 2)).astype(int):
            cv2.circle(pixels, (int(x), int(y)), 4, (220, 190, 90), -1)
        noise = random.normal(0, 3, pixels.shape)
        drawn.append((cv2.GaussianBlur(pixels, (0, 0), 1.0) + noise).clip(0, 255).astype(np.uint8))
    return drawn


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


CHANGES = {
    "saved as JPEG of low quality": lambda pixels: as_jpeg(pixels, 40),
    "half the size": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "another shape": lambda pixels: cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA),
    "brighter": lambda pixels: (255 * (pixels / 255.0) ** 0.7).astype(np.uint8),
    "darker": lambda pixels: pixels // 2,
    "other colours": lambda pixels: (pixels * [0.8, 1, 1.2]).clip(0, 255).astype(np.uint8),
    "mirrored left to right": lambda pixels: pixels[:, ::-1],
    "mirrored top to bottom": lambda pixels: pixels[::-1],
    "turned by 180 degrees": lambda pixels: pixels[::-1, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change, pictures):
    prints = np.stack(
        [fingerprint(pixels) for pixels in [*pictures, np.ascontiguousarray(CHANGES[change](pictures[4]))]]
    )
    (pair,) = near_duplicates(prints)
    assert (pair.first, pair.second) == (4, 30)
    assert 0.9 <= pair.correlation <= 1
    assert pair.turn == (change if change in TURNS else "")


def test_pictures_of_one_kind_are_not_one_picture(pictures):
    assert near_duplicates(np.stack([fingerprint(pixels) for pixels in pictures])) == []


def test_a_pair_is_found_in_a_set_of_two(pictures):
    prints = np.stack([fingerprint(pixels) for pixels in (pictures[0], CHANGES["half the size"](pictures[0]))])
    assert len(near_duplicates(prints)) == 1
    assert near_duplicates(np.stack([fingerprint(pixels) for pixels in pictures[:2]])) == []
    assert near_duplicates(prints[:1]) == []


def test_three_copies_are_three_pairs_wherever_they_lie(pictures):
    noise = np.random.default_rng(1).integers(-90, 90, (600, 64, 64), dtype=np.int8)
    noise[[3, 258, 599]] = fingerprint(pictures[0])
    assert [(pair.first, pair.second) for pair in near_duplicates(noise)] == [(3, 258), (3, 599), (258, 599)]


def test_what_shows_nothing_has_no_fingerprint(pictures):
    plain = np.full((240, 320, 3), 90, np.uint8)
    assert fingerprint(plain) is None
    assert fingerprint(cv2.resize(pictures[0], (28, 28))) is None


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["retinopathy", "skin_lesion", "chest_xray"])
def test_copies_of_real_images_are_found_and_none_among_the_others(name, real_data, tmp_path):
    records, store = DATA_SETS[name].read(real_data / name)
    records = records.head(60)
    for row in (7, 23):
        pixels = np.asarray(Image.open(io.BytesIO(store.read(records["image"][row]))).convert("RGB"))
        smaller = cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        Image.fromarray(smaller if row == 7 else smaller[:, ::-1]).save(tmp_path / f"{row}.jpg", quality=60)

    class Joined:
        """The real store, and two copies."""

        location = store.location

        def __contains__(self, image):
            return image in store or (tmp_path / image).exists()

        def names(self):
            return store.names()

        def read(self, image):
            return store.read(image) if image in store else (tmp_path / image).read_bytes()

    copies = records.iloc[[7, 23]].assign(image=["7.jpg", "23.jpg"])
    both = pd.concat([records, copies], ignore_index=True)
    found = check(both, Joined()).query("finding == 'near_duplicate'").set_index("image")
    pair = {records["image"][7]: "7.jpg", records["image"][23]: "23.jpg"}
    assert found["other"].to_dict() == pair | {copy: image for image, copy in pair.items()}
    assert "mirrored left to right" in found.loc["23.jpg", "detail"]
