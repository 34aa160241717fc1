"""An operating point finds the share that was wanted, and calls no more than that."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medic.errors import MedicError
from medic.modeling.thresholds import decision_curve, threshold_for

SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=40)


@settings(deadline=None)
@given(SCORED.filter(lambda rows: any(present for present, _ in rows)), st.integers(1, 100))
def test_the_wanted_share_is_found_and_a_higher_threshold_would_miss_it(rows, wanted):
    truth, scores = np.array(rows).T
    scores = (scores / 20).astype(np.float32)
    threshold = threshold_for(truth, scores, wanted / 100)
    positive = scores[truth == 1]
    assert (positive >= threshold).mean() >= wanted / 100 - 1e-12
    last_found = positive[positive >= threshold].min()
    assert (positive > last_found).mean() < wanted / 100
    assert not ((scores >= threshold) & (scores < last_found)).any()  # nothing is called that need not be


@pytest.mark.parametrize(
    ("truth", "scores", "wanted", "threshold"),
    [
        ([0, 1, 1], [0.3, 0.5, 0.9], 1.0, 0.4),  # midway, so that no last digit decides
        ([1] * 10, np.arange(1, 11) / 10, 0.9, 0.15),  # nine of ten are nine, whatever binary fractions make of it
        ([0, 1], [0.5, 1.0], 1.0, 0.75),
        ([0, 1], [0.0, 0.0], 1.0, 0.0),
        ([1, 1], [0.4, 0.4], 0.5, 0.2),
    ],
)
def test_a_threshold_lies_midway_between_two_scores(truth, scores, wanted, threshold):
    assert threshold_for(np.array(truth), np.array(scores), wanted) == pytest.approx(threshold)


def test_without_an_image_that_has_the_finding_there_is_no_threshold():
    with pytest.raises(MedicError, match="no image has the finding"):
        threshold_for(np.zeros(3, int), np.zeros(3), 0.9)


def test_net_benefit_is_that_of_vickers_and_elkin_beside_treating_all_and_none():
    random = np.random.default_rng(0)
    truth, patients = (random.random(300) < 0.3).astype(int), np.arange(300) // 2
    scores = np.clip(0.25 + 0.3 * truth + random.normal(0, 0.15, 300), 0.01, 0.99)
    table = decision_curve(truth, scores, patients).set_index("threshold")
    for step in (0.1, 0.25, 0.6):
        called = scores >= step
        found, alarms = (called & (truth == 1)).sum(), (called & (truth == 0)).sum()
        assert table.loc[step, "net_benefit"] == pytest.approx((found - alarms * step / (1 - step)) / 300)
        assert table.loc[step, "treat_all"] == pytest.approx(truth.mean() - (1 - truth.mean()) * step / (1 - step))
        assert table.loc[step, "low"] < table.loc[step, "net_benefit"] < table.loc[step, "high"]
    assert table.loc[0.3, "gain_low"] > 0  # near the prevalence a good model is ahead of both
    useless = decision_curve(truth, np.full(300, 0.3), patients)
    assert (useless["gain"] <= 1e-12).all()
