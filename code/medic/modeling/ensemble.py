"""Ensembles: the mean of what several models say of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medic.errors import MedicError
from medic.modeling.compare import Lead
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import Metric, interval, resampled, score
from medic.predict import average


def together(evaluations: Sequence[Evaluation], title: str) -> Evaluation:
    """Return the evaluation of the averaged predictions of models that were evaluated on the same images.

    Decided at 0.5 or for the most probable class: the members' operating points do not hold for their average.

    Raises:
        MedicError: there is none, or the images differ.
    """
    prediction = average([one.prediction for one in evaluations])
    first = evaluations[0]
    if any(list(other.records["image"]) != list(first.records["image"]) for other in evaluations):
        raise MedicError("the evaluations are of different images; evaluate every model on the same split of one set")
    return replace(first, title=title, prediction=prediction)


def gain(members: Sequence[Evaluation], metric: Metric) -> Lead:
    """Return how far the average of models is ahead of the mean of their own scores, on the same patients.

    That mean is what you get by picking a member blindly. The best member is known only afterwards, from the very
    images that judge.

    Args:
        members: evaluations of the same images.
        metric: one of ``medic.modeling.metrics.metrics_for(task)``, or a function like those.

    Raises:
        MedicError: as ``together``.
    """
    said = [together(members, "average").prediction, *(one.prediction for one in members)]
    truth, patients, seed = members[0].truth, members[0].records["patient"], members[0].seed
    values = [score(metric, truth, one) for one in said]
    draws = [resampled(metric, truth, one, patients, seed=seed) for one in said]
    ends = interval(draws[0] - np.mean(draws[1:], axis=0))
    return Lead(values[0] - float(np.mean(values[1:])), *ends)
