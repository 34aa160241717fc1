"""Which reader, preprocessing and sample belong to which question."""

import pandas as pd
import pytest

from medic.data.readers import DATA_SETS, OWN, data_set_of, find_data_set, lesions_or_own
from medic.errors import MedicError
from medic.task import (
    CHEST_XRAY,
    CHEST_XRAY_BINARY,
    CHEST_XRAY_OR_NONE,
    DIGITS,
    RETINOPATHY,
    SKIN_LESION,
    TASKS,
    Task,
)


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (RETINOPATHY, "retinopathy"),
        (CHEST_XRAY, "chest_xray"),
        (CHEST_XRAY_OR_NONE, "chest_xray"),
        (CHEST_XRAY_BINARY, "chest_xray"),
        (DIGITS, "digits"),
        (SKIN_LESION, "skin_lesion"),
    ],
)
def test_each_task_belongs_to_a_line(task, line):
    assert data_set_of(task) is DATA_SETS[line]


def test_every_task_has_one_line_and_the_first_of_a_line_is_its_usual_one():
    assert sorted(task.name for line in DATA_SETS.values() for task in line.tasks) == sorted(TASKS)
    assert [line.tasks[0].name for line in DATA_SETS.values()] == list(DATA_SETS)


def test_a_task_of_the_readers_own_belongs_to_the_line_of_own_images():
    assert data_set_of(Task("eggs", "multiclass", ("raw", "boiled"))) is OWN


def test_an_unknown_line_is_refused_by_name():
    assert find_data_set("own") is OWN
    with pytest.raises(MedicError, match=r"no line is called 'eggs'; there is: retinopathy, .*, own"):
        find_data_set("eggs")


def test_lesions_are_read_where_they_are_and_own_images_otherwise(tmp_path):
    assert lesions_or_own(tmp_path) == (OWN, tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\n")
    assert lesions_or_own(tmp_path) == (OWN, tmp_path)
    (tmp_path / "metadata.csv").write_text("isic_id,diagnosis_1\n")
    assert lesions_or_own(tmp_path) == (DATA_SETS["skin_lesion"], tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "groundtruth.csv").touch()
    assert lesions_or_own(tmp_path) == (DATA_SETS["skin_lesion"], tmp_path)
    (tmp_path / "skin_lesion").mkdir()
    assert lesions_or_own(tmp_path) == (DATA_SETS["skin_lesion"], tmp_path / "skin_lesion")


def test_what_is_looked_for_is_named_for_ones_own_images_only():
    records = pd.DataFrame({"label": [0, 1], "class": ["benign", "malignant"]})
    assert OWN.looking_for(records, "benign")["label"].tolist() == [1, 0]
    with pytest.raises(MedicError, match="what is looked for in skin_lesion is given"):
        DATA_SETS["skin_lesion"].looking_for(records, "benign")


def test_radiographs_and_digits_are_grey_and_fundi_are_cut_out():
    assert [(line.preprocessing.crop, line.preprocessing.grey) for line in DATA_SETS.values()] == [
        ("fundus", False),
        ("square", True),
        ("square", True),
        ("square", False),
    ]


def test_a_set_is_found_as_a_folder_as_a_zip_or_as_the_data_folder_itself(tmp_path):
    line = DATA_SETS["chest_xray"]
    assert line.find(tmp_path) == tmp_path
    (tmp_path / "chest_xray.zip").touch()
    assert line.find(tmp_path) == tmp_path / "chest_xray.zip"
    (tmp_path / "chest_xray").mkdir()
    assert line.find(tmp_path) == tmp_path / "chest_xray"


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_sample_that_the_repository_holds_is_read_by_its_line(name, repository):
    line = DATA_SETS[name]
    records, store = line.read(line.find(repository / "sample_data"))
    assert {"image", "patient", "split", "label"} <= set(records)
    assert records["image"].iloc[0] in store
    if line.tasks[0].kind == "multilabel":
        assert set(line.tasks[0].classes) <= set(records)
