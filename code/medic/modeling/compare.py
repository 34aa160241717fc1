"""Comparison: how far scores are apart on the same patients, and how certainly."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medic.modeling.metrics import auroc, interval, resampled


@dataclass(frozen=True)
class Lead:
    """How far one model is ahead of another, with the 95 % interval of the difference.

    Attributes:
        value: the difference of the two metrics; above 0 the first is better, or worse where less is better.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def compare_rankings(
    truth: np.ndarray, scores: Mapping[str, np.ndarray], patients: np.ndarray, over: str, seed: int = 0
) -> pd.DataFrame:
    """Compare scores for one question by their areas under the ROC curve, in samples of the same patients.

    Two intervals that overlap do not show that two scores are equal: both rise and fall with how hard the drawn
    patients are. The difference on the same patients is free of that (Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13, for intervals by percentiles).

    Args:
        truth: int (N,), 1 where the answer is yes.
        scores: by name, float (N,) each, higher for more probable; they need not be probabilities.
        patients: (N,) whose image it is; the bootstrap draws patients.
        over: the name that the others are compared with.
        seed: of the bootstrap.

    Returns:
        One row a name: ``auroc``, its 95 % interval ``low`` and ``high``, and ``lead`` over ``over``.
    """
    areas = {name: float(auroc(truth, said)[0]) for name, said in scores.items()}
    draws = {name: resampled(auroc, truth, said, patients, seed=seed) for name, said in scores.items()}
    leads = {name: Lead(areas[name] - areas[over], *interval(draws[name] - draws[over])) for name in areas}
    rows = {name: (areas[name], *interval(draws[name]), leads[name]) for name in areas}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["auroc", "low", "high", "lead"])
