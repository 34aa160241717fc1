"""What is told about a data set before a network sees it, on tables that can be counted by hand."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from medic.data import explore
from medic.data.stores import open_store
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING, RETINOPATHY, Task

ANIMALS = Task("animals", "multilabel", ("cat", "dog", "owl"))


def animals(*shown: str, patients: str | None = None) -> pd.DataFrame:
    """One row for each text such as "cat dog"; a letter of `patients` each."""
    table = pd.DataFrame({name: [int(name in text.split()) for text in shown] for name in ANIMALS.classes})
    return table.assign(
        image=[f"{row}.png" for row in range(len(shown))],
        patient=list(patients or map(str, range(len(shown)))),
        split="train",
        label=table.max(axis=1),
    )


def chest(*shown: str, **columns: object) -> pd.DataFrame:
    """One row for each text such as "Mass|Nodule"."""
    table = pd.DataFrame({name: [int(name in text.split("|")) for text in shown] for name in FINDINGS})
    label, rows = table.max(axis=1), [f"{row}" for row in range(len(shown))]
    table = table.assign(label=label, **{NO_FINDING: 1 - label}, image=rows, patient=rows, split="train")
    return table.assign(**columns)


def test_images_people_and_files_are_counted_in_words_and_as_json(tmp_path):
    for name in "acx":
        (tmp_path / f"{name}.png").touch()
    records = chest("Mass|Nodule", "", "Mass", "").assign(
        image=["a.png", "b.png", "c.png", "d.png"],
        patient=list("1123"),
        split=["train", "test", "test", "test"],
        age=pd.array([40, 41, 60, None], dtype="Int64"),
        sex=pd.array(["F", "F", "F", None], dtype="string"),
        view=["AP", "PA", "PA", "PA"],
    )
    described = explore.describe(records, open_store(tmp_path), CHEST_XRAY)
    words = str(described)
    for sentence in (
        "4 images of 3 patients\n",
        "median age 41 years; F 3; PA 3, AP 1",
        "2 listed images are absent",
        "1 image files are in no row of the table",
        "1 patients have images in more than one split: split again by patient",
    ):
        assert sentence in words
    assert words.splitlines()[-1].split() == ["images", "1", "3", "4"], "findings that meet make no more images"
    values = json.loads(json.dumps(described.to_dict()))
    assert (values["images"], values["patients"], values["absent_images"], values["unlisted_images"]) == (4, 3, 2, 1)
    assert (values["age_median"], values["sex"], values["view"]) == (41, {"F": 3}, {"PA": 3, "AP": 1})
    assert values["images_by_split"] == {"train": 1, "test": 3, "total": 4}
    assert values["classes"]["Mass"] == {"train": 1, "test": 1, "total": 2}
    assert "<table" in described._repr_html_()


def test_pairs_of_eyes_are_counted_where_eyes_are_told_and_tables_alone_are_said_to_be(tmp_path):
    records = pd.DataFrame({"image": list("abc"), "patient": list("112"), "split": "train", "label": 0})
    described = explore.describe(records.assign(eye=["left", "right", "left"]), open_store(tmp_path), RETINOPATHY)
    assert "3 images of 2 patients, 1 of them with both eyes" in str(described)
    assert "this describes the tables alone" in str(described)
    assert explore.describe(records, open_store(tmp_path), RETINOPATHY).pairs is None


def test_only_images_without_pixels_are_unreadable():
    records = animals("cat", "dog", "owl", "cat")
    found = pd.DataFrame({"image": ["0.png", "1.png", "2.png"], "finding": ["truncated", "identical", "absent"]})
    assert list(explore.readable(records, found)["image"]) == ["1.png", "3.png"]
    assert explore.readable(records, found.head(0)).equals(records)


def test_each_class_has_as_many_examples_as_the_rarest_that_occurs_and_the_seed_chooses():
    records = pd.DataFrame({"label": [0, 0, 0, 1, 1, 3, 3, 3, 3], "split": "train"})
    chosen = explore.examples(records, RETINOPATHY, 5)
    assert list(chosen["class"]) == ["No DR"] * 2 + ["Mild"] * 2 + ["Severe"] * 2
    assert [RETINOPATHY.classes[label] for label in chosen["label"]] == list(chosen["class"])
    many = pd.DataFrame({"label": 0, "split": "train"}, index=range(100))
    seeds = [tuple(explore.examples(many, RETINOPATHY, 5, seed=seed).index) for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_of_several_labels_the_images_with_the_fewest_are_examples_and_frequent_classes_come_first():
    chosen = explore.examples(animals("cat dog", "dog", "cat dog owl", "dog", ""), ANIMALS, 1)
    assert list(chosen["class"]) == ["dog", "cat", "owl"]
    assert chosen.index[0] in (1, 3)
    assert list(chosen.index[1:]) == [0, 2]
    assert list(chosen["others"]) == [0, 1, 2]
    records = chest("", "Mass", "", "Mass|Nodule")
    assert list(explore.examples(records, CHEST_XRAY_OR_NONE, 1)["class"]) == ["Mass", NO_FINDING, "Nodule"]
    assert {"image", "class", "others"} <= set(explore.examples(animals(), ANIMALS, 3))


def test_patients_are_drawn_with_all_their_images():
    records = animals(*["cat"] * 40, patients="abcdefghij" * 4)
    some = explore.some_patients(records, 20, seed=1)
    assert (some["patient"].value_counts() == 4).all()
    assert some["patient"].nunique() == 5
    for enough in (None, 40, 1000):
        assert explore.some_patients(records, enough).equals(records)


def test_a_standardised_difference_counts_in_standard_deviations():
    one = pd.DataFrame({"far": [1.0, 3.0], "flat": [2.0, 2.0]})
    other = pd.DataFrame({"far": [4.0, 6.0], "flat": [2.0, 2.0]})
    assert explore.standardised_difference(one, other)["far"] == pytest.approx(3 / np.sqrt(2))
    assert np.isnan(explore.standardised_difference(one, other)["flat"])
    assert explore.standardised_difference(one, one.head(0)).isna().all()


def test_only_patients_with_both_eyes_are_compared():
    records = pd.DataFrame({"patient": list("11233"), "eye": ["right", "left", "left", "left", "right"]})
    both = explore.both_eyes(records.assign(label=[4, 2, 1, 2, 4]))
    assert both.loc[["1", "3"]].to_numpy().tolist() == [[2, 4], [2, 4]]
    counts = explore.cross_counts(both, RETINOPATHY).to_numpy()
    assert counts.shape == (5, 5)
    assert counts[2, 4] == counts.sum() == 2
    assert explore.cross_counts(both.head(0), RETINOPATHY).to_numpy().sum() == 0


def test_an_eye_named_after_its_twin_has_its_disc_on_the_wrong_side(tmp_path):
    for name, x in (("left", 90), ("right", 230)):
        pixels = cv2.circle(np.zeros((320, 320, 3), np.uint8), (160, 160), 150, (40, 90, 170), -1)
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.circle(pixels, (x, 160), 18, (150, 220, 250), -1))
    records = pd.DataFrame({"image": ["left.png", "right.png"], "eye": ["left", "right"]})
    assert not explore.disc_on_wrong_side(records, open_store(tmp_path)).any()
    assert explore.disc_on_wrong_side(records.assign(eye=["right", "left"]), open_store(tmp_path)).all()


def test_each_kind_of_file_is_called_by_its_name(tmp_path, encode, smooth):
    pixels = smooth(40, 50)[:, :, 0]
    files = {
        f"PNG, {name}": encode(pixels, mode=mode)
        for name, mode in {"grey": "L", "RGBA": "RGBA", "palette": "P"}.items()
    }
    files |= {
        "JPEG, grey": encode(pixels, "JPEG", "L"),
        "PNG, 16 bits": cv2.imencode(".png", pixels * np.uint16(257))[1].tobytes(),
    }
    for number, data in enumerate([*files.values(), b"no image"]):
        (tmp_path / f"{number}.png").write_bytes(data)
    names = [f"{number}.png" for number in range(len(files) + 2)]
    kinds = explore.file_kinds(pd.DataFrame({"image": names}), open_store(tmp_path))
    assert list(kinds.iloc[: len(files)]) == list(files)
    assert kinds.iloc[len(files) :].isna().all()


def test_classes_that_come_together_are_counted_and_say_which_rides_on_which():
    together = explore.co_occurrence(animals("cat", "cat dog", "cat dog", "cat", "owl"), ANIMALS)
    assert list(together.index) == list(together.columns) == ["cat", "dog", "owl"]
    assert together.to_numpy().tolist() == [[4, 2, 0], [2, 2, 0], [0, 0, 1]]
    assert explore.pairs(together).to_dict("records") == [
        {"class": "dog", "with": "cat", "images": 2, "share": 1.0},
        {"class": "cat", "with": "dog", "images": 2, "share": 0.5},
    ]
    assert explore.pairs(explore.co_occurrence(animals("cat", "owl"), ANIMALS)).empty
    assert explore.co_occurrence(animals("", ""), ANIMALS).shape == (0, 0)


NAN = float("nan")


@pytest.mark.parametrize(
    ("shown", "patients", "patients_most", "alike", "by_chance"),
    [
        (("cat", "cat", "dog", "owl", "owl", ""), "aaabbc", (2, 3), 0.75, 0),
        (("cat", "cat", "cat", "dog"), "aabb", (2, 2), 0.5, 0.5),
        (("cat", "cat dog"), "aa", (1, 2), 0, NAN),
        (("cat", "cat", "dog"), "abc", (0, 1), NAN, 1 / 3),
    ],
)
def test_the_next_image_of_a_patient_is_compared_with_the_one_before(shown, patients, patients_most, alike, by_chance):
    found = explore.repeats(animals(*shown, patients=patients), ANIMALS)
    assert (found.patients, found.most) == patients_most
    assert found.alike == pytest.approx(alike, nan_ok=True)
    assert found.by_chance == pytest.approx(by_chance, nan_ok=True)


def test_images_are_compared_in_the_order_of_follow_up():
    records = animals("cat", "dog", "cat", "dog", patients="aaaa").assign(follow_up=[0, 2, 1, 3])
    assert explore.repeats(records, ANIMALS).alike == pytest.approx(2 / 3)


def test_a_set_of_radiographs_in_five_figures():
    views = pd.array(["AP", "PA", "AP", pd.NA], dtype="string")
    records = chest("", "Mass", "Mass|Nodule", "Edema", patient=["1", "1", "2", "3"], view=views)
    assert list(explore.chest_figures(records).values()) == [4, 3, 0.25, 0.25, pytest.approx(2 / 3)]
