"""Comparison: intervals of the difference, in samples of the same patients."""

import numpy as np

from medic.modeling.compare import compare_rankings
from medic.modeling.metrics import auroc, interval, resampled


def test_scores_are_compared_on_the_same_patients():
    random, patients = np.random.default_rng(3), np.arange(60) // 2
    truth = (random.random(60) < 0.4).astype(int)
    scores = {"good": random.normal(truth, 1), "poor": random.normal(size=60)}
    table = compare_rankings(truth, scores, patients, over="poor")
    one, two = (resampled(auroc, truth, values, patients) for values in scores.values())
    lead = table.loc["good", "lead"]
    assert (lead.low, lead.high) == interval(one - two)
    assert table.loc["good", ["low", "high"]].tolist() == list(interval(one))
    assert str(table.loc["poor", "lead"]) == "+0.000 (+0.000 to +0.000)"
