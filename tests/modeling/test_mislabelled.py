"""Wrong labels are found by models that have not seen them, and right ones are left alone."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.label_quality import COLUMNS, out_of_fold, suspected_labels
from medic.task import Prediction, Task

KINDS = Task("kinds", "multiclass", ("a", "b", "c"))
GRADES = Task("grades", "ordinal", ("none", "some", "much"))
SIGNS = Task("signs", "multilabel", ("x", "y"))
COST = 0.03


def features(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Twenty numbers an image, of which the first few tell the class."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 4, (int(truth.max()) + 1, 20)) * (np.arange(20) < 6)
    return (centres[truth] + random.normal(0, 1, (len(truth), 20))).astype(np.float32)


@pytest.fixture
def wrong() -> tuple[np.ndarray, pd.DataFrame, set[str]]:
    """150 images of 75 patients, six of them labelled wrongly."""
    truth = np.repeat(np.arange(75) % 3, 2)
    label = truth.copy()
    at = [3, 20, 47, 80, 111, 140]
    label[at] = (label[at] + 1) % 3
    records = pd.DataFrame(
        {
            "image": [f"{number}.png" for number in range(150)],
            "patient": np.repeat(np.arange(75), 2).astype(str),
            "split": "train",
            "label": label,
        }
    )
    return features(truth), records, {f"{number}.png" for number in at}


@pytest.mark.parametrize("task", [KINDS, GRADES], ids=["classes", "grades"])
def test_planted_wrong_labels_are_found_with_the_right_ones(task, wrong):
    values, records, planted = wrong
    found = suspected_labels(records, out_of_fold(values, records, task, cost=COST))
    assert list(found) == COLUMNS
    assert set(found["image"]) <= planted
    assert len(found) >= 3  # confident learning names rather too few in a set so small
    assert found["quality"].is_monotonic_increasing
    assert found["quality"].between(0, 0.5).all()
    truth = np.repeat(np.arange(75) % 3, 2)
    for row in found.itertuples():
        given, right = task.classes[records["label"][int(row.image[:-4])]], task.classes[truth[int(row.image[:-4])]]
        assert (row.finding, row.given, row.suggested) == ("mislabelled", given, right)
        assert row.detail.startswith(f"labelled {given}, a model that has not seen the patient says {right} (0.")


def test_right_labels_are_left_alone(wrong):
    values, records, _ = wrong
    right = records.assign(label=np.repeat(np.arange(75) % 3, 2))
    assert suspected_labels(right, out_of_fold(values, right, KINDS)).empty


def test_a_patient_is_never_known_to_the_model_that_is_asked():
    """Features that tell the patient and nothing else: who has seen the patient is right, who has not cannot be."""
    patients = np.repeat(np.arange(40), 4)
    label = np.random.default_rng(0).integers(0, 2, 40)[patients]
    records = pd.DataFrame(
        {"image": np.arange(160).astype(str), "patient": patients.astype(str), "split": "train", "label": label}
    )
    prediction = out_of_fold(
        np.eye(40, dtype=np.float32)[patients], records, Task("two", "multiclass", ("a", "b")), cost=10
    )
    assert (prediction.decided == label).mean() < 0.7


def test_several_labels_are_doubted_one_by_one():
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, (160, 2))
    values = np.hstack([truth * 12.0, np.zeros((160, 4))]) + random.normal(0, 1, (160, 6))
    label, changed = truth.copy(), [5, 33, 60, 71, 90, 102]
    label[changed, [0, 1, 0, 1, 0, 1]] ^= 1
    records = pd.DataFrame(
        {"image": np.arange(160).astype(str), "patient": (np.arange(160) // 2).astype(str), "split": "train"}
    ).assign(label=label.any(axis=1).astype(int), x=label[:, 0], y=label[:, 1])
    found = suspected_labels(records, out_of_fold(values, records, SIGNS, cost=COST)).set_index("image")
    assert {int(number) for number in found.index} <= set(changed)
    assert len(found) >= 4
    words = {(0, 0): "(none)", (1, 0): "x", (0, 1): "y", (1, 1): "x|y"}
    for number, row in found.iterrows():
        assert row["given"] == words[tuple(label[int(number)])]
        assert row["suggested"] == words[tuple(truth[int(number)])]
        assert "labelled, a model that has not seen the patient gives it" in row["detail"]


def test_a_class_of_one_patient_is_not_doubted(wrong):
    values, records, planted = wrong
    alone = records.assign(label=records["label"].where(records["patient"] != "7", 3))
    task = Task("four", "multiclass", ("a", "b", "c", "d"))
    prediction = out_of_fold(values, alone, task, cost=COST)
    assert np.isnan(prediction.probabilities[[14, 15]]).all()
    found = set(suspected_labels(alone, prediction)["image"])
    assert found
    assert found <= planted


def test_a_class_that_nobody_has_does_no_harm(wrong):
    values, records, planted = wrong
    prediction = out_of_fold(values, records, Task("four", "multiclass", ("a", "b", "c", "nobody")), cost=COST)
    assert (prediction.probabilities[:, 3] == 0).all()
    found = set(suspected_labels(records, prediction)["image"])
    assert found
    assert found <= planted


def test_probabilities_are_those_of_the_same_seed_and_sum_to_one(wrong):
    values, records, _ = wrong
    one, again = (out_of_fold(values, records, GRADES, seed=3) for _ in range(2))
    assert (one.probabilities == again.probabilities).all()
    assert one.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert one.grade == pytest.approx(one.probabilities @ np.arange(3), abs=1e-5)


def test_a_handful_of_images_is_dealt_into_fewer_folds():
    truth = np.arange(8) % 2
    names = [f"{number}.png" for number in range(8)]
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": truth})
    assert np.isfinite(out_of_fold(features(truth), records, Task("two", "multiclass", ("a", "b"))).probabilities).all()


def test_what_does_not_fit_is_refused(wrong):
    values, records, _ = wrong
    with pytest.raises(MedicError, match="one row an image"):
        out_of_fold(values[:-1], records, KINDS)
    with pytest.raises(MedicError, match="1 rows of the features are not finite"):
        out_of_fold(np.where(np.arange(150)[:, None] == 4, np.nan, values), records, KINDS)
    with pytest.raises(MedicError, match="two patients or more"):
        out_of_fold(values, records.assign(patient="1"), KINDS)
    with pytest.raises(MedicError, match="150 predictions for 149 records"):
        suspected_labels(records[:-1], Prediction(KINDS, np.full((150, 3), 1 / 3, np.float32)))


def test_neither_torch_nor_cleanlab_is_loaded_by_the_import():
    program = "import sys, medic.modeling.label_quality; print({'torch', 'cleanlab'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"
