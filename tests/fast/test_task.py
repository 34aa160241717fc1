"""Tasks and predictions: the words that all stages share."""

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
    assert Task.from_dict(RETINOPATHY.to_dict()) == RETINOPATHY


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_task("retina"), "no task is called 'retina'; there is: retinopathy"),
        (lambda: Task("odd", "binary", ("a", "b")), "task 'odd'"),
        (lambda: Task("odd", "ordinal", ("a",)), "task 'odd'"),
        (lambda: Task("odd", "multiclass", ("a", "a")), "task 'odd'"),
        (lambda: Prediction(LESION, ROWS), "the model was made for another task"),
        (lambda: Prediction(RETINOPATHY, ROWS), "continuous grade"),
        (lambda: Prediction(LESION, ROWS[:, :2], GRADE), "continuous grade"),
        (lambda: Prediction(RETINOPATHY, ROWS, GRADE, thresholds=(0.5,)), "takes no thresholds, got 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(MedicError, match=message):
        make()


def test_a_table_has_the_decision_its_name_and_every_probability():
    table = Prediction(RETINOPATHY, ROWS, GRADE).to_frame(["1_left", "1_right"])
    assert table["image"].tolist() == ["1_left", "1_right"]
    assert table["grade"].tolist() == [3, 0]  # a tie goes to the lower
    assert table["class"].tolist() == ["Severe", "No DR"]
    assert table["grade_continuous"].tolist() == pytest.approx([2.0, 1.9])
    assert table["p_Moderate"].tolist() == pytest.approx([0.3, 0.0])
    lesion = Prediction(LESION, ROWS[:, 3:]).to_frame()
    assert lesion["label"].tolist() == [0, 1]
    assert "image" not in lesion


def test_each_finding_is_decided_by_itself_and_none_is_the_product_of_what_speaks_against_each():
    prediction = Prediction(CHEST, np.array([[0.5, 0.25], [0.9, 0.8]], np.float32))
    assert prediction.decided.tolist() == [[1, 0], [1, 1]]
    assert prediction.to_frame()["Effusion"].tolist() == [1, 1]
    assert prediction.to_frame()["p_none"].to_list() == pytest.approx([0.375, 0.02])


def test_what_travels_in_a_bundle_needs_no_torch():
    code = (
        "import sys, medic.task, medic.errors, medic.files, medic.data.images.preprocess; "
        "sys.exit(' '.join({'torch', 'pandas', 'lightning', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
