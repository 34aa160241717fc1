"""What is told about a data set before a network sees it, on tables that can be counted by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from medic.data import explore
from medic.data.stores import open_store
from medic.task import CHEST_XRAY, FINDINGS, NO_FINDING, Task

ANIMALS = Task("animals", "multilabel", ("cat", "dog", "owl"))


def shown(classes: tuple[str, ...], *images: str) -> pd.DataFrame:
    """One row for each text such as "cat|dog"."""
    table = pd.DataFrame({name: [int(name in text.split("|")) for text in images] for name in classes})
    label, rows = table.max(axis=1), [f"{row}.png" for row in range(len(images))]
    return table.assign(label=label, image=rows, patient=rows, split="train", **{NO_FINDING: 1 - label})


def test_images_people_and_files_are_counted_in_words_and_as_json(tmp_path):
    for name in ("0", "2", "x"):
        (tmp_path / f"{name}.png").touch()
    records = shown(FINDINGS, "Mass|Nodule", "", "Mass", "").assign(
        patient=list("1123"),
        split=["train", "test", "test", "test"],
        age=pd.array([40, 41, 60, None], dtype="Int64"),
        sex=pd.array(["F", "F", "F", None], dtype="string"),
        view=["AP", "PA", "PA", "PA"],
    )
    described = explore.describe(records, open_store(tmp_path), CHEST_XRAY)
    words = str(described)
    for sentence in (
        "4 images of 3 patients\n",
        "median age 41 years; F 3; PA 3, AP 1",
        "2 listed images are absent",
        "1 image files are in no row of the table",
        "1 patients have images in more than one split: split again by patient",
    ):
        assert sentence in words
    assert words.splitlines()[-1].split() == ["images", "1", "3", "4"], "findings that meet make no more images"
    values = json.loads(json.dumps(described.to_dict()))
    assert (values["images"], values["patients"], values["absent_images"], values["unlisted_images"]) == (4, 3, 2, 1)
    assert (values["age_median"], values["sex"], values["view"]) == (41, {"F": 3}, {"PA": 3, "AP": 1})
    assert values["images_by_split"] == {"train": 1, "test": 3, "total": 4}
    assert values["classes"]["Mass"] == {"train": 1, "test": 1, "total": 2}


def test_only_images_without_pixels_are_unreadable():
    records = shown(ANIMALS.classes, "cat", "dog", "owl", "cat")
    found = pd.DataFrame({"image": ["0.png", "1.png", "2.png"], "finding": ["truncated", "identical", "absent"]})
    assert list(explore.readable(records, found)["image"]) == ["1.png", "3.png"]
    assert explore.readable(records, found.head(0)).equals(records)


def test_patients_are_drawn_with_all_their_images():
    records = shown(ANIMALS.classes, *["cat"] * 40).assign(patient=list("abcdefghij" * 4))
    assert list(explore.some_patients(records, 20, seed=1)["patient"].value_counts()) == [4] * 5
    for enough in (None, 40, 1000):
        assert explore.some_patients(records, enough).equals(records)


def test_groups_are_compared():
    one, other = pd.DataFrame({"far": [1.0, 3], "flat": 2.0}), pd.DataFrame({"far": [4.0, 6], "flat": 2.0})
    assert list(explore.standardised_difference(one, other)) == pytest.approx([3 / np.sqrt(2), np.nan], nan_ok=True)
