"""The published sets are read in each layout in which people have them, with what tells patients apart."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from medic.data.readers import DATA_SETS, OWN, chest_xray, data_set_of, digits, find_data_set, retinopathy, skin_lesion
from medic.data.readers.digits import batch_order, grey_arrays, read_idx_set, write_idx_part
from medic.data.stores import JointStore, idx
from medic.errors import MedicError
from medic.task import CHEST_XRAY, FINDINGS, Task

PNG = cv2.imencode(".png", np.full((4, 4), 9, np.uint8))[1].tobytes()


@pytest.fixture
def lay(tmp_path):
    """Files by name: text, bytes, or for None an image."""

    def make(files: dict[str, str | bytes | None]) -> Path:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            data = PNG if content is None else content.encode() if isinstance(content, str) else content
            (tmp_path / name).write_bytes(data)
        return tmp_path

    return make


def images(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


def packed(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, PNG)
    return data.getvalue()


# Retinopathy

EYES = ("10_left", "10_right", "11_left", "12")
PAIRS = {"train_img.csv": "10_left\n10_right\n", "train_label.csv": "0\n2\n", "test_img.csv": "11_left\n12\n"}
PAIRS |= {"test_label.csv": "4\n1\n"}
LAYOUTS = {
    "pairs of tables": PAIRS,
    "pairs with header lines": {name: f"{name[-7:-4]}\n{text}" for name, text in PAIRS.items()}
    | {name: f"level\n{text}" for name, text in PAIRS.items() if "label" in name},
    "EyePACS": {"trainLabels.csv": "image,level\n10_left,0\n10_right,2\n11_left,4\n12,1\n"},
    "EyePACS, by a German Excel": {"trainLabels.csv": "sep=;\nimage;level\n10_left;0\n10_right;2,0\n11_left;4\n12;1\n"},
    "APTOS": {"train.csv": "id_code,diagnosis\n10_left,0\n10_right,2.0\n11_left.png,4\n12,1\n"},
    "without header": {"train.csv": "10_left,0\n10_right,2\n11_left,4\n12,1\n"},
    "UTF-16": {"train.csv": "id_code;diagnosis\n10_left;0\n10_right;2\n11_left;4\n12;1\n".encode("utf-16")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["a folder", "a zip file", "a zip file beside the tables"])
def test_each_layout_of_retinopathy_gives_the_same_records(layout, where, lay, tmp_path):
    stored = [f"images/{eye}.jpeg" for eye in EYES]
    place = lay(LAYOUTS[layout] | (images(*stored) if "folder" in where else {}))
    if where == "a zip file beside the tables":
        lay({"images.zip": packed(*stored)})
    if where == "a zip file":
        lay(images(*stored))
        files = [path for path in place.rglob("*") if path.is_file()]
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(place))
        place = tmp_path / "set.zip"
    records, store = retinopathy.read(place)
    assert records["label"].tolist() == [0, 2, 4, 1]
    assert records["patient"].tolist() == ["10", "10", "11", "12"]
    assert records["eye"].fillna("").tolist() == ["left", "right", "left", ""]
    assert set(records["patient_source"]) == {"file names (left/right)"}
    assert records["split"].tolist() == ["train"] * 2 + ["test" if layout.startswith("pairs") else "train"] * 2
    assert all(name in store for name in records["image"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no table of retinopathy grades"),
        ({"train_img.csv": "a\n"}, "not the other table of the pair"),
        ({"train_img.csv": "a\nb\n", "train_label.csv": "1\n"}, "2 names and .* 1 labels"),
        ({"train_img.csv": "a\n\nb\n", "train_label.csv": "1\n2\n"}, "train_img.csv line 3: 'b' follows an empty line"),
        (
            {"train_img.csv": "", "train_label.csv": "1\n"},
            "train_img.csv .* cannot be read as a table|train_img.csv .* lists no image",
        ),
        ({"train.csv": "id_code,diagnosis\na,5\n"}, "line 2: '5' is no grade"),
        ({"train.csv": "id_code,diagnosis\na,\n"}, "line 2: '' is no grade"),
        ({"train.csv": "id_code,diagnosis\n,1\n"}, "line 2: '' is no image"),
        ({"train.csv": "id_code,diagnosis\na,1\na.png,2\n"}, "line 2, 3: 'a' is listed more than once"),
        ({"train.csv": "id_code,site\na,1\n"}, "no column called like the label"),
    ],
)
def test_each_fault_of_a_table_of_grades_is_named(files, message, lay):
    with pytest.raises(MedicError, match=message):
        retinopathy.read(lay(files | images("a.png", "b.png")))


def test_other_names_of_eyes_are_understood_where_all_follow_them():
    assert retinopathy.eyes(["05-OD", "05-OS", "06-OD"])["patient"].tolist() == ["05", "05", "06"]
    assert retinopathy.eyes(["5_left", "5_R"])["patient"].tolist() == ["5", "5_R"]


def test_the_small_tables_are_read_when_asked_for(sample):
    assert len(retinopathy.read(sample, small=True)[0]) < 60


# Chest X-rays

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
XRAYS = ("1_0.png,Hernia|Mass,0,1,57,M,PA", "1_1.png,No Finding,1,1,414,F,AP", "2_0.png,Edema,0,2,010M,F,LL")
SHOTS = ("1_0.png", "1_1.png", "2_0.png")


def entries(*rows: str, header: str = HEADER) -> dict[str, str]:
    return {"Data_Entry_2017.csv": "\n".join([header, *rows]) + "\n"}


@pytest.mark.parametrize(
    "tables",
    {
        "second edition": entries(*XRAYS),
        "first edition, whose lines end with a comma": entries(*(f"{row}," for row in XRAYS), header=f"{HEADER},"),
        "a comma in the lines only": entries(*(f"{row}," for row in XRAYS)),
        "semicolons": {"Data_Entry_2017_v2020.csv": "\n".join([HEADER, *XRAYS]).replace(",", ";")},
        "blank lines at the end": entries(*XRAYS, ",,,,,,", ""),
    }.values(),
)
def test_each_edition_of_the_table_gives_the_same_records(tables, lay):
    records, store = chest_xray.read(lay(tables | images(*(f"images_001/images/{name}" for name in SHOTS))))
    assert records["label"].tolist() == [1, 0, 1]
    assert records[["Hernia", "Mass", "Edema"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert records["age"].fillna(-1).tolist() == [57, -1, 0]
    assert records["view"].fillna("").tolist() == ["PA", "AP", ""]
    assert records["note"].tolist()[1:] == ["age 414 taken as unknown", "view LL taken as unknown"]
    assert records["patient"].tolist() == ["1", "1", "2"]
    assert set(records["patient_source"]) == {"column Patient ID"}
    assert set(FINDINGS) <= set(records)
    assert all(name in store for name in records["image"])


def test_images_may_lie_in_several_zip_files_and_as_dicom(lay):
    place = lay(
        entries(*XRAYS) | {"images_001.zip": packed("images/1_0.png"), "images_002.zip": packed("images/1_1.dcm")}
    )
    records, store = chest_xray.read(place)
    assert isinstance(store, JointStore)
    assert records["image"].tolist() == ["images_001/images/1_0.png", "images_002/images/1_1.dcm", "2_0.png"]


def test_the_official_lists_are_the_split(lay):
    place = lay(entries(*XRAYS) | {"train_val_list.txt": "1_0.png\n1_1.png\n", "test_list.txt": "2_0.png\n"})
    assert chest_xray.read(place)[0]["split"].tolist() == ["train", "train", "test"]
    for text, message in (("9_0.png", "both or neither of"), ("1_0.png\n2_0.png", "both or neither of")):
        with pytest.raises(MedicError, match=message):
            chest_xray.read(lay({"test_list.txt": text}))
    (place / "test_list.txt").unlink()
    with pytest.raises(MedicError, match=r"has train_val_list.txt but not the other"):
        chest_xray.read(place)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no table of chest X-rays"),
        (entries(), "lists no image"),
        ({"Data_Entry_2017.csv": "Image Index,Finding Labels\na,b\n"}, "lacks the columns of age, follow_up, patient"),
        (entries(XRAYS[0], "1_1.png,Tumour,1,1,58,M,AP"), "line 3: 'Tumour' is not understood"),
        (entries("1_1.png,No Finding|Mass,1,1,58,M,AP"), "line 2: 'No Finding.Mass' is not understood"),
        (entries("1_1.png,Mass,x,1,58,M,AP"), "line 2: 'x' is no number of a follow-up"),
        (entries("1_1.png,Mass,1,,58,M,AP"), "line 2: '' is no patient"),
        (entries(XRAYS[0], XRAYS[0]), "line 2, 3: '1_0' is listed more than once"),
        (entries(f"{XRAYS[0]},x,y"), "in line 2, saw 9"),
        (entries(*XRAYS) | {"images.tar.gz": "x"}, "is a tar archive"),
        (entries(*XRAYS) | {"all.zip": packed("images_001.zip")}, "holds zip files"),
    ],
)
def test_each_fault_of_a_set_of_chest_xrays_is_named(files, message, lay):
    with pytest.raises(MedicError, match=message):
        chest_xray.read(lay(files))


# Skin lesions

ISIC = "isic_id,benign_malignant,diagnosis,age_approx,sex,pixelsX,patient_id,lesion_id"


@pytest.mark.parametrize(
    ("header", "rows", "patients", "told_by"),
    [
        (ISIC, ("A,benign,nevus,60,male,9,P,L", "B,malignant,melanoma,,,9,,L"), 2, "column patient_id and lesion_id"),
        ("isic_id,diagnosis_1,lesion_id", ("A,Benign,L", "B,Malignant,L"), 1, "column lesion_id (no patient is known)"),
        ("isic_id;metadata.clinical.diagnosis_1", ("A;Benign", "B;Malignant"), 2, "image"),
    ],
)
def test_the_archives_tables_say_what_tells_patients_apart(header, rows, patients, told_by, lay):
    place = lay({"metadata.csv": "\n".join([header, *rows, ""])} | images("img/A.JPG", "img/B.jpg"))
    records, store = skin_lesion.read(place)
    assert records["class"].tolist() == ["benign", "malignant"]
    assert (records["patient"].nunique(), records["patient_source"][0]) == (patients, told_by)
    assert set(records["split"]) == {"train"}
    assert all(name in store for name in records["image"])


def test_the_challenges_table_and_folders_are_read_and_contradictions_noted(lay, capsys):
    place = lay({"groundtruth.csv": "A,benign\nB,1.0\nC,0.0\n"} | images("A.jpg", "B.jpg"))
    assert skin_lesion.read(place)[0]["class"].tolist() == ["benign", "malignant", "benign"]
    lay({"metadata.csv": "isic_id,benign_malignant\nA,malignant\nB,malignant\nD,indeterminate\n"})
    records, _ = skin_lesion.read(place)
    assert records["note"].fillna("").tolist() == ["groundtruth.csv says benign", ""]
    said = capsys.readouterr().err
    assert "1 of 3 images are neither benign nor malignant" in said
    assert "1 images of groundtruth.csv are not in metadata.csv" in said
    records, _ = skin_lesion.read(lay(images("folders/benign/1.png", "folders/malignant/2.png")) / "folders")
    assert records["class"].tolist() == ["benign", "malignant"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.csv": "a,b\n1,2\n"}, "holds other.csv but neither metadata.csv nor groundtruth.csv"),
        ({"metadata.csv": "isic_id,sex\nA,male\n"}, "needs the columns isic_id and benign_malignant or diagnosis_1"),
        ({"metadata.csv": "isic_id,diagnosis_1\nA,unknown\n"}, "not one of 1 images is labelled"),
        (
            {"metadata.csv": "isic_id,diagnosis_1\nA,Benign\nA.jpg,Benign\n"},
            "line 2, 3: 'A.jpg' is listed more than once",
        ),
        ({"groundtruth.csv": "A\nB\n"}, "no column called like the image"),
    ],
)
def test_each_fault_of_a_table_of_lesions_is_named(files, message, lay):
    with pytest.raises(MedicError, match=message):
        skin_lesion.read(lay(files | images("A.jpg")))


# Digits


def test_digits_are_read_from_mnists_four_files_and_kept_as_they_are(tmp_path):
    random = np.random.default_rng(0)
    made = {
        "train": random.integers(0, 256, (12, 28, 28), np.uint8),
        "test": random.integers(0, 256, (4, 28, 28), np.uint8),
    }
    for split, pixels in made.items():
        write_idx_part(tmp_path, split, pixels, np.arange(len(pixels)) % 10)
    records, store = digits.read(tmp_path)
    assert records["split"].value_counts().to_dict() == {"train": 12, "test": 4}
    assert records["label"].tolist()[:4] == [0, 1, 2, 3]
    assert set(records["patient_source"]) == {"image"}
    train = records[records["split"] == "train"]
    assert np.array_equal(grey_arrays(train, store, 28), made["train"])
    assert np.array_equal(read_idx_set(tmp_path)["test"][0], made["test"])
    idx.write(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([1, 2, 3, 14], np.uint8))
    with pytest.raises(MedicError, match="1 of 16 images have a label outside the task 'digits'"):
        digits.read(tmp_path)
    idx.write(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([1], np.uint8))
    with pytest.raises(MedicError, match=r"the images of test .* and the labels"):
        digits.read(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MedicError, match="lacks images or labels of test"):
        digits.read(tmp_path)


def test_batches_are_full_and_differ_from_epoch_to_epoch():
    order = batch_order(np.arange(10), 4, epochs=2, seed=1)
    assert order.shape == (2, 2, 4)
    assert len(set(order[0].ravel())) == 8
    assert not np.array_equal(order[0], order[1])
    with pytest.raises(MedicError, match="do not fill a batch"):
        batch_order(np.arange(3), 4, 1, 0)


# The registry


def test_a_data_set_is_found_by_name_and_by_task():
    assert find_data_set("own") is data_set_of(Task("mine", "multiclass", ("a", "b"))) is OWN
    assert data_set_of(CHEST_XRAY) is DATA_SETS["chest_xray"]
    with pytest.raises(MedicError, match="nothing"):
        find_data_set("nothing")


@pytest.mark.parametrize("name", DATA_SETS)
def test_each_sample_is_found_and_read(name, repository):
    line = DATA_SETS[name]
    records, store = line.read(line.find(repository / "sample_data"))
    assert "patient_source" in records
    assert sum(image in store for image in records["image"]) >= len(records) - 1


def test_the_case_of_a_zip_file_made_on_a_mac_holds_no_litter(cases):
    records, store = skin_lesion.read(cases / "isic_mac_zip" / "skin_lesion.zip")
    assert len(records) == len(store.images()) == 24
