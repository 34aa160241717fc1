"""Faults are found before training, each by its name."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from medic.data.quality import check, measure
from medic.data.readers import retinopathy
from medic.data.stores import open_store
from medic.task import FINDINGS


@pytest.fixture(scope="module")
def findings(sample) -> pd.DataFrame:
    records, store = retinopathy.read(sample)
    return check(records, store)


def found(findings: pd.DataFrame, finding: str) -> set[str]:
    return set(
        findings.loc[findings["finding"] == finding, "image"].str.removeprefix("images/").str.removesuffix(".jpeg")
    )


def planted(sample, fault: str) -> set[str]:
    faults = pd.read_csv(sample / "planted_faults.csv")
    return set(faults.loc[faults["fault"] == fault, "image"])


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("truncated", "truncated"),
        ("not an image", "unsupported"),
        ("duplicate", "identical"),
        ("nearly black", "nearly_black"),
    ],
)
def test_each_planted_fault_is_found_and_nothing_else_is_called_so(fault, finding, sample, findings):
    assert planted(sample, fault)
    assert found(findings, finding) == planted(sample, fault)


def test_a_sound_set_has_no_other_findings(findings):
    assert set(findings["finding"]) == {"truncated", "unsupported", "identical", "nearly_black"}


def test_identical_photographs_with_different_grades_say_so(findings):
    twins = findings[findings["finding"] == "identical"]
    assert len(twins) == 2
    assert twins["detail"].str.contains("labels differ").all()
    assert twins["detail"].str.contains("of another patient").all()


def test_a_blurred_photograph_is_the_least_sharp_of_its_grade(sample):
    records, store = retinopathy.read(sample)
    table = measure(records, store).set_index("image")["sharpness"]
    (blurred,) = planted(sample, "blurred")
    assert table[f"images/{blurred}.jpeg"] < table.quantile(0.05)


@pytest.fixture
def changed(tiny, tmp_path):
    """A copy of the small set with the faults that the committed sample cannot have."""
    folder = tmp_path / "set"
    shutil.copytree(tiny, folder)
    names = (folder / "train_img.csv").read_text().split()
    (folder / "images" / f"{names[0]}.jpeg").unlink()
    (folder / "images" / f"{names[1]}.jpeg").write_bytes(b"")
    (folder / "images" / "99999_left.jpeg").write_bytes((folder / "images" / f"{names[2]}.jpeg").read_bytes())
    return folder, names


def test_absent_empty_and_unlisted_images_are_found(changed):
    folder, names = changed
    result = check(*retinopathy.read(folder))
    assert found(result, "absent") == {names[0]}
    assert found(result, "empty") == {names[1]}
    assert found(result, "unlisted") == {"99999_left"}


def test_a_patient_in_two_splits_is_found_with_both_sides(tiny):
    records, store = retinopathy.read(tiny)
    patient = records["patient"][0]
    row = records.index[records["patient"] == patient][1]
    records.loc[row, "split"] = "test" if records["split"][row] == "train" else "train"
    result = check(records, store).query("finding == 'patient_in_two_splits'")
    assert len(result) == 1
    assert f"patient {patient}: " in result["detail"].iloc[0]
    assert " in train" in result["detail"].iloc[0]
    assert " in test" in result["detail"].iloc[0]


@pytest.mark.real_data
def test_the_real_sets_identical_photographs_with_different_grades_are_found(real_data):
    records, store = retinopathy.read(real_data / "retinopathy")
    pairs = records[records["patient"].isin(["299", "300"])]
    result = check(pairs, store).query("finding == 'identical'")
    assert {"299", "300"} <= {image.removeprefix("images/").split("_")[0] for image in result["image"]}
    assert result["detail"].str.contains("labels differ").any()


def test_identical_images_with_different_findings_say_which(tmp_path, smooth, encode):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        (tmp_path / name).write_bytes(encode(smooth(40, 50)))
    records = pd.DataFrame({"image": names, "patient": "1", "split": "train", "label": [1, 1, 0]}).assign(
        **dict.fromkeys(FINDINGS, 0) | {"Mass": [1, 1, 0], "Nodule": [1, 0, 0]}
    )
    details = check(records, open_store(tmp_path)).set_index("image")["detail"]
    assert details["a.png"] == "same bytes as b.png, c.png; labels differ (Mass|Nodule and Mass, No Finding)"
    same = records.assign(**{"label": 1, "Mass": 1, "Nodule": 0})
    assert check(same, open_store(tmp_path))["detail"][0] == "same bytes as b.png, c.png"


def test_a_dark_image_of_16_bits_is_said_to_use_the_lower_ones(tmp_path, smooth):
    grey = smooth(60, 80)[:, :, 0]
    cv2.imwrite(str(tmp_path / "low.png"), grey.astype(np.uint16) * 16)  # 12 bits, as detectors give them
    cv2.imwrite(str(tmp_path / "whole.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "dark.png"), grey // 10)
    records = pd.DataFrame({"image": ["low.png", "whole.png", "dark.png"]}).assign(patient="1", split="train", label=0)
    found = check(records, open_store(tmp_path)).set_index("image")
    assert list(found["finding"]) == ["nearly_black", "nearly_black"]
    assert "of its 16 bits the values may use only the lower ones" in found.loc["low.png", "detail"]
    assert "bits" not in found.loc["dark.png", "detail"]


def test_folders_that_differ_by_a_number_are_one_to_the_unlisted_files(tmp_path, smooth, encode):
    for name in ("images_1/a.png", "images_2/b.png", "images_2/c.png", "scaled/a.png", "scaled/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(smooth(40, 50 + ord(name[-5]))))
    records = pd.DataFrame({"image": ["images_1/a.png"], "patient": "1", "split": "train", "label": 0})
    assert list(check(records, open_store(tmp_path))["image"]) == ["images_2/b.png", "images_2/c.png"]


def test_what_a_reader_noted_is_a_finding(tmp_path, smooth, encode):
    (tmp_path / "a.png").write_bytes(encode(smooth(40, 50)))
    (tmp_path / "b.png").write_bytes(encode(smooth(40, 51)))
    records = pd.DataFrame({"image": ["a.png", "b.png"], "patient": "1", "split": "train", "label": 0}).assign(
        note=pd.array(["age 412 taken as unknown", pd.NA], dtype="string")
    )
    assert check(records, open_store(tmp_path)).to_numpy().tolist() == [["a.png", "noted", "age 412 taken as unknown"]]


def test_a_radiograph_is_measured_as_grey(tmp_path):
    pixels = np.full((400, 300), 90, np.uint8)
    pixels[:, 150:] = 150
    cv2.imwrite(str(tmp_path / "grey.png"), pixels)
    cv2.imwrite(str(tmp_path / "rgba.png"), np.dstack([pixels] * 3 + [np.full_like(pixels, 255)]))
    table = measure(pd.DataFrame({"image": ["grey.png", "rgba.png"]}), open_store(tmp_path))
    assert table[["width", "height"]].to_numpy().tolist() == [[300, 400]] * 2
    assert table[["brightness", "red", "green", "blue"]].to_numpy() == pytest.approx(120, abs=0.5)
    assert (table["sharpness"] > 1).all()


def test_measures_are_those_of_the_drawn_image(tmp_path, photograph, encode):
    pixels = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(pixels, (320, 240), 200, (180, 90, 30), -1)
    (tmp_path / "flat.png").write_bytes(encode(pixels))
    (tmp_path / "noisy.png").write_bytes(encode(photograph(640, 480, 320, 240, 200, noise=12)))
    (tmp_path / "broken.png").write_bytes(b"no image")
    records = pd.DataFrame({"image": ["flat.png", "noisy.png", "broken.png", "absent.png"]})
    table = measure(records, open_store(tmp_path)).set_index("image")
    flat = table.loc["flat.png"]
    assert (flat["width"], flat["height"]) == (640, 480)
    assert (flat["red"], flat["green"], flat["blue"]) == pytest.approx((180, 90, 30), abs=2)
    assert flat["brightness"] == pytest.approx(100, abs=2)
    assert flat["sharpness"] < 1 < table.loc["noisy.png", "sharpness"]
    assert table.loc[["broken.png", "absent.png"]].isna().all(axis=None)
