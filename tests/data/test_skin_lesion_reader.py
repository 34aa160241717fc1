"""Skin lesions in the layouts in which the ISIC Archive and its challenges hand them out."""

import csv
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from medic.data.check import check
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.readers import skin_lesion
from medic.data.records import read_records
from medic.data.stores import ZipStore
from medic.errors import MedicError
from medic.task import SKIN_LESION

FORMER = (
    "isic_id,benign_malignant,diagnosis,diagnosis_confirm_type,melanocytic,age_approx,sex,image_type,pixelsX,pixelsY"
)
FORMER_ROWS = (
    "ISIC_0000001,benign,nevus,,True,30,female,dermoscopic,1022,767",
    "ISIC_0000002,malignant,melanoma,histopathology,True,85,male,dermoscopic,1504,1129",
    "ISIC_0000003,benign,nevus,,True,,,dermoscopic,,",
)
# The columns that isic-cli writes: three, and then all that any image has of acquisition and clinical data, sorted.
CLIENT = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,"
    "image_type,lesion_id,patient_id,pixels_x,pixels_y,sex"
)
CLIENT_ROWS = (
    'ISIC_0000001,"Hospital A, B",CC-BY,45,torso,Benign,Benign melanocytic proliferations,Nevus,dermoscopic,IL_1,IP_7,'
    "640,480,female",
    "ISIC_0000002,Anonymous,CC-0,60,,Malignant,Malignant melanocytic proliferations,,dermoscopic,IL_2,,1024,768,male",
    "ISIC_0000003,Anonymous,CC-0,,,Indeterminate,,,dermoscopic,,,1024,768,",
    "ISIC_0000004,Anonymous,CC-0,,,,,,dermoscopic,,,1024,768,",
    "ISIC_0000005,Anonymous,CC-0,,,Benign,,,dermoscopic,,,,,",
)


@pytest.fixture
def lay(tmp_path: Path, smooth, encode):
    """Write images by name, and tables by file name and lines, below a folder; each image has pixels of its own."""

    def write(*names: str, **tables: tuple[str, ...]) -> Path:
        place = tmp_path / "skin_lesion"
        place.mkdir(exist_ok=True)
        for number, name in enumerate(names):
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(smooth(30 + number, 40), "JPEG"))
        for name, lines in tables.items():
            (place / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return place

    return write


def images(count: int, folder: str = "images/", ending: str = ".jpg") -> list[str]:
    return [f"{folder}ISIC_{number:07d}{ending}" for number in range(1, count + 1)]


def test_the_archives_former_columns(lay):
    records, store = skin_lesion.read(lay(*images(3), metadata=(FORMER, *FORMER_ROWS)))
    assert list(records) == [
        *("image", "patient", "split", "label", "class", "diagnosis", "age", "sex", "width", "height"),
    ]
    assert list(records["image"]) == images(3)
    assert list(records["patient"]) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    assert list(records["label"]) == [0, 1, 0]
    assert list(records["class"]) == ["benign", "malignant", "benign"]
    assert list(records["diagnosis"]) == ["nevus", "melanoma", "nevus"]
    assert list(records["age"]) == [30, 85, pd.NA]
    assert list(records["sex"]) == ["F", "M", pd.NA]
    assert records[["width", "height"]].to_numpy(object).tolist() == [[1022, 767], [1504, 1129], [pd.NA, pd.NA]]
    assert set(records["split"]) == {"train"}
    assert records.dtypes[["diagnosis", "sex"]].tolist() == ["string"] * 2
    assert records.dtypes[["age", "width", "height"]].tolist() == ["Int64"] * 3
    assert all(name in store for name in records["image"])


def test_the_columns_of_the_archives_client_and_what_is_neither_is_left_out(lay, capsys):
    records, _ = skin_lesion.read(lay(*images(5), metadata=(CLIENT, *CLIENT_ROWS)))
    assert list(records["image"]) == [images(5)[number] for number in (0, 1, 4)]
    assert list(records["class"]) == ["benign", "malignant", "benign"]
    assert list(records["diagnosis"].fillna("-")) == ["Nevus", "Malignant melanocytic proliferations", "-"]
    assert list(records["patient"]) == ["IP_7", "IL_2", "ISIC_0000005"], "the patient, else the lesion, else the image"
    assert records[["width", "height"]].to_numpy(object).tolist() == [[640, 480], [1024, 768], [pd.NA, pd.NA]]
    assert capsys.readouterr().err == "2 of 5 images are neither benign nor malignant and are left out\n"


@pytest.mark.parametrize(("clinical", "acquisition"), [("metadata.clinical.", "metadata.acquisition."), ("meta.", "")])
def test_what_stands_before_a_columns_name_does_not_matter(clinical, acquisition, lay):
    header = f"isic_id,{clinical}diagnosis_1,{clinical}sex,{acquisition}pixels_x,{acquisition}pixels_y"
    records, _ = skin_lesion.read(lay(*images(1), metadata=(header, "ISIC_0000001,Malignant,female,64,48")))
    assert records[["class", "sex", "width", "height"]].to_numpy().tolist() == [["malignant", "F", 64, 48]]


def test_newer_entries_beside_former_ones_have_their_verdict_in_the_other_column(lay):
    lines = (
        "isic_id,benign_malignant,diagnosis_1,patient_id",
        "ISIC_0000001,benign,,P1",
        "ISIC_0000002,,Malignant,P1",
        "ISIC_0000003,malignant,Malignant,P2",
    )
    records, _ = skin_lesion.read(lay(*images(3), metadata=lines))
    assert list(records["class"]) == ["benign", "malignant", "malignant"]
    assert list(records["patient"]) == ["P1", "P1", "P2"]


def test_the_challenges_table_without_header(lay):
    lines = ("ISIC_0000001,benign", "ISIC_0000002.jpg,Malignant", " ISIC_0000003 , benign ", "ISIC_0000004,1.0")
    records, _ = skin_lesion.read(lay(*images(4), groundtruth=lines))
    assert list(records) == ["image", "patient", "split", "label", "class"]
    assert list(records["image"]) == images(4)
    assert list(records["class"]) == ["benign", "malignant", "benign", "malignant"]


def test_where_the_two_tables_contradict_each_other_check_says_so(lay, capsys):
    truth = ("ISIC_0000001,malignant", "ISIC_0000002,malignant", "ISIC_0000009,benign")
    records, store = skin_lesion.read(lay(*images(3), metadata=(FORMER, *FORMER_ROWS), groundtruth=truth))
    assert list(records["class"]) == ["benign", "malignant", "benign"], "metadata.csv counts"
    assert list(records["note"].fillna("-")) == ["groundtruth.csv says malignant", "-", "-"]
    noted = check(records, store).query("finding == 'noted'")
    assert noted[["image", "detail"]].to_numpy().tolist() == [[images(1)[0], "groundtruth.csv says malignant"]]
    left_out = "1 images of groundtruth.csv are not in metadata.csv and are left out: ISIC_0000009"
    assert left_out in capsys.readouterr().err


@pytest.mark.parametrize("outer", ["", "lesions/", "train/"])
def test_folders_without_a_table(outer, lay):
    names = [f"{outer}{kind}/ISIC_{number}.jpg" for kind in SKIN_LESION.classes for number in (1, 2)]
    records, _ = skin_lesion.read(lay(*names))
    assert list(records["image"]) == names
    assert list(records["label"]) == [0, 0, 1, 1]


def test_images_in_a_zip_file_beside_the_table_or_all_in_one(lay, tmp_path):
    place = lay(*images(3), metadata=(FORMER, *FORMER_ROWS))
    loose, _ = skin_lesion.read(place)
    whole = tmp_path / "skin_lesion.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for file in sorted(place.rglob("*.*")):
            archive.write(file, file.relative_to(place))
    assert skin_lesion.read(whole)[0].equals(loose)
    with zipfile.ZipFile(place / "ISIC-images.zip", "w") as archive:
        for file in sorted((place / "images").iterdir()):
            archive.write(file, f"images/{file.name}")
            file.unlink()
    records, store = skin_lesion.read(place)
    assert isinstance(store, ZipStore)
    assert records.equals(loose)
    assert skin_lesion.read(place, place / "ISIC-images.zip")[0].equals(loose)


def test_images_are_found_in_any_folder_with_any_ending(lay):
    names = ["a/ISIC_0000001.JPG", "b/c/ISIC_0000002.jpeg", "ISIC_0000003.png", "a/ISIC_0000001_segmentation.png"]
    records, _ = skin_lesion.read(lay(*names, metadata=(FORMER, *FORMER_ROWS)))
    assert list(records["image"]) == names[:3]


def test_an_image_that_is_listed_and_absent_is_reported_by_check(lay):
    records, store = skin_lesion.read(lay(*images(2), metadata=(FORMER, *FORMER_ROWS)))
    findings = check(records, store)
    assert list(findings.loc[findings["finding"] == "absent", "image"]) == ["ISIC_0000003"]


def test_the_table_nearest_to_the_top_counts_and_two_beside_each_other_are_refused(lay):
    place = lay(*images(3), metadata=(FORMER, *FORMER_ROWS))
    (place / "older").mkdir()
    (place / "older" / "metadata.csv").write_text("rubbish")
    assert len(skin_lesion.read(place)[0]) == 3
    (place / "newer").mkdir()
    (place / "metadata.csv").rename(place / "newer" / "Metadata.csv")
    with pytest.raises(MedicError, match=r"holds metadata.csv twice \(newer/Metadata.csv, older/metadata.csv\)"):
        skin_lesion.read(place)


@pytest.mark.parametrize(
    ("table", "lines", "said"),
    [
        ("metadata", (), "metadata.csv in .* is empty"),
        ("metadata", (FORMER,), "lists no image"),
        ("metadata", ("image,benign_malignant", "a,benign"), "needs the columns isic_id and benign_malignant or"),
        ("metadata", ("isic_id,verdict", "a,benign"), "needs the columns .* it has: isic_id, verdict"),
        ("metadata", ("isic_id,diagnosis_1", "a,Benign", "b,Benign,x"), "line 3, has 3 columns instead of 2"),
        ("metadata", ("isic_id,diagnosis_1", "a,Benign", "", "b"), "line 4, has 1 columns instead of 2"),
        ("metadata", ("isic_id,diagnosis_1", "a,Benign", "a.jpg,Malignant"), "lists a twice; keep one line an image"),
        ("metadata", ("isic_id,diagnosis_1", ",Benign"), "has a line without an image"),
        ("metadata", ("isic_id,x.diagnosis_1,y.diagnosis_1", "a,Benign,"), "several columns called diagnosis_1"),
        ("metadata", ("isic_id,diagnosis_1", "a,Indeterminate", "b,"), "not one of 2 images is labelled benign or"),
        ("metadata", ('isic_id,"diagnosis_1', "a,Benign"), "needs the columns|cannot be read|lists no image"),
        ("groundtruth", (), "is empty"),
        ("groundtruth", ("a,benign", "b"), "line 2, is not an image and its verdict, such as ISIC_0000001,benign"),
        ("groundtruth", ("a,benign,0.5",), "line 1, is not an image and its verdict"),
        ("groundtruth", ("a,benign", "b,"), "line 2, is not an image and its verdict"),
        ("groundtruth", ("a,benign", "a,malignant"), "lists a twice"),
        ("groundtruth", ("a,0.4", "b,2"), "not one of 2 images is labelled benign or malignant"),
        ("labels", ("image,label", "a,benign"), r"holds labels.csv but neither .*\(on the command line: own\)"),
    ],
)
def test_each_fault_of_a_table_is_named(table, lines, said, lay):
    with pytest.raises(MedicError, match=said):
        skin_lesion.read(lay(*images(1), **{table: lines}))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no images"),
        (("cat/1.jpg", "dog/1.jpg"), "the class 'cat', which the task 'skin_lesion' does not know"),
        (("benign/1.jpg", "benign/2.jpg"), "one class only, 'benign'"),
    ],
)
def test_folders_that_are_no_verdicts_are_refused(names, said, lay):
    with pytest.raises(MedicError, match=said):
        skin_lesion.read(lay(*names))


def test_a_table_that_is_no_text_and_an_image_at_two_places_are_refused(lay):
    place = lay(*images(3), metadata=(FORMER, *FORMER_ROWS))
    (place / "ISIC_0000002.jpg").write_bytes((place / images(2)[1]).read_bytes())
    with pytest.raises(MedicError, match="holds the image ISIC_0000002 at two places"):
        skin_lesion.read(place)
    assert len(skin_lesion.read(place, place / "images")[0]) == 3
    (place / "metadata.csv").write_bytes("isic_id,diagnosis_1\nF\xfc,Benign\n".encode("latin-1"))
    with pytest.raises(MedicError, match="cannot be read as a table"):
        skin_lesion.read(place)
    with pytest.raises(MedicError, match="there is no folder or zip file"):
        skin_lesion.read(place / "nowhere")


def test_the_records_survive_a_prepared_set(lay, tmp_path):
    truth = ("ISIC_0000001,malignant",)
    records, store = skin_lesion.read(lay(*images(3), metadata=(FORMER, *FORMER_ROWS), groundtruth=truth))
    folder = prepare(records, store, tmp_path / "prepared", Preprocessing(20, crop="square")).folder
    assert read_records(folder / "records.csv").drop(columns="file").equals(records)


@pytest.mark.real_data
def test_the_real_lesions_are_all_found_with_what_their_table_tells(real_data):
    place = real_data / "skin_lesion"
    records, store = skin_lesion.read(place)
    assert records["class"].value_counts().to_dict() == {"benign": 143, "malignant": 57}
    assert set(records["diagnosis"]) == {"nevus", "melanoma"}
    assert all(name in store for name in records["image"])
    assert records["note"].isna().all(), "its two tables agree"
    with open(place / "metadata.csv", newline="") as file:
        rows = {row["isic_id"]: row for row in csv.DictReader(file)}
    for record in records.itertuples():
        row = rows[re.search(r"ISIC_\d{7}", record.image)[0]]
        told = [str(value) if pd.notna(value) else "" for value in (record.age, record.width, record.height)]
        assert told == [row["age_approx"], row["pixelsX"], row["pixelsY"]]
        assert record.patient == row["isic_id"], "the set names no patients"
