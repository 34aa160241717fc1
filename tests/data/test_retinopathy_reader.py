"""Retinopathy data in the layouts in which it is published, and in those in which people have it."""

import zipfile
from pathlib import Path

import pytest

from medic.data.explore import describe
from medic.data.readers.retinopathy import read
from medic.data.records import class_counts
from medic.errors import MedicError
from medic.task import RETINOPATHY

NAMES = ["10_left", "10_right", "7_left", "7_right"]
GRADES = [0, 2, 4, 1]


def lay(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def lines(*values: object, end: str = "\n") -> str:
    return "".join(f"{value}{end}" for value in values)


def images(*names: str, folder: str = "images", suffix: str = ".jpeg") -> dict[str, bytes]:
    return {f"{folder}/{name}{suffix}": b"" for name in names}


def columns(train: tuple = (NAMES, GRADES), test: tuple = (["3_left"], [3]), **how: str) -> dict[str, str]:
    return {
        "train_img.csv": lines(*train[0], **how),
        "train_label.csv": lines(*train[1], **how),
        "test_img.csv": lines(*test[0], **how),
        "test_label.csv": lines(*test[1], **how),
    }


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_the_nth_label_belongs_to_the_nth_name(tmp_path):
    records, store = read(lay(tmp_path, columns() | images(*NAMES, "3_left")))
    assert list(records["image"]) == [f"images/{name}.jpeg" for name in [*NAMES, "3_left"]]
    assert list(records["label"]) == [*GRADES, 3]
    assert list(records["split"]) == ["train"] * 4 + ["test"]
    assert list(records["patient"]) == ["10", "10", "7", "7", "3"]
    assert list(records["eye"]) == ["left", "right", "left", "right", "left"]
    assert all(name in store for name in records["image"])


@pytest.mark.parametrize(
    "header", [("image", "level"), ("image", "label"), ("id_code", "diagnosis"), ("Image", "Level")]
)
@pytest.mark.parametrize("suffix", ["", ".jpeg", ".png"])
def test_headers_and_extensions_may_be_there_or_not(header, suffix, tmp_path):
    names = [name + suffix for name in NAMES]
    tables = columns(([header[0], *names], [header[1], *GRADES]), ([f"3_left{suffix}"], [3]))
    records, _ = read(lay(tmp_path, tables | images(*NAMES, "3_left")))
    assert list(records["image"]) == [f"images/{name}.jpeg" for name in [*NAMES, "3_left"]]
    assert list(records["label"]) == [*GRADES, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_byte_order_marks_and_blank_lines_at_the_end_do_not_matter(end, start, tmp_path):
    tables = {name: start + text + 2 * end for name, text in columns(end=end).items()}
    records, _ = read(lay(tmp_path, tables | images(*NAMES)))
    assert list(records["label"]) == [*GRADES, 3]
    assert records["image"][0] == "images/10_left.jpeg"


def test_a_blank_line_in_the_middle_is_refused_because_it_would_shift_the_labels(tmp_path):
    lay(tmp_path, columns() | {"train_label.csv": "0\n\n2\n4\n1\n"})
    with pytest.raises(MedicError, match=r"train_label\.csv line 2 is empty"):
        read(tmp_path)


def test_tables_of_different_lengths_are_refused_with_both_lengths(tmp_path):
    lay(tmp_path, columns((NAMES, GRADES[:3])))
    with pytest.raises(MedicError, match=r"train_img\.csv has 4 names and train_label\.csv has 3 labels"):
        read(tmp_path)


@pytest.mark.parametrize("grade", ["5", "-1", "1.5", "severe", "nan", "inf", "1e9"])
def test_a_label_that_is_no_grade_is_refused_with_file_and_line(grade, tmp_path):
    lay(tmp_path, columns((NAMES, [0, 2, grade, 1])))
    with pytest.raises(MedicError, match=rf"train_label\.csv line 3: '{grade}' is no grade"):
        read(tmp_path)


def test_a_line_number_counts_the_header(tmp_path):
    lay(tmp_path, {"trainLabels.csv": "image,level\n10_left,0\n10_right,x\n"})
    with pytest.raises(MedicError, match=r"trainLabels\.csv line 3: 'x' is no grade"):
        read(tmp_path)


def test_a_grade_may_be_written_as_a_decimal(tmp_path):
    records, _ = read(lay(tmp_path, columns((NAMES, ["0.0", "2.0", " 4", "1"]))))
    assert list(records["label"])[:4] == GRADES


def test_one_table_of_a_pair_alone_is_refused(tmp_path):
    tables = columns()
    del tables["test_label.csv"]
    with pytest.raises(MedicError, match=r"test_img\.csv but not the other table"):
        read(lay(tmp_path, tables))


def test_a_validation_pair_keeps_its_split(tmp_path):
    pair = {"validation_img.csv": "5_left\n", "validation_label.csv": "3\n"}
    records, _ = read(lay(tmp_path, columns() | pair))
    assert list(records["split"]) == ["train"] * 4 + ["validation", "test"]


def test_the_small_twins_are_read_when_asked_for(tmp_path):
    twins = {"train_img_small.csv": "7_left\n", "train_label_small.csv": "4\n"}
    lay(tmp_path, columns() | twins | images(*NAMES))
    records, _ = read(tmp_path, small=True)
    assert list(records["image"]) == ["images/7_left.jpeg"]
    assert len(read(tmp_path)[0]) == 5


def test_missing_small_twins_are_asked_for_by_name(tmp_path):
    with pytest.raises(MedicError, match=r"train_img_small\.csv"):
        read(lay(tmp_path, columns()), small=True)


def test_the_kaggle_table_of_2015(tmp_path):
    table = "image,level\n" + lines(*(f"{name},{grade}" for name, grade in zip(NAMES, GRADES, strict=True)))
    records, _ = read(lay(tmp_path, {"trainLabels.csv": table} | images(*NAMES, folder="train")))
    assert list(records["image"]) == [f"train/{name}.jpeg" for name in NAMES]
    assert list(records["label"]) == GRADES
    assert set(records["split"]) == {"train"}


def test_the_kaggle_table_of_2019_makes_every_image_a_patient(tmp_path):
    table = "id_code,diagnosis\n000c1434d8d7,2\n001639a390f0,4\n"
    found = images("000c1434d8d7", "001639a390f0", folder="train_images", suffix=".png")
    records, _ = read(lay(tmp_path, {"train.csv": table} | found))
    assert list(records["patient"]) == ["000c1434d8d7", "001639a390f0"]
    assert records["eye"].isna().all()
    assert list(records["image"]) == list(found)


def test_two_columns_may_come_without_a_header_and_in_another_order_with_one(tmp_path):
    bare, _ = read(lay(tmp_path / "a", {"trainLabels.csv": "10_left,3\n10_right,1\n"}))
    turned, _ = read(lay(tmp_path / "b", {"trainLabels.csv": "level,site,image\n3,x,10_left\n1,y,10_right\n"}))
    assert list(bare["label"]) == list(turned["label"]) == [3, 1]
    assert list(bare["image"]) == list(turned["image"]) == ["10_left", "10_right"]


def test_a_table_without_a_label_column_is_refused_with_its_columns(tmp_path):
    with pytest.raises(MedicError, match="columns image, quality"):
        read(lay(tmp_path, {"trainLabels.csv": "image,quality\n10_left,3\n"}))


@pytest.mark.parametrize("line", ["10_right", ",2"])
def test_a_line_without_name_or_label_is_refused_with_its_number(line, tmp_path):
    with pytest.raises(MedicError, match=r"trainLabels\.csv line 3"):
        read(lay(tmp_path, {"trainLabels.csv": f"image,level\n10_left,3\n{line}\n"}))


def test_a_name_listed_twice_is_refused(tmp_path):
    with pytest.raises(MedicError, match=r"listed more than once .* 7_left"):
        read(lay(tmp_path, columns((["7_left", "10_left", "7_left.jpeg"], [0, 1, 2]))))


def test_a_folder_without_tables_says_which_it_needs(tmp_path):
    with pytest.raises(MedicError, match=r"train_img\.csv and train_label\.csv, trainLabels\.csv"):
        read(lay(tmp_path, images(*NAMES)))


@pytest.mark.parametrize("content", ["", "\n\n", "image\n"])
def test_an_empty_table_is_refused(content, tmp_path):
    with pytest.raises(MedicError, match=r"train_img\.csv .* is empty"):
        read(lay(tmp_path, columns() | {"train_img.csv": content}))


def test_a_table_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(MedicError, match=r"train_img\.csv .* is no UTF-8 text"):
        read(lay(tmp_path, columns() | {"train_img.csv": b"\xff\xfe1\x000\x00"}))


def test_upper_case_extensions_are_found(tmp_path):
    records, _ = read(lay(tmp_path, columns() | images(*NAMES, suffix=".JPEG")))
    assert records["image"][0] == "images/10_left.JPEG"


def test_an_image_that_is_listed_but_absent_keeps_its_name_and_is_counted(tmp_path):
    records, store = read(lay(tmp_path, columns() | images("10_left", "10_right", "7_left")))
    assert list(records["image"][3:]) == ["7_right", "3_left"]
    assert describe(records, store, RETINOPATHY).absent == 2


def test_a_zip_is_read_without_unpacking_it(tmp_path):
    folder = lay(tmp_path / "set", columns() | images(*NAMES, "3_left"))
    archive = zip_of(folder, tmp_path / "set.zip")
    before = sorted(tmp_path.rglob("*"))
    from_folder, _ = read(folder)
    from_zip, store = read(archive)
    assert from_zip.equals(from_folder)
    assert store.read("images/10_left.jpeg") == b""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_with_one_folder_around_everything_is_read_too(tmp_path):
    lay(tmp_path / "in" / "retinopathy", columns() | images(*NAMES))
    records, _ = read(zip_of(tmp_path / "in", tmp_path / "set.zip"))
    assert records["image"][0] == "retinopathy/images/10_left.jpeg"


def test_images_in_a_zip_beside_the_tables_are_found(tmp_path):
    lay(tmp_path / "elsewhere", images(*NAMES, folder="train"))
    folder = lay(tmp_path / "set", columns())
    zip_of(tmp_path / "elsewhere", folder / "train.zip")
    records, store = read(folder)
    assert records["image"][0] == "train/10_left.jpeg"
    assert store.location.name == "train.zip"


def test_images_may_be_named_apart_from_the_tables(tmp_path):
    tables = lay(tmp_path / "tables", columns())
    pictures = lay(tmp_path / "pictures", images(*NAMES, folder="a/b"))
    records, store = read(tables, images=pictures)
    assert records["image"][0] == "a/b/10_left.jpeg"
    assert store.location == pictures


def test_of_two_folders_with_the_same_names_the_fuller_one_is_meant(tmp_path):
    lay(tmp_path, columns() | images(*NAMES) | images("10_left", folder="a_fullres"))
    records, _ = read(tmp_path)
    assert records["image"][0] == "images/10_left.jpeg"


def test_two_equally_full_folders_are_refused_with_the_way_to_choose(tmp_path):
    lay(tmp_path, columns() | images(*NAMES) | images(*NAMES, folder="large"))
    with pytest.raises(MedicError, match=r"both in images and in large.*--images"):
        read(tmp_path)
    records, _ = read(tmp_path, images=tmp_path / "large")
    assert records["image"][0] == "10_left.jpeg"


def test_train_and_test_images_may_lie_in_folders_of_their_own(tmp_path):
    lay(tmp_path, columns() | images(*NAMES, folder="train") | images("3_left", folder="test"))
    assert read(tmp_path)[0]["image"].iloc[-1] == "test/3_left.jpeg"


def test_the_tables_alone_can_be_read_and_described(tmp_path):
    records, store = read(lay(tmp_path, columns()))
    described = describe(records, store, RETINOPATHY)
    assert (described.images, described.absent) == (5, 5)
    assert "the images are elsewhere" in str(described)


def test_the_embedded_sample_keeps_patients_apart(sample):
    records, _ = read(sample)
    train, test = (set(records.loc[records["split"] == split, "patient"]) for split in ("train", "test"))
    assert len(train | test) >= 60
    assert not train & test
    assert set(read(sample, small=True)[0]["image"]) < set(records["image"])


@pytest.mark.real_data
def test_the_real_set_is_read_as_its_sources_describe_it(real_data):
    records, store = read(real_data / "retinopathy")
    assert len(records) == 404
    assert records["patient"].nunique() == 202
    assert records["split"].value_counts().to_dict() == {"train": 302, "test": 102}
    assert all(name in store and name.startswith("images/") for name in records["image"])
    assert class_counts(records, RETINOPATHY)["total"].to_list() == REAL_COUNTS


REAL_COUNTS = [187, 66, 108, 26, 17]
"""Photographs of grades 0 to 4 among the 404."""


@pytest.mark.real_data
def test_the_sources_own_table_of_the_real_set_agrees_with_the_pairs(real_data, tmp_path):
    table = (real_data / "retinopathy" / "trainLabels.csv").read_bytes()
    lay(tmp_path, {"trainLabels.csv": table})
    kaggle, _ = read(tmp_path, images=real_data / "retinopathy" / "images")
    pairs, _ = read(real_data / "retinopathy")
    grades = dict(zip(pairs["image"].str.removeprefix("images/"), pairs["label"], strict=True))
    assert grades.items() <= dict(zip(kaggle["image"], kaggle["label"], strict=True)).items()
