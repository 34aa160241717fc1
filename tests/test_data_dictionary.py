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
from medic.data.download import COLUMNS, sources_table
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


def columns(**tables: object) -> dict[str, list[str]]:
    """The columns of tables (a name ``a_b`` is the heading ``a b``)."""
    return {name.replace("_", " "): list(table) for name, table in tables.items()}


def check_all(found: dict[str, list[str]], documented: dict[str, list[str]]) -> None:
    assert found == {name: documented[name] for name in found}


def test_what_readers_checks_and_samples_give_is_documented(documented, sample, tmp_path):
    records, store = retinopathy.read(sample)
    found = columns(
        records=records,
        findings=check(records, store),
        measures=measure(records.head(2), store),
        class_counts=class_counts(split_by_patient(records), RETINOPATHY),
        description=describe(records, store, RETINOPATHY).to_dict(),
        sources=sources_table(),
        sample_records=SAMPLES["retinopathy"].write(tmp_path / "sample", patients=40, size=64),
    )
    check_all(found | {"planted_faults.csv": list(pd.read_csv(sample / "planted_faults.csv"))}, documented)


def test_each_kind_of_finding_is_documented(repository):
    text = (repository / "docs" / "data_dictionary.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


@pytest.mark.parametrize("heading", ["trainLabels.csv (Kaggle 2015)", "train.csv (Kaggle 2019)"])
def test_the_published_layouts_are_read_by_their_documented_columns(heading, documented, tmp_path):
    (tmp_path / heading.split()[0]).write_text(f"{','.join(documented[heading])}\n7_left,3\n")
    records, _ = retinopathy.read(tmp_path)
    assert records[["image", "label"]].to_numpy().tolist() == [["7_left", 3]]


def test_chest_x_rays_are_read_by_their_documented_columns_and_give_the_documented_ones(documented, tmp_path):
    header = ",".join(documented["Data_Entry_2017.csv (NIH ChestX-ray14)"])
    rows = ["1_000.png,Mass|Hernia,0,1,058Y,M,PA,2500,2048", "2_000.png,No Finding,0,2,412,F,AP,2500,2048"]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]))
    (tmp_path / "train_val_list.txt").write_text("1_000.png\n")
    (tmp_path / "test_list.txt").write_text("2_000.png\n")
    records, store = chest_xray.read(tmp_path)
    assert records[["age", "width", "height"]].to_numpy(object).tolist() == [[58, 2500, 2048], [pd.NA, 2500, 2048]]
    assert list(class_counts(records, CHEST_XRAY)) == ["train", "test", "total"]
    description = describe(records, store, CHEST_XRAY).to_dict()
    check_all({"chest X-ray records": list(records), "description": list(description)}, documented)
    headings = [name for name in documented if name.endswith("(NIH ChestX-ray14)")]
    named = {file for name in headings for file in name.removesuffix(" (NIH ChestX-ray14)").split(", ")}
    assert named == {path.name for path in tmp_path.iterdir()}


def test_skin_lesions_are_read_by_their_documented_columns_and_give_the_documented_ones(documented, tmp_path):
    given = {"isic_id": "ISIC_1", "benign_malignant": "benign", "age_approx": "45", "sex": "male", "pixelsX": "640"}
    titles = documented["metadata.csv (ISIC Archive)"]
    assert titles == COLUMNS, "those that a download writes"
    (tmp_path / "metadata.csv").write_text(f"{','.join(titles)}\n{','.join(given.get(one, '') for one in titles)}\n")
    records, _ = skin_lesion.read(tmp_path)
    check_all(columns(skin_lesion_records=records), documented)
    assert records[["class", "age", "sex", "width"]].to_numpy().tolist() == [["benign", 45, "M", 640]]


def test_own_records_and_the_journal_of_corrections_are_documented(documented, tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    records, _ = own.read(tmp_path)
    kept = Corrections(tmp_path / "corrections.csv", records, task_of(records, "own"))
    kept.label("cat/1.png", "dog")
    check_all({"own records": list(records), "corrections.csv": list(pd.read_csv(kept.path))}, documented)
    assert list(kept.table()) == documented["corrections.csv"]
    assert list(own.read(tmp_path)[0]) == documented["own records"] + documented["corrected records"]


def test_the_files_of_prepared_sets_and_of_selections_are_documented(documented, sample, tiny, tmp_path):
    records, store = retinopathy.read(sample)
    faults = pd.read_csv(sample / "planted_faults.csv")["image"]
    faulty = records[records["image"].map(lambda name: Path(name).stem).isin(faults)]
    folder = prepare(faulty, store, tmp_path / "prepared", Preprocessing(size=32)).folder
    assert {path.name for path in folder.iterdir()} == PREPARED | {"images"}
    found = {name: list(pd.read_csv(folder / name)) for name in ("records.csv", "skipped.csv")}
    check_all(found | {"manifest.json": list(json.loads((folder / "manifest.json").read_text()))}, documented)
    folder = write(*select(tiny, per_class=3), tmp_path / "data", Preprocessing(size=32)).folder
    found = {path.name: list(pd.read_csv(path)) for path in folder.glob("*.csv") if path.name not in PREPARED}
    labels, names = documented["labels_train.csv, labels_val.csv"], ("labels_train.csv", "labels_val.csv")
    assert found == dict.fromkeys(names, labels) | {"selection.csv": documented["selection.csv"]}


def test_the_history_of_a_run_is_documented(documented, tiny_prepared, tmp_path):
    how = {"preprocessing": tiny_prepared.preprocessing, "image_size": 32, "weights": None}
    model = Classifier(RETINOPATHY, "mobilenet_v3_small", **how)
    fit(model, tiny_prepared, tmp_path / "run", Recipe(epochs=1, precision="32-true"))
    assert set(pd.read_csv(tmp_path / "run" / "history.csv")) == set(documented["history.csv"])


def test_predictions_and_evaluations_are_documented(documented, tmp_path):
    names = ["images/1_left.jpeg", "images/1_right.jpeg", "images/2_left.jpeg"]
    table = {"image": names, "patient": list("112"), "eye": ["left", "right", "left"], "split": "test"}
    table |= {"label": [0, 4, 2], "file": ["images/aa/1.jpg", "images/bb/2.jpg", "images/cc/3.jpg"]}
    answer = Prediction(RETINOPATHY, np.eye(5, dtype=np.float32)[[0, 1, 2]], np.float32([0, 1, 2]))
    evaluation = Evaluation("a test", answer, pd.DataFrame(table), majority=0)
    failed = pd.DataFrame([("x.jpeg", "empty", "no bytes")], columns=["image", "reason", "detail"])
    found = columns(
        predictions=answer.to_frame(names),
        figures=evaluation.table(),
        by_class=evaluation.by_class(),
        slices=slices(evaluation, ["eye"]),
        most_wrong_images=evaluation.worst(),
    )
    found["result.csv"] = list(BatchResult(answer, names, failed).to_frame())
    found["predictions.csv"] = list(pd.read_csv(evaluation.save(tmp_path) / "predictions.csv"))
    check_all(found, documented)


def test_what_is_said_of_each_label_is_documented(documented):
    probabilities = np.random.default_rng(0).random((6, len(FINDINGS)), np.float32)
    present = pd.DataFrame((probabilities > 0.4).astype(int), columns=list(FINDINGS))
    records = present.assign(image=list("abcdef"), patient=list("abcdef"), label=1, split="test")
    nothing = np.zeros(len(FINDINGS), int)
    evaluation = Evaluation("six images", Prediction(CHEST_XRAY, probabilities), records, nothing)
    assert list(evaluation.by_class()) == documented["by label"]
