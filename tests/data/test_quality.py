"""Faults are found before training, each by its name."""

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.data import corrections
from medic.data.check import COLUMNS, check, measure
from medic.data.check.images import FEWEST
from medic.data.check.report import KINDS
from medic.data.readers import DATA_SETS, retinopathy
from medic.data.stores import open_store
from medic.task import FINDINGS, SKIN_LESION, Task


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
        ("blurred", "blurred"),
    ],
)
def test_each_planted_fault_is_found_and_nothing_else_is_called_so(fault, finding, sample, findings):
    assert planted(sample, fault)
    assert found(findings, finding) == planted(sample, fault)


def test_a_sound_set_has_no_other_findings(findings):
    assert set(findings["finding"]) == {"truncated", "unsupported", "identical", "nearly_black", "blurred"}


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
def test_the_real_photographs_have_two_identical_pairs_with_different_grades_and_two_out_of_focus(real_data):
    records, store = retinopathy.read(real_data / "retinopathy")
    result = check(records, store, DATA_SETS["retinopathy"].tasks[0])
    assert found(result, "identical") == {"299_left", "299_right", "300_left", "300_right"}
    assert found(result, "blurred") == {"103_left", "233_right"}
    assert len(result) == 6
    twins = result[result["finding"] == "identical"]
    assert twins["detail"].str.contains(r"labels differ \((?:2 and 3|3 and 2)\); of another patient").all()
    assert dict(zip(twins["image"], twins["other"], strict=True))["images/299_left.jpeg"] == "images/300_left.jpeg"


@pytest.mark.real_data
def test_the_real_lesions_have_two_identical_pairs_and_nothing_else(real_data):
    result = check(*DATA_SETS["skin_lesion"].read(real_data / "skin_lesion"), SKIN_LESION)
    numbers = {image[-8:-4] for image in result["image"]}
    assert set(result["finding"]) == {"identical"}
    assert numbers == {"0279", "0280", "0477", "0512"}
    assert not result["detail"].str.contains("patient").any()  # whose lesions they are is not known


@pytest.mark.real_data
def test_the_real_radiographs_are_sound_but_for_three_with_transparency_and_rare_findings(real_data):
    line = DATA_SETS["chest_xray"]
    result = check(*line.read(real_data / "chest_xray"), line.tasks[0])
    assert result["finding"].value_counts().to_dict() == {"rare_class": 11, "split_imbalance": 7, "odd_channels": 3}
    assert result.loc[result["finding"] == "odd_channels", "detail"].str.startswith("RGBA (all grey), ").all()


def test_the_faults_planted_among_the_lesions_are_found(repository):
    folder = repository / "sample_data" / "skin_lesion"
    result = check(*DATA_SETS["skin_lesion"].read(folder), SKIN_LESION)
    called = {
        "truncated": "truncated",
        "not an image": "unsupported",
        "animated GIF": "unsupported",
        "CMYK": "odd_channels",
        "grey": "odd_channels",
        "palette": "odd_channels",
        "small": "odd_size",
        "blurred": "blurred",
        "too dark": "nearly_black",
        "duplicate": "identical",
        "near duplicate": "near_duplicate",
    }
    faults = pd.read_csv(folder / "planted_faults.csv")
    planted = {(f"images/{row.image}.jpg", called[row.fault]) for row in faults.itertuples() if row.fault in called}
    assert set(called) <= set(faults["fault"])
    assert set(zip(result["image"], result["finding"], strict=True)) == planted


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


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_set_that_uses_few_of_16_bits_is_said_to_and_is_not_dark(bits, tmp_path, smooth):
    grey = smooth(60, 80)[:, :, 0]
    cv2.imwrite(str(tmp_path / "low.png"), grey.astype(np.uint16) << (bits - 8))  # as detectors give them
    cv2.imwrite(str(tmp_path / "dark.png"), grey // 10)
    records = pd.DataFrame({"image": ["low.png", "dark.png"]}).assign(patient="1", split="train", label=0)
    found = check(records, open_store(tmp_path))
    assert found[["image", "finding"]].to_numpy().tolist() == [["", "noted"], ["dark.png", "nearly_black"]]
    assert f"use {bits} of them" in found["detail"][0]


def test_folders_that_differ_by_a_number_are_one_to_the_unlisted_files(tmp_path, smooth, encode):
    for name in ("images_1/a.png", "images_2/b.png", "images_2/c.png", "scaled/a.png", "scaled/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(smooth(40, 50 + ord(name[-5]))))
    records = pd.DataFrame({"image": ["images_1/a.png"], "patient": "1", "split": "train", "label": 0})
    assert list(check(records, open_store(tmp_path))["image"]) == ["images_2/b.png", "images_2/c.png"]


def test_what_a_reader_noted_is_a_finding(tmp_path, smooth, encode):
    (tmp_path / "a.png").write_bytes(encode(smooth(30, 40)))
    (tmp_path / "b.png").write_bytes(encode(smooth(30, 41)))
    records = pd.DataFrame({"image": ["a.png", "b.png"], "patient": "1", "split": "train", "label": 0}).assign(
        note=pd.array(["age 412 taken as unknown", pd.NA], dtype="string")
    )
    assert check(records, open_store(tmp_path)).to_numpy().tolist() == [
        ["a.png", "noted", "age 412 taken as unknown", ""]
    ]


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


@pytest.fixture(scope="module")
def forty(tmp_path_factory) -> Path:
    """Forty noisy lesions on skin, all alike in size, light and sharpness; nothing is wrong with them."""
    folder = tmp_path_factory.mktemp("forty")
    (folder / "images").mkdir()
    for number in range(40):
        save(folder, f"{number:02}.png", lesion(number))
    return folder


@pytest.fixture
def even_set(forty, tmp_path) -> Path:
    """A copy of the forty, to be changed."""
    return shutil.copytree(forty, tmp_path / "set")


def lesion(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    pixels = np.full((192, 256, 3), (200, 160, 140), np.uint8)
    for _ in range(25):
        x, y = random.normal(0, 30, 2)
        colour = tuple(int(value) for value in random.integers(40, 120, 3))
        cv2.circle(pixels, (int(128 + x), int(96 + y)), int(random.integers(2, 14)), colour, -1)
    return (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)


def save(folder: Path, name: str, pixels: np.ndarray, mode: str = "RGB") -> None:
    Image.fromarray(pixels).convert(mode).save(folder / "images" / name)


def checked(folder: Path, task: Task | None = None, **columns: object) -> pd.DataFrame:
    names = sorted(f"images/{path.name}" for path in (folder / "images").iterdir() if path.suffix in (".png", ".jpg"))
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0}).assign(**columns)
    return check(records, open_store(folder), task)


def test_an_even_set_has_no_findings(even_set):
    assert list(checked(even_set)) == COLUMNS
    assert checked(even_set).empty


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda pixels: pixels // 4, "too_dark"),
        (lambda pixels: np.where(np.arange(192)[:, None, None] < 130, 255, pixels).astype(np.uint8), "too_bright"),
        (lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 4), "blurred"),
        (lambda pixels: cv2.resize(pixels, (512, 384)), "odd_size"),
        (lambda pixels: pixels[60:132], "odd_size"),
        (lambda pixels: np.repeat(pixels[:, :, 1:2], 3, axis=2), "odd_channels"),
    ],
)
def test_what_stands_out_of_its_set_is_found(change, finding, even_set):
    save(even_set, "odd.png", np.ascontiguousarray(change(lesion(99))))
    result = checked(even_set)
    assert result[["image", "finding"]].to_numpy().tolist() == [["images/odd.png", finding]]


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "odd.png"), ("RGBA", "odd.png"), ("P", "odd.png"), ("CMYK", "odd.jpg")]
)
def test_channels_unlike_those_of_the_set_are_found(mode, name, even_set):
    save(even_set, name, lesion(99), mode)
    (detail,) = checked(even_set).query("finding == 'odd_channels'")["detail"]
    assert detail == f"{ {'L': 'grey', 'P': 'palette'}.get(mode, mode) }, where 40 of 41 are RGB"


def test_half_of_a_set_is_not_odd(even_set):
    for number in range(20):
        save(even_set, f"{number:02}.png", cv2.resize(lesion(number), (512, 512)) // 4)
    assert checked(even_set).empty


def test_fewer_images_than_make_a_set_are_not_compared(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(FEWEST - 1):
        save(tmp_path, f"{number}.png", lesion(number) if number else lesion(0) // 4)
    assert checked(tmp_path).empty


def test_images_in_which_nothing_is_lit_do_not_stop_the_check(even_set):
    save(even_set, "black.png", np.zeros((192, 256, 3), np.uint8))
    save(even_set, "white.png", np.full((192, 256, 3), 255, np.uint8))
    save(even_set, "pixel.png", lesion(0)[:1, :1])
    result = checked(even_set).groupby("image")["finding"].agg(set).to_dict()
    assert result["images/black.png"] == {"nearly_black"}
    assert result["images/white.png"] >= {"too_bright"}
    assert result["images/pixel.png"] == {"odd_size"}


def test_a_copy_in_another_split_with_another_label_says_all_of_it(even_set):
    save(even_set, "copy.jpg", cv2.resize(lesion(5), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA))
    changed = {"patient": "1", "split": ["train"] * 40 + ["test"], "label": [0] * 40 + [1]}
    result = checked(even_set, **changed).set_index("image")
    assert result.loc["images/copy.jpg", "other"] == "images/05.png"
    assert result.loc["images/05.png", "finding"] == "near_duplicate"
    pattern = r"same picture as images/05.png \(correlation (0.9\d|1.00)\); labels differ \(1 and 0\); in another split"
    assert pd.Series(result.loc["images/copy.jpg", "detail"]).str.fullmatch(pattern).all()


def test_rare_classes_and_splits_without_a_class_are_found_where_the_task_is_given(even_set):
    task = Task("kinds", "multiclass", ("a", "b", "c", "d", "e"))
    label = [0] * 25 + [1] * 7 + [2] * 8
    patient = [str(number // 2) for number in range(32)] + ["last"] * 8
    split = ["train", "test"] * 12 + ["train"] * 16
    result = checked(even_set, task, label=label, patient=patient, split=split).query("image == ''")
    said = list(zip(result["finding"], result["detail"], strict=True))
    assert said == [
        ("rare_class", "b: 7 images of 4 patients"),
        ("split_imbalance", "b: none in test, 7 in train"),
        ("single_patient_class", "c: 8 images of 1 patient (last)"),
        ("split_imbalance", "c: none in test, 8 in train"),
        ("rare_class", "d: no image shows it"),
        ("rare_class", "e: no image shows it"),
    ]
    assert "rare_class" not in set(checked(even_set, label=label, patient=patient, split=split)["finding"])


def test_other_files_among_the_images_are_found_and_tables_are_not(even_set, encode):
    frames = [Image.fromarray(lesion(seed)) for seed in range(3)]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    beside = {
        "a moving one.GIF": moving.getvalue(),
        "still.webp": encode(lesion(1), "WEBP"),
        "notes.txt": b"seen",
        "Thumbs.db": b"x",
        "labels.csv": b"a,b",
        "LICENSE.txt": b"free",
        ".hidden": b"",
    }
    for name, data in beside.items():
        (even_set / "images" / name).write_bytes(data)
    (even_set / "notes.txt").write_text("not among the images")
    found = checked(even_set).set_index("image")
    assert found["finding"].to_dict() == {
        "images/Thumbs.db": "not_an_image",
        "images/a moving one.GIF": "unsupported",
        "images/notes.txt": "not_an_image",
        "images/still.webp": "unsupported",
    }
    assert "a GIF" in found.loc["images/a moving one.GIF", "detail"]
    assert "a WebP, a format that is not read; save" in found.loc["images/still.webp", "detail"]


def test_names_with_spaces_umlauts_and_capital_endings_are_checked_like_others(even_set):
    for number, name in enumerate(["a mole.PNG", "Köln 痣.JPG", "x%20y.Jpeg"]):
        save(even_set, name, lesion(100 + number))
    names = [name for name in open_store(even_set).names() if name.startswith("images/")]
    assert len(names) == 43
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0})
    assert check(records, open_store(even_set)).empty


def test_an_image_that_the_corrections_exclude_is_not_called_unlisted(even_set):
    task = Task("two", "multiclass", ("a", "b"))
    names = [name for name in open_store(even_set).names() if name.startswith("images/")]
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": [0, 1] * 20})
    journal = corrections.Corrections(even_set / corrections.FILE, records, task, who="me")
    journal.exclude(names[3])
    kept = corrections.apply(records, journal.path, task)
    assert "unlisted" not in set(check(kept, open_store(even_set))["finding"])
    assert list(check(kept.drop(columns="corrected"), open_store(even_set))["image"]) == [names[3]]


def test_each_kind_of_finding_is_explained(repository):
    documented = (repository / "docs" / "data_dictionary.md").read_text(encoding="utf-8")
    said = check.__doc__
    for kind in KINDS:
        assert f"`{kind}`" in documented, kind
        assert kind == "mislabelled" or f"``{kind}``" in said, kind
