"""An operating point finds the share that was wanted, on either side of the last digit, and calls no more than that."""

import numpy as np
import pytest

from medic.errors import MedicError
from medic.modeling.thresholds import operating_points, threshold_for, thresholds_for
from medic.task import CHEST_XRAY_BINARY, Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


def scored(seed: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random(count) < 0.2).astype(int)
    return truth, (0.7 * random.random(count) + 0.3 * truth).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wanted", [0.05, 0.5, 0.8, 0.9, 0.95, 1.0])
def test_the_wanted_share_is_found_and_a_higher_threshold_would_miss_it(seed, wanted):
    truth, scores = scored(seed)
    threshold = threshold_for(truth, scores, wanted)
    positive = scores[truth == 1]
    assert (positive >= threshold).mean() >= wanted
    last_found = positive[positive >= threshold].min()
    assert (positive > last_found).mean() < wanted
    assert not ((scores >= threshold) & (scores < last_found)).any()  # nothing is called that need not be


def test_nine_of_ten_are_nine_whatever_binary_fractions_make_of_it():
    truth, scores = np.ones(10, int), np.arange(1, 11) / 20
    assert (scores >= threshold_for(truth, scores, 0.9)).sum() == 9
    assert (scores >= threshold_for(truth, scores, 0.3)).sum() == 3


@pytest.mark.parametrize("noise", [1e-7, -1e-7, 1e-6, -1e-6])
def test_decisions_do_not_hang_on_the_last_digits_of_the_score_it_was_chosen_by(noise):
    """Torch and onnxruntime differ by as much, and both have to find the same images."""
    truth, scores = np.array([0, 0, 1, 1, 1]), np.array([0.10, 0.32, 0.31, 0.55, 0.60], np.float32)
    threshold = threshold_for(truth, scores, 1.0)
    assert threshold < 0.31
    assert threshold == pytest.approx(0.31, abs=0.003)
    assert np.array_equal(scores + np.float32(noise) >= threshold, [False, True, True, True, True])


def test_it_lies_at_most_half_way_to_the_next_lower_score():
    truth, scores = np.array([0, 1, 1]), np.array([0.4999, 0.5, 0.9])
    assert threshold_for(truth, scores, 1.0) == pytest.approx(0.49995)


@pytest.mark.parametrize("score", [0.0, 1.0, 1e-6, 0.999999])
def test_scores_at_the_ends_of_the_scale_are_found(score):
    truth, scores = np.array([0, 1]), np.array([0, score], np.float32)
    threshold = threshold_for(truth, scores, 1.0)
    assert 0 <= threshold <= score
    prediction = Prediction(CHEST_XRAY_BINARY, np.stack([1 - scores, scores], axis=1), thresholds=(threshold,))
    assert prediction.decided.tolist() == [int(score == 0), 1]


def test_a_score_of_exactly_one_leaves_room_for_the_last_digit_too():
    threshold = threshold_for(np.array([0, 1]), np.array([0.3, 1.0], np.float32), 1.0)
    assert 0.999999 < threshold < np.nextafter(np.float32(1), np.float32(0))


def test_ties_are_found_together():
    truth, scores = np.array([1, 1, 1, 1, 0]), np.array([0.4, 0.4, 0.4, 0.9, 0.1])
    assert (scores >= threshold_for(truth, scores, 0.5)).tolist() == [True, True, True, True, False]


def test_without_the_finding_no_threshold_can_be_chosen():
    with pytest.raises(MedicError, match="no image has the finding"):
        threshold_for(np.zeros(3, int), np.zeros(3), 0.9)


def test_two_classes_have_one_threshold_and_labels_have_one_each():
    truth, scores = scored(1)
    binary = Prediction(CHEST_XRAY_BINARY, np.stack([1 - scores, scores], axis=1))
    assert thresholds_for(truth, binary, 0.9) == (threshold_for(truth, scores, 0.9),)
    none = np.stack([truth, np.zeros_like(truth)], axis=1)
    several = Prediction(TWO, np.stack([scores, scores], axis=1))
    assert thresholds_for(none, several, 0.9) == (threshold_for(truth, scores, 0.9), 0.5)


def test_what_thresholds_do_is_counted():
    truth, scores = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    table = operating_points(truth, scores, [0.3, 0.5, 0.95])
    assert table.loc[0.3].to_dict() == pytest.approx(
        {
            "sensitivity": 1.0,
            "specificity": 2 / 3,
            "positive_predictive_value": 2 / 3,
            "negative_predictive_value": 1.0,
            "called": 0.6,
        }
    )
    assert table.loc[0.5, "sensitivity"] == 0.5
    assert table.loc[0.95, "sensitivity"] == 0
    assert np.isnan(table.loc[0.95, "positive_predictive_value"])
    assert table.loc[0.95, "negative_predictive_value"] == pytest.approx(0.6)
