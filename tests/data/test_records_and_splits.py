"""The table that goes with the images, the deal of patients to splits, and the weight of rare classes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_class_weight

from medic.data.readers import retinopathy
from medic.data.records import SPLITS, class_counts, class_weights, read_records, validate
from medic.data.split import complete_splits, crossing_patients, split_by_image, split_by_patient
from medic.errors import MedicError
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING, RETINOPATHY


def people(count: int = 120, seed: int = 0, split: str = "train") -> pd.DataFrame:
    """Pairs of eyes, grades as imbalanced as in life, every fifth patient with eyes that differ."""
    random = np.random.default_rng(seed)
    grades = random.choice(5, size=count, p=[0.6, 0.12, 0.18, 0.06, 0.04])
    grades[:15] = np.repeat(np.arange(5), 3)[:count]
    rows = []
    for patient, grade in enumerate(grades):
        other = max(0, grade - 1) if patient % 5 == 4 and patient > 15 else grade
        for eye, label in (("left", grade), ("right", other)):
            rows.append((f"{patient}_{eye}.jpeg", str(patient), split, int(label), eye))
    return pd.DataFrame(rows, columns=["image", "patient", "split", "label", "eye"])


def radiographs(patients: int = 300, seed: int = 0) -> pd.DataFrame:
    """Some images a patient, findings from 0.5 % to 20 % that come together, most images without any."""
    random = np.random.default_rng(seed)
    people = np.repeat(np.arange(patients), random.integers(1, 7, patients))
    ill = random.random(patients) < 0.5
    shares = np.geomspace(0.005, 0.4, len(FINDINGS))
    present = ((random.random((len(people), len(FINDINGS))) < shares) & ill[people][:, None]).astype(int)
    return pd.DataFrame(
        {
            "image": [f"{number}.png" for number in range(len(people))],
            "patient": people.astype(str),
            "split": "train",
            "label": present.max(axis=1),
            **dict(zip(FINDINGS, present.T, strict=True)),
        }
    )


def patients_with_each_finding(records: pd.DataFrame) -> pd.DataFrame:
    """One row a finding: patients who have it, by split."""
    counts = [records[records[name] == 1].groupby("split")["patient"].nunique().rename(name) for name in FINDINGS]
    return pd.DataFrame(counts).reindex(columns=list(SPLITS)).fillna(0)


def test_good_records_come_back_with_a_clean_index_and_their_other_columns():
    records = people().iloc[::-1].assign(label=lambda r: r["label"].astype(str), site="A")
    checked = validate(records, RETINOPATHY)
    assert list(checked.index) == list(range(len(records)))
    assert checked["label"].dtype == np.int64
    assert list(checked["image"]) == list(records["image"])
    assert set(checked["site"]) == {"A"}


@pytest.mark.parametrize("column", ["image", "patient", "split", "label"])
def test_a_missing_column_and_an_empty_value_are_refused_by_name(column):
    with pytest.raises(MedicError, match=f"lack the column {column}"):
        validate(people().drop(columns=column), RETINOPATHY)
    for nothing in (None, ""):
        records = people().astype({column: object})
        records.loc[3, column] = nothing
        with pytest.raises(MedicError, match=f"1 of 240 images have no {column}"):
            validate(records, RETINOPATHY)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 5, r"label outside the task 'retinopathy' \(0 No DR, .*1_right\.jpeg \(label 5\)"),
        ("label", 1.5, r"label outside the task"),
        ("label", "mild", r"label outside the task"),
        ("split", "holdout", r"split other than train, validation, test: 1_right\.jpeg"),
        ("image", "0_left.jpeg", r"2 of 240 images are listed more than once.*0_left\.jpeg"),
    ],
)
def test_a_value_at_fault_is_refused_with_the_image_that_has_it(column, value, message):
    records = people().astype({column: object})
    records.loc[3, column] = value
    with pytest.raises(MedicError, match=message):
        validate(records, RETINOPATHY)


def test_empty_records_are_refused():
    with pytest.raises(MedicError, match="records are empty"):
        validate(people().iloc[:0], RETINOPATHY)


def test_names_of_patients_and_images_stay_text_in_a_file(tmp_path):
    records = people(20).assign(patient=["007", "NA", *map(str, range(38))], eye=pd.NA)
    records.loc[0, "image"] = "0012"
    records.to_csv(tmp_path / "records.csv", index=False)
    back = read_records(tmp_path / "records.csv")
    assert list(back["patient"]) == list(records["patient"])
    assert back["image"][0] == "0012"
    assert back["eye"].isna().all()


@pytest.mark.parametrize("seed", range(12))
def test_no_patient_is_ever_in_two_splits_and_no_image_is_lost(seed):
    records = people(seed=seed)
    dealt = split_by_patient(records, validation=0.2, test=0.2, seed=seed)
    assert crossing_patients(dealt) == []
    assert set(dealt["split"]) == set(SPLITS)
    assert dealt.drop(columns="split").equals(records.drop(columns="split"))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.2), (0.1, 0.1), (0.45, 0.45), (0.05, 0.6)])
def test_every_grade_that_three_patients_have_is_in_every_split(seed, validation, test):
    dealt = split_by_patient(people(seed=seed), validation=validation, test=test, seed=seed)
    worst = dealt.groupby("patient").agg(label=("label", "max"), split=("split", "first"))
    assert (worst["label"].value_counts() >= 3).all()
    assert (pd.crosstab(worst["label"], worst["split"]) > 0).all(axis=None)


@pytest.mark.parametrize("patients", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shares", [(0.2, 0.2), (0.45, 0.45), (0.7, 0.0)])
def test_however_few_have_a_grade_some_are_trained_on(patients, shares):
    records = people(patients).assign(label=4)
    dealt = split_by_patient(records, validation=shares[0], test=shares[1])
    assert (dealt["split"] == "train").any()


def test_the_shares_are_those_asked_for():
    dealt = split_by_patient(people(1000), validation=0.15, test=0.25, seed=3)
    shares = dealt["split"].value_counts(normalize=True)
    assert shares["validation"] == pytest.approx(0.15, abs=0.01)
    assert shares["test"] == pytest.approx(0.25, abs=0.01)


def test_a_seed_gives_one_split_whatever_the_order_of_the_rows():
    records = people()
    once = split_by_patient(records, test=0.2, seed=5)
    shuffled = records.sample(frac=1, random_state=1)
    again = split_by_patient(shuffled, test=0.2, seed=5).loc[records.index]
    assert again.equals(once)
    assert not split_by_patient(records, test=0.2, seed=6).equals(once)


def test_a_given_test_split_is_kept_and_only_the_rest_is_dealt():
    records = people()
    records.loc[records["patient"].astype(int) % 3 == 0, "split"] = "test"
    dealt = split_by_patient(records, validation=0.25)
    assert (dealt["split"] == "test").equals(records["split"] == "test")
    assert set(dealt.loc[records["split"] != "test", "split"]) == {"train", "validation"}


def test_a_given_test_split_with_patients_who_are_trained_on_is_refused_with_the_remedy():
    records = people()
    records.loc[records["image"] == "7_left.jpeg", "split"] = "test"
    with pytest.raises(MedicError, match=r"1 patients .* for instance 7: .* test=0\.2"):
        split_by_patient(records)
    assert crossing_patients(split_by_patient(records, test=0.2)) == []


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.2), (0.05, 0.1)])
@pytest.mark.parametrize("patients", [120, 300])
def test_every_finding_that_three_patients_have_is_in_every_split(seed, validation, test, patients):
    records = radiographs(patients, seed)
    dealt = split_by_patient(records, validation=validation, test=test, seed=seed, task=CHEST_XRAY)
    counts = patients_with_each_finding(dealt)
    enough = counts[counts.sum(axis=1) >= 3]
    assert len(enough) > 5
    assert (enough > 0).all(axis=None)
    assert crossing_patients(dealt) == []
    assert dealt.drop(columns="split").equals(records.drop(columns="split"))


def test_few_patients_with_many_findings_reach_nearly_every_split_and_hardly_without_the_task():
    missed = {None: 0, CHEST_XRAY: 0}
    for seed in range(12):
        records = radiographs(60, seed)
        for task in missed:
            counts = patients_with_each_finding(split_by_patient(records, test=0.2, seed=seed, task=task))
            missed[task] += (counts[counts.sum(axis=1) >= 3] == 0).to_numpy().sum()
    assert missed[CHEST_XRAY] <= 2
    assert missed[None] > 20


@pytest.mark.parametrize("patients", [1, 2])
def test_a_finding_of_fewer_than_three_patients_is_trained_on(patients):
    for seed in range(12):
        records = radiographs(120, seed)
        ill = records.loc[records["Edema"] == 1, "patient"].unique()[:patients]
        records["Hernia"] = records["patient"].isin(ill).astype(int)
        counts = patients_with_each_finding(split_by_patient(records, test=0.2, seed=seed, task=CHEST_XRAY))
        assert counts.loc["Hernia", "train"] > 0


def test_a_finding_dealt_with_a_rarer_one_counts_where_it_lies():
    """Both findings have three patients, and they share one: the two others of each must go where it is not."""
    rows = [("a", 1, 1), ("b", 1, 0), ("c", 1, 0), ("d", 0, 1), ("e", 0, 1)]
    records = pd.DataFrame(
        [(f"{name}.png", name, "train", 1, hernia, mass) for name, hernia, mass in rows],
        columns=["image", "patient", "split", "label", "Hernia", "Mass"],
    ).assign(**dict.fromkeys(set(FINDINGS) - {"Hernia", "Mass"}, 0))
    for seed in range(20):
        counts = patients_with_each_finding(split_by_patient(records, test=0.2, seed=seed, task=CHEST_XRAY))
        assert (counts.loc[["Hernia", "Mass"]] == 1).all(axis=None)


def test_patients_without_any_finding_are_dealt_by_the_shares_too():
    dealt = split_by_patient(radiographs(1000), validation=0.15, test=0.25, task=CHEST_XRAY)
    healthy = dealt.groupby("patient").agg(label=("label", "max"), split=("split", "first")).query("label == 0")
    assert healthy["split"].value_counts(normalize=True)["test"] == pytest.approx(0.25, abs=0.01)
    assert healthy["split"].value_counts(normalize=True)["validation"] == pytest.approx(0.15, abs=0.01)


def test_a_split_by_findings_has_a_seed_and_keeps_a_given_test_split():
    records = radiographs()
    once = split_by_patient(records, test=0.2, seed=5, task=CHEST_XRAY)
    shuffled = records.sample(frac=1, random_state=1)
    assert split_by_patient(shuffled, test=0.2, seed=5, task=CHEST_XRAY).loc[records.index].equals(once)
    assert not split_by_patient(records, test=0.2, seed=6, task=CHEST_XRAY).equals(once)
    records.loc[records["patient"].astype(int) % 3 == 0, "split"] = "test"
    kept = complete_splits(records, seed=1, task=CHEST_XRAY)
    assert (kept["split"] == "test").equals(records["split"] == "test")
    counts = patients_with_each_finding(kept)[["train", "validation"]]
    assert (counts[counts.sum(axis=1) >= 3] > 0).all(axis=None)


def test_a_task_that_is_not_multilabel_splits_as_none_does():
    records = people()
    assert split_by_patient(records, test=0.2, task=RETINOPATHY).equals(split_by_patient(records, test=0.2))


def test_a_split_by_findings_needs_their_columns():
    with pytest.raises(MedicError, match=r"lack the columns Atelectasis, Cardiomegaly, Effusion"):
        split_by_patient(people(), test=0.2, task=CHEST_XRAY)


@pytest.mark.parametrize("shares", [{"validation": 1.0}, {"validation": -0.1}, {"validation": 0.5, "test": 0.5}])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares):
    with pytest.raises(MedicError, match="leave something for training"):
        split_by_patient(people(), **shares)


def test_a_split_by_image_puts_patients_on_both_sides():
    dealt = split_by_image(people())
    assert len(crossing_patients(dealt)) > 20
    assert list(dealt["patient"]) == list(people()["patient"])


@pytest.mark.parametrize("seed", range(3))
def test_every_grade_of_the_sample_is_in_every_split(sample, seed):
    records, _ = retinopathy.read(sample)
    counts = class_counts(split_by_patient(records, seed=seed), RETINOPATHY)
    assert list(counts.columns) == [*SPLITS, "total"]
    assert (counts > 0).all(axis=None)


@pytest.mark.real_data
@pytest.mark.parametrize("test", [None, 0.2])
def test_every_grade_of_the_real_set_is_in_every_split(real_data, test):
    records, _ = retinopathy.read(real_data / "retinopathy")
    dealt = split_by_patient(records, test=test)
    assert crossing_patients(dealt) == []
    assert (class_counts(dealt, RETINOPATHY) > 0).all(axis=None)


def test_counts_name_every_class_also_those_without_images():
    records = people().query("label != 3").assign(split="train")
    counts = class_counts(records, RETINOPATHY)
    assert list(counts.index) == list(RETINOPATHY.classes)
    assert list(counts.columns) == ["train", "total"]
    assert counts.loc["Severe", "total"] == 0
    assert counts["total"].sum() == len(records)


def test_an_image_counts_in_the_row_of_each_of_its_findings_or_in_that_of_none():
    records = split_by_patient(radiographs(), test=0.2, task=CHEST_XRAY)
    counts = class_counts(records, CHEST_XRAY)
    assert list(counts.index) == [*FINDINGS, NO_FINDING]
    assert list(counts.columns) == [*SPLITS, "total"]
    for split in SPLITS:
        rows = records[records["split"] == split]
        assert counts[split].tolist() == [*(rows[name].sum() for name in FINDINGS), (rows["label"] == 0).sum()]
    with_none = records.assign(**{NO_FINDING: 1 - records["label"]})
    assert class_counts(with_none, CHEST_XRAY_OR_NONE).equals(counts)


def test_class_weights_are_refused_for_a_task_whose_classes_come_together():
    with pytest.raises(MedicError, match=r"may have several classes.* weighted multilabel loss"):
        class_weights(radiographs()[list(FINDINGS)].to_numpy(), CHEST_XRAY)


def test_class_weights_are_scikit_learns_balanced_ones():
    labels = people()["label"]
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    assert class_weights(labels, RETINOPATHY) == pytest.approx(list(expected))


def test_weighted_images_sum_to_the_same_for_every_class_that_occurs():
    labels = np.array([0, 0, 0, 0, 2, 2, 4])
    weights = np.array(class_weights(labels, RETINOPATHY))[labels]
    assert weights.mean() == pytest.approx(1)
    assert [weights[labels == code].sum() for code in (0, 2, 4)] == pytest.approx([7 / 3] * 3)
