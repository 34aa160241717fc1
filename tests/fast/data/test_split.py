"""Patients, and copies of one picture where no patient is known, stay on one side of every split."""

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medic.data.check.duplicates import copy_groups
from medic.data.explore import describe
from medic.data.prepare import prepare
from medic.data.split import (
    complete_splits,
    crossing_patients,
    patients_known,
    refuse_crossing,
    split_by_image,
    split_by_patient,
)
from medic.data.stores import open_store
from medic.errors import MedicError
from medic.task import Task

TASK = Task("own", "multiclass", ("benign", "malignant"))


def unknown(names: list[str], split: str = "train") -> pd.DataFrame:
    """Records of images whose patients are not known."""
    labels = [number % 2 for number in range(len(names))]
    return pd.DataFrame({"image": names, "patient": names, "patient_source": "image", "split": split, "label": labels})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """24 pictures, each with a copy: the same bytes, mirrored, brightened, halved, turned or saved anew."""
    folder = tmp_path_factory.mktemp("copied")
    changes = (
        lambda pixels: pixels,
        lambda pixels: pixels[:, ::-1],
        lambda pixels: np.clip(pixels * 1.2 + 10, 0, 255).astype(np.uint8),
        lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda pixels: pixels[::-1, ::-1],
        lambda pixels: pixels,
    )
    for number in range(24):
        coarse = np.random.default_rng(number).integers(40, 210, (12, 16, 3)).astype(np.uint8)
        pixels, kind = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC), number % len(changes)
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
        cv2.imwrite(str(folder / f"{number:02d}_copy.{'jpg' if kind == 5 else 'png'}"), changes[kind](pixels))
    return open_store(folder)


def test_copies_form_groups_and_other_pictures_stand_alone(store):
    names = store.names()
    groups = copy_groups(unknown(names), store)
    assert [name[:2] for name in names] == [group[:2] for group in groups]
    assert groups.nunique() == 24


@pytest.mark.parametrize("how", ["", "completed"])
def test_every_split_keeps_copies_on_one_side_and_says_so(how, store, capsys):
    records = unknown(store.names())
    dealt = complete_splits(records, seed=1, store=store) if how else split_by_patient(records, test=0.25, store=store)
    assert dealt.groupby("group")["split"].nunique().max() == 1
    assert set(dealt["split"]) == {"train", "validation", "test"}
    assert "48 of 48 images are copies of one another" in capsys.readouterr().out
    alone = split_by_patient(records, test=0.25, seed=1)
    assert alone["split"].groupby(dealt["group"]).nunique().max() > 1, "dealt by image they would be parted"


def test_copies_of_a_given_test_split_are_said(store, capsys):
    records = unknown(store.names())
    records.loc[records["image"].str.startswith("0") & ~records["image"].str.contains("copy"), "split"] = "test"
    kept = complete_splits(records, store=store)
    assert (kept["split"] == "test").equals(records["split"] == "test")
    assert "10 images are copies of images in the given test split" in capsys.readouterr().out


def test_known_patients_decide_alone(store):
    records = unknown(store.names()).assign(patient_source="column mrn")
    assert patients_known(records)
    assert "group" not in split_by_patient(records, test=0.25, store=store)


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_a_split_that_shares_a_patient_is_refused_by_name_before_anything_is_written(parts, store, tmp_path):
    names = store.names()
    records = unknown(names).assign(patient_source="column mrn", patient=[f"p{number // 4}" for number in range(48)])
    records["split"] = ["train"] * 20 + ["validation"] * 12 + ["test"] * 16
    refuse_crossing(records)
    records.loc[0, ["patient", "split"]] = ["Q7", parts[0]]
    records.loc[1, ["patient", "split"]] = ["Q7", parts[1]]
    with pytest.raises(MedicError, match="Q7") as refused:
        prepare(records, store, tmp_path / "prepared")
    assert all(part in str(refused.value) for part in parts)
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize(
    ("source", "said", "unsaid"),
    [
        ("image", "each image counts as a patient", "no patient is in two splits"),
        ("column PatientID", "patients are told apart by column PatientID", "counts as a patient"),
    ],
)
def test_how_patients_were_told_apart_is_said(source, said, unsaid, store):
    told = str(describe(unknown(store.names()).assign(patient_source=source), store, TASK))
    assert said in told
    assert unsaid not in told


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(MedicError, match=f"the seed {seed} is outside"):
        split_by_patient(unknown(["a", "b", "c"]), seed=seed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=3, max_size=80),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.2, 0.4]),
)
def test_no_patient_ever_crosses(images, seed, test):
    records = pd.DataFrame(
        {
            "image": [f"{number}.png" for number in range(len(images))],
            "patient": [f"p{patient}" for patient, _ in images],
            "split": "train",
            "label": [label for _, label in images],
        }
    )
    dealt = split_by_patient(records, test=test, seed=seed)
    assert crossing_patients(dealt) == []
    assert dealt["split"].equals(split_by_patient(records, test=test, seed=seed)["split"])
    assert (dealt["split"] == "train").any()


FINDINGS = ("rare", "seldom", "often")


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 10_000))
def test_a_class_that_three_patients_have_is_in_every_split_and_shares_are_kept(kind, seed, drawn):
    random = np.random.default_rng(drawn)
    patients = np.sort(random.integers(0, 60, 150))
    rows = pd.DataFrame({"image": map(str, range(150)), "patient": map(str, patients), "split": "train"})
    shown = pd.DataFrame(
        {name: random.random(150) < share for name, share in zip(FINDINGS, (0.03, 0.1, 0.5), strict=True)}
    )
    task = Task("own", kind, FINDINGS)
    # Of a multiclass set a patient's worst label decides; each patient has one here.
    one = pd.Series(patients).map(dict(enumerate(random.choice(3, 60, p=[0.1, 0.2, 0.7]))))
    records = (
        rows.assign(label=one)
        if kind == "multiclass"
        else rows.assign(label=shown.any(axis=1), **shown).astype(dict.fromkeys(("label", *FINDINGS), int))
    )
    dealt = split_by_patient(records, validation=0.2, test=0.2, seed=seed, task=task)
    for code, name in enumerate(FINDINGS):
        theirs = dealt[dealt[name] == 1] if kind == "multilabel" else dealt[dealt["label"] == code]
        if theirs["patient"].nunique() >= 3:
            assert set(theirs["split"]) == {"train", "validation", "test"}
    shares = dealt.drop_duplicates("patient")["split"].value_counts(normalize=True)
    assert shares["validation"] == pytest.approx(0.2, abs=0.08)
    assert shares["test"] == pytest.approx(0.2, abs=0.08)
    shuffled = records.sample(frac=1, random_state=1)
    assert split_by_patient(shuffled, validation=0.2, test=0.2, seed=seed, task=task).loc[dealt.index].equals(dealt)


def test_splits_that_a_source_gives_are_kept_and_bad_shares_refused():
    records = unknown([f"{number}.png" for number in range(60)])
    records.loc[:9, "split"] = "validation"
    dealt = complete_splits(records, seed=3)
    assert (dealt["split"] == "validation").equals(records["split"] == "validation")
    assert set(dealt["split"]) == {"train", "validation", "test"}
    assert complete_splits(dealt) is dealt
    for shares in ({"validation": 1.0}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(MedicError, match="must be shares that leave something for training"):
            split_by_patient(records, **shares)


def test_a_split_by_image_puts_patients_on_both_sides():
    records = unknown([f"{number}.png" for number in range(80)])
    records["patient"] = [f"p{number // 2}" for number in range(80)]
    assert len(crossing_patients(split_by_image(records))) > 10
