"""Faults are found before training, each by its name, and copies under two names; nothing else is."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medic.data.check import check, measure, unlisted_files
from medic.data.check.duplicates import TURNS, connected, near_duplicates
from medic.data.check.images import FEWEST, fingerprint
from medic.data.stores import open_store
from medic.task import FINDINGS, Task

TASK = Task("kinds", "multiclass", ("a", "b", "c", "d", "e"))


def lesion(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    pixels = np.full((96, 128, 3), (200, 160, 140), np.uint8)
    for _ in range(25):
        x, y = random.normal(0, 15, 2)
        colour = tuple(int(value) for value in random.integers(40, 120, 3))
        cv2.circle(pixels, (int(64 + x), int(48 + y)), int(random.integers(1, 7)), colour, -1)
    pixels = cv2.resize(pixels, (256, 192), interpolation=cv2.INTER_CUBIC)
    return (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)


LESIONS = [lesion(seed) for seed in range(FEWEST + 4)]


@pytest.fixture
def even_set(tmp_path, encode) -> Path:
    """Noisy lesions on skin, all alike in size, light and sharpness; nothing is wrong with them."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    for number, pixels in enumerate(LESIONS):
        (tmp_path / "set" / "images" / f"{number:02}.png").write_bytes(encode(pixels))
    return tmp_path / "set"


def listed(folder: Path, **columns: object) -> pd.DataFrame:
    names = sorted(f"images/{path.name}" for path in (folder / "images").iterdir())
    names = [name for name in names if name.lower().endswith((".png", ".jpg", ".jpeg", ".tif"))]
    return pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0}).assign(**columns)


def said(folder: Path) -> list[tuple[str, str]]:
    found = check(listed(folder), open_store(folder))
    return list(zip(found["image"].str.removeprefix("images/"), found["finding"], strict=True))


def test_an_even_set_has_no_findings_whatever_its_files_are_called(even_set, encode):
    for number, name in enumerate(["a mole.PNG", "Köln 痣.JPG", "x%20y.Jpeg"]):
        (even_set / "images" / name).write_bytes(encode(lesion(100 + number), "PNG" if "PNG" in name else "JPEG"))
    assert said(even_set) == []


def test_what_is_wrong_with_one_file_is_found_by_its_name(even_set, encode):
    jpeg, more = encode(lesion(98), "JPEG", quality=95), [lesion(seed) for seed in range(200, 210)]
    more[9][:130] = 255
    odd = [
        (b"", "empty"),
        (b"<html>not found</html>", "unsupported"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2 - 2) + b"\xff\xd9", "unreadable"),
        (encode(LESIONS[0]), "identical"),
        (encode(LESIONS[1], "JPEG", quality=60), "near_duplicate"),
        (encode(LESIONS[2][:, ::-1]), "near_duplicate"),
        (encode(more[0] // 8), "nearly_black"),
        (encode(more[1] // 4), "too_dark"),
        (encode(more[9]), "too_bright"),
        (encode(cv2.GaussianBlur(more[2], (0, 0), 4)), "blurred"),
        (encode(cv2.resize(more[3], (512, 384))), "odd_size"),
        (encode(more[4][60:132]), "odd_size"),
        (encode(np.repeat(more[5][:, :, 1:2], 3, axis=2)), "odd_channels"),
        (encode(more[6], mode="L"), "odd_channels"),
        (encode(more[7], mode="RGBA"), "odd_channels"),
        (encode(more[8], "JPEG", "CMYK"), "odd_channels"),
    ]
    for number, (data, finding) in enumerate(odd):
        (even_set / "images" / f"{finding}{number}.png").write_bytes(data)
    expected = [(f"{finding}{number}.png", finding) for number, (_, finding) in enumerate(odd)]
    twins = [("00.png", "identical"), ("01.png", "near_duplicate"), ("02.png", "near_duplicate")]
    assert sorted(said(even_set)) == sorted(expected + twins)


@pytest.mark.parametrize("bits", [10, 14])
def test_a_set_that_uses_few_of_16_bits_is_said_to_and_is_not_dark(bits, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(2):
        grey = lesion(number)[:, :, 0].astype(np.uint16) << (bits - 8)  # as detectors give them
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), grey)
    found = check(listed(tmp_path), open_store(tmp_path))
    assert found[["image", "finding"]].to_numpy().tolist() == [["", "noted"]]
    assert f"use {bits} of them" in found["detail"][0]


def test_half_of_a_set_is_not_odd(even_set, encode):
    for number in range(len(LESIONS) // 2):
        (even_set / "images" / f"{number:02}.png").write_bytes(encode(cv2.resize(LESIONS[number], (400, 400)) // 4))
    assert said(even_set) == []


def test_copies_say_what_the_table_says_differently_of_them(even_set, encode):
    (even_set / "images" / "copy.jpg").write_bytes(encode(cv2.resize(LESIONS[5], (205, 154)), "JPEG"))
    count = len(LESIONS)
    columns = {"split": ["train"] * count + ["test"], "label": [0] * count + [1]}
    findings = dict.fromkeys(FINDINGS, 0) | {"Mass": [1] * count + [0]}
    for more, differs in [
        ({"patient_source": "column mrn"}, "labels differ (1 and 0); of another patient; in another split"),
        ({"patient_source": "image"}, "labels differ (1 and 0); in another split"),
        (findings, "labels differ ((none) and Mass); in another split"),
    ]:
        found = check(listed(even_set, **columns | more), open_store(even_set)).set_index("image")
        assert found["other"].to_dict() == {"images/copy.jpg": "images/05.png", "images/05.png": "images/copy.jpg"}
        assert found.loc["images/copy.jpg", "detail"].partition("; ")[2] == differs


def test_files_and_rows_that_do_not_fit_are_found(even_set):
    beside = {"moving.GIF": "unlisted", "notes.txt": "not_an_image", "more.png": "unlisted"}
    sound = (even_set / "images" / "00.png").read_bytes()
    for name in (*beside, "labels.csv", "LICENSE.txt", ".hidden", "../notes.txt"):
        (even_set / "images" / name).write_bytes(sound if name == "more.png" else b"x")
    records = listed(even_set, note=None).query("image != 'images/more.png'").reset_index(drop=True)
    records.loc[0, "note"] = "age 412 taken as unknown"
    records = pd.concat([records, records.tail(1).assign(image="images/gone.png")], ignore_index=True)
    records.loc[[1, 2], ["patient", "split"]] = [["p", "train"], ["p", "test"]]
    found = check(records, open_store(even_set)).set_index("image")
    expected = {"00.png": "noted", "gone.png": "absent", "01.png": "patient_in_two_splits"} | beside
    assert found["finding"].to_dict() == {f"images/{name}": finding for name, finding in expected.items()}
    assert found.loc["images/01.png", "detail"] == "patient p: images/01.png in train, images/02.png in test"


def test_unlisted_files_are_sought_in_numbered_folders_too_and_what_corrections_exclude_is_none(lay):
    names = ("images_1/a.png", "images_2/b.png", "images_2/c.png", "scaled/a.png", "scaled/d.png")
    journal = "when,who,image,from,to\n2026-11-01T08:00:00Z,Ann,images_2/c.png,a,(excluded)\n"
    store, records = open_store(lay(*names, corrections=journal)), pd.DataFrame({"image": ["images_1/a.png"]})
    assert [name for name, _, _ in unlisted_files(records, store)] == ["images_2/b.png"]


def test_rare_classes_and_splits_without_a_class_are_found_where_the_task_is_given(even_set):
    columns = {
        "label": [0] * 12 + [1] * 5 + [2] * 7,
        "patient": [str(number // 2) for number in range(17)] + ["last"] * 7,
        "split": ["train", "test"] * 6 + ["train"] * 12,
    }
    columns["patient"][11] = columns["patient"][13]
    found = check(listed(even_set, **columns), open_store(even_set), TASK).query("image == ''")
    assert list(zip(found["finding"], found["detail"], strict=True)) == [
        ("rare_class", "b: images 5, patients 3"),
        ("split_imbalance", "b: images 5, patients 3, and none in test"),
        ("single_patient_class", "c: images 7, patients 1 (last)"),
        ("split_imbalance", "c: images 7, patients 1, and none in test"),
        ("rare_class", "d: images 0, patients 0"),
        ("rare_class", "e: images 0, patients 0"),
    ]


def test_measures_are_those_of_the_drawn_image(tmp_path, encode):
    pixels = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(pixels, (320, 240), 200, (180, 90, 30), -1)
    for name, data in {"flat": encode(pixels), "noisy": encode(lesion(1)), "broken": b"no image"}.items():
        (tmp_path / name).write_bytes(data)
    names = ["flat", "noisy", "broken", "absent"]
    table = measure(pd.DataFrame({"image": names}), open_store(tmp_path)).set_index("image")
    assert table.loc["flat"].tolist()[:4] == pytest.approx([640, 480, 100, 0], abs=2)
    assert table.loc["flat", "sharpness"] < table.loc["noisy", "sharpness"]
    assert table.loc[["broken", "absent"]].isna().all(axis=None)


# Copies

LOW = cv2.IMWRITE_JPEG_QUALITY, 40
PRINTS = [fingerprint(pixels) for pixels in LESIONS]
CHANGES = {
    "saved as JPEG of low quality": lambda pixels: cv2.imdecode(cv2.imencode(".jpg", pixels, LOW)[1], -1),
    "half the size": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "another shape": lambda pixels: cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA),
    "brighter": lambda pixels: (255 * (pixels / 255.0) ** 0.7).astype(np.uint8),
    "other colours": lambda pixels: (pixels * [0.8, 1, 1.2]).clip(0, 255).astype(np.uint8),
    "mirrored left to right": lambda pixels: pixels[:, ::-1],
    "mirrored top to bottom": lambda pixels: pixels[::-1],
    "turned by 180 degrees": lambda pixels: pixels[::-1, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change):
    copy = fingerprint(np.ascontiguousarray(CHANGES[change](LESIONS[4])))
    (pair,) = near_duplicates(np.stack([*PRINTS, copy])).itertuples()
    assert (pair.one, pair.other, pair.turn) == (4, len(PRINTS), change if change in TURNS else "")
    assert 0.9 <= pair.correlation <= 1
    assert len(near_duplicates(np.stack([PRINTS[4], copy]))) == 1, "in a set of two as well"


@pytest.mark.parametrize("count", [1, 2, 20])
def test_pictures_of_one_kind_are_not_one_picture(count):
    assert near_duplicates(np.stack(PRINTS[:count])).empty


def test_three_copies_are_three_pairs_and_one_group_wherever_they_lie():
    noise = np.random.default_rng(1).integers(-90, 90, (600, 64, 64), dtype=np.int8)
    noise[[3, 258, 599]] = PRINTS[0]
    pairs = near_duplicates(noise)[["one", "other"]].to_numpy()
    assert sorted(pairs.tolist()) == [[3, 258], [3, 599], [258, 599]]
    assert pd.Series(connected(600, pairs[:2])).value_counts().head(2).tolist() == [3, 1]


def test_what_shows_nothing_has_no_fingerprint():
    assert fingerprint(np.full((240, 320, 3), 90, np.uint8)) is None
    assert fingerprint(cv2.resize(LESIONS[0], (28, 28))) is None
