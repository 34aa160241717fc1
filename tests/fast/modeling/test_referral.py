"""Prediction sets hold the truth as often as they say, and an answer is left to a person for a reason that is said."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medic.errors import MedicError
from medic.modeling.thresholds import confidence_for, coverage_table, risk_coverage, set_thresholds
from medic.referral import Referral, appearance, confidence
from medic.task import CHEST_XRAY_BINARY, RETINOPATHY, Prediction, Task

KINDS = Task("kinds", "multiclass", tuple("abcd"))
TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))
RULE = Referral(60, "validation", (0.2,) * 5, 0.9, (40.0, 200.0), -1.0, 3.0)


def drawn(seed: int, count: int) -> tuple[np.ndarray, Prediction]:
    """Truths that come as often as the probabilities say."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.5] * 4, count).astype(np.float32)
    return (probabilities.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(max=3), Prediction(
        KINDS, probabilities
    )


def grades(*rows: list[float], task: Task = RETINOPATHY, **measured: object) -> Prediction:
    probabilities = np.array(rows, np.float32)
    codes = np.arange(len(task.classes), dtype=np.float32)
    return Prediction(task, probabilities, probabilities @ codes if task.kind == "ordinal" else None, **measured)


def test_sets_are_those_of_mapie_on_the_same_numbers():
    from mapie import classification  # takes seconds
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        classes_, is_fitted_ = np.arange(4), True
        predict_proba, predict = (lambda _, said: said), (lambda _, said: said.argmax(axis=1))

    (truth, said), (_, new) = drawn(0, 333), drawn(1, 500)
    theirs = classification.SplitConformalClassifier(Given(), 0.9, conformity_score="lac", prefit=True)
    theirs.conformalize(said.probabilities.astype(float), truth)
    expected = theirs.predict_set(new.probabilities.astype(float))[1][:, :, 0]
    ours = set_thresholds(truth, said, patients=np.zeros(333))  # one patient: no class has a threshold of its own
    assert np.array_equal(new.probabilities >= np.float32(ours), expected)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_truth_in_the_wanted_share_of_each_class(coverage):
    truth, said = drawn(2, 4000)
    thresholds = set_thresholds(truth, said, np.arange(4000), coverage)
    truth, said = drawn(3, 4000)
    judged = Prediction(KINDS, said.probabilities, referral=Referral(4000, "validation", thresholds, coverage))
    table = coverage_table(truth, judged, np.arange(4000))
    assert table["coverage"].to_numpy() == pytest.approx(coverage, abs=0.05)
    assert table["coverage"].between(table["low"], table["high"], inclusive="neither").all()
    assert table.loc["all", "size"] == pytest.approx(judged.sets.sum(axis=1).mean())
    slices = coverage_table(truth, judged, np.arange(4000), by=np.arange(4000) % 2)
    assert slices["images"].tolist() == [4000, 2000, 2000]


def test_findings_are_ruled_out_at_the_wanted_share_and_classes_of_few_patients_by_all_images():
    random = np.random.default_rng(0)
    truth = (random.random((400, 2)) < (0.5, 0.02)).astype(int)
    said = Prediction(TWO, np.clip(0.4 * truth + random.uniform(0, 0.6, (400, 2)), 0, 1).astype(np.float32))
    frequent, rare = set_thresholds(truth, said, np.arange(400))
    assert (said.probabilities[truth[:, 0] == 1, 0] >= frequent).mean() == pytest.approx(0.9, abs=0.01)
    assert rare == pytest.approx(np.sort(said.probabilities[truth == 1])[int(0.1 * (truth.sum() + 1)) - 1])
    assert set_thresholds(truth[:8], said.rows(np.arange(8)), np.arange(8), 0.9) == (0.0, 0.0)
    with pytest.raises(MedicError, match="between 0 and 1"):
        set_thresholds(truth, said, np.arange(400), 1.0)


@pytest.mark.parametrize(
    ("task", "probabilities", "thresholds", "possible"),
    [
        (KINDS, [0.6, 0.3, 0.1, 0.0], (0.2,) * 4, "a|b"),
        (KINDS, [0.4, 0.3, 0.2, 0.1], (0.9,) * 4, "a"),  # never empty
        (RETINOPATHY, [0.4, 0.1, 0.3, 0.1, 0.1], (0.2,) * 5, "No DR|Mild|Moderate"),  # without a gap
        (RETINOPATHY, [0.1, 0.5, 0.2, 0.1, 0.1], (0.2, 0.9, 0.2, 0.9, 0.9), "Mild|Moderate"),
        (TWO, [0.3, 0.1], (0.2, 0.2), "Effusion"),
        (TWO, [0.1, 0.1], (0.2, 0.2), ""),
    ],
)
def test_a_set_holds_the_decision_and_ordinal_ones_have_no_gap(task, probabilities, thresholds, possible):
    said = grades(probabilities, task=task, referral=Referral(60, "validation", thresholds))
    assert said.to_frame()["set"].tolist() == [possible]


@settings(deadline=None)
@given(arrays.arrays(np.float32, (7, 5), elements=st.floats(0, 1, width=32)), st.floats(0, 1))
def test_any_set_is_contiguous_and_holds_the_decision(probabilities, threshold):
    said = grades(*probabilities, referral=Referral(60, "validation", (threshold,) * 5))
    assert said.sets[np.arange(7), said.decided].all()
    assert (np.abs(np.diff(np.pad(said.sets, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"brightness": 39.0}, "dark"),
        ({"brightness": 201.0}, "bright"),
        ({"sharpness": -1.1}, "blurred"),
        ({"distance": 3.1}, "unlike"),
        ({"distance": np.nan}, "unlike"),
        ({"distance": 3.1, "brightness": 39.0}, "dark"),
    ],
)
def test_an_image_that_cannot_be_judged_is_left_to_a_person(changed, why):
    measured = {"brightness": 100.0, "sharpness": 0.0, "distance": 1.0} | changed
    measured = {name: np.array([value], np.float32) for name, value in measured.items()}
    said = grades([0.9, 0.1, 0, 0, 0], referral=RULE, **measured)
    assert said.to_frame()[["refer", "why"]].to_numpy().tolist() == [[int(why != ""), why]]


def test_an_answer_is_left_to_a_person_when_several_are_possible_or_it_is_not_sure_enough():
    rule = Referral(60, "validation", (0.3, 0.3), confidence=0.8)
    binary = Prediction(CHEST_XRAY_BINARY, np.float32([[0.6, 0.4], [0.75, 0.25], [0.9, 0.1]]), referral=rule)
    assert binary.why.tolist() == ["several", "threshold", ""]
    several = Prediction(TWO, np.float32([[0.9, 0.05], [0.4, 0.05]]), referral=rule)
    assert several.why.tolist() == ["", "threshold"]
    assert confidence(several).tolist() == pytest.approx([0.9, 0.6])
    assert "set" not in grades([0.9, 0.1, 0, 0, 0]).to_frame()
    assert binary.to_frame()["calibration"].unique() == ["calibrated on 60 patients of the validation split"]


def test_rules_and_what_is_known_of_each_image_stay_with_it():
    measured = {name: np.arange(3, dtype=np.float32) for name in ("distance", "brightness", "sharpness")}
    said = grades(*[[0.9, 0.1, 0, 0, 0]] * 3, referral=RULE, **measured)
    again = Prediction.joined([said.rows(np.array([0])), said.rows(np.array([1, 2]))])
    assert again.to_frame().equals(said.to_frame())
    assert Referral.from_dict(json.loads(json.dumps(RULE.to_dict()))) == RULE


def test_the_error_falls_with_the_answers_that_are_left_and_a_wanted_one_is_reached():
    wrong, sure = np.array([0, 0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.7, 0.2])
    table = risk_coverage(wrong, sure)
    assert table.to_numpy() == pytest.approx(np.array([[0.9, 0.2, 0], [0.8, 0.4, 0], [0.7, 0.8, 0.25], [0.2, 1, 0.4]]))
    for error, threshold in ((0.0, 0.75), (0.25, 0.45), (0.4, 0.0)):
        assert confidence_for(wrong, sure, error) == pytest.approx(threshold)
    with pytest.raises(MedicError, match=r"at best it is 1\.000"):
        confidence_for(np.ones(3), np.arange(3), 0.2)


def test_brightness_and_sharpness_are_those_of_the_pixels():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    soft = np.repeat(np.repeat(noise[:, ::8, ::8], 8, axis=1), 8, axis=2)
    dark = noise // 10
    brightness, sharpness = appearance(np.concatenate([noise, soft, dark, np.zeros_like(dark)]))
    assert brightness[:2] == pytest.approx(noise[..., 1].mean(axis=(1, 2)), rel=1e-5)
    assert (brightness[4:6] < 20).all()
    assert sharpness[:2] == pytest.approx(sharpness[4:6], abs=0.1), "how bright it is does not matter"
    assert (sharpness[2:4] < sharpness[:2] - 1).all()
    assert np.isfinite(sharpness).all()
