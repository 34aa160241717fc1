"""Records as one array of grey pixels."""

import cv2
import numpy as np
import pandas as pd
import pytest

from medic.data import idx
from medic.data.images.preprocess import Preprocessing
from medic.data.readers import digits
from medic.data.readers.digits import grey_arrays
from medic.data.stores import open_store
from medic.errors import ImageError, MedicError


def table(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"image": names})


def test_a_digit_of_the_wanted_size_keeps_its_pixels(repository):
    folder = repository / "sample_data" / "digits"
    records, store = digits.read(folder)
    tested = records[records["split"] == "test"]
    arrays = grey_arrays(tested, store, 28)
    assert arrays.dtype == np.uint8
    assert np.array_equal(arrays, idx.read(folder / "t10k-images-idx3-ubyte.gz"))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_other_images_are_padded_scaled_and_made_grey_as_everywhere(mode, smooth, encode, tmp_path):
    data = encode(smooth(60, 100), mode=mode)
    (tmp_path / "wide.png").write_bytes(data)
    (image,) = grey_arrays(table("wide.png"), open_store(tmp_path), 40)
    assert image.shape == (40, 40)
    assert image[:7].max() == image[-7:].max() == 0
    assert np.array_equal(image, Preprocessing(40, crop="square", grey=True).pixels(data)[:, :, 0])


def test_rows_keep_their_order(encode, tmp_path):
    values = np.random.default_rng(0).permutation(100)
    for value in values:
        (tmp_path / f"{value}.png").write_bytes(encode(np.full((20, 20, 3), value, np.uint8)))
    arrays = grey_arrays(table(*(f"{value}.png" for value in values)), open_store(tmp_path), 20)
    assert np.array_equal(arrays[:, 10, 10], values)
    assert grey_arrays(table(), open_store(tmp_path), 20).shape == (0, 20, 20)


def test_absent_and_damaged_images_are_named(smooth, tmp_path):
    cv2.imwrite(str(tmp_path / "good.png"), smooth(20, 20))
    (tmp_path / "bad.png").write_bytes(b"text")
    store = open_store(tmp_path)
    with pytest.raises(MedicError, match=r"1 of 2 images are not in .*, for instance gone\.png"):
        grey_arrays(table("good.png", "gone.png"), store, 28)
    with pytest.raises(ImageError, match=r"^bad\.png: ") as caught:
        grey_arrays(table("good.png", "bad.png"), store, 28)
    assert caught.value.reason == "unsupported"
