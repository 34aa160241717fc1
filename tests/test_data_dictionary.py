"""The data dictionary names each column that the library reads or gives, and no other."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medic.data.check import check, measure
from medic.data.check.report import KINDS
from medic.data.competition import select, write
from medic.data.corrections import Corrections
from medic.data.download import sources_table
from medic.data.explore import describe
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.readers import chest_xray, own, retinopathy, skin_lesion
from medic.data.records import class_counts, task_of
from medic.data.split import split_by_patient
from medic.data.stores import PRODUCT_MARK
from medic.modeling.classifier import Classifier
from medic.modeling.evaluate import Evaluation
from medic.modeling.slices import slices
from medic.modeling.training.fit import Recipe, fit
from medic.predict import BatchResult
from medic.sample import SAMPLES
from medic.task import CHEST_XRAY, FINDINGS, RETINOPATHY, Prediction

PREPARED = {"records.csv", "skipped.csv", "manifest.json", PRODUCT_MARK}


@pytest.fixture(scope="module")
def documented(repository) -> dict[str, list[str]]:
    """The names in the first column of each section's table, by the section's heading."""
    text = (repository / "docs" / "data_dictionary.md").read_text(encoding="utf-8")
    sections = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        table = [line.split("|")[1] for line in body.split("\n## ")[0].splitlines() if line.startswith("|")]
        sections[heading] = [name for cell in table for name in re.findall(r"`([^`]+)`", cell)]
    return sections


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    records = pd.DataFrame(
        {
            "image": ["images/1_left.jpeg", "images/1_right.jpeg", "images/2_left.jpeg"],
            "patient": ["1", "1", "2"],
            "eye": ["left", "right", "left"],
            "split": "test",
            "label": [0, 4, 2],
            "file": ["images/aa/1.jpg", "images/bb/2.jpg", "images/cc/3.jpg"],
        }
    )
    probabilities = np.eye(5, dtype=np.float32)[[0, 1, 2]]
    return Evaluation("a test", Prediction(RETINOPATHY, probabilities, np.float32([0, 1, 2])), records, majority=0)


def test_what_readers_and_checks_give_is_documented(documented, sample):
    records, store = retinopathy.read(sample)
    assert list(records) == documented["records"]
    assert list(check(records, store)) == documented["findings"]
    assert list(measure(records.head(2), store)) == documented["measures"]
    assert list(class_counts(split_by_patient(records), RETINOPATHY)) == documented["class counts"]
    assert list(describe(records, store, RETINOPATHY).to_dict()) == documented["description"]
    assert list(sources_table()) == documented["sources"]


@pytest.fixture(scope="module")
def radiographs(documented, tmp_path_factory) -> Path:
    """A chest X-ray table with the documented titles, one odd row, the two lists and no images."""
    folder = tmp_path_factory.mktemp("chest_xray")
    header = ",".join(documented["Data_Entry_2017.csv (NIH ChestX-ray14)"])
    rows = ["1_000.png,Mass|Hernia,0,1,058Y,M,PA,2500,2048", "2_000.png,No Finding,0,2,412,F,AP,2500,2048"]
    (folder / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]))
    (folder / "train_val_list.txt").write_text("1_000.png\n")
    (folder / "test_list.txt").write_text("2_000.png\n")
    return folder


def test_chest_x_rays_are_read_by_their_documented_columns_and_give_the_documented_ones(documented, radiographs):
    records, store = chest_xray.read(radiographs)
    assert list(records) == documented["chest X-ray records"]
    assert records[["age", "width", "height"]].to_numpy(object).tolist() == [[58, 2500, 2048], [pd.NA, 2500, 2048]]
    assert list(class_counts(records, CHEST_XRAY)) == ["train", "test", "total"]
    assert list(describe(records, store, CHEST_XRAY).to_dict()) == documented["description"]
    assert {name.name for name in radiographs.iterdir()} == {
        heading.removesuffix(" (NIH ChestX-ray14)")
        for headings in documented
        if headings.endswith("(NIH ChestX-ray14)")
        for heading in headings.split(", ")
    }


def test_skin_lesions_are_read_by_their_documented_columns_and_give_the_documented_ones(documented, tmp_path):
    given = {"isic_id": "ISIC_1", "benign_malignant": "benign", "age_approx": "45", "sex": "male", "pixelsX": "640"}
    columns = documented["metadata.csv (ISIC Archive)"]
    (tmp_path / "metadata.csv").write_text(
        f"{','.join(columns)}\n{','.join(given.get(column, '') for column in columns)}\n"
    )
    records, _ = skin_lesion.read(tmp_path)
    assert list(records) == documented["skin lesion records"]
    assert records[["class", "age", "sex", "width"]].to_numpy().tolist() == [["benign", 45, "M", 640]]


def test_own_records_and_the_journal_of_corrections_are_documented(documented, tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    records, _ = own.read(tmp_path)
    assert list(records) == documented["own records"]
    kept = Corrections(tmp_path / "corrections.csv", records, task_of(records, "own"))
    kept.label("cat/1.png", "dog")
    assert list(pd.read_csv(kept.path)) == list(kept.table()) == documented["corrections.csv"]
    assert list(own.read(tmp_path)[0]) == documented["own records"] + documented["corrected records"]


def test_each_kind_of_finding_is_documented(repository):
    text = (repository / "docs" / "data_dictionary.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


def test_the_published_layouts_are_read_by_their_documented_columns(documented, tmp_path):
    for heading in ("trainLabels.csv (Kaggle 2015)", "train.csv (Kaggle 2019)"):
        folder = tmp_path / heading.split(".")[0]
        folder.mkdir()
        (folder / heading.split()[0]).write_text(f"{','.join(documented[heading])}\n7_left,3\n")
        records, _ = retinopathy.read(folder)
        assert records[["image", "label"]].to_numpy().tolist() == [["7_left", 3]]


def test_what_comes_with_the_sample_is_documented(documented, sample, tmp_path):
    assert list(pd.read_csv(sample / "planted_faults.csv")) == documented["planted_faults.csv"]
    drawn = SAMPLES["retinopathy"].write(tmp_path / "sample", patients=40, size=64)
    assert list(drawn) == documented["sample records"]


def test_the_files_of_a_prepared_set_are_documented(documented, sample, tmp_path):
    records, store = retinopathy.read(sample)
    faults = pd.read_csv(sample / "planted_faults.csv")["image"]
    folder = prepare(
        records[records["image"].map(lambda name: Path(name).stem).isin(faults)],
        store,
        tmp_path / "prepared",
        Preprocessing(size=32),
    ).folder
    assert {path.name for path in folder.iterdir()} == PREPARED | {"images"}
    for name in ("records.csv", "skipped.csv"):
        assert list(pd.read_csv(folder / name)) == documented[name]
    assert list(json.loads((folder / "manifest.json").read_text())) == documented["manifest.json"]


def test_the_files_of_a_selection_are_documented(documented, tiny, tmp_path):
    listed, store = select(tiny, per_class=3)
    prepared = write(listed, store, tmp_path / "data", Preprocessing(size=32))
    made = {path.name for path in prepared.folder.iterdir()} - PREPARED - {"images"}
    assert made == {"labels_train.csv", "labels_val.csv", "selection.csv"}
    for name in ("labels_train.csv", "labels_val.csv"):
        assert list(pd.read_csv(prepared.folder / name)) == documented["labels_train.csv, labels_val.csv"]
    assert list(pd.read_csv(prepared.folder / "selection.csv")) == documented["selection.csv"]


def test_the_history_of_a_run_is_documented(documented, tiny_prepared, tmp_path):
    model = Classifier(
        RETINOPATHY, "mobilenet_v3_small", preprocessing=tiny_prepared.preprocessing, image_size=32, weights=None
    )
    fit(model, tiny_prepared, tmp_path / "run", Recipe(epochs=1, precision="32-true"))
    assert set(pd.read_csv(tmp_path / "run" / "history.csv")) == set(documented["history.csv"])


def test_predictions_and_evaluations_are_documented(documented, evaluation, tmp_path):
    failed = pd.DataFrame([("x.jpeg", "empty", "no bytes")], columns=["image", "reason", "detail"])
    names = list(evaluation.records["image"])
    assert list(evaluation.prediction.to_frame(names)) == documented["predictions"]
    assert list(BatchResult(evaluation.prediction, names, failed).to_frame()) == documented["result.csv"]
    assert list(pd.read_csv(evaluation.save(tmp_path) / "predictions.csv")) == documented["predictions.csv"]
    assert list(evaluation.table()) == documented["figures"]
    assert list(evaluation.by_class()) == documented["by class"]
    assert list(slices(evaluation, ["eye"])) == documented["slices"]
    assert list(evaluation.worst()) == documented["most wrong images"]


def test_what_is_said_of_each_label_is_documented(documented):
    probabilities = np.random.default_rng(0).random((6, len(FINDINGS)), np.float32)
    present = pd.DataFrame((probabilities > 0.4).astype(int), columns=list(FINDINGS))
    records = present.assign(image=list("abcdef"), patient=list("abcdef"), label=1, split="test")
    nothing = np.zeros(len(FINDINGS), int)
    evaluation = Evaluation("six images", Prediction(CHEST_XRAY, probabilities), records, nothing)
    assert list(evaluation.by_class()) == documented["by label"]
