"""Wrong labels are found by models that have not seen them, and right ones are left alone."""

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.label_quality import COLUMNS, out_of_fold, suspected_labels
from medic.task import Prediction, Task

KINDS = Task("kinds", "multiclass", ("a", "b", "c"))
GRADES = Task("grades", "ordinal", ("none", "some", "much"))
FOUR = Task("four", "multiclass", ("a", "b", "c", "d"))
TWO = Task("two", "multiclass", ("a", "b"))
SIGNS = Task("signs", "multilabel", ("x", "y"))
TRUTH = np.repeat(np.arange(75) % 3, 2)
WRONG = [3, 20, 47, 80, 111, 140]


def table(patients: np.ndarray, **columns: np.ndarray) -> pd.DataFrame:
    names = [f"{number}.png" for number in range(len(patients))]
    return pd.DataFrame({"image": names, "patient": patients.astype(str), "split": "train", **columns})


def features(truth: np.ndarray) -> np.ndarray:
    """Twenty numbers an image, of which the first few tell the class."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 4, (int(truth.max()) + 1, 20)) * (np.arange(20) < 6)
    return (centres[truth] + random.normal(0, 1, (len(truth), 20))).astype(np.float32)


def records(*changed: int) -> pd.DataFrame:
    """150 images of 75 patients, some of them labelled wrongly."""
    return table(np.repeat(np.arange(75), 2), label=np.where(np.isin(np.arange(150), changed), (TRUTH + 1) % 3, TRUTH))


@pytest.mark.parametrize("task", [KINDS, GRADES, FOUR], ids=["classes", "grades", "a class without an image"])
def test_planted_wrong_labels_are_found_with_the_right_ones(task):
    rows = records(*WRONG)
    prediction = out_of_fold(features(TRUTH), rows, task, cost=0.03)
    found = suspected_labels(rows, prediction)
    assert list(found) == COLUMNS
    assert len(found) >= 3, "confident learning names rather too few in a set so small"
    assert found["quality"].is_monotonic_increasing
    for row in found.itertuples():
        number = int(row.image[:-4])
        given, right = task.classes[rows["label"][number]], task.classes[TRUTH[number]]
        assert number in WRONG
        assert (row.finding, row.given, row.suggested) == ("mislabelled", given, right)
        assert row.detail.startswith(f"labelled {given}, a model that has not seen the patient says {right} (0.")
    assert prediction.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    again = out_of_fold(features(TRUTH), rows, task, cost=0.03)
    assert np.array_equal(again.probabilities, prediction.probabilities)


def test_right_labels_are_left_alone():
    assert suspected_labels(records(), out_of_fold(features(TRUTH), records(), KINDS)).empty


def test_a_patient_is_never_known_to_the_model_that_is_asked():
    patients = np.repeat(np.arange(40), 4)
    label = np.random.default_rng(0).integers(0, 2, 40)[patients]
    of_the_patient_alone = np.eye(40, dtype=np.float32)[patients]
    prediction = out_of_fold(of_the_patient_alone, table(patients, label=label), TWO, cost=10)
    assert (prediction.decided == label).mean() < 0.7


def test_the_folds_do_not_depend_on_what_patients_are_called():
    truth, patients = np.arange(60) // 2 % 2, np.arange(60) // 2
    known = np.random.default_rng(0).normal(size=(60, 4))
    named = [table(ids, label=truth) for ids in (patients, 37 * patients % 31)]
    one, other = (out_of_fold(known, one, TWO).probabilities for one in named)
    assert np.array_equal(one, other)


def test_several_labels_are_doubted_one_by_one():
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, (160, 2))
    values = np.hstack([truth * 12.0, np.zeros((160, 4))]) + random.normal(0, 1, (160, 6))
    label, changed = truth.copy(), [5, 33, 60, 71, 90, 102]
    label[changed, [0, 1, 0, 1, 0, 1]] ^= 1
    rows = table(np.arange(160) // 2, label=label.any(axis=1).astype(int), x=label[:, 0], y=label[:, 1])
    found = suspected_labels(rows, out_of_fold(values, rows, SIGNS, cost=0.03))
    assert len(found) >= 4
    words = {(0, 0): "(none)", (1, 0): "x", (0, 1): "y", (1, 1): "x|y"}
    for row in found.itertuples():
        number = int(row.image[:-4])
        assert number in changed
        assert (row.given, row.suggested) == (words[tuple(label[number])], words[tuple(truth[number])])
        assert "labelled, a model that has not seen the patient gives it" in row.detail


def test_a_class_of_one_patient_is_not_doubted():
    rows = records(*WRONG)
    rows["label"] = rows["label"].where(rows["patient"] != "7", 3)
    prediction = out_of_fold(features(TRUTH), rows, FOUR, cost=0.03)
    assert np.flatnonzero(np.isnan(prediction.probabilities).all(axis=1)).tolist() == [14, 15]
    assert set(suspected_labels(rows, prediction)["image"]) <= {f"{number}.png" for number in WRONG}


def test_what_does_not_fit_is_refused():
    values = features(TRUTH)
    for spoilt in (values[:-1], np.where(np.arange(150)[:, None] == 4, np.nan, values)):
        with pytest.raises(MedicError, match="one row of finite numbers an image"):
            out_of_fold(spoilt, records(), KINDS)
    with pytest.raises(MedicError, match="so few patients"):
        out_of_fold(values, records().assign(patient="1"), KINDS)
    with pytest.raises(MedicError, match="150 predictions for 149 records"):
        suspected_labels(records()[:-1], Prediction(KINDS, np.full((150, 3), 1 / 3, np.float32)))
