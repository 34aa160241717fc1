"""NIH ChestX-ray14 in the layouts in which it is published, and in those in which people have it."""

import io
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K

from medic.data.check import check
from medic.data.explore import describe
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.readers.chest_xray import read
from medic.data.records import class_counts, targets
from medic.data.split import complete_splits, crossing_patients, split_by_patient
from medic.data.stores import JointStore
from medic.errors import MedicError
from medic.sample.chest.files import dicom, png
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,58,M,AP,2894,2729,0.143,0.143",
    "00000002_000.png,Hernia,0,2,80,F,PA,2500,2048,0.171,0.171",
]
NAMES = [row.partition(",")[0] for row in ROWS]


def table(rows: list[str] = ROWS, header: str = HEADER, end: str = "\n") -> str:
    return end.join([header, *rows]) + end


def with_row(**changes: str) -> str:
    """The table with other values in its second row (line 3)."""
    columns = ["image", "findings", "follow_up", "patient", "age", "sex", "view"]
    cells = ROWS[1].split(",")
    for column, value in changes.items():
        cells[columns.index(column)] = value
    return table([ROWS[0], ",".join(cells), ROWS[2]])


def lay(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def images(*names: str, folder: str = "images") -> dict[str, bytes]:
    return {f"{folder}/{name}": name.encode() for name in names}


def packed(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


# The table


def test_findings_become_columns_and_no_finding_is_where_there_is_none(tmp_path):
    records, store = read(lay(tmp_path, {"Data_Entry_2017.csv": table()} | images(*NAMES)))
    assert list(records["image"]) == [f"images/{name}" for name in NAMES]
    assert all(name in store for name in records["image"])
    assert list(records["patient"]) == ["1", "1", "2"]
    assert list(records["label"]) == [1, 0, 1]
    shown = [[name for name in FINDINGS if row[name]] for _, row in records.iterrows()]
    assert shown == [["Cardiomegaly", "Emphysema"], [], ["Hernia"]]
    assert list(records[NO_FINDING]) == [0, 1, 0]
    assert targets(records, CHEST_XRAY_OR_NONE).sum(axis=1).tolist() == [2, 1, 1]
    assert set(records["split"]) == {"train"}


def test_follow_up_age_sex_view_and_size_are_read_as_what_they_are(tmp_path):
    records, _ = read(lay(tmp_path, {"Data_Entry_2017.csv": table()}))
    assert list(records["follow_up"]) == [0, 1, 0]
    assert list(records["age"]) == [57, 58, 80]
    assert list(records["sex"]) == ["M", "M", "F"]
    assert list(records["view"]) == ["PA", "AP", "PA"]
    assert list(records["width"]) == [2682, 2894, 2500]
    assert list(records["height"]) == [2749, 2729, 2048]
    assert records["note"].isna().all()
    assert [str(records[name].dtype) for name in ("follow_up", "age", "width")] == ["int64", "Int64", "Int64"]


@pytest.mark.parametrize("comma", ["", "in the lines", "in the header too"])
@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("", "\r")])
def test_both_editions_line_ends_and_blank_lines_at_the_end_give_the_same_records(comma, start, end, tmp_path):
    rows = [row + "," * bool(comma) for row in ROWS]
    text = start + table(rows, HEADER + "," * (comma == "in the header too"), end) + 2 * end
    records, _ = read(lay(tmp_path / "one", {"Data_Entry_2017.csv": text}))
    plain, _ = read(lay(tmp_path / "two", {"Data_Entry_2017_v2020.csv": table()}))
    assert records.equals(plain)


def test_columns_are_found_by_their_titles_wherever_they_stand(tmp_path):
    header = "Patient ID,Patient Sex,Finding Labels,View Position,Image Index,Patient Age,Follow-up #"
    text = f"{header}\n7,F,Mass|Nodule,AP,00000007_002.png,031Y,2\n"
    records, _ = read(lay(tmp_path, {"Data_Entry_2017.csv": text}))
    row = records.iloc[0]
    assert (row["image"], row["patient"], row["sex"], row["view"], row["age"], row["follow_up"]) == (
        "00000007_002.png", "7", "F", "AP", 31, 2,
    )  # fmt: skip
    assert row["Mass"] == row["Nodule"] == 1
    assert "width" not in records


def test_the_revised_table_is_taken_where_both_are_there_unless_the_other_is_named(tmp_path):
    lay(tmp_path, {"Data_Entry_2017.csv": with_row(age="414"), "Data_Entry_2017_v2020.csv": table()} | images(*NAMES))
    revised, _ = read(tmp_path)
    first, _ = read(tmp_path / "Data_Entry_2017.csv")
    assert revised["age"][1] == 58
    assert pd.isna(first["age"][1])
    assert list(first["image"]) == list(revised["image"]) == [f"images/{name}" for name in NAMES]


def test_columns_that_are_missing_are_named(tmp_path):
    header = HEADER.replace("Finding Labels", "Labels").replace("View Position", "View")
    with pytest.raises(MedicError, match=r"lacks the columns Finding Labels, View Position \(its first line is 'Image"):
        read(lay(tmp_path, {"Data_Entry_2017.csv": table(header=header)}))


@pytest.mark.parametrize("text", ["", HEADER, HEADER + "\n", HEADER + "\n\n\n"])
def test_an_empty_table_is_refused(text, tmp_path):
    with pytest.raises(MedicError, match=r"Data_Entry_2017\.csv in .* (lists no image|lacks the columns)"):
        read(lay(tmp_path, {"Data_Entry_2017.csv": text}))


def test_a_folder_without_a_table_is_refused_with_the_names_it_could_have(tmp_path):
    with pytest.raises(MedicError, match=r"Data_Entry_2017\.csv or Data_Entry_2017_v2020\.csv .*nih_chest_xray14"):
        read(lay(tmp_path, images(*NAMES)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"findings": "Mass|Tumour"}, r"line 3: 'Tumour' is no known finding; there is Atelectasis, .*No Finding"),
        ({"findings": ""}, r"line 3: '' is no known finding"),
        ({"findings": "No Finding|Mass"}, r"line 3: 'No Finding\|Mass' names a finding together with 'No Finding'"),
        ({"follow_up": "first"}, r"line 3: 'first' is no number of a follow-up"),
        ({"image": ""}, r"line 3 names no image"),
        ({"patient": ""}, r"line 3 names no patient"),
        ({"image": "00000001_000.png"}, r"lists 1 images more than once, for instance 00000001_000 in the lines 2, 3"),
        ({"image": "00000001_000.dcm"}, r"lists 1 images more than once"),
        ({"view": "PA,1,2,3,4,5"}, r"Expected 12 fields in line 3, saw 16"),
        ({"view": "PA,1"}, r"line 3 has more columns than the first line"),
    ],
)
def test_a_row_that_cannot_be_taken_is_refused_with_its_line(changes, message, tmp_path):
    with pytest.raises(MedicError, match=message):
        read(lay(tmp_path, {"Data_Entry_2017.csv": with_row(**changes)}))


@pytest.mark.parametrize(
    ("written", "years"),
    [("058Y", 58), ("58.0", 58), ("010M", 0), ("030M", 2), ("003W", 0), ("400D", 1), ("120", 120), ("", None)],
)
def test_an_age_is_read_in_its_unit(written, years, tmp_path):
    records, _ = read(lay(tmp_path, {"Data_Entry_2017.csv": with_row(age=written)}))
    assert pd.isna(records["age"][1]) if years is None else records["age"][1] == years
    assert records["note"].isna().all()


@pytest.mark.parametrize(
    ("column", "written"),
    [("age", "412"), ("age", "150Y"), ("age", "-3"), ("age", "old"), ("sex", "X"), ("view", "LATERAL")],
)
def test_what_is_implausible_becomes_missing_with_a_note(column, written, tmp_path):
    folder = lay(tmp_path, {"Data_Entry_2017.csv": with_row(**{column: written})} | images(*NAMES))
    records, store = read(folder)
    assert pd.isna(records[column][1])
    assert records[column].notna().tolist() == [True, False, True]
    assert records["note"].isna().tolist() == [True, False, True]
    assert records["note"][1] == f"{column} {written} taken as unknown"
    noted = check(records, store).query("finding == 'noted'")
    assert noted[["image", "detail"]].to_numpy().tolist() == [[records["image"][1], records["note"][1]]]


def test_several_notes_on_a_row_are_one_text(tmp_path):
    records, _ = read(lay(tmp_path, {"Data_Entry_2017.csv": with_row(age="412", sex="?", view="")}))
    assert records["note"][1] == "age 412 taken as unknown; sex ? taken as unknown"
    assert pd.isna(records["view"][1])


# The lists of the split


def lists(train: list[str], test: list[str]) -> dict[str, str]:
    return {"train_val_list.txt": "\n".join(train), "test_list.txt": "\r\n".join(test) + "\r\n"}


def test_the_official_lists_make_the_split(tmp_path):
    files = {"Data_Entry_2017.csv": table()} | lists([*NAMES[:2], "00000009_000.png"], NAMES[2:])
    records, _ = read(lay(tmp_path, files))
    assert list(records["split"]) == ["train", "train", "test"]
    assert set(complete_splits(records, task=CHEST_XRAY).query("split == 'test'")["image"]) == {NAMES[2]}


def test_the_lists_inside_a_zip_file_are_read_too(tmp_path):
    files = {"Data_Entry_2017.csv": table()} | lists(NAMES[:2], NAMES[2:])
    inside = {f"set/{name}": text.encode() for name, text in files.items()} | images(*NAMES, folder="set/images")
    records, store = read(lay(tmp_path, {"all.zip": packed(inside)}) / "all.zip")
    assert list(records["split"]) == ["train", "train", "test"]
    assert store.read(records["image"][0]) == NAMES[0].encode()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (NAMES[:2], [], r"not one of the 0 names in test_list\.txt"),
        (NAMES[:2], ["other.png"], r"not one of the 1 names in test_list\.txt .* stands in Data_Entry_2017\.csv"),
        (NAMES[:1], NAMES[2:], r"1 of 3 images stand in neither of train_val_list\.txt and test_list\.txt .*1_001"),
        (NAMES[:2], NAMES[1:], r"1 of 3 images stand in both of .*, for instance 00000001_001"),
    ],
)
def test_lists_that_do_not_fit_the_table_are_refused(train, test, message, tmp_path):
    with pytest.raises(MedicError, match=message):
        read(lay(tmp_path, {"Data_Entry_2017.csv": table()} | lists(train, test)))


def test_one_list_without_the_other_is_refused(tmp_path):
    lay(tmp_path, {"Data_Entry_2017.csv": table(), "test_list.txt": NAMES[2]})
    with pytest.raises(MedicError, match=r"has test_list\.txt but not train_val_list\.txt"):
        read(tmp_path)


def test_a_patient_in_both_lists_is_reported_and_not_trained_and_tested_on(tmp_path):
    files = {"Data_Entry_2017.csv": table()} | lists([NAMES[0], NAMES[2]], [NAMES[1]])
    records, store = read(lay(tmp_path, files | images(*NAMES)))
    assert crossing_patients(records) == ["1"]
    assert "patient_in_two_splits" in set(check(records, store)["finding"])
    for refused in (split_by_patient, complete_splits):
        with pytest.raises(MedicError, match=r"1 patients .* for instance 1: .* test=0\.2"):
            refused(records, task=CHEST_XRAY)
    assert crossing_patients(split_by_patient(records, test=0.2, task=CHEST_XRAY)) == []


# The images


LAYOUTS = {
    "numbered folders": lambda: {f"images_00{n}/images/{name}": name.encode() for n, name in enumerate(NAMES, 1)},
    "one folder": lambda: images(*NAMES),
    "beside the table": lambda: {name: name.encode() for name in NAMES},
    "one zip": lambda: {"images.zip": packed(images(*NAMES, folder="images_001/images"))},
    "several zips": lambda: {
        f"images_00{n}.zip": packed(images(name)) for n, name in enumerate(NAMES, 1)
    } | {"notes.zip": packed({"a.txt": b""})},
    "a zip and a folder": lambda: images(NAMES[0]) | {"more.zip": packed(images(*NAMES[1:]))},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("apart", [False, True])
def test_images_are_found_in_each_layout_and_nothing_is_unpacked(layout, apart, tmp_path):
    lay(tmp_path / "set", {"Data_Entry_2017.csv": table()})
    place = lay(tmp_path / ("elsewhere" if apart else "set"), LAYOUTS[layout]())
    before = sorted(tmp_path.rglob("*"))
    records, store = read(tmp_path / "set", place if apart else None)
    assert [store.read(name) for name in records["image"]] == [name.encode() for name in NAMES]
    assert isinstance(store, JointStore) == (layout in ("several zips", "a zip and a folder"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dicom_file_stands_in_for_its_png(tmp_path):
    files = images("00000001_000.dcm", "00000001_001.DCM", NAMES[2])
    records, store = read(lay(tmp_path, {"Data_Entry_2017.csv": table()} | files))
    assert [store.read(name) for name in records["image"]] == list(files.values())


@pytest.mark.parametrize(
    "places",
    [
        ("images_001/images/00000002_000.png", "images_002/images/00000002_000.png"),
        ("images/00000002_000.dcm", "images/00000002_000.png"),
    ],
)
def test_an_image_at_two_places_is_refused_with_both(places, tmp_path):
    lay(tmp_path, {"Data_Entry_2017.csv": table(), **dict.fromkeys(places, b"")})
    with pytest.raises(MedicError) as caught:
        read(tmp_path)
    for fact in ("00000002_000 at two places", *places, "--images"):
        assert fact in str(caught.value)


def test_an_image_in_a_zip_and_unpacked_beside_it_is_refused_with_both(tmp_path):
    lay(tmp_path, {"Data_Entry_2017.csv": table(), "all.zip": packed(images(*NAMES))} | images(*NAMES))
    with pytest.raises(MedicError, match=r"two places, all/images/00000001_000\.png and folder/images/00000001_000"):
        read(tmp_path)
    assert len(read(tmp_path, tmp_path / "all.zip")[0]) == 3


def test_a_file_that_no_row_names_may_lie_at_two_places(tmp_path):
    others = {"a/other.png": b"", "b/other.png": b"", "images/._00000001_000.png": b""}
    records, store = read(lay(tmp_path, {"Data_Entry_2017.csv": table(), "x.zip": packed(images(*NAMES) | others)}))
    assert all(name in store for name in records["image"])


def test_rows_without_a_file_and_files_without_a_row_are_counted_and_named(tmp_path):
    files = {f"images_001/images/{NAMES[0]}": b"", f"images_002/images/{NAMES[1]}": b"", "scaled/1.png": b""}
    records, store = read(
        lay(tmp_path, {"Data_Entry_2017.csv": table(), "images_007/images/00000099_000.png": b""} | files)
    )
    findings = check(records, store).set_index("finding")["image"]
    assert findings["absent"] == NAMES[2]
    assert findings["unlisted"] == "images_007/images/00000099_000.png"
    described = describe(records, store, CHEST_XRAY)
    assert (described.absent, described.unlisted) == (1, 1)
    assert "1 listed images are absent" in str(described)
    assert "1 image files are in no row of the table" in str(described)


def test_zip_files_inside_a_zip_file_are_refused_with_what_to_do(tmp_path):
    inner = packed(images(*NAMES))
    nested = {"images_001.zip": inner, "images_002.zip": inner}
    lay(tmp_path, {"Data_Entry_2017.csv": table(), "all.zip": packed(nested)})
    message = r"all\.zip holds 2 zip files \(images_001\.zip, \.\.\.\) instead of images; unpack all\.zip once"
    with pytest.raises(MedicError, match=message):
        read(tmp_path)
    with pytest.raises(MedicError, match=message):
        read(tmp_path, tmp_path / "all.zip")
    lay(tmp_path / "own", {"all.zip": packed(nested | {"Data_Entry_2017.csv": table().encode()})})
    with pytest.raises(MedicError, match=message):
        read(tmp_path / "own" / "all.zip")


@pytest.mark.parametrize("archives", [1, 2])
@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_the_command_that_the_error_gives_repacks_tar_archives_so_that_they_are_read(archives, kind, tmp_path):
    folder = lay(tmp_path / "chest xray", {"Data_Entry_2017.csv": table(), "images/readme.txt": ""})
    for number in range(archives):
        with tarfile.open(folder / "images" / f"images_00{number + 1}.tar.{kind}", f"w:{kind}") as archive:
            archive.addfile(tarfile.TarInfo("images"))
            for name in NAMES[number::archives]:
                member = tarfile.TarInfo(f"images/{name}")
                member.size = len(name)
                archive.addfile(member, io.BytesIO(name.encode()))
    if kind == "xz":  # not how NIH packs: nothing is said of it, and the images are simply absent
        assert list(read(folder)[0]["image"]) == NAMES
        return
    with pytest.raises(MedicError, match=rf"in {archives} tar archives \(images_001\.tar\.gz") as caught:
        read(folder)
    with pytest.raises(MedicError, match="1 tar archives"):
        read(folder, folder / "images" / "images_001.tar.gz")
    command = shlex.split(str(caught.value).splitlines()[-1])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    records, store = read(folder)
    assert [store.read(name) for name in records["image"]] == [name.encode() for name in NAMES]
    assert store.location.name == "images.zip"


def test_the_command_says_so_when_the_archives_are_not_there(tmp_path):
    from medic.data.download.sources import repacking

    command = shlex.split(repacking(str(tmp_path / "images_*.tar.gz"), str(tmp_path / "images.zip")))
    ended = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "FileNotFoundError" in ended.stderr


def test_a_damaged_member_is_reported_by_the_check_and_skipped_by_the_preparation(tmp_path, smooth, encode):
    pngs = {f"images/{name}": encode(smooth(40 + number, 60)) for number, name in enumerate(NAMES)}
    whole = pngs[f"images/{NAMES[1]}"]
    pngs[f"images/{NAMES[1]}"] = whole[: len(whole) // 2]  # cut before it was packed
    data = bytearray(packed(pngs))
    place = data.index(pngs[f"images/{NAMES[2]}"])
    data[place + 200] ^= 0xFF  # damaged after it was packed
    lay(tmp_path / "set", {"Data_Entry_2017.csv": table(), "images.zip": bytes(data)})
    records, store = read(tmp_path / "set")
    findings = check(records, store).set_index("image")["finding"]
    expected = {f"images/{NAMES[1]}": "truncated", f"images/{NAMES[2]}": "unreadable"}
    assert findings.to_dict() == expected
    prepared = prepare(records, store, tmp_path / "prepared", Preprocessing(size=32, crop="square", grey=True))
    assert list(prepared.records["image"]) == [f"images/{NAMES[0]}"]
    assert dict(zip(prepared.skipped["image"], prepared.skipped["reason"], strict=True)) == expected


def test_dicom_files_that_hold_no_readable_picture_are_reported_by_the_check_and_skipped(tmp_path):
    """Listed as PNG files, as the table has it; the third is in order, and so is a PNG file of 16 bits."""
    drawn = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    person = {"id": "1", "age": "058Y", "sex": "F", "view": "PA"}
    sound = dicom(drawn, person, bits=12)
    empty, foreign = (pydicom.dcmread(io.BytesIO(sound)) for _ in range(2))
    del empty.PixelData, empty.Rows, empty.Columns  # as in a report
    foreign.file_meta.TransferSyntaxUID = HTJ2K
    foreign.PixelData = encapsulate([b"none of ours"])
    files = {"images/00000001_002.dcm": sound, "images/00000002_000.png": png(drawn, "I;16")}
    for name, dataset in (("00000001_000", empty), ("00000001_001", foreign)):
        written = io.BytesIO()
        dataset.save_as(written, enforce_file_format=True)
        files[f"images/{name}.dcm"] = written.getvalue()
    rows = [*ROWS, "00000001_002.png,No Finding,2,1,58,M,AP,2894,2729,0.143,0.143"]
    records, store = read(lay(tmp_path, {"Data_Entry_2017.csv": table(rows), **files}))
    findings = check(records, store).set_index("image")
    unsupported = [f"images/00000001_00{n}.dcm" for n in (0, 1)]
    same_picture = ["images/00000001_002.dcm", "images/00000002_000.png"]  # drawn once, stored as DICOM and as PNG
    expected = dict.fromkeys(unsupported, "unsupported") | dict.fromkeys(same_picture, "near_duplicate")
    assert findings["finding"].to_dict() == expected
    assert "no pixel data" in findings.loc["images/00000001_000.dcm", "detail"]
    assert "High-Throughput JPEG 2000" in findings.loc["images/00000001_001.dcm", "detail"]

    grey = Preprocessing(size=64, crop="square", grey=True)
    prepared = prepare(split_by_patient(records, seed=0), store, tmp_path / "prepared", grey)
    assert sorted(prepared.skipped["image"]) == ["images/00000001_000.dcm", "images/00000001_001.dcm"]
    for name in prepared.records["image"]:
        assert (grey.pixels(store.read(name)) == drawn[:, :, None]).all()


def test_each_fault_planted_in_the_sample_is_found_and_nothing_else_is_called_so(repository):
    folder = repository / "sample_data" / "chest_xray"
    faults = pd.read_csv(folder / "planted_faults.csv").set_index("fault")["image"]
    records, store = read(folder)
    findings = check(records, store).set_index("finding")["image"].str.rpartition("/")[2]
    planted = {
        "noted": "impossible age",
        "absent": "no image",
        "unlisted": "no row",
        "truncated": "truncated",
        "identical": "duplicate",
    }
    # The sample has PNG files with transparency, as ChestX-ray14 has: reported, and no fault.
    assert set(findings.index) == {*planted, "odd_channels"}
    for finding, fault in planted.items():
        assert set(findings[[finding]]) == set(faults[[fault]])
    stems = records["image"].str.rpartition("/")[2].str.rpartition(".")[0]
    for image in faults["DICOM"]:
        (name,) = records["image"][stems == Path(image).stem]
        assert name.endswith(".dcm")
        assert name in store
    assert records.loc[stems == Path(faults["age with a unit"]).stem, "age"].tolist() == [58]


# The size of the whole set


def test_the_full_table_is_read_and_dealt_by_patient(tmp_path):
    random = np.random.default_rng(0)
    patients = np.sort(np.append(np.arange(30_805), random.integers(0, 30_805, 112_120 - 30_805)))
    follow_up = np.arange(len(patients)) - np.searchsorted(patients, patients)
    shares = np.geomspace(0.002, 0.17, len(FINDINGS))
    present = random.random((len(patients), len(FINDINGS))) < shares
    rows = [
        f"{patient:08}_{number:03}.png,{'|'.join(np.array(FINDINGS)[row]) or NO_FINDING},{number},{patient},"
        f"{30 + number % 60:03}Y,F,PA,2500,2048,0.168,0.168,"
        for patient, number, row in zip(patients, follow_up, present, strict=True)
    ]
    records, _ = read(lay(tmp_path, {"Data_Entry_2017.csv": table(rows, HEADER + ",")}))
    assert len(records) == 112_120
    assert (targets(records, CHEST_XRAY) == present).all()
    dealt = split_by_patient(records, test=0.2, task=CHEST_XRAY)
    assert crossing_patients(dealt) == []
    shown = class_counts(dealt, CHEST_XRAY).loc[list(FINDINGS)]
    assert shown["total"].tolist() == present.sum(axis=0).tolist()
    assert (abs(shown["test"] / shown["total"] - 0.2) < 0.06).all()


# The real sets

SUBSETS = {
    "chest_xray": (91, 69, {"train": 69, "test": 22}, "No Finding 47, Pneumonia 42, Infiltration 18, Edema 14, "
        "Atelectasis 9, Effusion 6, Pleural_Thickening 4, Consolidation 2, Cardiomegaly 1, Nodule 1, Mass 1, "
        "Pneumothorax 1"),
    "chest_xray_64px": (768, 185, {"train": 768}, "No Finding 367, Effusion 142, Infiltration 133, Cardiomegaly 77, "
        "Atelectasis 71, Pneumothorax 39, Consolidation 39, Emphysema 33, Mass 30, Edema 30, Nodule 25, Fibrosis 25, "
        "Pleural_Thickening 17, Pneumonia 8, Hernia 1"),
}  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("name", SUBSETS)
def test_the_real_sets_have_the_counts_that_their_sources_state(name, real_data):
    number, patients, splits, findings = SUBSETS[name]
    records, store = read(real_data / name)
    assert (len(records), records["patient"].nunique()) == (number, patients)
    assert records["split"].value_counts().to_dict() == splits
    stated = {found: int(count) for found, count in re.findall(r"(\D+) (\d+)(?:, |$)", findings)}
    counted = class_counts(records, CHEST_XRAY)["total"]
    assert counted[counted > 0].to_dict() == stated
    assert records[NO_FINDING].sum() == stated[NO_FINDING]
    assert all(image in store for image in records["image"])
    assert records[["age", "sex", "view", "width", "height"]].notna().all(axis=None)
    assert crossing_patients(records) == []
    dealt = complete_splits(records, task=CHEST_XRAY)
    assert set(dealt["split"]) == {"train", "validation", "test"}
    assert crossing_patients(dealt) == []


@pytest.mark.real_data
def test_the_real_images_have_no_fault_but_three_with_transparency(real_data):
    records, store = read(real_data / "chest_xray")
    assert check(records, store)["finding"].tolist() == ["odd_channels"] * 3
