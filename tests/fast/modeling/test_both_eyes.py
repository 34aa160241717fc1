"""Both eyes of a patient: each photograph's prediction with a share of the other's."""

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.both_eyes import combine_eyes, pairs
from medic.task import Prediction, Task

STAGES = Task("stages", "ordinal", ("none", "some", "much"))


def records(*rows: tuple[str, str | None]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["patient", "eye"]).astype({"eye": "string"})
    return table.assign(image=[f"{number}.jpeg" for number in range(len(rows))], label=0)


def prediction(*rows: tuple[float, float, float]) -> Prediction:
    probabilities = np.array(rows, np.float32)
    return Prediction(STAGES, probabilities, probabilities @ np.arange(3, dtype=np.float32))


PAIR = records(("a", "left"), ("a", "right"))
SEEN = prediction((0.6, 0.4, 0.0), (0.0, 0.2, 0.8))


@pytest.mark.parametrize(
    ("weight", "wanted", "decided"),
    [
        (0, [[0.6, 0.4, 0], [0, 0.2, 0.8]], [0, 2]),
        (0.25, [[0.45, 0.35, 0.2], [0.15, 0.25, 0.6]], [0, 2]),
        (0.5, [[0.3, 0.3, 0.4], [0.3, 0.3, 0.4]], [2, 2]),
        (1, [[0, 0.2, 0.8], [0.6, 0.4, 0]], [2, 0]),
    ],
)
def test_each_eye_gets_its_share_of_the_other(weight, wanted, decided):
    before = SEEN.probabilities.copy()
    mixed = combine_eyes(SEEN, PAIR, weight)
    assert mixed.probabilities == pytest.approx(np.array(wanted))
    assert mixed.grade == pytest.approx(np.array(wanted) @ np.arange(3))
    assert mixed.decided.tolist() == decided
    assert mixed.probabilities.dtype == mixed.grade.dtype == np.float32
    assert np.array_equal(SEEN.probabilities, before)


def test_partners_are_found_by_patient_and_images_without_exactly_one_stay_as_they_are():
    rows = [("a", "right"), ("b", "left"), ("c", None), ("b", "right"), ("a", "left"), ("d", "left"), ("e", "right")]
    table = records(*rows, ("f", "left"), ("f", "left"), ("f", "right"))
    table.index = [7, 7, 3, 1, 0, *range(5)]  # an index that is left from a selection says nothing
    said = np.random.default_rng(0).dirichlet((1, 1, 1), len(table)).astype(np.float32)
    mixed = combine_eyes(prediction(*said), table, 1).probabilities
    assert np.array_equal(mixed, said[[4, 3, 2, 1, 0, 5, 6, 7, 8, 9]])
    assert pairs(table) == 2


def test_what_does_not_go_together_is_refused():
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(MedicError, match=r"outside 0\.\.1"):
            combine_eyes(SEEN, PAIR, weight)
    with pytest.raises(MedicError, match="2 predictions do not go with 1 records"):
        combine_eyes(SEEN, PAIR[:1], 0.3)
    with pytest.raises(MedicError, match="no column eye"):
        combine_eyes(SEEN, PAIR.drop(columns="eye"), 0.3)
