"""Corrections of labels: a journal, on disk at once, applied by every reader; the originals are never touched."""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medic.data import corrections
from medic.data.corrections import EXCLUDED, NOTHING, Corrections, apply, written_labels
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import chest_xray, digits, own, retinopathy, skin_lesion
from medic.data.stores import idx, open_store
from medic.errors import MedicError
from medic.task import (
    CHEST_XRAY,
    CHEST_XRAY_BINARY,
    CHEST_XRAY_OR_NONE,
    FINDINGS,
    NO_FINDING,
    SKIN_LESION,
    Task,
)

HEADER = "when,who,image,from,to"
NAMES = ["a.png", "b.png", "c.png", "d.png"]
NEWS = "2026-11-01T08:00:00Z,Ann"


@pytest.fixture
def records() -> pd.DataFrame:
    return pd.DataFrame({"image": NAMES, "patient": NAMES, "split": "train", "label": [0, 1, 0, 1]}).assign(
        **{"class": ["benign", "malignant", "benign", "malignant"]}
    )


@pytest.fixture
def radiographs() -> pd.DataFrame:
    """Three radiographs: of a mass and a nodule, of a hernia, of nothing; as the reader of chest X-rays gives them."""
    none = dict.fromkeys(FINDINGS, 0)
    found = [none | {"Mass": 1, "Nodule": 1}, none | {"Hernia": 1}, none]
    return pd.DataFrame({"image": NAMES[:3], "patient": NAMES[:3], "split": "train", "label": [1, 1, 0]}).assign(
        **pd.DataFrame(found), **{NO_FINDING: [0, 0, 1]}
    )


@pytest.fixture
def journal(tmp_path) -> Path:
    return tmp_path / "notes" / "corrections.csv"


def lines(journal: Path) -> list[str]:
    """The journal's lines without the times."""
    return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ,", "", line) for line in journal.read_text().splitlines()]


# The journal


def test_each_change_is_on_disk_before_the_next_line_runs(records, journal):
    kept = Corrections(journal, records, SKIN_LESION, who="Ann")
    assert not journal.exists(), "looking changes nothing"
    kept.label("a.png", "malignant")
    assert lines(journal) == [HEADER, "Ann,a.png,benign,malignant"]
    kept.exclude("b.png")
    assert lines(journal)[2:] == ["Ann,b.png,malignant,(excluded)"]
    kept.include("b.png")
    assert lines(journal)[3:] == ["Ann,b.png,(excluded),malignant"]
    assert [kept.current(name) for name in NAMES] == ["malignant", "malignant", "benign", "malignant"]
    assert (kept.original("a.png"), len(kept)) == ("benign", 3)
    assert [path.name for path in journal.parent.iterdir()] == ["corrections.csv"]


def test_who_and_when_are_kept(records, journal, monkeypatch):
    before = datetime.now(UTC).replace(microsecond=0)
    Corrections(journal, records, SKIN_LESION, who="Dr. Ångström, second reader").label("a.png", "malignant")
    row = pd.read_csv(journal).iloc[0]
    assert row["who"] == "Dr. Ångström, second reader"
    assert before <= datetime.fromisoformat(row["when"]) <= datetime.now(UTC)
    monkeypatch.setattr(corrections.getpass, "getuser", lambda: "mary")
    assert Corrections(journal, records, SKIN_LESION).who == "mary"


def test_an_account_without_a_name_is_unknown(records, journal, monkeypatch):
    def nobody() -> str:
        raise KeyError("uid not found: 1001")

    monkeypatch.setattr(corrections.getpass, "getuser", nobody)
    assert Corrections(journal, records, SKIN_LESION).who == "unknown"


def test_what_changes_nothing_leaves_no_line(records, journal):
    kept = Corrections(journal, records, SKIN_LESION)
    kept.label("a.png", "benign")
    kept.include("a.png")
    assert not journal.exists()
    kept.exclude("a.png")
    kept.exclude("a.png")
    assert len(kept) == 1


def test_an_excluded_image_is_in_again_with_the_class_it_had_or_is_given(records, journal):
    kept = Corrections(journal, records, SKIN_LESION)
    kept.label("a.png", "malignant")
    kept.exclude("a.png")
    assert kept.current("a.png") == EXCLUDED
    kept.include("a.png")
    assert kept.current("a.png") == "malignant"
    kept.exclude("a.png")
    kept.label("a.png", "benign")
    assert kept.current("a.png") == "benign"


def test_undo_takes_back_one_change_after_the_other_on_disk_too(records, journal):
    kept = Corrections(journal, records, SKIN_LESION, who="Ann")
    kept.label("a.png", "malignant")
    kept.exclude("a.png")
    undone = kept.undo()
    assert (undone.image, undone.before, undone.after) == ("a.png", "malignant", EXCLUDED)
    assert kept.current("a.png") == "malignant"
    assert lines(journal) == [HEADER, "Ann,a.png,benign,malignant"]
    kept.undo()
    assert kept.current("a.png") == "benign"
    assert lines(journal) == [HEADER]
    assert kept.undo() is None


def test_undo_leaves_what_was_there_before_this_session(records, journal):
    Corrections(journal, records, SKIN_LESION, who="Ann").label("a.png", "malignant")
    kept = Corrections(journal, records, SKIN_LESION, who="Bob")
    assert kept.undo() is None
    kept.label("b.png", "benign")
    assert kept.undo().who == "Bob"
    assert kept.undo() is None
    assert lines(journal) == [HEADER, "Ann,a.png,benign,malignant"]


def test_a_journal_is_gone_on_with(records, journal):
    first = Corrections(journal, records, SKIN_LESION, who="Ann")
    first.label("a.png", "malignant")
    first.exclude("c.png")
    second = Corrections(journal, records, SKIN_LESION, who="Bob")
    assert second.current("a.png") == "malignant"
    second.include("c.png")
    assert second.current("c.png") == "benign"
    assert list(second.table()["who"]) == ["Ann", "Ann", "Bob"]
    assert list(second.table()) == HEADER.split(",")


def test_a_journal_without_changes_is_a_table_without_rows(records, journal):
    empty = Corrections(journal, records, SKIN_LESION).table()
    assert list(empty) == HEADER.split(",")
    assert empty.empty


def test_two_sessions_do_not_write_over_each_other(records, journal):
    one, other = Corrections(journal, records, SKIN_LESION), Corrections(journal, records, SKIN_LESION)
    one.label("a.png", "malignant")
    with pytest.raises(MedicError, match="has changed since it was opened here, so nothing was written; open it again"):
        other.exclude("b.png")
    assert other.current("b.png") == "malignant"
    assert len(pd.read_csv(journal)) == 1
    one.exclude("b.png")
    assert one.undo().image == "b.png"


def test_names_and_classes_with_commas_quotes_and_umlauts_come_back(tmp_path, journal):
    names = ['Fuß, "links" 1.PNG', "Ärmel\nzwei.png"]
    task = Task("own", "multiclass", ("gut, ja", "schlecht|übel", "007"))
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": [0, 2]})
    kept = Corrections(journal, records, task, who='Ann "A"')
    kept.label(names[0], "schlecht|übel")
    kept.exclude(names[1])
    again = Corrections(journal, records, task)
    assert [again.current(name) for name in names] == ["schlecht|übel", EXCLUDED]
    assert apply(records, journal, task)["corrected"].tolist() == ["gut, ja"]


@pytest.mark.parametrize(
    ("image", "to", "said"),
    [
        ("z.png", "benign", "the records have no image 'z.png'"),
        ("a.png", "Malignant", "the task 'skin_lesion' has no class 'Malignant'; it has: benign, malignant"),
        ("a.png", "benign|malignant", "no class 'benign|malignant'"),
        ("a.png", NOTHING, "no class"),
    ],
)
def test_unknown_images_and_classes_change_nothing(image, to, said, records, journal):
    kept = Corrections(journal, records, SKIN_LESION)
    with pytest.raises(MedicError, match=re.escape(said)):
        kept.label(image, to)
    assert kept.current("a.png") == "benign"
    assert not journal.exists()


def test_what_cannot_be_written_has_not_happened(records, unwritable):
    kept = Corrections(unwritable / "corrections.csv", records, SKIN_LESION)
    for change in (lambda: kept.label("a.png", "malignant"), lambda: kept.exclude("b.png")):
        with pytest.raises(MedicError, match=r"cannot write .*corrections.csv"):
            change()
    assert [kept.current(name) for name in NAMES[:2]] == ["benign", "malignant"]
    assert len(kept) == 0
    assert kept.undo() is None


def test_an_undo_that_cannot_be_written_has_not_happened(records, journal, monkeypatch):
    kept = Corrections(journal, records, SKIN_LESION)
    kept.label("a.png", "malignant")

    def full(*_: object) -> None:
        raise MedicError("cannot write: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(corrections, "write_text", full)
        with pytest.raises(MedicError, match="the disk is full"):
            kept.undo()
    assert kept.current("a.png") == "malignant"
    assert kept.undo().image == "a.png"


# Several classes an image


def test_findings_are_written_in_the_tasks_order_and_none_as_such(radiographs, journal):
    kept = Corrections(journal, radiographs, CHEST_XRAY, who="Ann")
    assert [kept.current(name) for name in NAMES[:3]] == ["Mass|Nodule", "Hernia", NOTHING]
    kept.label("b.png", "Hernia|Mass")
    kept.label("a.png", "Nodule|Mass")
    kept.label("c.png", "Edema")
    kept.label("a.png", NOTHING)
    assert lines(journal)[1:] == [
        "Ann,b.png,Hernia,Mass|Hernia",
        "Ann,c.png,(none),Edema",
        "Ann,a.png,Mass|Nodule,(none)",
    ]
    with pytest.raises(MedicError, match="no class 'Flu'"):
        kept.label("a.png", "Mass|Flu")
    with pytest.raises(MedicError, match="no class 'No Finding'"):
        kept.label("a.png", NO_FINDING)


@pytest.mark.parametrize("task", [CHEST_XRAY, CHEST_XRAY_OR_NONE])
def test_no_finding_and_the_label_follow_from_the_findings(task, radiographs, journal):
    kept = Corrections(journal, radiographs, task)
    kept.label("a.png", NOTHING)
    kept.label("b.png", "Mass|Hernia")
    kept.label("c.png", "Edema")
    corrected = apply(radiographs, journal, task)
    assert written_labels(corrected, task) == [NOTHING, "Mass|Hernia", "Edema"]
    assert corrected["label"].tolist() == [0, 1, 1]
    assert corrected[NO_FINDING].tolist() == [1, 0, 0]
    assert corrected["corrected"].tolist() == ["Mass|Nodule", "Hernia", NOTHING]
    assert corrected[list(FINDINGS)].sum().sum() == 3


def test_whether_there_is_any_finding_is_not_corrected_by_itself(radiographs, journal):
    with pytest.raises(
        MedicError, match=r"'chest_xray_binary' follows from the findings .* with the task 'chest_xray'"
    ):
        Corrections(journal, radiographs, CHEST_XRAY_BINARY)


# Applied


def test_labels_are_changed_rows_left_out_and_the_former_label_kept(records, journal):
    kept = Corrections(journal, records, SKIN_LESION)
    kept.label("a.png", "malignant")
    kept.exclude("b.png")
    kept.label("c.png", "malignant")
    kept.label("c.png", "benign")
    untouched = records.copy()
    corrected = apply(records, journal, SKIN_LESION)
    assert records.equals(untouched)
    assert corrected["image"].tolist() == ["a.png", "c.png", "d.png"]
    assert corrected["label"].tolist() == [1, 0, 1]
    assert corrected["class"].tolist() == ["malignant", "benign", "malignant"]
    assert corrected["corrected"].dtype == "string"
    assert corrected["corrected"].fillna("-").tolist() == ["benign", "-", "-"], (
        "what went back to its class is as it was"
    )


def test_an_image_keeps_the_label_of_its_source_where_a_second_journal_is_applied(records, tmp_path):
    task = Task("own", "multiclass", ("benign", "malignant", "unsure"))
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    Corrections(first, records, task).label("a.png", "malignant")
    once = apply(records, first, task)
    kept = Corrections(second, once, task)
    kept.label("a.png", "unsure")
    kept.label("b.png", "unsure")
    assert apply(once, second, task)["corrected"].fillna("-").tolist() == ["benign", "malignant", "-", "-"]


def test_the_same_journal_applied_twice_is_explained(records, journal):
    Corrections(journal, records, SKIN_LESION).label("a.png", "malignant")
    once = apply(records, journal, SKIN_LESION)
    with pytest.raises(
        MedicError, match=r"corrections.csv beside the source, which its reader has applied, says the same"
    ):
        apply(once, journal, SKIN_LESION)


def test_former_classes_survive_a_prepared_set_as_they_were_written(tmp_path, smooth, encode):
    task = Task("own", "multiclass", ("007", "NA", "well"))
    for name in NAMES:
        (tmp_path / name).write_bytes(encode(smooth(20, 24)))
    records = pd.DataFrame({"image": NAMES, "patient": NAMES, "split": "train", "label": [0, 1, 2, 2]})
    kept = Corrections(tmp_path / "journal.csv", records, task)
    kept.label("a.png", "well")
    kept.label("b.png", "well")
    corrected = apply(records, kept.path, task)
    prepared = prepare(corrected, open_store(tmp_path), tmp_path / "prepared", Preprocessing(20, crop="square"))
    assert Prepared.load(prepared.folder).records["corrected"].fillna("-").tolist() == ["007", "NA", "-", "-"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no journal of corrections: its first line is not when,who,image,from,to"),
        ("image,label\na.png,benign\n", "is no journal of corrections"),
        (f"{HEADER}\n{NEWS},a.png,benign\n", "change 1, does not have when, who, image, from, to"),
        (f"{HEADER}\n\n{NEWS},a.png,benign,malignant\n{NEWS},b.png,,benign\n", "change 2, does not have"),
        (f"{HEADER}\n{NEWS},z.png,benign,malignant\n", "change 1, corrects 'z.png', which the records do not have"),
        (f"{HEADER}\n{NEWS},a.png,benign,good\n", "change 1, the task 'skin_lesion' has no class 'good'"),
        (f"{HEADER}\n{NEWS},a.png,malignant,benign\n", "takes a.png from 'malignant', but the source says 'benign'"),
        (f"{HEADER}\n\n\n{NEWS},a.png,(excluded),benign\n", "change 1, takes a.png"),
        (f"{HEADER}\n{NEWS},a.png,benign,malignant\n{NEWS},a.png,benign,(excluded)\n", "change 2, takes a.png"),
        ('when,who,"image', "is no journal|cannot be read"),
    ],
)
def test_a_damaged_or_strange_journal_is_refused_by_whoever_opens_it(text, said, records, journal):
    journal.parent.mkdir()
    journal.write_text(text)
    for opens in (lambda: Corrections(journal, records, SKIN_LESION), lambda: apply(records, journal, SKIN_LESION)):
        with pytest.raises(MedicError, match=f"corrections.csv.*({said})"):
            opens()
    assert journal.read_text() == text


def test_a_journal_that_is_no_text_or_not_there_is_refused(records, journal):
    with pytest.raises(MedicError, match="cannot be read"):
        apply(records, journal, SKIN_LESION)
    journal.parent.mkdir()
    journal.write_bytes(f"{HEADER}\n{NEWS},Fu\xdf.png,benign,malignant\n".encode("latin-1"))
    with pytest.raises(MedicError, match="cannot be read"):
        apply(records, journal, SKIN_LESION)


def test_a_journal_that_a_spreadsheet_has_saved_is_read(records, journal):
    journal.parent.mkdir()
    journal.write_bytes(f"\ufeff{HEADER}\r\n{NEWS},a.png,benign,malignant\r\n".encode())
    assert apply(records, journal, SKIN_LESION)["label"].tolist() == [1, 1, 0, 1]


def test_findings_that_somebody_wrote_in_another_order_are_asked_for_in_the_tasks(radiographs, journal):
    journal.parent.mkdir()
    journal.write_text(f"{HEADER}\n{NEWS},b.png,Hernia,Hernia|Mass\n")
    with pytest.raises(MedicError, match=r"write 'Hernia\|Mass' as 'Mass\|Hernia'"):
        apply(radiographs, journal, CHEST_XRAY)


def test_leaving_out_every_image_is_refused(records, journal):
    kept = Corrections(journal, records, SKIN_LESION)
    for name in NAMES:
        kept.exclude(name)
    with pytest.raises(MedicError, match="leaves out all 4 images; take some in again"):
        apply(records, journal, SKIN_LESION)


# Every reader


@pytest.fixture
def sets(tmp_path, smooth, encode) -> dict[str, tuple[Path, Callable, list[str]]]:
    """A small set in the layout of each reader: where it lies, who reads it, and two classes to change between."""
    image = encode(smooth(20, 24))

    def lay(name: str, *images: str, **texts: str) -> Path:
        for path in images:
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(image)
        for file, text in texts.items():
            (tmp_path / name / f"{file}.csv").write_text(text)
        return tmp_path / name

    chest = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n" + "".join(
        f"{name},{finding},0,{number},50,M,PA\n"
        for number, (name, finding) in enumerate(zip(NAMES, ("Mass", "Hernia", "No Finding", "Mass"), strict=True))
    )
    numbers = tmp_path / "digits"
    numbers.mkdir()
    for part in ("train", "t10k"):
        idx.write(numbers / f"{part}-images-idx3-ubyte.gz", np.full((2, 28, 28), 90, np.uint8))
        idx.write(numbers / f"{part}-labels-idx1-ubyte.gz", np.array([3, 8], np.uint8))
    truth = "a,benign\nb,malignant\nc,benign\nd,malignant\n"
    listed = "image,label\na,benign\nb,malignant\nc,benign\nd,malignant\n"
    return {
        "retinopathy": (lay("retinopathy", *NAMES, trainLabels="image,level\na,0\nb,4\nc,1\nd,2\n"), retinopathy.read),
        "chest_xray": (lay("chest_xray", *NAMES, Data_Entry_2017=chest), chest_xray.read),
        "digits": (numbers, digits.read),
        "skin_lesion": (lay("skin_lesion", *NAMES, groundtruth=truth), skin_lesion.read),
        "skin_lesion folders": (
            lay("lesions", *(f"{c}/{n}" for c in SKIN_LESION.classes for n in NAMES)),
            skin_lesion.read,
        ),
        "folder": (lay("folder", *(f"{kind}/{name}" for kind in ("cat", "dog") for name in NAMES)), own.read),
        "table": (lay("table", *NAMES, labels=listed), own.read),
        "own": (lay("own", *NAMES, labels=listed), own.read),
    }


TO = {"retinopathy": "Severe", "chest_xray": "Mass|Hernia", "digits": "7", "folder": "dog"}


def digests(place: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in place.rglob("*") if path.is_file()}


def zipped(place: Path) -> Path:
    """The folder as a zip file in a folder of its own."""
    path = place.parent / "packed" / f"{place.name}.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(place.rglob("*")):
            archive.write(file, file.relative_to(place))
    return path


NAMES_OF_SETS = ["retinopathy", "chest_xray", "skin_lesion", "skin_lesion folders", "folder", "table", "own"]


@pytest.mark.parametrize(
    ("name", "packed"), [("digits", False), *((name, packed) for name in NAMES_OF_SETS for packed in (False, True))]
)
def test_every_reader_applies_the_journal_that_lies_beside_and_says_so(name, packed, sets, capsys):
    place, read = sets[name]
    source = zipped(place) if packed else place
    before = digests(place.parent)
    plain, _ = read(source)
    assert "corrected" not in plain
    assert capsys.readouterr().err == ""
    task = CHEST_XRAY if name == "chest_xray" else read_task(name, plain)
    kept = Corrections((source.parent if packed else place) / "corrections.csv", plain, task)
    first, second = plain["image"][:2]
    kept.label(first, TO.get(name, "malignant"))
    kept.exclude(second)
    corrected, store = read(source)
    assert capsys.readouterr().err == (
        f"corrections.csv in {kept.path.parent.name}: 1 labels changed, 1 images left out\n"
    )
    assert second not in set(corrected["image"])
    assert len(corrected) == len(plain) - 1
    assert written_labels(corrected, task)[0] == TO.get(name, "malignant")
    assert corrected["corrected"].iloc[0] == written_labels(plain, task)[0]
    assert corrected["corrected"].iloc[1:].isna().all()
    assert all(image in store for image in corrected["image"])
    kept.path.unlink()
    assert digests(place.parent) == before, "the originals are as they were"


def read_task(name: str, records: pd.DataFrame) -> Task:
    from medic.data.readers import DATA_SETS, OWN

    return DATA_SETS[name.split()[0]].tasks[0] if name.split()[0] in DATA_SETS else OWN.task(records)


def test_a_table_that_is_named_itself_has_its_journal_beside_it(sets, capsys):
    place, _ = sets["table"]
    records, _ = own.read(place / "labels.csv")
    Corrections(place / "corrections.csv", records, read_task("own", records)).exclude("b.png")
    assert len(own.read(place / "labels.csv")[0]) == 3
    assert "1 images left out" in capsys.readouterr().err


def test_a_journal_inside_a_zip_file_is_not_passed_over_in_silence(sets, capsys):
    place, read = sets["folder"]
    records, _ = read(place)
    Corrections(place / "corrections.csv", records, read_task("own", records)).exclude("cat/a.png")
    source = zipped(place)
    assert len(read(source)[0]) == len(records)
    assert "corrections.csv in folder.zip is not applied: put it beside the zip file" in capsys.readouterr().err
    shutil.copy(place / "corrections.csv", source.parent)
    assert len(read(source)[0]) == len(records) - 1


def test_a_reader_refuses_a_journal_of_another_set(sets):
    place, read = sets["skin_lesion"]
    (place / "corrections.csv").write_text(f"{HEADER}\n{NEWS},z.png,benign,malignant\n")
    with pytest.raises(MedicError, match=r"corrects 'z.png', which the records do not have"):
        read(place)


def test_a_class_that_corrections_have_emptied_is_none_any_more(tmp_path, smooth, encode, capsys):
    for name in ("a/1.png", "a/2.png", "b/1.png", "c/1.png", "c/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(smooth(20, 24)))
    records, _ = own.read(tmp_path)
    kept = Corrections(tmp_path / "corrections.csv", records, read_task("own", records))
    kept.label("b/1.png", "c")
    corrected, _ = own.read(tmp_path)
    assert read_task("own", corrected).classes == ("a", "c")
    assert corrected["label"].tolist() == [0, 0, 1, 1, 1]
    assert "after the corrections no image is left in the class b" in capsys.readouterr().err
    kept.undo()
    kept.exclude("b/1.png")
    assert own.read(tmp_path)[0]["label"].tolist() == [0, 0, 1, 1]
    assert "after the corrections no image is left in the class b" in capsys.readouterr().err
    kept.include("b/1.png")
    kept.label("b/1.png", "c")
    kept.exclude("a/1.png")
    kept.exclude("a/2.png")
    with pytest.raises(MedicError, match="after the corrections all 3 images are of the class 'c'"):
        own.read(tmp_path)


def test_the_journal_is_a_table_like_any_other(records, journal):
    kept = Corrections(journal, records, SKIN_LESION, who="Ann")
    kept.exclude("a.png")
    assert pd.read_csv(journal).to_dict("records") == json.loads(kept.table().to_json(orient="records"))
