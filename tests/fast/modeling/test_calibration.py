"""Calibration: what is stated beside what is observed."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from medic.modeling.calibrate import (
    brier_score,
    calibration_errors,
    expected_calibration_error,
    reliability,
    unweighted,
)
from medic.task import Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


def stated(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right, and truths drawn by them."""
    random = np.random.default_rng(seed)
    probabilities = random.beta(0.6, 3, count)
    return (random.random(count) < probabilities).astype(int), probabilities


def test_the_bins_are_scikit_learns_quantiles():
    truth, probabilities = stated(0)
    table = reliability(truth, probabilities)
    observed, predicted = calibration_curve(truth, probabilities, n_bins=10, strategy="quantile")
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["stated"].to_numpy() == pytest.approx(predicted)
    assert table["count"].tolist() == [40] * 10


def test_all_findings_are_taken_together():
    truth, probabilities = stated(1)
    table = reliability(truth.reshape(200, 2), probabilities.reshape(200, 2).astype(np.float32))
    assert table["count"].sum() == 400
    assert table["stated"].to_numpy() == pytest.approx(reliability(truth, probabilities)["stated"].to_numpy(), rel=1e-5)


def test_equal_probabilities_stay_in_one_bin_and_unlike_ones_do_not_share_it():
    truth, probabilities = np.array([0] * 7 + [1, 1, 0]), np.array([0.0] * 7 + [1.0] * 3)
    table = reliability(truth, probabilities)
    assert table["stated"].tolist() == [0, 1]
    assert table["observed"].tolist() == pytest.approx([0, 2 / 3])
    assert table["count"].tolist() == [7, 3]
    assert reliability(truth, np.full(10, 0.2))["count"].tolist() == [10]


def test_the_error_is_that_of_the_bins_weighted_by_their_size():
    truth, probabilities = np.array([0] * 7 + [1, 1, 0]), np.array([0.1] * 7 + [1.0] * 3)
    assert expected_calibration_error(truth, probabilities) == pytest.approx((7 * 0.1 + 3 * (1 / 3)) / 10)


def test_stating_too_much_is_an_error_and_stating_what_is_right_nearly_none():
    truth, probabilities = stated(2, count=4000)
    right = expected_calibration_error(truth, probabilities)
    assert right < 0.03
    assert expected_calibration_error(truth, np.sqrt(probabilities)) > right + 0.1


def test_the_brier_score_is_scikit_learns():
    truth, probabilities = stated(3)
    assert brier_score(truth, probabilities) == pytest.approx(brier_score_loss(truth, probabilities))
    assert brier_score(np.array([[0, 1]]), np.array([[0.0, 1.0]], np.float32)) == 0


@pytest.mark.parametrize("ends", [1.0, 0.0])
def test_over_bootstrap_samples_the_bins_are_the_same_where_probabilities_are_tied(ends):
    said = np.where(np.arange(40) % 2 == 0, ends, np.linspace(0.2, 0.8, 40)).reshape(20, 2).astype(np.float32)
    truth = np.stack([np.arange(20) % 3 == 0, np.ones(20)], axis=1).astype(int)
    once = calibration_errors(truth, Prediction(TWO, said), np.ones((1, 20)))
    assert once == pytest.approx([expected_calibration_error(truth, said)])


def test_where_nothing_was_weighted_nothing_is_taken_out():
    assert unweighted(np.array([[0.3, 0.6]]), (0.0, 1.0)).tolist() == [[0.3, 0.6]]
