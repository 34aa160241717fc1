"""The prepared set: made once, gone on with after an interruption, honest about what it left out."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.stores import PRODUCT_MARK, open_store
from medic.errors import MedicError

SETTINGS = Preprocessing(size=32)
IMAGES = 40


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """Forty discs, of which the second is cut off and the third no image."""
    folder = tmp_path_factory.mktemp("originals")
    for number in range(IMAGES):
        pixels = np.zeros((48, 64, 3), np.uint8)
        cv2.circle(pixels, (32, 24), 20, (10 + 5 * number, 120, 200), -1)
        cv2.imwrite(str(folder / f"{number}.jpeg"), pixels)
    (folder / "1.jpeg").write_bytes((folder / "1.jpeg").read_bytes()[:200])
    (folder / "2.jpeg").write_text("no photograph")
    return folder


@pytest.fixture
def records() -> pd.DataFrame:
    numbers = pd.Series(range(IMAGES)).astype(str)
    rows = pd.DataFrame({"image": numbers + ".jpeg", "patient": numbers, "split": "train", "label": 0})
    return rows.assign(split=rows["split"].where(rows.index < 30, "test"))


@pytest.fixture
def undisturbed(originals, records, tmp_path) -> Prepared:
    return prepare(records, open_store(originals), tmp_path / "undisturbed", SETTINGS)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows by one for every image that is decoded."""
    calls, pixels = [], Preprocessing.pixels
    monkeypatch.setattr(Preprocessing, "pixels", lambda self, data: (calls.append(len(data)), pixels(self, data))[1])
    return calls


def test_readable_images_are_there_and_the_others_are_listed_with_the_reason(originals, records, tmp_path):
    records.loc[[5, 6], "image"] = ["gone", "NA"]
    store = open_store(originals)
    prepared = prepare(records, store, tmp_path / "set", SETTINGS)
    reasons = {"1.jpeg": "truncated", "2.jpeg": "unsupported", "gone": "absent", "NA": "absent"}
    assert prepared.skipped.set_index("image")["reason"].to_dict() == reasons
    assert prepared.skipped["detail"].str.len().min() > 10
    assert len(prepared.records) == IMAGES - 4
    first = prepared.records.iloc[0]
    pixels = prepared.pixels(first["file"]).astype(int)
    assert np.abs(pixels - SETTINGS.pixels(store.read(first["image"]))).mean() < 6
    assert len(prepared.split("test")) == 10
    with pytest.raises(MedicError, match=r"cannot be read .*; run prepare again"):
        prepared.pixels("images/none.jpg")
    assert (prepared.folder / PRODUCT_MARK).is_file(), "by which no reader takes it for data"
    with pytest.raises(MedicError, match="no images in the split 'validation', only in test, train"):
        prepared.split("validation")


def test_what_cannot_become_a_set_is_refused_before_one_is_there(originals, records, tmp_path, unwritable):
    cases = [
        (records[records["image"] == "2.jpeg"], tmp_path / "a", r"not one of 1 images .* 2\.jpeg, unsupported"),
        (records, unwritable, "cannot write"),
    ]
    for rows, folder, message in cases:
        with pytest.raises(MedicError, match=message):
            prepare(rows, open_store(originals), folder, SETTINGS)
        with pytest.raises(MedicError, match="no complete prepared set"):
            Prepared.load(folder)
    whole = prepare(records, open_store(originals), tmp_path / "b", SETTINGS)
    for label in (None, -1, 1.5):
        whole.records.assign(label=label).to_csv(tmp_path / "b" / "records.csv", index=False)
        with pytest.raises(MedicError, match="rows without a label"):
            Prepared.load(tmp_path / "b")


def test_only_what_is_new_has_changed_or_failed_is_decoded_again(originals, records, tmp_path, decoded):
    copied = Path(shutil.copytree(originals, tmp_path / "copied"))

    def again(settings: Preprocessing = SETTINGS) -> pd.Series:
        decoded.clear()
        return prepare(records, open_store(copied), tmp_path / "set", settings).records.set_index("image")["file"]

    before = again()
    assert again().equals(before)
    assert len(decoded) == 2, "those that failed"
    (copied / "0.jpeg").write_bytes((copied / "4.jpeg").read_bytes() + b"more")
    (copied / "1.jpeg").write_bytes((copied / "5.jpeg").read_bytes())  # mended; as another's, it need not be decoded
    (tmp_path / "set" / before["3.jpeg"]).unlink()
    after = again()
    assert len(decoded) == 2 + 1
    assert (after["1.jpeg"], after["0.jpeg"] != before["0.jpeg"]) == (after["5.jpeg"], True)
    assert after.drop(["0.jpeg", "1.jpeg"]).equals(before.drop("0.jpeg"))
    assert not set(again(Preprocessing(size=16, crop="square"))) & set(after), "other settings are other files"


def test_interrupted_it_goes_on_and_ends_as_undisturbed(originals, records, undisturbed, monkeypatch, contents):
    folder, pixels, left = undisturbed.folder.with_name("set"), Preprocessing.pixels, iter(range(12))

    def interrupted(self: Preprocessing, data: bytes) -> np.ndarray:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return pixels(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Preprocessing, "pixels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(records, open_store(originals), folder, SETTINGS)
    assert 0 < len(list(folder.glob("images/*/*.jpg"))) < IMAGES
    with pytest.raises(MedicError, match=r"no complete prepared set .* it goes on"):
        Prepared.load(folder)
    prepare(records, open_store(originals), folder, SETTINGS)
    assert contents(folder) == contents(undisturbed.folder)


def test_a_set_of_16_bits_is_scaled_by_the_bits_that_it_uses_and_that_is_said(tmp_path, records, capsys):
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
    rows = records[:4].assign(image=records["image"][:4] + ".png")
    for name in rows["image"]:
        cv2.imwrite(str(tmp_path / name), ramp)
    prepared = prepare(rows, open_store(tmp_path), tmp_path / "set", Preprocessing(size=32, crop="square"))
    assert prepared.preprocessing.bits == 12
    assert prepared.pixels(prepared.records["file"][0]).max() > 240
    assert "use 12 of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("manifest.json", "{}", "'format'"),
        ("manifest.json", '{"format": 0, "preprocessing": {"size": 32}}', "format 0, not 2: another version"),
        ("records.csv", None, "No such file"),
    ],
)
def test_a_damaged_or_foreign_set_is_refused(file, text, why, undisturbed):
    (undisturbed.folder / file).unlink()
    if text is not None:
        (undisturbed.folder / file).write_text(text)
    with pytest.raises(MedicError, match=rf"no complete prepared set \({why}.*run prepare"):
        Prepared.load(undisturbed.folder)
