"""What a data set holds, in words and for machines."""

import json

import pytest

from medic.data.describe import describe
from medic.data.readers import retinopathy
from medic.data.stores import open_store
from medic.task import RETINOPATHY


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


def test_pairs_are_not_claimed_where_eyes_are_not_told(records_and_store):
    records, store = records_and_store
    assert describe(records.drop(columns="eye"), store, RETINOPATHY).pairs is None


def test_a_notebook_shows_it_as_a_table(records_and_store):
    html = describe(*records_and_store, RETINOPATHY)._repr_html_()
    assert "<table" in html
    assert "Proliferative" in html
