"""Ensembles: averaged probabilities, folds that keep patients whole, and the gain with its interval."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.compare import compare_evaluations
from medic.modeling.ensemble import average, folds, together
from medic.modeling.evaluate import Evaluation, evaluate
from medic.modeling.training.run import Run
from medic.task import CHEST_XRAY, RETINOPATHY, Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


def said(truth: np.ndarray, seed: int) -> Prediction:
    noise = np.random.default_rng(seed).normal(0, 1.2, truth.shape)
    return Prediction(TWO, (1 / (1 + np.exp(-(2 * truth - 1 + noise)))).astype(np.float32))


@pytest.fixture(scope="module")
def members() -> dict[str, Evaluation]:
    """Five models of one skill whose errors have nothing to do with each other."""
    truth = (np.random.default_rng(0).random((120, 2)) < 0.4).astype(int)
    records = pd.DataFrame(truth, columns=list(TWO.classes)).assign(
        image=[f"{n}.png" for n in range(120)], patient=[str(n // 2) for n in range(120)], label=truth.max(axis=1)
    )
    return {
        str(seed): Evaluation(str(seed), said(truth, seed), records, majority=np.zeros(2, int)) for seed in range(1, 6)
    }


def test_probabilities_and_grades_are_averaged():
    rows = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)
    one = Prediction(RETINOPATHY, rows, np.array([0, 1], np.float32))
    other = Prediction(RETINOPATHY, rows[::-1], np.array([1, 2], np.float32))
    mean = average([one, other])
    assert mean.probabilities.tolist() == [[0.5, 0.5, 0, 0, 0]] * 2
    assert mean.grade.tolist() == [0.5, 1.5]
    assert mean.probabilities.dtype == np.float32
    assert np.array_equal(average([one]).probabilities, one.probabilities)


def test_the_average_has_no_operating_point_of_its_own(members):
    predictions = [replace(one.prediction, thresholds=(0.1, 0.9)) for one in members.values()]
    assert average(predictions).thresholds is None


def test_what_cannot_be_averaged_is_refused(members):
    one = members["1"].prediction
    with pytest.raises(MedicError, match="nothing to average"):
        average([])
    with pytest.raises(MedicError, match="predictions of one task for the same images"):
        average([one, one.rows(np.arange(3))])
    with pytest.raises(MedicError, match="predictions of one task"):
        average([one, replace(one, task=Task("other", "multilabel", TWO.classes))])
    other = members["2"]
    turned = replace(other, records=other.records.iloc[::-1].reset_index(drop=True))
    with pytest.raises(MedicError, match="evaluations are of different images"):
        together([members["1"], turned], "mixed")


def test_models_with_errors_of_their_own_gain_by_being_averaged_beyond_chance(members):
    ensemble = together(list(members.values()), "all five")
    comparison = compare_evaluations(members | {"all five": ensemble})
    for name in members:
        lead = comparison.lead("all five", name, "mean_auroc")
        assert lead.low <= lead.value <= lead.high
        assert lead.value > 0
        assert lead.certain
        back = comparison.lead(name, "all five", "mean_auroc")
        assert (back.value, back.low, back.high) == pytest.approx((-lead.value, -lead.high, -lead.low))
    assert comparison.ranked("mean_auroc")[0] == "all five"
    assert comparison.finding("mean_auroc").startswith("all five is ahead of all others, mean AUROC ")
    assert comparison.lead("1", "1", "mean_auroc").value == 0


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_patient_validates_once_and_none_crosses(chest_prepared, count):
    sets = folds(chest_prepared, count, seed=3)
    assert len(sets) == count
    validated = [set(one.split("validation")["patient"]) for one in sets]
    trained = [set(one.split("train")["patient"]) for one in sets]
    everyone = set(chest_prepared.records.query("split != 'test'")["patient"])
    assert set().union(*validated) == everyone
    assert sum(map(len, validated)) == len(everyone)
    for one, other in zip(validated, trained, strict=True):
        assert not one & other
        assert one | other == everyone
    for one in sets:
        assert one.split("test").equals(chest_prepared.split("test"))
        assert one.records.drop(columns="split").equals(chest_prepared.records.drop(columns="split"))


def test_a_seed_deals_the_same_folds(chest_prepared):
    one, same, other = (folds(chest_prepared, 3, seed)[0].records["split"].tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_folds_that_cannot_be_dealt_are_refused(chest_prepared):
    with pytest.raises(MedicError, match=r"cannot be dealt into 1 folds; take 2 to \d+"):
        folds(chest_prepared, 1)
    with pytest.raises(MedicError, match="cannot be dealt into 500 folds"):
        folds(chest_prepared, 500)
    few = chest_prepared.records.query("split == 'train'").drop_duplicates("patient").groupby("label").head(3)
    with pytest.raises(MedicError, match="no label has 5 images, one for each fold; take 3 folds or fewer"):
        folds(replace(chest_prepared, records=few), 5)


def test_a_run_of_a_fold_is_judged_by_its_own_split(chest_runs, chest_prepared, tmp_path):
    """The prepared set on disk still has the split that it was made with; what was trained on must judge nothing."""
    run = chest_runs[CHEST_XRAY.name]
    dealt = folds(chest_prepared, 3)[0]
    (tmp_path / "run").mkdir()
    for name in ("best", "last", "history.csv"):
        (tmp_path / "run" / name).symlink_to(run.folder / name)
    dealt.records.to_csv(tmp_path / "run" / "records.csv", index=False)
    fold = Run(tmp_path / "run", run.about | {"prepared": str(chest_prepared.folder)})
    assert fold.prepared.split("validation")["image"].tolist() == dealt.split("validation")["image"].tolist()
    assert list(evaluate(fold, "validation").records["image"]) == dealt.split("validation")["image"].tolist()
