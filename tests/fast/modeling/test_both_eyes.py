"""Both eyes of a patient: each photograph's prediction with a share of the other's."""

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.both_eyes import combine_eyes, fit_weight
from medic.modeling.metrics import confusion_matrix, quadratic_weighted_kappa
from medic.task import RETINOPATHY, Prediction, Task

STAGES = Task("stages", "ordinal", ("none", "some", "much"))


def records(*rows: tuple[str, str | None]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["patient", "eye"]).astype({"eye": "string"})
    return table.assign(image=[f"{number}.jpeg" for number in range(len(rows))], label=0)


def prediction(*rows: tuple[float, float, float]) -> Prediction:
    probabilities = np.array(rows, np.float32)
    return Prediction(STAGES, probabilities, probabilities @ np.arange(3, dtype=np.float32))


PAIR = records(("a", "left"), ("a", "right"))
SEEN = prediction((0.6, 0.4, 0.0), (0.0, 0.2, 0.8))


def test_a_case_by_hand():
    mixed = combine_eyes(SEEN, PAIR, 0.25)
    assert mixed.probabilities == pytest.approx(np.array([[0.45, 0.35, 0.2], [0.15, 0.25, 0.6]]))
    assert mixed.grade == pytest.approx([0.75 * 0.4 + 0.25 * 1.8, 0.75 * 1.8 + 0.25 * 0.4])
    assert mixed.decided.tolist() == [0, 2]
    assert mixed.probabilities.dtype == mixed.grade.dtype == np.float32


def test_half_makes_both_alike_and_one_exchanges_them():
    half, exchanged = combine_eyes(SEEN, PAIR, 0.5), combine_eyes(SEEN, PAIR, 1)
    assert np.array_equal(half.probabilities[0], half.probabilities[1])
    assert np.array_equal(exchanged.probabilities, SEEN.probabilities[::-1])
    assert half.decided.tolist() == [2, 2]


def test_nothing_is_changed_without_weight_or_by_the_combination_itself():
    before = SEEN.probabilities.copy()
    assert np.array_equal(combine_eyes(SEEN, PAIR, 0).probabilities, before)
    combine_eyes(SEEN, PAIR, 0.5)
    assert np.array_equal(SEEN.probabilities, before)


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "left"), ("b", "right")],
        [("a", "left"), ("a", "left")],
        [("a", None), ("a", None)],
        [("a", "left"), ("a", None)],
        [("a", "left"), ("a", "left"), ("a", "right")],
    ],
)
def test_images_without_exactly_one_partner_stay_bit_for_bit(rows):
    random = np.random.default_rng(0).dirichlet((1, 1, 1), len(rows))
    alone = prediction(*random)
    mixed = combine_eyes(alone, records(*rows), 0.3)
    assert np.array_equal(mixed.probabilities, alone.probabilities)
    assert np.array_equal(mixed.grade, alone.grade)


def test_partners_are_found_by_patient_wherever_their_rows_are():
    table = records(("a", "right"), ("b", "left"), ("c", None), ("b", "right"), ("a", "left"))
    table.index = [7, 7, 3, 1, 0]  # an index that is left from a selection says nothing
    ends = [(1, 0, 0), (0, 1, 0), (0.5, 0.5, 0), (0, 0, 1), (0, 1, 0)]
    mixed = combine_eyes(prediction(*ends), table, 1).probabilities
    assert mixed.tolist() == [[0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]]


def test_a_task_without_order_has_probabilities_alone():
    task = Task("lesion", "multiclass", ("benign", "malignant"))
    mixed = combine_eyes(Prediction(task, np.array([[1, 0], [0, 1]], np.float32)), PAIR, 0.25)
    assert mixed.probabilities.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert mixed.grade is None


def test_the_weight_with_the_best_figure_is_chosen_and_of_equal_ones_the_smallest():
    # Patient a's left eye is wrong by itself and right from a weight above 1/3 on, 0.35 of the steps; b never errs.
    table = records(("a", "left"), ("a", "right"), ("b", "left"), ("b", "right")).assign(label=[2, 2, 0, 0])
    seen = prediction((0.75, 0, 0.25), (0, 0, 1), (1, 0, 0), (1, 0, 0))
    for metric in ("accuracy", "macro_f1", "quadratic_weighted_kappa"):
        assert fit_weight(seen, table, metric) == 0.35
    assert fit_weight(seen, table.assign(label=[0, 2, 0, 0]), "macro_f1") == 0
    assert fit_weight(seen, table.assign(patient=["a", "b", "c", "d"]), "macro_f1") == 0


def test_two_noisy_views_of_patients_whose_eyes_agree_are_better_together():
    random = np.random.default_rng(1)
    grades = random.integers(0, 5, 200).repeat(2)
    rows = [(str(number), eye) for number in range(200) for eye in ("left", "right")]
    noisy = (-0.5 * (np.arange(5) - (grades + random.normal(0, 1.2, 400))[:, None]) ** 2).astype(np.float32)
    shares = np.exp(noisy) / np.exp(noisy).sum(axis=1, keepdims=True)
    seen, table = Prediction(RETINOPATHY, shares, shares @ np.arange(5, dtype=np.float32)), records(*rows)
    table["label"] = grades

    def kappa(weight: float) -> float:
        decided = combine_eyes(seen, table, weight).decided
        return float(quadratic_weighted_kappa(confusion_matrix(grades, decided, 5)))

    weight = fit_weight(seen, table)
    assert weight > 0.2
    assert kappa(weight) > kappa(0) + 0.03


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_off_the_scale_is_refused(weight):
    with pytest.raises(MedicError, match=r"outside 0\.\.1"):
        combine_eyes(SEEN, PAIR, weight)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(MedicError, match="2 predictions do not go with 1 records"):
        combine_eyes(SEEN, PAIR[:1], 0.3)
    with pytest.raises(MedicError, match="no column eye"):
        combine_eyes(SEEN, PAIR.drop(columns="eye"), 0.3)
    with pytest.raises(MedicError, match="cannot be fitted for 'mean_grade_error'"):
        fit_weight(SEEN, PAIR, "mean_grade_error")
