"""Both eyes: retinopathy is a disease of the whole body, so that one eye says something about the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.task import Prediction


def combine_eyes(prediction: Prediction, records: pd.DataFrame, weight: float) -> Prediction:
    """Mix into each photograph's prediction that of the same patient's other eye.

    Probabilities and continuous grade become ``(1 - weight) * own + weight * other``. Images of a patient without
    exactly one left and one right photograph stay as they are. The best entries to Kaggle's diabetic retinopathy
    competition of 2015 blended both eyes of a patient (Antony & Brüggemann, team o_O, competition report, 2015).

    Args:
        prediction: of the images in ``records``, in their order.
        records: rows with ``patient`` and ``eye`` (``left`` or ``right``; others have no partner).
        weight: of the other eye, 0..1: 0 leaves everything as it is, 0.5 gives both eyes of a patient the same.

    Raises:
        MedicError: the weight is out of range, the lengths differ, or the records lack a column.
    """
    if not 0 <= weight <= 1:
        raise MedicError(f"the weight {weight} of the other eye is outside 0..1; 0.3 is usual")
    if len(prediction) != len(records):
        raise MedicError(f"{len(prediction)} predictions do not go with {len(records)} records; give those they are of")
    own, other = np.arange(len(records)), _partners(records)

    def mixed(values: np.ndarray) -> np.ndarray:
        # Those without a partner are taken over, not computed: half of a number plus half of it may differ in a bit.
        share = np.where(other == own, 0, weight).reshape(-1, *[1] * (values.ndim - 1))
        return np.where(share > 0, (1 - share) * values + share * values[other], values).astype(values.dtype)

    grade = None if prediction.grade is None else mixed(prediction.grade)
    return replace(prediction, probabilities=mixed(prediction.probabilities), grade=grade)


def pairs(records: pd.DataFrame) -> int:
    """Return how many patients have exactly one left and one right photograph among the records."""
    return int((_partners(records) != np.arange(len(records))).sum()) // 2


def _partners(records: pd.DataFrame) -> np.ndarray:
    """The row, by position, of the other eye of each row's patient; its own where there is none. int (N,)."""
    if missing := [column for column in ("patient", "eye") if column not in records]:
        raise MedicError(f"the records have no column {', '.join(missing)}; a reader of retinopathy sets makes both")
    rows = records[["patient", "eye"]].reset_index(drop=True)
    left, right = (rows[rows["eye"] == eye].drop_duplicates("patient", keep=False) for eye in ("left", "right"))
    both = left.reset_index().merge(right.reset_index(), on="patient")
    partners = np.arange(len(records))
    partners[both["index_x"]], partners[both["index_y"]] = both["index_y"], both["index_x"]
    return partners
