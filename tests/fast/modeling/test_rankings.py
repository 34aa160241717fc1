"""Rankings: scores compared on the same patients, areas within groups, weights taken out of probabilities."""

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import auroc
from medic.modeling.rankings import auroc_within, by_group
from medic.task import Prediction, Task

FINDINGS = Task("findings", "multilabel", ("a", "b"))


def in_pairs(truth, scores, groups):
    """The area within groups, by its definition: all pairs of one group, ties half."""
    won = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i in np.flatnonzero(truth == 1)
        for j in np.flatnonzero(truth == 0)
        if groups[i] is not None and groups[i] == groups[j]
    ]
    return np.mean(won)


@pytest.fixture
def drawn():
    random = np.random.default_rng(3)
    groups = np.array(random.choice(["AP", "PA", None], 60, p=[0.4, 0.5, 0.1]), dtype=object)
    truth = (random.random(60) < np.where(groups == "AP", 0.6, 0.2)).astype(int)
    scores = np.round(random.normal(truth + (groups == "AP"), 1), 1)
    return truth, scores, groups


def test_the_area_within_groups_counts_the_pairs_of_one_group(drawn):
    assert auroc_within(*drawn)[0] == pytest.approx(in_pairs(*drawn))


def test_in_a_bootstrap_sample_an_image_counts_as_often_as_it_was_drawn(drawn):
    counts = np.random.default_rng(4).integers(0, 3, len(drawn[0]))
    repeated = [np.repeat(values, counts) for values in drawn]
    assert auroc_within(*drawn, counts[None])[0] == pytest.approx(in_pairs(*repeated))


def test_a_score_that_knows_the_group_alone_is_worth_nothing_within_groups(drawn):
    truth, _, groups = drawn
    knows = (groups == "AP").astype(float)
    assert auroc(truth, knows)[0] > 0.6
    assert auroc_within(truth, knows, groups)[0] == 0.5


def test_without_a_pair_in_any_group_there_is_no_area():
    assert np.isnan(auroc_within(np.array([1, 1, 0]), np.array([0.9, 0.8, 0.1]), np.array(["AP", "AP", "PA"]))[0])


def test_the_table_by_group_has_the_group_alone_each_group_and_pairs_of_one_group(drawn):
    truth, scores, groups = drawn
    rows = pd.DataFrame({"a": truth, "b": 0, "view": groups, "label": truth, "patient": range(60), "image": range(60)})
    said = np.stack([1 / (1 + np.exp(-scores)), np.full(60, 0.5)], axis=1).astype(np.float32)
    table = by_group(Evaluation("drawn", Prediction(FINDINGS, said), rows, np.zeros(2, int)), rows, "view")
    areas = ["view alone", "model", "model, AP", "model, PA", "model, same view"]
    assert list(table) == ["share, AP", "share, PA", *areas]
    assert table.loc["a", "share, AP"] == truth[groups == "AP"].mean()
    shares = rows.groupby("view")["a"].mean().reindex(groups).fillna(truth.mean()).to_numpy()
    assert table.loc["a", "view alone"] == auroc(truth, shares)[0]
    assert table.loc["a", "model"] == auroc(truth, said[:, 0])[0]
    assert table.loc["a", "model, AP"] == auroc(truth[groups == "AP"], said[groups == "AP", 0])[0]
    assert table.loc["a", "model, same view"] == auroc_within(truth, said[:, 0], groups)[0]
    assert table.loc["b", areas].isna().all()
    with pytest.raises(MedicError, match="no column 'hospital'"):
        by_group(Evaluation("drawn", Prediction(FINDINGS, said), rows, np.zeros(2, int)), rows, "hospital")
