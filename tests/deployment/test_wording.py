"""What is said of an answer's certainty: close is called close, and nothing sounds surer than its numbers."""

import subprocess
import sys

import numpy as np
import pytest

from medic.deployment.service.answers import explain_in_words
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, DIGITS, FINDINGS, RETINOPATHY, SKIN_LESION, Task

THREE = Task("three", "multilabel", ("Mass", "Nodule", "Pleural_Thickening"))


def multiclass(task, *chances):
    chosen = int(np.argmax(chances))
    named = dict(zip(task.classes, chances, strict=True))
    return {"label": chosen, "class": task.classes[chosen], "probabilities": named}


def graded(grade, *chances):
    named = dict(zip(RETINOPATHY.classes, chances, strict=True))
    return {"grade": int(np.argmax(chances)), "grade_continuous": grade, "probabilities": named}


def findings(task, thresholds, **chances):
    named = {name: chances.get(name.replace(" ", "_"), 0.001) for name in task.classes}
    limits = thresholds or [0.5] * len(task.classes)
    present = [name for name, limit in zip(task.classes, limits, strict=True) if named[name] >= limit]
    return explain_in_words(task, {"classes": present, "probabilities": named}, thresholds)


def digit(**chances):
    return [chances.get(f"d{name}", 0.01) for name in DIGITS.classes]


def test_a_class_that_is_ahead_is_named_with_what_follows():
    said = explain_in_words(DIGITS, multiclass(DIGITS, *digit(d7=0.8, d1=0.12)))
    assert said.startswith("7 is clearly ahead with 0.80; 1 follows with 0.12.")


def test_close_classes_are_called_close_whichever_is_decided():
    said = explain_in_words(DIGITS, multiclass(DIGITS, *digit(d7=0.48, d1=0.44)))
    assert said.startswith("7 and 1 are close (0.48 and 0.44): the model cannot tell which of them it is.")
    every = explain_in_words(DIGITS, multiclass(DIGITS, *[0.1] * 10))
    assert "0, 1, 2 and 7 more are close (0.10 and 0.10)" in every


def test_a_lead_with_less_than_half_is_no_clear_lead():
    said = explain_in_words(DIGITS, multiclass(DIGITS, *digit(d7=0.42, d1=0.2, d2=0.2)))
    assert "7 is ahead with 0.42, which is less than half" in said
    assert "clearly" not in said


@pytest.mark.parametrize(
    ("chance", "label", "told"),
    [
        (0.90, 1, "Malignant has 0.90, clearly above its threshold of 0.30."),
        (0.02, 0, "Malignant has 0.02, clearly below its threshold of 0.30."),
        (0.33, 1, "just above its threshold of 0.30: a slightly different picture could turn the answer."),
        (0.28, 0, "just below its threshold of 0.30: a slightly different picture could turn the answer."),
    ],
)
def test_two_classes_are_judged_by_the_threshold_and_not_by_a_half(chance, label, told):
    answer = {"label": label, "probabilities": {"benign": 1 - chance, "malignant": chance}}
    assert told in explain_in_words(SKIN_LESION, answer, (0.3,))


def test_it_is_said_when_the_threshold_decides_against_the_higher_number():
    against = "Benign has the higher number, but the threshold decides."
    answer = {"label": 1, "probabilities": {"benign": 0.66, "malignant": 0.34}}
    assert against in explain_in_words(SKIN_LESION, answer, (0.3,))
    answer = {"label": 1, "probabilities": {"benign": 0.1, "malignant": 0.9}}
    assert "the higher number" not in explain_in_words(SKIN_LESION, answer, (0.3,))


def test_a_chance_and_its_threshold_never_look_alike_when_they_differ():
    answer = {"label": 1, "probabilities": {"benign": 0.6988, "malignant": 0.3012}}
    assert "0.301, just above its threshold of 0.300" in explain_in_words(SKIN_LESION, answer, (0.3,))


def test_a_grade_is_placed_on_its_scale():
    said = explain_in_words(RETINOPATHY, graded(2.12, 0, 0, 0.88, 0.12, 0))
    assert said.startswith("The continuous grade is 2.12 on the scale from 0 to 4. Moderate is clearly ahead")
    assert "shares of the nearest grades, not calibrated" in said


def test_an_image_between_two_grades_is_said_to_lie_there():
    said = explain_in_words(RETINOPATHY, graded(2.45, 0, 0, 0.55, 0.45, 0))
    assert "Moderate and Severe are close (0.55 and 0.45): the image lies between these two grades." in said


def test_a_model_torn_between_distant_grades_is_unsure():
    said = explain_in_words(RETINOPATHY, graded(1.9, 0.42, 0.05, 0.05, 0.1, 0.38))
    assert "No DR and Proliferative are close (0.42 and 0.38) and are no neighbours on the scale" in said
    assert "shares" not in said


def test_findings_are_counted_clearest_first():
    said = findings(THREE, (0.1, 0.3, 0.4), Mass=0.8, Nodule=0.32, Pleural_Thickening=0.2)
    assert said.startswith(
        "2 of 3 classes reach their thresholds: Mass clearly (0.80, threshold 0.10) and Nodule just (0.32, threshold "
        "0.30)."
    )


def test_a_finding_just_below_its_threshold_is_named():
    said = findings(THREE, (0.1, 0.3, 0.4), Mass=0.8, Pleural_Thickening=0.38)
    assert "1 of 3 classes reaches its threshold: Mass clearly" in said
    assert "Just below its threshold: Pleural Thickening." in said


def test_of_many_findings_three_are_named():
    said = findings(CHEST_XRAY, [0.2] * 14, **dict.fromkeys(FINDINGS[:6], 0.9))
    assert said.startswith("6 of 14 classes reach their thresholds: Atelectasis clearly")
    assert "and 3 more." in said


def test_when_nothing_reaches_its_threshold_the_nearest_is_named_and_nothing_is_ruled_out():
    said = findings(THREE, (0.1, 0.3, 0.4), Nodule=0.28)
    assert "None of the 3 classes reaches its threshold; just below is Nodule with 0.28 of 0.30." in said
    assert "That does not show that nothing is there." in said
    assert "the nearest is Mass with 0.004 of 0.10" in findings(THREE, (0.1, 0.3, 0.4), Mass=0.004)


def test_no_finding_beside_a_finding_is_called_a_contradiction():
    said = findings(CHEST_XRAY_OR_NONE, None, No_Finding=0.7, Mass=0.6)
    assert "No Finding together with a finding contradicts itself" in said
    assert "contradicts" not in findings(CHEST_XRAY_OR_NONE, None, No_Finding=0.7)


@pytest.mark.parametrize(("chance", "told"), [(0.9996, "over 0.99"), (0.99, "0.99"), (1.0, "1.00")])
def test_rounding_makes_no_certainty(chance, told):
    answer = {"label": 1, "probabilities": {"benign": 1 - chance, "malignant": chance}}
    assert f"Malignant is clearly ahead with {told};" in explain_in_words(SKIN_LESION, answer)


def test_every_answer_says_that_its_numbers_are_not_calibrated():
    random = np.random.default_rng(1)
    for task in (DIGITS, SKIN_LESION, RETINOPATHY):
        for chances in random.dirichlet([0.3] * len(task.classes), 50):
            answer = multiclass(task, *chances) | {"grade_continuous": float(chances @ np.arange(len(chances)))}
            said = explain_in_words(task, answer)
            assert "not calibrated" in said
            assert said.endswith(".")
    assert "not calibrated" in findings(CHEST_XRAY, None)


def test_words_need_no_torch():
    program = "import sys, medic.deployment.service.answers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
