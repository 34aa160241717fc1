"""A person's own images: sorted into folders by class, or listed in a CSV file."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medic.data.check import check
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import folder, own, table
from medic.data.readers.digits import grey_arrays
from medic.data.records import in_order, lacking, looking_for, task_of, without_gaps
from medic.data.split import complete_splits
from medic.data.stores import ZipStore
from medic.errors import MedicError
from medic.task import CHEST_XRAY, DIGITS, RETINOPATHY, Task

ANIMALS = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


@pytest.fixture
def lay(tmp_path: Path, smooth, encode):
    """Write image files by name, and tables by content, below a folder."""
    image = encode(smooth(20, 24))

    def write(*names: str, **tables: str) -> Path:
        for name in names:
            path = tmp_path / "own" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
        for name, text in tables.items():
            (tmp_path / "own").mkdir(exist_ok=True)
            (tmp_path / "own" / f"{name}.csv").write_bytes(text.encode())
        return tmp_path / "own"

    return write


def zip_of(place: Path, *extra: str) -> Path:
    path = place.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(place.rglob("*.*")):
            archive.write(file, file.relative_to(place.parent))
        for name in extra:
            archive.writestr(name, b"rubbish")
    return path


# Folders


def test_a_folder_a_class(lay):
    records, store = folder.read(lay(*ANIMALS))
    assert list(records.columns) == ["image", "patient", "split", "label", "class"]
    assert list(records["image"]) == list(ANIMALS)
    assert list(records["patient"]) == list(ANIMALS)
    assert list(records["class"]) == ["cat", "cat", "dog", "dog"]
    assert list(records["label"]) == [0, 0, 1, 1]
    assert set(records["split"]) == {"train"}
    assert check(records.iloc[:1], store).query("finding == 'absent'").empty


def test_a_zip_of_them_with_its_outer_folder_and_what_macos_adds(lay):
    packed = zip_of(lay(*ANIMALS), "__MACOSX/own/cat/._1.png", "own/.DS_Store")
    records, store = folder.read(packed)
    assert isinstance(store, ZipStore)
    assert list(records["image"]) == [f"own/{name}" for name in ANIMALS]
    assert list(records["class"]) == ["cat", "cat", "dog", "dog"]


@pytest.mark.parametrize("outer", ["", "pets/", "pets/v2/"])
@pytest.mark.parametrize(("validation", "test"), [("validation", "test"), ("val", "testing"), ("Valid", "TEST")])
def test_folders_of_splits_are_kept(outer, validation, test, lay):
    names = [f"{outer}{split}/{name}" for split in ("train", validation, test) for name in ANIMALS]
    records, _ = folder.read(lay(*names))
    splits = dict(zip(records["image"], records["split"], strict=True))
    assert [splits[name] for name in names] == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4
    assert set(records["class"]) == {"cat", "dog"}


def test_a_single_split_folder_is_a_split_and_no_outer_folder(lay):
    records, _ = folder.read(lay(*(f"test/{name}" for name in ANIMALS)))
    assert set(records["split"]) == {"test"}


def test_folders_within_a_class_do_not_matter(lay):
    records, _ = folder.read(lay("cat/monday/1.png", "cat/2.png", "dog/a/b/1.png"))
    assert list(records["class"]) == ["cat", "cat", "dog"]


def test_classes_that_are_numbers_are_ordered_as_numbers(lay):
    records, _ = folder.read(lay(*(f"{number}/a.png" for number in (10, 9, 1, 2))))
    assert task_of(records, "counts") == Task("counts", "multiclass", ("1", "2", "9", "10"))
    assert records.set_index("class")["label"].to_dict() == {"1": 0, "2": 1, "9": 2, "10": 3}
    assert in_order(["b", "10", "9", "b"]) == ["10", "9", "b"]


def test_a_given_task_decides_the_codes(lay):
    task = Task("pets", "multiclass", ("dog", "cat"))
    records, _ = folder.read(lay(*ANIMALS), task=task)
    assert records.set_index("image")["label"].to_dict() == dict(zip(ANIMALS, (1, 1, 0, 0), strict=True))
    assert task_of(records, "pets") == task


@pytest.mark.parametrize("outer", ["", "a/", "a/b/", "a/b/c/d/"])
@pytest.mark.parametrize("inner", ["", "x/", "x/y/z/"])
def test_one_level_of_classes_is_found_at_any_depth(outer, inner, lay):
    names = [f"{outer}{name.replace('/', f'/{inner}')}" for name in ANIMALS]
    records, _ = folder.read(lay(*names))
    assert list(records["image"]) == names
    assert list(records["class"]) == ["cat", "cat", "dog", "dog"]


CLINICS = [f"clinic {place}/{name}" for place in "ab" for name in ANIMALS]


def test_nested_classes_are_not_guessed(lay):
    place = lay(*CLINICS)
    with pytest.raises(
        MedicError, match=r"has the folders cat, dog within several of clinic a, clinic b: which are the"
    ):
        folder.read(place)
    assert list(folder.read(place, level=1)[0]["class"]) == ["clinic a"] * 4 + ["clinic b"] * 4
    records, _ = folder.read(place, level=2)
    assert list(records["class"]) == ["cat", "cat", "dog", "dog"] * 2
    assert list(records["image"]) == CLINICS


def test_nested_classes_are_not_guessed_where_one_clinic_lacks_a_class_either(lay):
    with pytest.raises(MedicError, match="which are the classes"):
        folder.read(lay(*CLINICS, "clinic a/bird/1.png", "clinic c/dog/1.png"))


def test_folders_of_sittings_within_classes_are_no_classes(lay):
    names = ["cat/images/1.png", "cat/monday/1.png", "dog/images/1.png", "dog/tuesday/1.png"]
    assert set(folder.read(lay(*names))[0]["class"]) == {"cat", "dog"}


def test_a_level_is_counted_below_splits_and_outer_folders(lay):
    names = [f"all/{split}/{name}" for split in ("train", "test") for name in CLINICS]
    records, _ = folder.read(lay(*names), level=2)
    assert set(records["class"]) == {"cat", "dog"}
    assert records["split"].value_counts().to_dict() == {"train": 8, "test": 8}


@pytest.mark.parametrize(("level", "said"), [(0, "level=0 names no level"), (-1, "level=-1"), (3, "8 of 8 .* level 3")])
def test_a_level_that_is_not_there_is_refused(level, said, lay):
    with pytest.raises(MedicError, match=said):
        folder.read(lay(*CLINICS), level=level)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no images"),
        (("cat/dog/1.png", "dog/1.png"), "cat/dog/1.png in .* lies in the folders of two classes, cat and dog"),
        (("cat/1.png", "dog/a/CAT/1.png"), "lies in the folders of two classes, dog and CAT"),
        (("notes.txt",), "holds no images"),
        (("1.png", "2.png"), "2 of 2 images in .* lie in no class folder, for instance 1.png"),
        (("cat/1.png", "dog/1.png", "loose.png"), "1 of 3 images .* loose.png"),
        (("train/1.png", "train/cat/1.png"), "1 of 2 images .* train/1.png"),
        (("cat/1.png", "cat/2.png"), "one class only, 'cat'"),
        (("train/cat/1.png", "train/dog/1.png", "extra/dog/2.png"), "split folder train beside extra/dog/2.png"),
        (("cat/1.png", "Cat/2.png"), "writes one class in two ways, 'Cat' and 'cat'"),
        (("1/a.png", "01/a.png", "2/a.png"), "writes one class in two ways"),
        (
            ("train/cat/1.png", "train/dog/1.png", "val/dogs/1.png", "val/cat/1.png"),
            "the class 'dogs' only outside the training images",
        ),
    ],
)
def test_folders_that_are_no_classes_are_refused(names, message, lay):
    place = lay(*names, placeholder="image,label\n")
    with pytest.raises(MedicError, match=message):
        folder.read(place)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("pets", "multiclass", ("cat", "bird")), "the class 'dog', which the task 'pets' does not know"),
        (Task("pets", "multiclass", ("bird", "cat", "dog")), "has no image of the class 'bird' of the task 'pets'"),
        (CHEST_XRAY, "has several classes an image"),
    ],
)
def test_classes_that_do_not_fit_the_task_are_refused(task, message, lay):
    with pytest.raises(MedicError, match=message):
        folder.read(lay(*ANIMALS), task=task)


def test_a_place_that_is_not_there_is_named(tmp_path):
    for read in (folder.read, table.read):
        with pytest.raises(MedicError, match="there is no folder or zip file"):
            read(tmp_path / "nothing")


# Tables


def rows(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    "header",
    ["image,label", "Image Index,Finding,diagnosis", "file_name,class", "path,Class-Name", "id,dx", "filename,y"],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_found_by_name(header, separator, lay):
    wide = header.count(",") == 2
    lines = [header, *(f"{name},{'x,' if wide else ''}{name[:3]}" for name in ANIMALS)]
    place = lay(*ANIMALS, own=rows(*lines).replace(",", separator))
    records, store = table.read(place / "own.csv")
    assert list(records.columns) == ["image", "patient", "split", "label", "class"]
    assert list(records["image"]) == list(records["patient"]) == list(ANIMALS)
    assert list(records["label"]) == [0, 0, 1, 1]
    assert set(records["split"]) == {"train"}
    assert all(name in store for name in records["image"])


def test_columns_can_be_named(lay):
    text = rows(
        "scan,verdict,who,part,label", "cat/1.png,good,A,Train,x", "dog/1.png,bad,B,VAL,y", "dog/2,good,B,val,z"
    )
    place = lay(*ANIMALS, own=text)
    columns = {"image": "scan", "label": "verdict", "patient": "who", "split": "part"}
    with pytest.raises(MedicError, match=r"no column that is called like the image .* it has: scan, verdict, who"):
        table.read(place)
    with pytest.raises(MedicError, match="the class 'bad' only outside the training images"):
        table.read(place, columns=columns)
    (place / "own.csv").write_text(text.replace("Train", "Test"))
    records, _ = table.read(place, columns=columns)
    assert list(records["class"]) == ["good", "bad", "good"]
    assert list(records["label"]) == [1, 0, 1]
    assert list(records["patient"]) == ["A", "B", "B"]
    assert list(records["split"]) == ["test", "validation", "validation"]


def test_patients_and_splits_are_optional_columns(lay):
    text = rows("image,patient_id,set,label", "cat/1,7,training,0", "dog/1,007,test,1", "dog/2,8,train,1")
    records, _ = table.read(lay(*ANIMALS, own=text))
    assert list(records["patient"]) == ["7", "007", "8"]
    assert list(records["split"]) == ["train", "test", "train"]
    assert list(records["image"]) == ["cat/1.png", "dog/1.png", "dog/2.png"]


@pytest.mark.parametrize("listed", ["scans/1.png", "1.png", "1", "./scans/1.png", r"scans\1.png", "scans/1"])
def test_an_image_is_found_with_or_without_folder_and_extension(listed, lay):
    records, _ = table.read(lay("scans/1.png", "scans/2.png", own=rows("image,label", f"{listed},a", "2,b")))
    assert list(records["image"]) == ["scans/1.png", "scans/2.png"]


def test_an_image_that_could_be_two_is_not_guessed(lay):
    place = lay(*ANIMALS, own=rows("image,label", "1,cat", "dog/2,dog"))
    with pytest.raises(MedicError, match=r"line 2: 1 could be cat/1.png or dog/1.png"):
        table.read(place)


def test_images_may_lie_elsewhere(lay, tmp_path):
    place = lay(*ANIMALS)
    packed = zip_of(place / "cat"), zip_of(place)
    (tmp_path / "labels.csv").write_text(rows("image,label", *(f"{name},{name[:3]}" for name in ANIMALS)))
    for images in (place, packed[1]):
        records, store = table.read(tmp_path / "labels.csv", images)
        assert all(name in store for name in records["image"])
    # A zip file beside the table, and no images outside it, is where they are.
    alone = tmp_path / "alone"
    alone.mkdir()
    packed[1].rename(alone / "scans.zip")
    (tmp_path / "labels.csv").rename(alone / "labels.csv")
    records, store = table.read(alone)
    assert isinstance(store, ZipStore)
    assert list(records["image"]) == [f"own/{name}" for name in ANIMALS]


def test_a_table_inside_a_zip_file(lay):
    place = lay(*ANIMALS, own=rows("image,label", *(f"{name},{name[:3]}" for name in ANIMALS)))
    records, store = table.read(zip_of(place))
    assert list(records["image"]) == [f"own/{name}" for name in ANIMALS]
    assert all(name in store for name in records["image"])


def test_absent_images_keep_their_listed_name_and_check_reports_them(lay):
    place = lay("1.png", "2.png", own=rows("image,label", "1,a", "2,b", "3,b"))
    records, store = table.read(place)
    assert list(records["image"]) == ["1.png", "2.png", "3"]
    findings = check(records, store)
    assert list(findings.loc[findings["finding"] == "absent", "image"]) == ["3"]


@pytest.mark.parametrize(
    ("labels", "task", "codes"),
    [
        (("No DR", "Mild", "Moderate", "Severe", "Proliferative"), RETINOPATHY, [0, 1, 2, 3, 4]),
        (("4", "3", "2", "1", "0"), RETINOPATHY, [4, 3, 2, 1, 0]),
        (("1.0", "0.0", "2.0", "3.0", "4.0"), RETINOPATHY, [1, 0, 2, 3, 4]),
        (("10", "9", "1", "2", "0"), None, [4, 3, 1, 2, 0]),
    ],
)
def test_labels_are_names_or_codes(labels, task, codes, lay):
    names = [f"{number}.png" for number in range(5)]
    text = rows("image,label", *(f"{name},{label}" for name, label in zip(names, labels, strict=True)))
    records, _ = table.read(lay(*names, own=text), task=task)
    assert list(records["label"]) == codes
    assert list(records["class"]) == list(labels)


def test_marks_of_spreadsheets_do_not_matter(lay):
    text = '\ufeff"Image","Label"\r\n"1.png"," sore, throat "\r\n\r\n2.png,well\r\n,\r\n'
    records, _ = table.read(lay("1.png", "2.png", own=text))
    assert list(records["class"]) == ["sore, throat", "well"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,label\n", "is empty"),
        ("1.png,a\n2.png,b\n", "no column that is called like the image .* it has: 1.png, a"),
        ("image,what\n1,a\n", "no column that is called like the label .* columns={'label': ...}"),
        ("image,label,class\n1,0,a\n", r"several columns that could be the label: label, class; say which with"),
        ("image,label,label\n1,0,a\n", "several columns that could be the label"),
        ("image,file,label\n1,1,a\n", "several columns that could be the image: image, file"),
        ("image,label\n1,a\n2\n", "line 3, has 1 columns instead of 2"),
        ("image,label\n1,a\n\n2,\n", "line 4, has no label"),
        ("image,label\n,a\n2,b\n", "line 2, has no image"),
        ("image,label,patient\n1,a,\n2,b,P\n", "line 2, has no patient"),
        ("image,label,split\n1,a,train\n2,b,later\n", "line 3: the split 'later' is unknown"),
        ("image,label\n1,a\n2,b\n1.png,a\n", "lists 1.png in line 2 and in line 4"),
        ("image,label\n1,a\n2,a\n", "one class only, 'a'"),
        ("image,label\n1,a\n2,A\n", "writes one class in two ways"),
        ("image,label\nx,a\ny,b\n", r"not one of the 2 images .* lists x, and there is 1.png; say where they are"),
        ('image,label\n1,"a\n2,b\n', "is empty|one class only|cannot be read"),
    ],
)
def test_each_fault_of_a_table_is_named(text, message, lay):
    with pytest.raises(MedicError, match=message):
        table.read(lay("1.png", "2.png", own=text))


def test_which_table_and_which_text_must_be_clear(lay):
    place = lay("1.png", one="image,label\n1,a\n", two="image,label\n1,a\n")
    with pytest.raises(MedicError, match=r"holds 2 CSV files \(one.csv, two.csv\); name the file"):
        table.read(place)
    (place / "one.csv").write_bytes("image,label\n1,gr\xfcn\n".encode("latin-1"))
    with pytest.raises(MedicError, match="is no UTF-8 text"):
        table.read(place / "one.csv")
    with pytest.raises(MedicError, match=r"'labels': \.\.\.} is not one of image, label, patient, split"):
        table.read(place / "two.csv", columns={"labels": "label"})
    with pytest.raises(MedicError, match="0 columns called 'verdict'"):
        table.read(place / "two.csv", columns={"label": "verdict"})


def test_a_table_with_no_images_anywhere_says_so(lay):
    with pytest.raises(MedicError, match="holds no images; say where they are"):
        table.read(lay(own="image,label\n1,a\n2,b\n"))


def test_a_label_outside_the_task_is_named(lay):
    place = lay("1.png", "2.png", own="image,label\n1,3\n2,eleven\n")
    with pytest.raises(MedicError, match="the class 'eleven', which the task 'digits' does not know"):
        table.read(place, task=DIGITS)


# Both


def test_both_give_the_same_records_and_arrays(lay):
    place = lay(*ANIMALS, own=rows("image,label", *(f"{name},{name[:3]}" for name in ANIMALS)))
    by_folder, by_table = folder.read(place), table.read(place)
    assert by_folder[0].equals(by_table[0])
    assert task_of(by_folder[0], "pets") == task_of(by_table[0], "pets")
    assert np.array_equal(grey_arrays(*by_folder, 28), grey_arrays(*by_table, 28))


def test_a_part_of_the_records_has_no_task_of_its_own(lay):
    records, _ = folder.read(lay("a/1.png", "b/1.png", "c/1.png"))
    with pytest.raises(MedicError, match="do not belong one to one"):
        task_of(records[records["class"] != "b"], "letters")
    with pytest.raises(MedicError, match="lack class"):
        task_of(records.drop(columns="class"), "letters")


def test_class_names_survive_a_prepared_set_as_they_were_written(lay, tmp_path):
    records, store = folder.read(lay("007/1.png", "NA/1.png"))
    prepared = prepare(records, store, tmp_path / "prepared", Preprocessing(20, crop="square"))
    assert task_of(Prepared.load(prepared.folder).records, "own").classes == ("007", "NA")


# Anything a person may have


def test_a_table_counts_and_folders_otherwise(lay):
    place = lay(*ANIMALS)
    assert set(own.read(place)[0]["class"]) == {"cat", "dog"}
    (place / "corrections.csv").write_text("when,who,image,from,to\n")
    assert set(own.read(place)[0]["class"]) == {"cat", "dog"}, "the journal of corrections is no table of labels"
    lay(labels=rows("image,label", *(f"{name},{number % 2}" for number, name in enumerate(ANIMALS))))
    for source in (place, place / "labels.csv"):
        assert set(own.read(source)[0]["class"]) == {"0", "1"}
        with pytest.raises(MedicError, match=r"level=1 is for images in folders, and .* has the table labels.csv"):
            own.read(source, level=1)


def test_an_empty_folder_holds_no_images(tmp_path):
    with pytest.raises(
        MedicError, match=r"holds no images \(.jpeg, .png, .tif, .bmp, ...\); name a folder with one folder"
    ):
        own.read(tmp_path)


def test_what_is_no_image_among_the_images_does_not_matter(lay):
    place = lay(*ANIMALS)
    for name in ("Thumbs.db", "notes.txt", "cat/desktop.ini", "cat/report.pdf", "dog/.DS_Store", "dog/README"):
        (place / name).write_bytes(b"no image")
    (place / "empty").mkdir()
    records, store = own.read(place)
    assert list(records["image"]) == list(ANIMALS)
    assert check(records, store).query("finding == 'unlisted'").empty


def test_a_file_that_only_ends_as_images_do_is_found_and_left_out(lay, tmp_path):
    place = lay(*ANIMALS)
    (place / "cat" / "3.jpg").write_text("<html>Not found</html>")
    (place / "dog" / "3.png").write_bytes(b"")
    records, store = own.read(place)
    found = check(records, store).set_index("image")["finding"]
    assert (found["cat/3.jpg"], found["dog/3.png"]) == ("unsupported", "empty")
    prepared = prepare(records, store, tmp_path / "prepared", Preprocessing(20, crop="square"))
    assert prepared.skipped[["image", "reason"]].to_numpy().tolist() == [
        ["cat/3.jpg", "unsupported"],
        ["dog/3.png", "empty"],
    ]


STRANGE = (
    "Naevus (gutartig)/Fuß links 1.JPG",
    "Naevus (gutartig)/Ärmchen, rechts.PnG",
    "Naevus (gutartig)/100%.tIFF",
    "Naevus (gutartig)/.hidden.png",
    "黒色腫/患者 №1 左.BMP",
    "黒色腫/e\u0301te\u0301 'quoted' #2.Jpeg",
    "黒色腫/a  b.tar.png",
)


@pytest.mark.parametrize("packed", [False, True])
def test_spaces_other_scripts_and_upper_case_endings_are_read_and_prepared(packed, lay, tmp_path):
    place = lay(*STRANGE)
    records, store = own.read(zip_of(place) if packed else place)
    listed = [name.removeprefix("own/") for name in records["image"]]
    assert sorted(listed) == sorted(name for name in STRANGE if "hidden" not in name)
    assert task_of(records, "own").classes == ("Naevus (gutartig)", "黒色腫")
    prepared = prepare(records, store, tmp_path / "prepared", Preprocessing(20, crop="square"))
    assert prepared.skipped.empty
    assert Prepared.load(prepared.folder).records["image"].tolist() == records["image"].tolist()


def test_a_table_names_such_files_too(lay):
    lines = [f'"{name}",{number % 2}' for number, name in enumerate(STRANGE) if "hidden" not in name]
    records, store = own.read(lay(*STRANGE, labels=rows("image,label", *lines)))
    assert all(name in store for name in records["image"])


def test_accented_letters_are_found_however_they_are_stored(lay):
    place = lay("a\u0308rmchen.png", "Bein.png", labels=rows("image,label", "\u00e4rmchen,1", "Bein,2"))
    assert list(own.read(place)[0]["image"]) == ["a\u0308rmchen.png", "Bein.png"]


@pytest.mark.parametrize("twin", ["N\u00e4vus", "na\u0308vus ", "NA\u0308VUS"])
def test_classes_that_differ_to_a_computer_only_are_one_class_in_two_ways(twin, lay):
    with pytest.raises(MedicError, match="writes one class in two ways"):
        own.read(lay("na\u0308vus/1.png", f"{twin}/2.png", "mole/1.png"))


def test_names_that_are_no_text_are_refused_before_any_table_is_written(lay):
    place = lay(*ANIMALS)
    (place / "notes\udcff.txt").touch()
    assert len(own.read(place)[0]) == 4
    (place / "cat" / "F\udcdf.png").write_bytes((place / "cat" / "1.png").read_bytes())
    with pytest.raises(MedicError, match=r"1 images in .* no UTF-8 text, for instance 'cat/F\\udcdf.png'; rename them"):
        own.read(place)


def test_the_same_file_under_two_classes_is_reported(lay):
    records, store = own.read(lay(*ANIMALS))
    found = check(records.iloc[[0, 2]].reset_index(drop=True), store).query("finding == 'identical'")
    assert list(found["image"]) == ["cat/1.png", "dog/1.png"]
    assert found["detail"].str.contains("labels differ").all()


@pytest.fixture
def mixed(lay, smooth) -> Path:
    """One picture, 40 wide and 30 high, in formats and modes as they come from cameras, scanners and the web."""
    place = lay()
    picture = Image.fromarray(smooth(30, 40))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter, clockwise
    writes = {
        "good/plain.jpg": dict(format="JPEG", quality=95),
        "good/palette.png": dict(mode="P", format="PNG"),
        "good/grey.png": dict(mode="L", format="PNG"),
        "good/transparent.png": dict(mode="RGBA", format="PNG"),
        "good/scan.tif": dict(format="TIFF"),
        "bad/plain.bmp": dict(format="BMP"),
        "bad/cmyk.jpg": dict(mode="CMYK", format="JPEG", quality=95),
        "bad/turned.jpg": dict(format="JPEG", quality=95, exif=turned),
        "bad/moving.gif": dict(
            mode="P", format="GIF", save_all=True, append_images=[picture.rotate(180).convert("P")], duration=100
        ),
    }
    for name, how in writes.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        bytes_ = io.BytesIO()
        shown = picture.rotate(90, expand=True) if "turned" in name else picture
        shown.convert(how.pop("mode", "RGB")).save(bytes_, **how)
        (place / name).write_bytes(bytes_.getvalue())
    return place


def test_mixed_formats_become_one_picture_and_a_moving_one_is_left_out_with_the_reason(mixed, tmp_path):
    records, store = own.read(mixed)
    assert len(records) == 9, "the moving picture is listed, so that it is seen"
    prepared = prepare(records, store, tmp_path / "prepared", Preprocessing(40, crop="square"))
    assert prepared.skipped["image"].tolist() == ["bad/moving.gif"]
    assert prepared.skipped["reason"].tolist() == ["unsupported"]
    assert "GIF" in prepared.skipped["detail"].iloc[0]
    expected = prepared.pixels(prepared.records.set_index("image").loc["good/plain.jpg", "file"]).astype(float)
    for row in prepared.records.itertuples():
        pixels = prepared.pixels(row.file).astype(float)
        if "grey" in row.image:
            pixels, shown = pixels.mean(axis=2), expected @ [0.299, 0.587, 0.114]
        else:
            shown = expected
        assert np.abs(pixels - shown).mean() < (12 if "palette" in row.image else 6), row.image


@pytest.mark.parametrize("ending", [".HEIC", ".avif", ".webp", ".jp2"])
def test_pictures_in_formats_that_are_not_read_are_not_passed_over(ending, lay):
    place = lay(*ANIMALS)
    (place / "cat" / f"telephone{ending}").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(50))
    records, store = own.read(place)
    found = check(records, store).set_index("image")
    assert found.loc[f"cat/telephone{ending}", "finding"] == "unsupported"
    assert "HEIC photograph, as telephones write them" in found.loc[f"cat/telephone{ending}", "detail"]


def test_a_moving_picture_is_a_finding(mixed):
    records, store = own.read(mixed)
    found = check(records, store).set_index("image")["finding"]
    assert found["bad/moving.gif"] == "unsupported"


# Few images


def test_a_class_with_one_image_trains_and_is_said_not_to_be_tested(lay):
    records, _ = own.read(
        lay("rare/1.png", *(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(9)))
    )
    task = task_of(records, "own")
    assert task.classes == ("cat", "dog", "rare")
    for seed in range(5):
        split = complete_splits(records, seed=seed, task=task)
        assert split.groupby("split")["class"].nunique().to_dict() == {"test": 2, "train": 3, "validation": 2}
        assert lacking(split, task) == [
            "the class 'rare' has 1 image, none of them in validation and test: how well it is told cannot be measured "
            "there; three patients or more are needed"
        ]


def test_a_class_that_is_not_trained_or_not_there_is_said(lay):
    records, _ = own.read(lay(*ANIMALS, "emu/1.png"))
    task = task_of(records, "own")
    given = records.assign(split=["train", "test", "test", "test", "train"])
    assert lacking(given, task) == [
        "the class 'dog' has no image in train: it cannot be learned; take another seed",
        "the class 'emu' has 1 image, none of them in test: how well it is told cannot be measured there; three "
        "patients or more are needed",
    ]
    assert lacking(records[records["class"] != "emu"], task) == [
        "the class 'emu' has no image: nothing can be learned of it"
    ]
    assert lacking(records, task) == [], "before they are split all train"


def test_a_set_that_is_complete_lacks_nothing(lay):
    names = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(3)]
    records, _ = own.read(lay(*names))
    assert lacking(complete_splits(records), task_of(records, "own")) == []


def test_what_is_looked_for_comes_second(lay):
    records, _ = own.read(lay(*ANIMALS))
    assert task_of(looking_for(records, "dog"), "own").classes == ("cat", "dog")
    turned = looking_for(records, "cat")
    assert task_of(turned, "own").classes == ("dog", "cat")
    assert list(turned["label"]) == [1, 1, 0, 0]
    with pytest.raises(MedicError, match="'bird' cannot be what is looked for"):
        looking_for(records, "bird")
    three, _ = own.read(lay("emu/1.png"))
    with pytest.raises(MedicError, match="that is one of two classes"):
        looking_for(three, "emu")


def test_classes_are_numbered_anew_in_their_order_where_one_is_empty(lay):
    records, _ = own.read(lay("a/1.png", "b/1.png", "c/1.png"))
    turned = records.assign(label=[2, 1, 0])
    assert without_gaps(turned, task_of(turned, "own")).equals(turned)
    assert list(without_gaps(turned[turned["class"] != "b"], task_of(turned, "own"))["label"]) == [1, 0]
    with pytest.raises(MedicError, match="all 1 images are of the class 'a'"):
        without_gaps(records.iloc[:1], task_of(records, "own"))
