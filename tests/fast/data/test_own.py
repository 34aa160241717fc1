"""Images of one's own are read as they lie, in a table or in folders, or it is said what is wrong with them."""

import unicodedata

import pytest

from medic.data.readers import OWN, own
from medic.data.readers.listed_images import find_images
from medic.data.readers.listing import read_table
from medic.data.stores import PRODUCT_MARK, FolderStore
from medic.errors import MedicError

ROWS = tuple((f"{number}.png", "ab"[number % 2], f"P{number // 4}") for number in range(12))
NAMES = [row[0] for row in ROWS]
IN_TWO = "1.png", "2.png"


def table(header: str, *rows: tuple[object, ...]) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows), ""])


# Titles of columns

PATIENTS = "PatientID|patientid|Patient ID|PATIENT-ID|subject|Subject.Id|MRN|Patienten-ID|id_paciente|Patient no.|"
PATIENTS += "PtID|patient_identifier|ID пациента|病歷號|case"
LABELS = (
    "Image Index,Class-Name|file_name,dx|PATH,Diagnosis|Dateiname,Befund|fichier,étiquette|archivo,diagnóstico|"
    "id_code,grade|img_id,diagnostic"
)
TITLES = [("image,label", title) for title in PATIENTS.split("|")] + [(two, "patient") for two in LABELS.split("|")]


@pytest.mark.parametrize(("titles", "patient"), TITLES)
def test_columns_are_known_in_any_spelling_and_several_languages(titles, patient, lay):
    records, _ = own.read(lay(*NAMES, labels=table(f"note,{titles},{patient}", *(("x", *row) for row in ROWS))))
    assert records[["image", "class", "patient"]].to_numpy().tolist() == [list(row) for row in ROWS]
    assert set(records["patient_source"]) == {f"column {patient}"}


ISIC_2020 = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
PUBLISHED = {  # the table; how the classes of its rows begin
    "ISIC 2024": ("isic_id,target,patient_id,sex,iddx_full,iddx_1\n1,0,P1,f,Benign,Benign\n2,1,P1,f,Mel,Mel", "01"),
    "ISIC 2020": (f"{ISIC_2020}\n1,P1,male,45,torso,nevus,benign,0\n2,P1,male,45,torso,melanoma,malignant,1", "bm"),
    "ISIC 2019": ("image,MEL,NV,BCC,UNK\n1,1.0,0.0,0.0,0.0\n2,0.0,1.0,0.0,0.0", "MN"),
    "ISIC 2017": ("image_id,melanoma,seborrheic_keratosis\n1,0.0,0.0\n2,1.0,0.0", "nm"),
    "HAM10000": ("lesion_id,image_id,dx,dx_type,age,sex,localization\nL,1,nv,h,60,male,back\nL,2,mel,h,6,m,b", "nm"),
    "IDRiD": ("Image name,Retinopathy grade,Risk of macular edema ,,\n1,3,2,,\n2,0,0,,", "30"),
    "APTOS": ("id_code,diagnosis\n1,2\n2,4", "24"),
    "EyePACS": ("image,level\n1,2\n2,4", "24"),
    "Messidor-2": ("image_id,adjudicated_dr_grade,adjudicated_gradable\n1,0,1\n2,1,1\n3,,0", "01"),
    "PadChest": (",ImageID,StudyID,PatientID,Labels\n0,1,S,P1,['normal']\n1,2,S,P1,\"['a', 'b']\"", "na"),
}
TOLD_BY = dict.fromkeys(("ISIC 2024", "ISIC 2020"), "column patient_id") | {
    "HAM10000": "column lesion_id (no patient is known)",
    "PadChest": "column PatientID and StudyID",
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_headers_are_known(source, lay):
    text, classes = PUBLISHED[source]
    records, _ = own.read(lay(*IN_TWO, "3.png", labels=text + "\n"))
    assert [name[0] for name in records["class"]] == list(classes)
    assert set(records["patient_source"]) == {TOLD_BY.get(source, "image")}
    assert records["patient"].nunique() == (1 if source in TOLD_BY else 2)


def test_patients_are_told_by_the_paths_of_a_table_as_chexpert_has_them(lay):
    paths = [f"train/patient0000{p}/study{s}/view1_frontal.png" for p in (1, 2) for s in (1, 2)]
    rows = [(f"CheXpert-v1.0/{path}", "F", "Frontal", 1, s) for s, path in zip("1001", paths, strict=True)]
    records, store = own.read(
        lay(*paths, train=table("Path,Sex,Frontal/Lateral,No Finding,Edema", *rows)), columns={"label": "edema"}
    )
    assert records["patient"].tolist() == ["patient00001"] * 2 + ["patient00002"] * 2
    assert set(records["patient_source"]) == {"paths"}
    assert all(name in store for name in records["image"])


@pytest.mark.parametrize("top", ["", "MURA-v1.1/"])
def test_a_row_that_names_a_folder_stands_for_its_images_as_in_muras_table_of_studies(lay, top):
    labels = {"HAND/patient00000/study1_negative/": 0, "HAND/patient00001/study1_positive/": 1}
    labels |= {"WRIST/patient00000/study1_negative/": 0}
    images = [f"{top}train/XR_{study}image{n}.png" for study in labels for n in (1, 2)]
    rows = "".join(f"MURA-v1.1/train/XR_{study},{label}\n" for study, label in labels.items())
    records, _ = own.read(lay(*images, studies=rows))
    assert records["image"].tolist() == images
    assert records["class"].tolist() == list("001100")
    assert records["patient"].tolist() == [f"patient0000{number}" for number in "001100"]


def test_of_several_columns_an_id_tells_the_patient_and_a_column_of_splits_the_split_whatever_its_title(lay):
    written = ("Train", "training_set", "val", "Validation set", "TEST", "tst")
    rows = [(f"{n}.png", "ab"[n % 2], "anonymous", f"P{n}", f"C{n}", split) for n, split in enumerate(written)]
    records, _ = own.read(lay(*NAMES, labels=table("image,label,PatientName,PatientID,case_id,dataset", *rows)))
    assert records["patient"].tolist() == [f"P{n}" for n in range(6)]
    assert records["split"].tolist() == ["train", "train", "validation", "validation", "test", "test"]


def test_a_missing_patient_is_said_and_the_group_or_the_image_stands_for_it(lay, capsys):
    place = lay(*NAMES[:4], labels="image,label,lesion_id,patient\n0,a,L0,P\n1,b,L1,nan\n2,a,L1,\n3,b,,\n")
    records, _ = own.read(place)
    assert records["patient"].tolist() == ["P", "L1", "L1", "3.png"]
    assert "3 of 4 images have no patient" in capsys.readouterr().err


def test_columns_that_cannot_be_told_are_named_with_the_option_and_taken_when_chosen(lay):
    place = lay(*NAMES, labels=table("picture,verdict,diagnosis,grade,who", *((n, *"ab", x, p) for n, x, p in ROWS)))
    with pytest.raises(MedicError, match=r"several columns .* label: diagnosis, grade; say which with --label-column"):
        own.read(place)
    records, _ = OWN.read(place, columns={"image": "picture", "label": "GRADE", "patient": "who"})
    assert records["class"].tolist() == [row[1] for row in ROWS]
    assert records["patient"].nunique() == 3
    with pytest.raises(MedicError, match="no column called 'nothing'"):
        own.read(place / "labels.csv", columns={"image": "nothing"})
    with pytest.raises(MedicError, match="'verdict' is no kind of column; name image, label, patient"):
        own.read(place / "labels.csv", columns={"verdict": "GRADE"})


# How a table was saved

PLAIN = table("image,label,patient", *ROWS)
SAVED = {
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "Excel's first line": "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "old Mac's line ends": PLAIN.replace("\n", "\r"),
    "quotes and blanks": table('"image" , "label","patient"', *((f'"{a}"', f" {b} ", c) for a, b, c in ROWS)),
    "bars": PLAIN.replace(",", "|"),
    "blank lines and a last separator": ",,\n" + PLAIN.replace("\n", ",\n") + ",,,\n\n",
    "letters of no width": PLAIN.replace("b,", "b\u200b,", 2),
    "cells in two lines": table('image,"label\n",patient,note', *((*row, '"one\n\ntwo, three"') for row in ROWS)),
    "without titles": table("0.png,a", *(row[:2] for row in ROWS[1:])),
}


@pytest.mark.parametrize("how", SAVED)
def test_a_table_is_read_however_it_was_saved(how, lay):
    records, _ = own.read(lay(*NAMES, labels=SAVED[how]))
    assert records["image"].tolist() == NAMES
    assert records["class"].tolist() == [row[1] for row in ROWS]


def test_decimal_commas_windows_letters_and_blank_lines_are_understood(lay, capsys):
    place = lay(labels="image;age;befund\n1.png;45,5;bösartig\n\n2.png;3,0;gutartig\n".encode("cp1252"))
    found = read_table(FolderStore(place), "labels.csv")
    assert found["age"].tolist() == ["45.5", "3.0"]
    assert found["befund"].tolist() == ["bösartig", "gutartig"]
    assert found.index.tolist() == [2, 4], "lines count as in an editor"
    assert "no UTF-8 text" in capsys.readouterr().err


# What is wrong with a table


MISSING = "|nan|NaN|None|NULL|n/a|NA|N/A|#N/A|null|<NA>|\u2013|(null)|\\N|#REF!"


@pytest.mark.parametrize("cell", MISSING.split("|"))
def test_a_label_that_is_none_is_missing_and_named_with_its_lines(cell, lay):
    rows = [(name, cell if n in (2, 5) else label) for n, (name, label, _) in enumerate(ROWS)]
    with pytest.raises(MedicError, match=r"line 4, 7: .* is a missing label; fill it in or remove"):
        own.read(lay(*NAMES, labels=table("image,label", *rows)))


FAULTS = {
    "": "lists no image",
    "image,label\n": "lists no image",
    "image,what\n1,a\n": "no column called like the label .*--label-column",
    "image,label\n1,a\n2\n": "line 3: '' is a missing label",
    "image,label\n,a\n2,b\n": "line 2: '' is a missing image",
    "image,label\n1,a\n2,b\n1,a\n": "line 2, 4: '1.png' is listed more than once; keep one line",
    "image,label\n1,a\n2,b\n1.png,a\n": "line 2, 4: '1.png' is listed more than once",
    "image,label\n1,a,b\n": "line 2: '1' begins a line of too many columns",
    "image,label,label\n1,a,b\n2,b,a\n": "could be the label: label, label; rename or remove",
    'image,label\n1,a\n2,"b\n1,a\n2,"a"\n': "line 3 cannot be read; is there a quotation mark too many",
    'image,label,note\n1,a,"x\ny"\n2,,z\n': "line 4: '' is a missing label",
    "image,label,split\n1,a,train\n2,b,hold\n": "line 3: 'hold' is an unknown split",
    "image,label\n1,a\n2,a\n": "one class only, 'a'",
    "image,label\n1,a\n2,A\n": "one class in two ways",
    "image,label\n1,1\n2,1.0\n": "one class in two ways, '1' and '1.0'",
    "image,label\n7,a\n8,b\n": "2 of the 2 images",
    "picture,what\n1,a\n2,b\n": "1 of the 3 images .*--image-column",
    b"PK\x03\x04 a workbook": "but perhaps a spreadsheet",
    b"\x89PNG\x81\0\0": "is no text",
}


@pytest.mark.parametrize("text", FAULTS)
def test_each_fault_of_a_table_is_one_sentence(text, lay):
    with pytest.raises(MedicError, match=FAULTS[text]):
        own.read(lay(*IN_TWO, labels=text))


def test_of_two_tables_one_must_be_named(lay, capsys):
    place = lay(*IN_TWO, a="image,label\n1,a\n2,b\n", b="image,label\n1,b\n2,a\n", notes="camera,date\nx,y\n")
    with pytest.raises(MedicError, match=r"2 tables of labels \(a.csv, b.csv\); name one"):
        own.read(place)
    assert own.read(place / "b.csv")[0]["class"].tolist() == ["b", "a"]
    (place / "a.csv").unlink()
    own.read(place)
    assert "notes.csv" in capsys.readouterr().err


# From a listed name to a file


FOUND = {
    "1.dcm": "1.jpg",
    "1.PNG": "1.png",
    "IMG_1": "img_1.JPG",
    "img_2": "IMG_2.JPG",
    "x/1.png": "set/x/1.png",
    "data\\x\\1.png": "x/1.png",
    "./1": "deep/er/1.tif",
    unicodedata.normalize("NFD", "ä.png"): "ä.png",
}


@pytest.mark.parametrize("listed", FOUND)
def test_a_listed_image_is_found_wherever_it_lies_and_whatever_its_ending(listed, lay, capsys):
    store = FolderStore(lay(FOUND[listed], "other.png"))
    assert find_images([listed, "absent.png"], store) == [FOUND[listed], "absent.png"]
    assert ("another ending" in capsys.readouterr().err) == (listed in ("1.dcm", "1.PNG"))


def test_of_several_files_the_one_written_alike_or_in_the_fuller_folder_is_taken_or_both_are_named(lay, capsys):
    alike = ["small/1.png", "2.png", "other/3.PNG", "3.png"]
    store = FolderStore(lay("large/1.png", "other/2.png", *alike))
    assert find_images(alike, store) == alike
    assert find_images(["else/1.png"], store) == ["else/1.png"], "a listed folder that differs is not ignored"
    with pytest.raises(MedicError, match=r"1 at two places, large/1\.png and small/1\.png"):
        find_images(["1"], store)
    store = FolderStore(lay("large/4.png", "images/4.png", "images/5.png"))
    assert find_images(["4", "5"], store) == ["images/4.png", "images/5.png"]
    assert "1 listed images lie at several places" in capsys.readouterr().err


def test_images_may_lie_in_a_zip_file_beside_the_table_or_elsewhere(lay, pack, tmp_path, capsys):
    place = lay(labels="image,label\n1,a\n2,b\n")
    pack("images/1.png", "images/2.png", to=place / "images.zip")
    assert own.read(place)[0]["image"].tolist() == ["images/1.png", "images/2.png"]
    assert own.read(lay(*IN_TWO))[0]["image"].tolist() == list(IN_TWO)
    assert "images.zip beside the images" in capsys.readouterr().err
    (place / "images.zip").rename(tmp_path / "images.zip")
    for name in IN_TWO:
        (place / name).unlink()
    with pytest.raises(MedicError, match="holds no images"):
        own.read(place)
    assert own.read(place, tmp_path / "images.zip")[0]["image"].tolist() == ["images/1.png", "images/2.png"]


# Folders


def test_folders_are_classes_with_or_without_splits_and_folders_around_them(lay):
    records, _ = own.read(lay("photos/cat/1.png", "photos/dog/old/2.png", "photos/dog/3.png"))
    assert records["class"].tolist() == ["cat", "dog", "dog"]
    assert list(records) == ["image", "patient", "patient_source", "split", "label", "class"]
    assert set(records["patient_source"]) == {"image"}
    again = lay(*(f"again/{split}/{name}/1.png" for split in ("train", "val", "Test") for name in ("cat", "dog")))
    found = own.read(again / "again")[0].groupby("split")["class"].apply("".join)
    assert found.to_dict() == dict.fromkeys(("test", "train", "validation"), "catdog")


NO_CLASSES = {
    (): "holds no images",
    ("1.png", "a/2.png", "b/3.png"): "1 of 3 images .* lie in no class folder",
    ("a/1.png",): "one class only",
    (*IN_TWO, "labels.xlsx"): "labels.xlsx .* is a spreadsheet; save it as CSV",
    ("labels.csv", "images.tar.gz"): "is an archive that is not read; unpack it",
    ("train/a/1.png", "b/2.png"): "split folders beside b/2.png",
    ("x/a/1.png", "x/b/2.png", "y/a/3.png", "y/b/4.png"): "has a, b within several folders: which are the classes",
    ("bär/1.png", "BÄR/2.png"): "one class in two ways",
}


@pytest.mark.parametrize("files", NO_CLASSES)
def test_folders_that_are_no_classes_are_refused(files, lay):
    with pytest.raises(MedicError, match=NO_CLASSES[files]):
        own.read(lay("notes.txt", *files))


def test_class_folders_win_over_a_stray_table_which_is_named(lay, capsys):
    animals = ("cat/1.png", "dog/2.png", "out/images/3.png")
    place = lay(*animals, notes="camera,date\nCanon,2020\n", old="image,label\n7.png,a\n8.png,b\n", odd="a,b\n1,2,3\n")
    (place / "out" / "records.csv").write_text("image,label\n1.png,x\n2.png,y\n")
    (place / "out" / PRODUCT_MARK).touch()
    assert own.read(place)[0]["class"].tolist() == ["cat", "dog"], "what medic wrote is never read as data"
    said = capsys.readouterr().err
    assert all(f"{name}.csv" in said for name in ("notes", "old", "odd"))
    lay(labels="image,label\n1.png,x\n2.png,y\n")
    assert own.read(place)[0]["class"].tolist() == ["x", "y"], "a table of these images counts: it may know patients"


# Whose image it is

EYES = "5_L 5_R 6_L 6_R|05-OD 05-OS 06-OD 06-OS|7L 7R 8L 8R|L_1 R_1 L_2 R_2|1_links 1_rechts 2_links 2_rechts|"
EYES += "e_L_1 e_R_1 e_L_2 e_R_2|5_OG 5_OD 6_OG 6_OD|5_left_eye 5_right_eye 6_left_eye 6_right_eye|"
EYES += "5_OS(1) 5_OD(1) 6_OS(1) 6_OS(2)|a_L_1 a_R_1 b_L_1 b_L_2|1.le 1.re 2.le 2.re|1_left 1_right 2_Left 2_RIGHT"
PEOPLE = dict.fromkeys(EYES.split("|"), (2, "file names (left/right)"))
PEOPLE |= dict.fromkeys(("5_L 5_R 6_L photo", "5_L 6_L 7_L 8_L", "well her a b"), (4, "image"))
PEOPLE["5_left 5_R 6_left 6_R"] = 4, "file names (left/right)"
PEOPLE["patient01/1 patient01/2 patient02/1 patient02/2"] = 2, "paths"


@pytest.mark.parametrize("names", PEOPLE)
@pytest.mark.parametrize("layout", ["folders", "table"])
def test_names_and_folders_tell_the_patient_where_all_follow_a_pattern(names, layout, lay):
    files = [f"{'aabb'[n] if 'patient' in names else 'abab'[n]}/{name}.png" for n, name in enumerate(names.split())]
    tables = {"labels": table("image,label", *zip(files, "abab", strict=True))} if layout == "table" else {}
    records, _ = own.read(lay(*files, **tables))
    assert (records["patient"].nunique(), records["patient_source"][0]) == PEOPLE[names]
