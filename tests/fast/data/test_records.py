"""Records are checked once, at the boundary, and keep what was written; a description counts them."""

import json

import numpy as np
import pandas as pd
import pytest

from medic.data import explore
from medic.data.readers import OWN
from medic.data.records import (
    class_counts,
    class_weights,
    lacking,
    read_records,
    targets,
    task_of,
    validate,
    with_codes,
)
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.task import CHEST_XRAY, FINDINGS, NO_FINDING, Task

PETS = Task("pets", "multiclass", ("cat", "dog"))
SIGNS = Task("signs", "multilabel", ("red", "round"))
ANIMALS = ("cat", "dog", "owl")


def rows(**changed: list) -> pd.DataFrame:
    columns = {"image": ["1", "2", "3"], "patient": ["A", "A", "B"], "split": ["train", "train", "test"]}
    return pd.DataFrame(columns | {"label": [0, 1, 1], "class": ["cat", "dog", "dog"]} | changed)


@pytest.mark.parametrize(
    ("records", "task", "message"),
    [
        (rows(patient=["A", "", "B"]), PETS, "1 of 3 images have no patient.*: 2"),
        (rows(label=[0, None, 1]), PETS, "have no label"),
        (rows(image=["1", "1", "3"]), PETS, "listed more than once"),
        (rows(split=["train", "hold", "test"]), PETS, "a split other than"),
        (rows(label=[0, 1, 7]), PETS, r"outside the task 'pets' \(0 cat, 1 dog\).*3 \(label 7"),
        (rows(red=[0, 1, 2], round=[0, 0, 0]), SIGNS, r"red outside the task 'signs' \(0 absent, 1 present\)"),
        (rows(red=[0, 1, 2]), SIGNS, "lack the column round"),
        (rows().drop(columns="patient"), PETS, "lack the column patient"),
        (rows()[:0], PETS, "are empty"),
    ],
)
def test_each_fault_names_its_rows(records, task, message):
    with pytest.raises(MedicError, match=message):
        validate(records, task)


@pytest.mark.parametrize("kind", [object, "string", "category"])
def test_labels_become_whole_numbers_whatever_kind_of_text_they_were(kind):
    clean = validate(rows(label=["0", "1.0", "1"]).astype({"label": kind, "patient": kind}), PETS)
    assert clean["label"].tolist() == [0, 1, 1]
    assert clean["label"].dtype == np.int64


def test_several_classes_an_image_are_columns_and_targets():
    records = rows(label=[1, 0, 1], red=[1, 0, 1], round=[0, 0, 1])
    assert targets(validate(records, SIGNS), SIGNS).tolist() == [[1, 0], [0, 0], [1, 1]]
    assert class_counts(records, SIGNS)["total"].to_dict() == {"red": 2, "round": 1, "No Finding": 1}
    with pytest.raises(MedicError, match="lack the column round"):
        targets(records.drop(columns="round"), SIGNS)
    with pytest.raises(MedicError, match="several classes"):
        class_weights(records["label"], SIGNS)


def test_names_and_kinds_survive_a_csv_file(tmp_path):
    records = rows(**{"image": ["007", "NA", "1"], "class": ["NA", "dog", "dog"], "age": [3, None, 5]})
    records = records.assign(patient_source="image", eye=["left", None, None]).astype({"age": "Int64"})
    records.to_csv(tmp_path / "records.csv", index=False)
    found = read_records(tmp_path / "records.csv")
    assert found["image"].tolist() == ["007", "NA", "1"]
    assert found["class"].tolist() == ["NA", "dog", "dog"]
    assert (found["age"].dtype, found["eye"].dtype) == ("Int64", "string")


def test_classes_are_counted_weighed_and_missed_by_split():
    assert class_counts(rows(), PETS).to_dict("index") == {
        "cat": {"train": 1, "test": 0, "total": 1},
        "dog": {"train": 1, "test": 1, "total": 2},
    }
    assert class_weights(np.array([0, 0, 0, 1]), PETS) == pytest.approx((4 / 6, 2.0))
    assert lacking(rows(), PETS) == ["the class 'cat' has no image in test: it cannot be measured there; add patients"]
    assert lacking(rows(label=[1, 1, 1]), PETS) == [
        "the class 'cat' has no image in train: it cannot be learned; add images of it",
        "the class 'cat' has no image in test: it cannot be measured there; add patients",
    ]


@pytest.mark.parametrize(
    ("classes", "codes"),
    [(["10", "9", "9"], [1, 0, 0]), (["1.5", "-2", "-2"], [1, 0, 0]), (["b", "10", "b"], [1, 0, 1])],
)
def test_classes_get_codes_in_the_order_of_numbers_where_all_are_numbers(classes, codes):
    assert with_codes(rows(**{"class": classes}), "here")["label"].tolist() == codes


def test_of_two_classes_the_positive_one_is_second_and_a_lost_class_is_said():
    records = with_codes(rows(), "here")
    assert OWN.with_positive(records, "cat")["label"].tolist() == [1, 0, 0]
    with pytest.raises(MedicError, match="'bird' cannot be the positive class"):
        OWN.with_positive(records, "bird")
    coded = with_codes(rows(**{"class": ["a", "b", "c"], "split": ["train"] * 3}), "here")
    with pytest.raises(MedicError, match="do not belong one to one"):
        task_of(coded[1:], "own")


# What is told about a set before a network sees it


def shown(classes: tuple[str, ...], *images: str) -> pd.DataFrame:
    """One row for each text such as "cat|dog"."""
    table = pd.DataFrame({name: [int(name in text.split("|")) for text in images] for name in classes})
    label, rows = table.max(axis=1), [f"{row}.png" for row in range(len(images))]
    return table.assign(label=label, image=rows, patient=rows, split="train", **{NO_FINDING: 1 - label})


def test_images_people_and_files_are_counted_in_words_and_as_json(lay):
    records = shown(FINDINGS, "Mass|Nodule", "", "Mass", "").assign(
        patient=list("1123"),
        split=["train", "test", "test", "test"],
        age=pd.array([40, 41, 60, None], dtype="Int64"),
        sex=pd.array(["F", "F", "F", None], dtype="string"),
        view=["AP", "PA", "PA", "PA"],
    )
    described = explore.describe(records, open_store(lay("0.png", "2.png", "x.png")), CHEST_XRAY)
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


def test_only_images_without_pixels_are_unreadable():
    records = shown(ANIMALS, "cat", "dog", "owl", "cat")
    found = pd.DataFrame({"image": ["0.png", "1.png", "2.png"], "finding": ["truncated", "identical", "absent"]})
    assert list(explore.readable(records, found)["image"]) == ["1.png", "3.png"]
    assert explore.readable(records, found.head(0)).equals(records)


def test_patients_are_drawn_with_all_their_images():
    records = shown(ANIMALS, *["cat"] * 40).assign(patient=list("abcdefghij" * 4))
    assert list(explore.some_patients(records, 20, seed=1)["patient"].value_counts()) == [4] * 5
    for enough in (None, 40, 1000):
        assert explore.some_patients(records, enough).equals(records)
