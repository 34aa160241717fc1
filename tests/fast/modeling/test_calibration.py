"""Calibration: what is stated beside what is observed, and how it is mended."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from medic.modeling.calibrate import (
    brier_scores,
    calibration_errors,
    compare_calibration,
    fit_scale_and_shift,
    fit_temperature,
    log_losses,
    reliability,
)
from medic.modeling.metrics import score
from medic.task import CHEST_XRAY_BINARY, DIGITS, Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


def stated(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Truths (count, 2), and the probabilities that they were drawn by."""
    random = np.random.default_rng(seed)
    probabilities = random.beta(0.6, 3, (count, 2)).astype(np.float32)
    return (random.random((count, 2)) < probabilities).astype(int), probabilities


def test_bins_and_squared_errors_are_scikit_learns_over_all_findings_together():
    truth, probabilities = stated(0)
    observed, predicted = calibration_curve(truth.ravel(), probabilities.ravel(), n_bins=10, strategy="quantile")
    table = reliability(truth, Prediction(TWO, probabilities), np.arange(400) // 2)
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["stated"].to_numpy() == pytest.approx(predicted)
    assert table["count"].tolist() == [80] * 10
    assert ((table["low"] <= table["observed"]) & (table["observed"] <= table["high"])).all()
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
    second = np.float32(probabilities)
    table = reliability(
        np.array(truth), Prediction(CHEST_XRAY_BINARY, np.stack([1 - second, second], axis=1)), np.arange(10)
    )
    assert table[["stated", "observed", "count"]].to_numpy() == pytest.approx(np.array(rows))
    assert table["low"].notna().all()


def test_the_error_is_that_of_the_bins_weighted_by_their_size_in_every_sample():
    truth, probabilities = stated(1, 60)
    probabilities[::2, 0] = 0.0  # ties at an end of the scale
    prediction = Prediction(TWO, probabilities)
    table = reliability(truth, prediction, np.arange(60))
    by_hand = np.average((table["stated"] - table["observed"]).abs(), weights=table["count"])
    assert score(calibration_errors, truth, prediction) == pytest.approx(by_hand)
    counts = np.random.default_rng(0).integers(0, 3, (5, 60))
    assert calibration_errors(truth, prediction, 2 * counts) == pytest.approx(
        calibration_errors(truth, prediction, counts)
    )
    for metric in (brier_scores, log_losses):
        rows = [np.repeat(range(60), n) for n in counts]
        alone = [score(metric, truth[some], prediction.rows(some)) for some in rows]
        assert metric(truth, prediction, counts) == pytest.approx(alone)


def overconfident(seed: int, count: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Truths of ten classes, and logits that are too large by a factor."""
    random = np.random.default_rng(seed)
    raw = 2 * random.normal(size=(count, 10))
    truth = (softmax(raw, axis=1).cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(max=9)
    return truth, factor * raw


def said(raw: np.ndarray, temperature: float = 1.0) -> Prediction:
    return Prediction(DIGITS, softmax(raw / temperature, axis=1).astype(np.float32))


def fitted(truth: np.ndarray, raw: np.ndarray) -> float:
    return fit_temperature(lambda temperature: softmax(raw / temperature, axis=1)[np.arange(len(truth)), truth], 10)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_temperature_takes_away_how_much_too_certain_a_network_is(factor):
    truth, raw = overconfident(0, 3000, factor)
    found = fitted(truth, raw)
    assert found == pytest.approx(factor, rel=0.06)
    broken = np.vstack([raw, 300 * np.eye(10)[[3]]])  # one image whose outputs are out of all proportion
    assert fitted(np.append(truth, 5), broken) < 1.1 * found
    truth, raw = overconfident(1, 1000, factor)
    table = compare_calibration(truth, {"before": said(raw), "after": said(raw, found)}, np.arange(1000))
    before, after = (table.loc[("calibration_error", name)] for name in ("before", "after"))
    assert after["value"] < 0.06
    if factor == 3.0:
        assert after["high"] < before["low"]
    assert np.array_equal(said(raw).decided, said(raw, found).decided)


@pytest.mark.parametrize("count", [1, 5, 400])
def test_a_temperature_stays_finite_where_every_image_is_right(count):
    truth = np.arange(count) % 10
    assert 0.05 < fitted(truth, 5 * np.eye(10)[truth]) < 1


def test_scale_and_shift_are_those_of_logistic_regression_where_images_are_many():
    random = np.random.default_rng(0)
    raw = 3 * random.normal(size=20_000)
    present = (random.random(20_000) < 1 / (1 + np.exp(-(0.4 * raw - 2)))).astype(int)
    reference = LogisticRegression(C=1e9).fit(raw[:, None], present)
    scale, shift = fit_scale_and_shift(raw, present, usual=-1.4)
    assert (scale, shift) == pytest.approx((reference.coef_[0, 0], reference.intercept_[0]), rel=0.04)
    reference = LogisticRegression(C=1e9, fit_intercept=False).fit(raw[:, None], present)
    assert fit_scale_and_shift(raw, present) == pytest.approx((reference.coef_[0, 0], 0), rel=0.04)


@pytest.mark.parametrize("present", [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]])
def test_few_images_move_a_finding_little_and_never_turn_its_ranking(present):
    scale, shift = fit_scale_and_shift(np.array([4.0, 0.0, -4.0]), np.array(present), usual=-1.0)
    assert 0.1 < scale < 3
    assert -6 < shift < 4


def test_brier_score_and_log_loss_are_scikit_learns():
    truth, raw = overconfident(2, 200, 1.0)
    prediction = said(raw)
    squares = (prediction.probabilities - np.eye(10)[truth]) ** 2
    assert score(brier_scores, truth, prediction) == pytest.approx(squares.sum(axis=1).mean(), rel=1e-5)
    assert score(log_losses, truth, prediction) == pytest.approx(log_loss(truth, prediction.probabilities), rel=1e-5)
    truth, probabilities = stated(3)
    second = np.stack([1 - probabilities[:, 0], probabilities[:, 0]], axis=1)
    binary = Prediction(CHEST_XRAY_BINARY, second)
    assert score(brier_scores, truth[:, 0], binary) == pytest.approx(brier_score_loss(truth[:, 0], probabilities[:, 0]))
