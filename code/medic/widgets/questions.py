"""What an evaluation says of one finding: the truth, the scores, and what each threshold would decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medic.errors import MedicError
from medic.plots_of_thresholds import Ranked

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation


class Counts(NamedTuple):
    """A confusion matrix of two: images with the finding that are called or missed, and those without it."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


def questions(evaluation: Evaluation) -> dict[str, Ranked]:
    """Truth, scores and operating point of each finding, by name; of the second of two classes.

    Raises:
        MedicError: the task chooses among several classes, so that no single threshold decides.
    """
    task, prediction = evaluation.task, evaluation.prediction
    if not task.thresholds:
        raise MedicError(f"{task.name!r} chooses among several classes, and no threshold decides; use ResultsViewer")
    thresholds = prediction.thresholds or (0.5,) * task.thresholds
    if task.kind == "multilabel":
        columns = [(name, evaluation.truth[:, code], code) for code, name in enumerate(task.classes)]
    else:
        columns = [(task.classes[1], evaluation.truth, 1)]
    return {
        name: Ranked(truth, prediction.probabilities[:, code], float(threshold))
        for (name, truth, code), threshold in zip(columns, thresholds, strict=True)
    }


def called(one: Ranked, threshold: float) -> np.ndarray:
    """Which images are said to have it, bool (N,); compared as ``Prediction.decided`` does, in single precision."""
    return np.asarray(one.scores, np.float32) >= np.float32(threshold)


def counts(one: Ranked, threshold: float) -> Counts:
    """The confusion matrix at a threshold."""
    truth, said = np.asarray(one.truth) == 1, called(one, threshold)
    return Counts(*(int(cell.sum()) for cell in (truth & said, ~truth & said, truth & ~said, ~truth & ~said)))


def steps(one: Ranked) -> dict[str, list]:
    """The confusion matrix at every threshold that makes a difference.

    Returns:
        ``scores``, all different and falling, and how many images with the finding (``found``) and without it
        (``alarms``) have that score or a higher one.
    """
    order = np.argsort(-np.asarray(one.scores, np.float32), kind="stable")
    scores, truth = np.asarray(one.scores, np.float32)[order], (np.asarray(one.truth) == 1)[order]
    last = np.append(scores[1:] != scores[:-1], True)
    return {
        "scores": scores[last].astype(float).tolist(),
        "found": np.cumsum(truth)[last].tolist(),
        "alarms": np.cumsum(~truth)[last].tolist(),
    }
