"""Records are checked once, at the boundary, and keep what was written; trees of findings are data."""

import json
import re

import numpy as np
import pandas as pd
import pytest

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
from medic.data.taxonomy import read_taxonomy
from medic.errors import MedicError
from medic.task import FINDINGS, NO_FINDING, Task

PETS = Task("pets", "multiclass", ("cat", "dog"))
SIGNS = Task("signs", "multilabel", ("red", "round"))


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


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat"] * 3, "one class only, 'cat'"),
        (["1", "1.0", "2"], "one class in two ways, '1' and '1.0'"),
        (["Bär ", "ba\u0308r", "2"], "one class in two ways"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(classes, message):
    with pytest.raises(MedicError, match=message):
        with_codes(rows(**{"class": classes}), "here")


def test_of_two_classes_the_positive_one_is_second_and_a_lost_class_is_said():
    records = with_codes(rows(), "here")
    assert OWN.with_positive(records, "cat")["label"].tolist() == [1, 0, 0]
    with pytest.raises(MedicError, match="'bird' cannot be the positive class"):
        OWN.with_positive(records, "bird")
    coded = with_codes(rows(**{"class": ["a", "b", "c"], "split": ["train"] * 3}), "here")
    with pytest.raises(MedicError, match="do not belong one to one"):
        task_of(coded[1:], "own")


# Trees of findings


def test_the_leaves_of_the_tree_that_comes_with_the_library_are_the_findings():
    tree = read_taxonomy()
    assert tree.none == NO_FINDING
    assert tree.descent((*FINDINGS, NO_FINDING))[0].tolist() == [True] * 14 + [False]
    assert all(parent < place for place, parent in enumerate(tree.parents))


def test_a_node_of_a_readers_own_tree_is_there_when_any_leaf_below_it_is(tmp_path):
    eggs = {"none": "Whole", "tree": {"Any": {"Shell": {"Crack": {}, "Dent": {}}, "Spot": {}}}}
    (tmp_path / "eggs.json").write_text(json.dumps(eggs))
    tree = read_taxonomy(tmp_path / "eggs.json")
    assert (tree.nodes, tree.parents) == (("Any", "Shell", "Spot", "Crack", "Dent"), (-1, 0, 0, 1, 1))
    below = tree.descent(("Crack", "Dent", "Spot", "Whole")).astype(int).tolist()
    assert below == [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    for classes, odd in ((("Crack", "Dent"), "Spot"), (("Crack", "Dent", "Spot", "Hole"), "Hole")):
        with pytest.raises(MedicError, match=rf"the leaves of the tree and the classes differ \({odd}\)"):
            tree.descent(classes)


NO_TREES = ["{", "[]", "{}", '{"tree": 3}', '{"tree": {"a": ["b"]}}', '{"tree": {"a": "b"}}', '{"tree": {}}']
NO_TREES += ['{"tree": {"a": {}, "b": {}}}', '{"tree": {"a": {"b": {"c": {}}, "d": {"c": {}}}}}']


@pytest.mark.parametrize("text", NO_TREES)
def test_a_file_that_holds_no_tree_is_one_sentence(tmp_path, text):
    path = tmp_path / "tree.json"
    path.write_text(text)
    for file in (path, tmp_path / "absent.json"):
        with pytest.raises(MedicError, match=re.escape(f"{file} holds no tree of findings (")):
            read_taxonomy(file)
