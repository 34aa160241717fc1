"""Records are checked once, at the boundary, and keep what was written when they are saved."""

import numpy as np
import pandas as pd
import pytest

from medic.data.records import (
    class_counts,
    class_weights,
    in_order,
    lacking,
    originals,
    read_records,
    targets,
    task_of,
    validate,
    with_codes,
    with_positive,
    without_gaps,
)
from medic.errors import MedicError
from medic.task import Task

PETS = Task("pets", "multiclass", ("cat", "dog"))
SIGNS = Task("signs", "multilabel", ("red", "round"))


def rows(**changed: list) -> pd.DataFrame:
    columns = {"image": ["1", "2", "3"], "patient": ["A", "A", "B"], "split": ["train", "train", "test"]}
    return pd.DataFrame(columns | {"label": [0, 1, 1], "class": ["cat", "dog", "dog"]} | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patient": ["A", "", "B"]}, "1 of 3 images have no patient.*: 2"),
        ({"label": [0, None, 1]}, "have no label"),
        ({"label": [0, np.nan, 1]}, "have no label"),
        ({"image": ["1", "1", "3"]}, "listed more than once"),
        ({"split": ["train", "hold", "test"]}, "a split other than"),
        ({"label": [0, 1, 7]}, r"outside the task 'pets' \(0 cat, 1 dog\).*3 \(label 7"),
    ],
)
def test_each_fault_names_its_rows(changed, message):
    with pytest.raises(MedicError, match=message):
        validate(rows(**changed), PETS)
    with pytest.raises(MedicError, match="lack the column patient"):
        validate(rows().drop(columns="patient"), PETS)
    with pytest.raises(MedicError, match="are empty"):
        validate(rows()[:0], PETS)


def test_labels_become_whole_numbers_whatever_kind_of_text_they_were():
    for kind in (object, "string", "category"):
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
    counts = class_counts(rows(), PETS)
    assert counts.to_dict("index") == {
        "cat": {"train": 1, "test": 0, "total": 1},
        "dog": {"train": 1, "test": 1, "total": 2},
    }
    weights = class_weights(np.array([0, 0, 0, 1]), PETS)
    assert weights == pytest.approx((4 / 6, 2.0))
    assert lacking(rows(), PETS) == [
        "the class 'cat' has 1 image, none of them in test: how well it is told cannot be measured there; three "
        "patients or more are needed"
    ]
    assert originals(rows(copy=[0, 1, 0], copy_of=["", "1", ""]))["image"].tolist() == ["1", "3"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["10", "9", "9"], ["9", "10"]), (["b", "10", "9"], ["10", "9", "b"]), (["1.5", "-2"], ["-2", "1.5"])],
)
def test_classes_are_in_the_order_of_numbers_where_all_are_numbers(names, expected):
    assert in_order(names) == expected


def test_classes_get_codes_and_of_two_the_positive_one_is_second():
    records = with_codes(rows(), None, "here").assign(patient_source="image")
    assert task_of(records, "own").classes == ("cat", "dog")
    assert with_positive(records, "cat")["label"].tolist() == [1, 0, 0]
    with pytest.raises(MedicError, match="'bird' cannot be the positive class"):
        with_positive(records, "bird")
    three = rows(**{"class": ["a", "b", "c"], "split": ["train"] * 3})
    coded = with_codes(three, None, "here")
    left = without_gaps(coded[coded["class"] != "b"], task_of(coded, "own"))
    assert left["label"].tolist() == [0, 1]
    with pytest.raises(MedicError, match="all 1 images are of the class 'a'"):
        without_gaps(coded[:1], task_of(coded, "own"))


@pytest.mark.parametrize(
    ("classes", "task", "message"),
    [
        (["cat"] * 3, None, "one class only, 'cat'"),
        (["1", "1.0", "2"], None, "one class in two ways, '1' and '1.0'"),
        (["cat", "cat", "dog"], None, "the class 'dog' only outside the training images"),
        (["emu", "dog", "dog"], PETS, "the class 'emu', which is unknown to the task 'pets'"),
        (["cat", "dog", "dog"], SIGNS, "several classes an image"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(classes, task, message):
    with pytest.raises(MedicError, match=message):
        with_codes(rows(**{"class": classes}), task, "here")
