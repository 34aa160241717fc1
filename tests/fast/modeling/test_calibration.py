"""Calibration: what is stated beside what is observed."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from medic.modeling.calibrate import brier_scores, calibration_errors, reliability
from medic.modeling.metrics import score
from medic.task import Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


def stated(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Truths (count, 2), and the probabilities that they were drawn by."""
    random = np.random.default_rng(seed)
    probabilities = random.beta(0.6, 3, (count, 2)).astype(np.float32)
    return (random.random((count, 2)) < probabilities).astype(int), probabilities


def test_bins_and_squared_errors_are_scikit_learns_over_all_findings_together():
    truth, probabilities = stated(0)
    observed, predicted = calibration_curve(truth.ravel(), probabilities.ravel(), n_bins=10, strategy="quantile")
    table = reliability(truth, probabilities)
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["stated"].to_numpy() == pytest.approx(predicted)
    assert table["count"].tolist() == [80] * 10
    brier = brier_score_loss(truth.ravel(), probabilities.ravel())
    assert score(brier_scores, truth, Prediction(TWO, probabilities)) == pytest.approx(brier)


@pytest.mark.parametrize(
    ("truth", "probabilities", "rows"),
    [
        ([0] * 7 + [1, 1, 0], [0.0] * 7 + [1.0] * 3, [(0, 0, 7), (1, 2 / 3, 3)]),
        ([0] * 7 + [1, 1, 1], [0.2] * 10, [(0.2, 0.3, 10)]),
    ],
)
def test_equal_probabilities_stay_in_one_bin(truth, probabilities, rows):
    table = reliability(np.array(truth), np.array(probabilities))
    assert table.to_numpy() == pytest.approx(np.array(rows))


def test_the_error_is_that_of_the_bins_weighted_by_their_size_in_every_sample():
    truth, probabilities = stated(1, 60)
    probabilities[::2, 0] = 0.0  # ties at an end of the scale
    prediction = Prediction(TWO, probabilities)
    table = reliability(truth, probabilities)
    by_hand = np.average((table["stated"] - table["observed"]).abs(), weights=table["count"])
    assert score(calibration_errors, truth, prediction) == pytest.approx(by_hand)
    counts = np.random.default_rng(0).integers(0, 3, (5, 60))
    for metric in (brier_scores, calibration_errors):
        assert metric(truth, prediction, 2 * counts) == pytest.approx(metric(truth, prediction, counts))
    alone = [
        score(brier_scores, truth[rows], prediction.rows(rows)) for rows in (np.repeat(range(60), n) for n in counts)
    ]
    assert brier_scores(truth, prediction, counts) == pytest.approx(alone)


def test_stating_too_much_is_an_error_and_stating_what_is_right_nearly_none():
    truth, probabilities = stated(2, count=4000)
    right, loud = (
        score(calibration_errors, truth, Prediction(TWO, said)) for said in (probabilities, probabilities**0.5)
    )
    assert right < 0.03
    assert loud > right + 0.1
