"""The published sets are read in each layout in which people have them, with what tells patients apart."""

import numpy as np
import pytest

from medic.data.images.decode import decode
from medic.data.readers import DATA_SETS, OWN, chest_xray, data_set_of, digits, retinopathy, skin_lesion
from medic.data.stores import JointStore, idx
from medic.errors import MedicError
from medic.task import CHEST_XRAY, FINDINGS, Task

# Retinopathy

EYES = [f"images/{eye}.jpeg" for eye in ("10_left", "10_right", "11_left", "12")]
PAIRS = {"train_img.csv": "10_left\n10_right\n", "train_label.csv": "0\n2\n", "test_img.csv": "11_left\n12\n"}
PAIRS |= {"test_label.csv": "4\n1\n"}
LAYOUTS = {
    "pairs of tables": PAIRS,
    "pairs with header lines": {name: f"{'img' if 'img' in name else 'level'}\n{text}" for name, text in PAIRS.items()},
    "EyePACS": {"trainLabels.csv": "image,level\n10_left,0\n10_right,2\n11_left,4\n12,1\n"},
    "EyePACS, by a German Excel": {"trainLabels.csv": "sep=;\nimage;level\n10_left;0\n10_right;2,0\n11_left;4\n12;1\n"},
    "APTOS": {"train.csv": "id_code,diagnosis\n10_left,0\n10_right,2.0\n11_left.png,4\n12,1\n"},
    "without header": {"train.csv": "10_left,0\n10_right,2\n11_left,4\n12,1\n"},
    "UTF-16": {"train.csv": "id_code;diagnosis\n10_left;0\n10_right;2\n11_left;4\n12;1\n".encode("utf-16")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_of_retinopathy_gives_the_same_records(layout, lay):
    records, store = retinopathy.read(lay(*EYES, **LAYOUTS[layout]))
    assert records["label"].tolist() == [0, 2, 4, 1]
    assert records["patient"].tolist() == ["10", "10", "11", "12"]
    assert records["eye"].fillna("").tolist() == ["left", "right", "left", ""]
    assert set(records["patient_source"]) == {"file names (left/right)"}
    assert records["split"].tolist() == ["train"] * 2 + ["test" if layout.startswith("pairs") else "train"] * 2
    assert all(name in store for name in records["image"])


# Chest X-rays

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
XRAYS = ("1_0.png,Hernia|Mass,0,1,57,M,PA", "1_1.png,No Finding,1,1,414,F,AP", "2_0.png,Edema,0,2,010M,F,LL")
SHOTS = [f"images_001/images/{name}.png" for name in ("1_0", "1_1", "2_0")]


def entries(*rows: str, header: str = HEADER) -> dict[str, str]:
    return {"Data_Entry_2017.csv": "\n".join([header, *rows]) + "\n"}


EDITIONS = {
    "second edition": entries(*XRAYS),
    "first edition, whose lines end with a comma": entries(*(f"{row}," for row in XRAYS), header=f"{HEADER},"),
    "a comma in the lines only": entries(*(f"{row}," for row in XRAYS)),
    "semicolons": {"Data_Entry_2017_v2020.csv": "\n".join([HEADER, *XRAYS]).replace(",", ";")},
    "blank lines at the end": entries(*XRAYS, ",,,,,,", ""),
}


@pytest.mark.parametrize("edition", EDITIONS)
def test_each_edition_of_the_table_gives_the_same_records(edition, lay):
    records, store = chest_xray.read(lay(*SHOTS, **EDITIONS[edition]))
    assert records["label"].tolist() == [1, 0, 1]
    assert records[["Hernia", "Mass", "Edema"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert records["age"].fillna(-1).tolist() == [57, -1, 0]
    assert records["view"].fillna("").tolist() == ["PA", "AP", ""]
    assert records["note"].tolist()[1:] == ["age 414 taken as unknown", "view LL taken as unknown"]
    assert records["patient"].tolist() == ["1", "1", "2"]
    assert set(records["patient_source"]) == {"column Patient ID"}
    assert set(FINDINGS) <= set(records)
    assert all(name in store for name in records["image"])


def test_images_may_lie_in_several_zip_files_and_as_dicom(lay, pack):
    inside = pack("images_001.zip", to=lay(**entries(*XRAYS)) / "all.zip")
    with pytest.raises(MedicError, match="holds archives"):
        chest_xray.read(inside.parent)
    inside.unlink()
    for number, name in ((1, "1_0.png"), (2, "1_1.dcm")):
        pack(f"images/{name}", to=inside.with_name(f"images_00{number}.zip"))
    records, store = chest_xray.read(inside.parent)
    assert isinstance(store, JointStore)
    assert records["image"].tolist() == ["images_001/images/1_0.png", "images_002/images/1_1.dcm", "2_0.png"]


# Skin lesions

ISIC = "isic_id,benign_malignant,diagnosis,age_approx,sex,pixelsX,patient_id,lesion_id"
TODAY = "isic_id;metadata.clinical.diagnosis_1;metadata.clinical.diagnosis_3;metadata.clinical.sex"


@pytest.mark.parametrize(
    ("header", "rows", "patients", "told_by"),
    [
        (ISIC, ("A,benign,nevus,60,male,9,P,L", "B,malignant,melanoma,,,9,,L"), 2, "column patient_id and lesion_id"),
        ("isic_id,diagnosis_1,lesion_id", ("A,Benign,L", "B,Malignant,L"), 1, "column lesion_id (no patient is known)"),
        (TODAY, ("A;Benign;nevus;male", "B;Malignant;;"), 2, "image"),
    ],
)
def test_the_archives_tables_say_what_tells_patients_apart(header, rows, patients, told_by, lay):
    place = lay("img/A.JPG", "img/B.jpg", metadata="\n".join([header, *rows, ""]))
    records, store = skin_lesion.read(place)
    assert records["class"].tolist() == ["benign", "malignant"]
    assert (records["patient"].nunique(), records["patient_source"][0]) == (patients, told_by)
    assert set(records["split"]) == {"train"}
    if header != "isic_id,diagnosis_1,lesion_id":
        assert (records["sex"][0], records["diagnosis"][0]) == ("M", "nevus")
    assert all(name in store for name in records["image"])


def test_the_challenges_table_and_folders_are_read_as_ones_own(lay, capsys):
    place = lay("A.jpg", "B.jpg", groundtruth="A,benign\nB,malignant\nC,benign\n")
    assert skin_lesion.read(place)[0]["class"].tolist() == ["benign", "malignant", "benign"]
    lay(metadata="isic_id,benign_malignant\nA,malignant\nB,malignant\nD,indeterminate\n")
    assert skin_lesion.read(place)[0]["class"].tolist() == ["malignant", "malignant"]
    assert "1 of 3 images are neither benign nor malignant" in capsys.readouterr().err
    records, _ = skin_lesion.read(lay("folders/benign/1.png", "folders/malignant/2.png") / "folders")
    assert records["class"].tolist() == ["benign", "malignant"]


# Faults

LISTS = entries(*XRAYS) | {"train_val_list.txt": "1_0.png\n1_1.png\n"}
FAULTS = [
    (retinopathy, {}, "no table of retinopathy grades"),
    (retinopathy, {"train_img.csv": "a\n"}, "not the other table of the pair"),
    (retinopathy, {"train_img.csv": "a\nb\n", "train_label.csv": "1\n"}, r"2 names and .* 1 labels"),
    (retinopathy, {"train_img.csv": "a\n", "train_label.csv": "5\n"}, "train_label.csv line 1: '5' is no grade"),
    (retinopathy, {"train.csv": "id_code,diagnosis\na,5\n"}, "line 2: '5' is no grade"),
    (retinopathy, {"train.csv": "id_code,diagnosis\n,1\n"}, "line 2: '' is a missing image"),
    (retinopathy, {"train.csv": "id_code,diagnosis\na,1\na.png,2\n"} | {"a.png": ""}, "line 2, 3: 'a.png' is"),
    (retinopathy, {"train.csv": "id_code,site\na,1\n"}, "no column called like the label"),
    (chest_xray, {}, "no table of chest X-rays"),
    (chest_xray, entries(), "lists no image"),
    (chest_xray, {"Data_Entry_2017.csv": "Image Index,Finding Labels\na,b\n"}, "lacks the columns of age, follow_up"),
    (chest_xray, entries(XRAYS[0], "1_1.png,Tumour,1,1,58,M,AP"), "line 3: 'Tumour' is not understood"),
    (chest_xray, entries("1_1.png,No Finding|Mass,1,1,58,M,AP"), r"line 2: 'No Finding\|Mass' is not understood"),
    (chest_xray, entries(XRAYS[0], XRAYS[0]), "line 2, 3: '1_0.png' is listed more than once"),
    (chest_xray, entries(f"{XRAYS[0]},x,y"), "line 2: .* too many columns"),
    (chest_xray, entries(*XRAYS) | {"images.tar.gz": "x"}, "is an archive that is not read"),
    (chest_xray, LISTS, "train_val_list.txt in .* do not name each image in one of"),
    (chest_xray, LISTS | {"test_list.txt": "9_0.png"}, "_list.txt and test_list.txt in .* do not name each image"),
    (skin_lesion, {"other.csv": "a,b\n1,2\n"}, "holds no images"),
    (skin_lesion, {"cat/1.png": "", "dog/2.png": ""}, "has the classes cat, dog, not benign and malignant"),
    (skin_lesion, {"metadata.csv": "isic_id,sex\nA,male\n"}, "needs the columns isic_id and benign_malignant or"),
    (skin_lesion, {"metadata.csv": "isic_id,diagnosis_1\nA,unknown\n"}, "1 of 1 images are neither benign nor mal"),
]


@pytest.mark.parametrize(("reader", "files", "message"), FAULTS)
def test_each_fault_of_a_published_set_is_named(reader, files, message, lay):
    with pytest.raises(MedicError, match=message):
        reader.read(lay(**files))


# Digits


def test_digits_are_read_from_mnists_four_files_and_kept_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    for split, count in {"train": 12, "t10k": 4}.items():
        idx.write(tmp_path / f"{split}-images-idx3-ubyte.gz", pixels[:count])
        idx.write(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels[:count])
    records, store = digits.read(tmp_path)
    assert records["split"].value_counts().to_dict() == {"train": 12, "test": 4}
    assert records["label"].tolist()[:4] == [0, 1, 2, 3]
    assert set(records["patient_source"]) == {"image"}
    stored = [decode(store.read(name))[:, :, 0] for name in records["image"][records["split"] == "train"]]
    assert np.array_equal(stored, pixels)
    idx.write(tmp_path / "t10k-labels-idx1-ubyte.gz", np.uint8([1, 2, 3, 14]))
    with pytest.raises(MedicError, match="1 of 16 images have a label outside"):
        digits.read(tmp_path)


# The registry


def test_a_data_set_is_found_by_its_task():
    assert data_set_of(Task("mine", "multiclass", ("a", "b"))) is OWN
    assert data_set_of(CHEST_XRAY) is DATA_SETS["chest_xray"]
