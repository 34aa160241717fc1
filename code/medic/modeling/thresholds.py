"""Where a probability becomes a decision: the operating point of a finding."""

from __future__ import annotations

import numpy as np

from medic.errors import MedicError
from medic.task import Prediction


def threshold_for(truth: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold that still finds the wanted share of the images with the finding.

    Chosen on few images it is uncertain: with 20 positive images each is worth five points of sensitivity. On other
    images the sensitivity comes out higher or lower, which is for the test split to say.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        sensitivity: wanted share, above 0 and up to 1.

    Returns:
        A threshold midway between the score of the last image that has to be found and the next lower score; images at
        or above it are called positive. Exactly on a score the last digit would decide, which torch and onnxruntime
        compute differently.

    Raises:
        MedicError: no image has the finding.
    """
    scores = np.asarray(scores, float)
    positive = np.sort(scores[np.asarray(truth) == 1])[::-1]
    if not len(positive):
        raise MedicError("no image has the finding, so no threshold can be chosen on them; give images that have it")
    # A hair is taken off: 0.9 * 10 is 9.000000000000002 in binary, and nine images are enough.
    score = positive[max(int(np.ceil(sensitivity * len(positive) - 1e-9)), 1) - 1]
    return float(score + scores[scores < score].max(initial=0)) / 2


def thresholds_for(truth: np.ndarray, prediction: Prediction, sensitivity: float) -> tuple[float, ...]:
    """Return the operating point of a model for a wanted sensitivity, class by class.

    Args:
        truth: int (N,) codes of a task with two classes, or int (N, C) of a multilabel one.
        prediction: of the N images, which are the validation split's and not the test split's.
        sensitivity: wanted share of each class's images, above 0 and up to 1.

    Returns:
        One threshold a class as ``Prediction.thresholds`` has them. A class of a multilabel task that no image has
        stays at 0.5.
    """
    if prediction.task.kind != "multilabel":
        return (threshold_for(truth, prediction.probabilities[:, 1], sensitivity),)
    pairs = zip(truth.T, prediction.probabilities.T, strict=True)
    return tuple(threshold_for(present, scores, sensitivity) if present.any() else 0.5 for present, scores in pairs)
