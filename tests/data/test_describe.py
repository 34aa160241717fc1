"""What a data set holds, in words and for machines."""

import json

import pandas as pd
import pytest

from medic.data.explore import describe
from medic.data.readers import retinopathy
from medic.data.stores import open_store
from medic.task import CHEST_XRAY, FINDINGS, NO_FINDING, RETINOPATHY


@pytest.fixture(scope="module")
def records_and_store(tiny):
    return retinopathy.read(tiny)


def test_images_patients_and_pairs_are_counted(records_and_store):
    described = describe(*records_and_store, RETINOPATHY)
    assert (described.images, described.patients, described.pairs) == (80, 40, 40)
    assert (described.absent, described.crossing) == (0, 0)
    assert described.counts["total"].sum() == 80
    assert "80 images of 40 patients, 40 of them with both eyes" in str(described)
    assert "every listed image is there" in str(described)


def test_the_same_numbers_come_as_json(records_and_store):
    described = describe(*records_and_store, RETINOPATHY)
    values = json.loads(json.dumps(described.to_dict()))
    assert values["images"] == 80
    assert values["patients"] == 40
    assert list(values["classes"]) == list(RETINOPATHY.classes)
    assert sum(row["total"] for row in values["classes"].values()) == 80
    assert set(values["classes"]["Mild"]) == {"train", "test", "total"}


def test_what_is_absent_and_who_crosses_is_said(records_and_store):
    records, store = records_and_store
    records = records.copy()
    records.loc[0, "image"] = "nowhere.jpeg"
    records.loc[1, "split"] = "test" if records["split"][1] == "train" else "train"
    described = describe(records, store, RETINOPATHY)
    assert (described.absent, described.crossing) == (1, 1)
    assert "1 listed images are absent" in str(described)
    assert "1 patients have images in more than one split: split again by patient" in str(described)


def test_tables_alone_are_described_as_such(records_and_store, tmp_path):
    described = describe(records_and_store[0], open_store(tmp_path), RETINOPATHY)
    assert described.absent == described.images
    assert "this describes the tables alone" in str(described)


def test_files_that_no_row_names_are_counted(records_and_store):
    records, store = records_and_store
    described = describe(records.drop(index=[3, 5]), store, RETINOPATHY)
    assert described.unlisted == 2
    assert described.to_dict()["unlisted_images"] == 2
    assert "2 image files are in no row of the table" in str(described)


def radiographs() -> pd.DataFrame:
    findings = dict.fromkeys(FINDINGS, 0) | {"Mass": [1, 0, 1, 0], "Nodule": [1, 0, 0, 0]}
    return pd.DataFrame(
        {
            "image": list("abcd"),
            "patient": list("1123"),
            "split": ["train", "train", "test", "test"],
            "label": [1, 0, 1, 0],
            "age": pd.array([40, 41, 60, None], dtype="Int64"),
            "sex": pd.array(["F", "F", "F", None], dtype="string"),
            "view": pd.array(["AP", "PA", "PA", "PA"], dtype="string"),
        }
    ).assign(**findings)


def test_findings_that_come_together_do_not_make_more_images(tmp_path):
    described = describe(radiographs(), open_store(tmp_path), CHEST_XRAY)
    assert list(described.counts.index) == [*FINDINGS, NO_FINDING]
    assert described.counts.loc[["Mass", "Nodule", NO_FINDING], "total"].tolist() == [2, 1, 2]
    assert described.by_split.to_dict() == {"train": 2, "test": 2, "total": 4}
    assert str(described).splitlines()[-1].split() == ["images", "2", "2", "4"]


def test_age_sex_and_view_are_summed_up_where_the_source_tells_them(tmp_path, records_and_store):
    described = describe(radiographs(), open_store(tmp_path), CHEST_XRAY)
    assert "median age 41 years; F 3; PA 3, AP 1" in str(described)
    values = json.loads(json.dumps(described.to_dict()))
    assert (values["age_median"], values["sex"], values["view"]) == (41, {"F": 3}, {"PA": 3, "AP": 1})
    assert values["images_by_split"] == {"train": 2, "test": 2, "total": 4}
    eyes = describe(*records_and_store, RETINOPATHY)
    assert (eyes.age, eyes.sex, eyes.view) == (None, {}, {})
    assert "median" not in str(eyes)


def test_pairs_are_not_claimed_where_eyes_are_not_told(records_and_store):
    records, store = records_and_store
    assert describe(records.drop(columns="eye"), store, RETINOPATHY).pairs is None


def test_a_notebook_shows_it_as_a_table(records_and_store):
    html = describe(*records_and_store, RETINOPATHY)._repr_html_()
    assert "<table" in html
    assert "Proliferative" in html
