"""Slices: a planted gap is found, chance is not, and what is too small is listed and not judged."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation
from medic.modeling.slices import banded, dealt, in_words, patients_needed, slices
from medic.plots.evaluation import forest
from medic.task import SKIN_LESION, Prediction


def evaluated(records: pd.DataFrame, scores: np.ndarray) -> Evaluation:
    probabilities = np.stack([1 - scores, scores], axis=1).astype(np.float32)
    records = records.assign(image=np.arange(len(records)).astype(str))
    return Evaluation("drawn", Prediction(SKIN_LESION, probabilities), records, majority=0)


def drawn(patients: int, seed: int, harm: float = 0.0) -> Evaluation:
    """Two images a patient; at the second site a share ``harm`` of the scores says nothing."""
    random = np.random.default_rng(seed)
    whose = np.repeat(np.arange(patients), 2)
    truth = np.repeat(random.random(patients) < 0.5, 2)
    records = pd.DataFrame({"patient": whose, "label": truth.astype(int)})
    records["site"] = np.where(whose % 3 == 0, "second", "first")
    records["sex"], records["eye"] = np.where(whose % 2, "F", "M"), np.tile(["left", "right"], patients)
    records["age"], records["brightness"] = np.repeat(random.integers(20, 90, patients), 2), random.random(2 * patients)
    scores = np.clip(truth * 0.3 + random.normal(0.35, 0.2, len(truth)), 0, 1)
    lost = (records["site"] == "second") & (random.random(len(truth)) < harm)
    return evaluated(records, np.where(lost, random.random(len(truth)), scores))


def test_a_planted_gap_is_found_and_nothing_else_is():
    evaluation = drawn(240, seed=1, harm=0.9)
    table = slices(evaluation, draws=500).set_index(["column", "slice"])
    assert list(table.index.unique("column")) == ["site", "sex", "eye", "age", "brightness"]
    assert set(table.index[table["p_holm"] < 0.05]) == {("site", "first"), ("site", "second")}
    row = table.loc["site", "second"]
    assert row["gap"] < row["gap_high"] < 0
    assert row["low"] < row["value"] < row["high"]
    assert (table["p"] <= table["p_holm"]).all()
    assert len(set(table.loc["site", "p_holm"])) == 1  # two values are one question
    said = in_words(table.reset_index())
    assert "site second: auroc 0." in said
    assert "sex" not in said
    figure = forest(table.reset_index(), 0.8)
    assert "site: second" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_the_worst_of_many_slices_is_a_discovery_in_no_more_than_one_in_twenty_sets():
    alarms = [(slices(drawn(40, seed), metric="accuracy", draws=150)["p_holm"] < 0.05).any() for seed in range(40)]
    assert np.mean(alarms) <= 0.1  # 5 % wanted; four of 40 are within chance


def test_a_p_value_is_that_of_scipys_permutation_test():
    evaluation = drawn(30, seed=3)
    evaluation.records["patient"] = np.arange(60)
    right, inside = evaluation.prediction.decided == evaluation.truth, evaluation.records["site"] == "second"

    def gap(one: np.ndarray, other: np.ndarray) -> float:
        return abs(one.mean() - other.mean())

    sides = right[inside], right[~inside]
    expected = permutation_test(sides, gap, n_resamples=4000, rng=0, alternative="greater", vectorized=False)
    row = slices(evaluation, ["site"], "accuracy", draws=4000).iloc[1]
    assert abs(row["gap"]) == pytest.approx(expected.statistic)
    assert row["p"] == pytest.approx(expected.pvalue, abs=0.03)


@pytest.mark.parametrize("column", ["sex", "eye"])
def test_patients_are_dealt_whole_or_their_images_among_each_other(column):
    records = drawn(20, seed=0).records
    inside = (records[column] == records[column].iloc[0]).to_numpy()
    for one in dealt(inside, records["patient"].to_numpy(), 20):
        of_patient = pd.Series(one).groupby(records["patient"]).sum()
        assert one.sum() == inside.sum()
        assert set(of_patient) == ({0, 2} if column == "sex" else {1})


def test_what_is_too_small_is_listed_and_not_judged():
    evaluation = drawn(90, seed=2)
    evaluation.records["view"] = np.where(evaluation.records["patient"] < 9, "AP", None)
    table = slices(evaluation, ["view", "site"], draws=100).set_index("slice")
    assert list(table.index) == ["AP", "unknown", "first", "second"]
    assert table.loc["AP", ["low", "gap", "p", "p_holm"]].isna().all()
    assert table.loc["AP", "patients"] == 9
    assert "fewer than 10" in table.loc["AP", "note"]
    assert "2 slices judged, 2 too small" in in_words(table.reset_index())
    with pytest.raises(MedicError, match="no column 'camera' to slice by; the records have patient, label"):
        slices(evaluation, ["camera"])


AGED = "below 20|20 to 40|20 to 40|40 to 60|60 to 80|60 to 80|from 80|unknown"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("age", [3, 20, 39, 45, 61, 79, 80, None], AGED),
        ("brightness", [1.0, 2, 3, 4, 5, 6, 7, 8, 9], "below 3.67|" * 3 + "3.67 to 6.33|" * 3 + "from 6.33|" * 3),
        ("width", [512, 512, 1024, None], "512.0|512.0|1024.0|unknown"),
        ("sex", ["F", "M", pd.NA], "F|M|unknown"),
    ],
)
def test_numbers_are_banded_and_words_stand_as_they_are(name, values, expected):
    kind = "Int64" if name == "age" else None
    assert "|".join(banded(pd.Series(values, name=name, dtype=kind))) == expected.removesuffix("|")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 14)), min_size=2, max_size=60
    )
)
def test_odd_sets_give_a_table_without_a_judgement_that_cannot_be_made(rows):
    truth, scores, patients = (np.array(column) for column in zip(*rows, strict=True))
    records = pd.DataFrame({"patient": patients, "label": truth, "half": np.arange(len(rows)) % 2})
    table = slices(evaluated(records, scores), ["half"], draws=30)
    judged = table[table["p"].notna()]
    assert judged["p"].between(0, 1, inclusive="right").all()
    assert (judged["patients"] >= 10).all()


def test_patients_needed_are_those_of_the_textbook():
    assert patients_needed(gap=0.5, error=2 / np.sqrt(400), patients=400) == 126  # two groups of 63, half a deviation
    assert np.isnan(patients_needed(0, 0.1, 100))
