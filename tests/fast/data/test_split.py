"""Patients, and copies of one picture where no patient is known, stay on one side of every split."""

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medic.data.explore import describe
from medic.data.prepare import prepare
from medic.data.split import (
    complete_splits,
    crossing_patients,
    patients_known,
    refuse_crossing,
    split_by_patient,
)
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.task import Task


def unknown(names: list[str], split: str = "train") -> pd.DataFrame:
    """Records of images whose patients are not known."""
    labels = [number % 2 for number in range(len(names))]
    return pd.DataFrame({"image": names, "patient": names, "patient_source": "image", "split": split, "label": labels})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """24 pictures, each with a mirrored copy."""
    folder = tmp_path_factory.mktemp("copied")
    for number in range(24):
        coarse = np.random.default_rng(number).integers(40, 210, (12, 16, 3)).astype(np.uint8)
        pixels = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
        cv2.imwrite(str(folder / f"{number:02d}_copy.jpg"), pixels[:, ::-1])
    return open_store(folder)


@pytest.mark.parametrize("how", ["", "completed"])
def test_every_split_keeps_copies_on_one_side_and_says_so(how, store, capsys):
    records = unknown(store.names())
    dealt = complete_splits(records, seed=1, store=store) if how else split_by_patient(records, test=0.25, store=store)
    assert dealt["group"].str[:2].equals(dealt["image"].str[:2]), "a picture and its copy are one group"
    assert dealt.groupby("group")["split"].nunique().max() == 1
    assert set(dealt["split"]) == {"train", "validation", "test"}
    assert "48 of 48 images are copies of one another" in capsys.readouterr().out
    alone = split_by_patient(records, test=0.25, seed=1)
    assert alone["split"].groupby(dealt["group"]).nunique().max() > 1, "dealt by image they would be parted"


def test_copies_of_a_given_test_split_are_said(store, capsys):
    records = unknown(store.names())
    records.loc[records["image"].str.startswith("0") & ~records["image"].str.contains("copy"), "split"] = "test"
    kept = complete_splits(records, store=store)
    assert (kept["split"] == "test").equals(records["split"] == "test"), "what a source gives is kept"
    assert set(kept["split"]) == {"train", "validation", "test"}
    assert complete_splits(kept).equals(kept)
    assert "10 images are copies of images in the given test split" in capsys.readouterr().out
    told = records.assign(patient_source="column mrn")
    assert patients_known(told)
    assert "group" not in split_by_patient(told, test=0.25, store=store), "known patients decide alone"


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_a_split_that_shares_a_patient_is_refused_by_name_before_anything_is_written(parts, store, tmp_path):
    records = unknown(store.names()).assign(patient=[f"p{number // 4}" for number in range(48)])
    records["split"] = ["train"] * 20 + ["validation"] * 12 + ["test"] * 16
    refuse_crossing(records)
    records.loc[:1, "patient"], records.loc[:1, "split"] = "Q7", parts
    with pytest.raises(MedicError, match=f"more than one of {', '.join(parts)}: Q7"):
        prepare(records, store, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_how_patients_were_told_apart_is_said(store):
    said = {"image": "each image counts as a patient", "column mrn": "patients are told apart by column mrn"}
    for source in said:
        records = unknown(store.names()).assign(patient_source=source)
        told = str(describe(records, store, Task("own", "multiclass", ("benign", "malignant"))))
        assert [sentence in told for sentence in said.values()] == [key == source for key in said]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=3), st.integers(0, 1000))
def test_no_patient_ever_crosses(images, seed):
    records = unknown([f"{number}.png" for number in range(len(images))])
    records[["patient", "label"]] = [(f"p{patient}", label) for patient, label in images]
    dealt = split_by_patient(records, test=seed % 3 / 5, seed=seed)
    assert crossing_patients(dealt) == []
    assert (dealt["split"] == "train").any()


FINDINGS = {"rare": 0.05, "seldom": 0.1, "often": 0.5}


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 10_000))
def test_a_stratum_of_three_patients_is_in_every_split_and_shares_are_kept(kind, seed, drawn):
    random = np.random.default_rng(drawn)
    patients, images = random.integers(0, 60, 150), np.arange(150).astype(str)
    has = random.random((60, 3)) < list(FINDINGS.values())
    if kind == "multiclass":
        has = np.eye(3, dtype=bool)[random.choice(3, 60, p=[0.1, 0.2, 0.7])]
    records = pd.DataFrame(has[patients], columns=list(FINDINGS)).astype(int)
    records = records.assign(image=images, patient=patients.astype(str), split="train", label=has[patients].argmax(1))
    how = {"validation": 0.2, "test": 0.2, "seed": seed, "task": Task("own", kind, tuple(FINDINGS))}
    dealt = split_by_patient(records, **how)
    for name in FINDINGS if kind == "multiclass" else ():
        theirs = dealt[dealt[name] == 1]
        assert theirs["patient"].nunique() < 3 or set(theirs["split"]) == {"train", "validation", "test"}
    shares = dealt.drop_duplicates("patient")["split"].value_counts(normalize=True)
    assert (shares["validation"], shares["test"]) == (pytest.approx(0.2, abs=0.08), pytest.approx(0.2, abs=0.08))
    shuffled = split_by_patient(records.sample(frac=1, random_state=1), **how)
    assert shuffled.loc[dealt.index].equals(dealt), "the order of the rows does not matter"


@pytest.mark.parametrize(
    "asked", [{"validation": 1.0}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}, {"seed": -1}, {"seed": 1 << 32}]
)
def test_shares_and_seeds_that_are_none_are_refused(asked):
    with pytest.raises(MedicError, match=r"must be shares that leave something|the seed -?\d+ is outside"):
        split_by_patient(unknown(["a", "b", "c"]), **asked)
