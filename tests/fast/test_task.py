"""Tasks and predictions: the words that all stages share."""

import re
import subprocess
import sys

import numpy as np
import pytest

from medic.errors import MedicError
from medic.task import RETINOPATHY, TASKS, Prediction, Task, find_task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))
CHEST = Task("chest", "multilabel", ("Effusion", "Mass"))
ROWS = np.array([[0.1, 0.2, 0.3, 0.4, 0.0], [0.4, 0.1, 0.0, 0.1, 0.4]], np.float32)
GRADE = np.array([2.0, 1.9], np.float32)


def test_retinopathy_has_the_five_grades_of_the_scale_in_order():
    assert RETINOPATHY.kind == "ordinal"
    assert RETINOPATHY.classes == ("No DR", "Mild", "Moderate", "Severe", "Proliferative")
    assert find_task("retinopathy") is TASKS["retinopathy"] is RETINOPATHY


def test_an_unknown_task_is_refused_with_those_there_are():
    with pytest.raises(MedicError, match="no task is called 'retina'; there is: retinopathy"):
        find_task("retina")


@pytest.mark.parametrize(
    ("kind", "classes"), [("binary", ("a", "b")), ("ordinal", ("a",)), ("multiclass", ("a", "a")), ("multilabel", ())]
)
def test_a_task_that_makes_no_sense_is_refused(kind, classes):
    with pytest.raises(MedicError, match="task 'odd'"):
        Task("odd", kind, classes)


def test_a_task_comes_back_from_its_plain_values():
    assert Task.from_dict(RETINOPATHY.to_dict()) == RETINOPATHY


def test_the_most_probable_class_is_decided_and_a_tie_goes_to_the_lower():
    prediction = Prediction(RETINOPATHY, ROWS, GRADE)
    assert prediction.decided.tolist() == [3, 0]
    assert len(prediction) == 2


def test_each_finding_of_a_multilabel_task_is_decided_by_itself():
    prediction = Prediction(CHEST, np.array([[0.5, 0.49], [0.9, 0.8]], np.float32))
    assert prediction.decided.tolist() == [[1, 0], [1, 1]]
    assert prediction.to_frame(["a", "b"])["Effusion"].tolist() == [1, 1]


def test_none_of_them_is_the_product_of_what_speaks_against_each():
    prediction = Prediction(CHEST, np.array([[0.5, 0.25], [0.9, 0.8]], np.float32))
    assert prediction.p_none == pytest.approx([0.375, 0.02])
    assert prediction.to_frame()["p_none"].to_list() == pytest.approx([0.375, 0.02])
    for told in (Prediction.p_none.__doc__, Prediction.to_frame.__doc__):
        assert "product of (1 - p)" in told
        assert re.search(r"ranks images, but\s+is no calibrated probability", told)


def test_a_prediction_of_another_number_of_classes_is_refused():
    with pytest.raises(MedicError, match="the model was made for another task"):
        Prediction(LESION, ROWS)


def test_a_continuous_grade_belongs_to_ordinal_tasks_alone():
    with pytest.raises(MedicError, match="continuous grade"):
        Prediction(RETINOPATHY, ROWS)
    with pytest.raises(MedicError, match="continuous grade"):
        Prediction(LESION, ROWS[:, :2], GRADE)


def test_a_table_has_the_decision_its_name_and_every_probability():
    table = Prediction(RETINOPATHY, ROWS, GRADE).to_frame(["1_left", "1_right"])
    assert table["image"].tolist() == ["1_left", "1_right"]
    assert table["grade"].tolist() == [3, 0]
    assert table["class"].tolist() == ["Severe", "No DR"]
    assert table["grade_continuous"].tolist() == pytest.approx([2.0, 1.9])
    assert table["p_Moderate"].tolist() == pytest.approx([0.3, 0.0])
    lesion = Prediction(LESION, ROWS[:, 3:]).to_frame()
    assert lesion["label"].tolist() == [0, 1]
    assert "image" not in lesion


def test_what_travels_in_a_bundle_needs_no_torch():
    code = (
        "import sys, medic.task, medic.errors, medic.files, medic.data.images.preprocess; "
        "sys.exit(' '.join({'torch', 'pandas', 'lightning', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
