"""Corrections of labels: a journal, on disk at once, applied by every reader; the originals are never touched."""

import re

import pandas as pd
import pytest

from medic.data import corrections
from medic.data.corrections import EXCLUDED, NOTHING, Corrections, apply, written_labels
from medic.data.readers import DATA_SETS, OWN
from medic.errors import MedicError
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING, SKIN_LESION, Task

HEADER = "when,who,image,from,to"
NEWS = "2026-11-01T08:00:00Z,Ann"
NAMES = ["a.png", "b.png", "c.png", "d.png"]
LESIONS = pd.DataFrame({"image": NAMES, "patient": NAMES, "split": "train", "label": [0, 1, 0, 1]}).assign(
    **{"class": ["benign", "malignant", "benign", "malignant"]}
)
# Of a mass and a nodule, of a hernia, of nothing.
RADIOGRAPHS = LESIONS.head(3).drop(columns="class").assign(**dict.fromkeys(FINDINGS, 0) | {"label": [1, 1, 0]})
RADIOGRAPHS = RADIOGRAPHS.assign(Mass=[1, 0, 0], Nodule=[1, 0, 0], Hernia=[0, 1, 0], **{NO_FINDING: [0, 0, 1]})
CHEST = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
CHEST += "a.png,Mass,0,0,50,M,PA\nb.png,Hernia,0,1,50,M,PA\nc.png,No Finding,0,2,50,M,PA\nd.png,Mass,0,3,50,M,PA\n"


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "corrections.csv"


def lines(journal):
    """The journal's lines without the times."""
    return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ,", "", line) for line in journal.read_text().splitlines()]


def test_each_change_is_on_disk_before_the_next_line_runs_and_undo_takes_it_back_there(journal):
    kept = Corrections(journal, LESIONS, SKIN_LESION, who="Ann")
    kept.label("a.png", "benign")
    kept.include("a.png")
    assert not journal.exists(), "what changes nothing leaves no line"
    kept.label("a.png", "malignant")
    kept.exclude("a.png")
    kept.include("a.png")
    kept.exclude("b.png")
    changes = ["a.png,benign,malignant", "a.png,malignant,(excluded)", "a.png,(excluded),malignant"]
    assert lines(journal) == [HEADER, *(f"Ann,{one}" for one in changes), "Ann,b.png,malignant,(excluded)"]
    assert [kept.current(name) for name in NAMES] == ["malignant", EXCLUDED, "benign", "malignant"]
    assert (kept.original("a.png"), len(kept)) == ("benign", 4)
    again = Corrections(journal, LESIONS, SKIN_LESION, who="Bob")
    assert again.undo() is None, "what was there before stays"
    again.label("b.png", "benign")
    assert (again.undo()["who"], again.current("b.png"), len(lines(journal))) == ("Bob", EXCLUDED, 5)
    assert [kept.undo()["to"] for _ in range(4)] == [EXCLUDED, "malignant", EXCLUDED, "malignant"]
    assert lines(journal) == [HEADER]


def test_what_cannot_be_written_has_not_happened(journal, unwritable):
    kept = Corrections(unwritable / "corrections.csv", LESIONS, SKIN_LESION)
    with pytest.raises(MedicError, match=r"cannot write .*corrections.csv"):
        kept.label("a.png", "malignant")
    assert (kept.current("a.png"), len(kept)) == ("benign", 0)
    one, other = Corrections(journal, LESIONS, SKIN_LESION), Corrections(journal, LESIONS, SKIN_LESION)
    one.label("a.png", "malignant")
    with pytest.raises(MedicError, match="has changed since it was opened here, so nothing was written; open it again"):
        other.exclude("b.png")
    assert other.current("b.png") == "malignant"


def test_names_and_classes_with_commas_quotes_and_umlauts_come_back(journal):
    names = ['Fuß, "links" 1.PNG', "Ärmel\nzwei.png", "007"]
    task = Task("own", "multiclass", ("gut, ja", "schlecht|übel", "None"))
    records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": [0, 2, 2]})
    kept = Corrections(journal, records, task, who='Ann "A"')
    kept.label(names[0], "schlecht|übel")
    kept.exclude(names[1])
    kept.label("007", "gut, ja")
    journal.write_bytes(b"\xef\xbb\xbf" + journal.read_bytes().replace(b"Z,", b",").replace(b"\n1", b"\r\n1"))
    kept = Corrections(journal, records, task)  # as a spreadsheet saves it
    assert [kept.current(name) for name in names] == ["schlecht|übel", EXCLUDED, "gut, ja"]
    assert apply(records, journal, task)["corrected"].tolist() == ["gut, ja", "None"]


@pytest.mark.parametrize(
    ("records", "task", "image", "to", "said"),
    [
        (LESIONS, SKIN_LESION, "z.png", "benign", "the records have no image 'z.png'"),
        (LESIONS, SKIN_LESION, "a.png", "Bad", "the task 'skin_lesion' has no class 'Bad'; it has: benign, malignant"),
        (LESIONS, SKIN_LESION, "a.png", "benign|malignant", "no class 'benign|malignant'"),
        (RADIOGRAPHS, CHEST_XRAY, "a.png", "Mass|Flu", "no class 'Flu'"),
        (RADIOGRAPHS, CHEST_XRAY, "a.png", NO_FINDING, "no class 'No Finding'"),
        (RADIOGRAPHS, CHEST_XRAY_BINARY, "a.png", "Mass", "follows from a chest X-ray's findings; correct those"),
    ],
)
def test_unknown_images_and_classes_change_nothing(records, task, image, to, said, journal):
    with pytest.raises(MedicError, match=re.escape(said)):
        Corrections(journal, records, task).label(image, to)
    assert not journal.exists()


def test_labels_are_changed_rows_left_out_and_the_former_label_kept(journal):
    kept, untouched = Corrections(journal, LESIONS, SKIN_LESION), LESIONS.copy()
    for image, to in (("a.png", "malignant"), ("c.png", "malignant"), ("c.png", "benign")):
        kept.label(image, to)
    kept.exclude("b.png")
    once = apply(LESIONS, journal, SKIN_LESION)
    assert LESIONS.equals(untouched)
    assert once["image"].tolist() == ["a.png", "c.png", "d.png"]
    assert once["class"].tolist() == ["malignant", "benign", "malignant"]
    assert once["label"].tolist() == [1, 0, 1]
    assert once["corrected"].fillna("-").tolist() == ["benign", "-", "-"], "what went back to its class is as it was"
    with pytest.raises(MedicError, match=r"change 1: a.png is not 'benign' but 'malignant'; keep one"):
        apply(once, journal, SKIN_LESION)
    second = Corrections(journal.with_name("second.csv"), once, SKIN_LESION)
    second.label("d.png", "benign")
    twice = apply(once, second.path, SKIN_LESION)
    assert twice["corrected"].fillna("-").tolist() == ["benign", "-", "malignant"], "each keeps its source's label"


@pytest.mark.parametrize("task", [CHEST_XRAY, CHEST_XRAY_OR_NONE])
def test_no_finding_and_the_label_follow_from_the_findings(task, journal):
    kept = Corrections(journal, RADIOGRAPHS, task, who="Ann")
    for name, label in (("a.png", NOTHING), ("b.png", "Hernia|Mass"), ("c.png", "Edema"), ("c.png", "Edema")):
        kept.label(name, label)
    changes = ["a.png,Mass|Nodule,(none)", "b.png,Hernia,Mass|Hernia", "c.png,(none),Edema"]
    assert lines(journal) == [HEADER, *(f"Ann,{one}" for one in changes)]
    changed = apply(RADIOGRAPHS, journal, task)
    assert written_labels(changed, task) == [NOTHING, "Mass|Hernia", "Edema"]
    assert changed[["label", NO_FINDING]].to_numpy().tolist() == [[0, 1], [1, 0], [1, 0]]
    assert changed["corrected"].tolist() == ["Mass|Nodule", "Hernia", NOTHING]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("image,label\na.png,benign\n", "cannot be read as a journal of corrections"),
        (f"{HEADER}\n{NEWS},a.png,benign\n", "change 1: the task 'skin_lesion' has no class ''"),
        (f"{HEADER}\n{NEWS},z.png,benign,malignant\n", "change 1: z.png is none of the records' images"),
        (f"{HEADER}\n" + f"{NEWS},a.png,benign,malignant\n" * 2, "change 2: a.png is not 'benign'"),
        (f"{HEADER}\n{NEWS},Fu\xdf.png,benign,malignant\n", "cannot be read"),
    ],
)
def test_a_journal_that_does_not_fit_is_refused(text, said, journal):
    journal.write_bytes(text.encode("latin-1"))
    with pytest.raises(MedicError, match=f"corrections.csv.*{said}"):
        apply(LESIONS, journal, SKIN_LESION)


@pytest.mark.parametrize("kind", ["lay", "pack"])
@pytest.mark.parametrize(
    ("name", "table", "text", "to"),
    [
        ("retinopathy", "trainLabels.csv", "image,level\na,0\nb,4\nc,1\nd,2\n", "Severe"),
        ("chest_xray", "Data_Entry_2017.csv", CHEST, "Mass|Hernia"),
        ("skin_lesion", "groundtruth.csv", "a,benign\nb,malignant\nc,benign\nd,malignant\n", "malignant"),
        ("own", "labels.csv", "image,label\na,benign\nb,malignant\nc,benign\nd,malignant\n", "malignant"),
    ],
)
def test_every_reader_applies_the_journal_that_lies_beside_and_says_so(name, table, text, to, kind, request, capsys):
    source, data_set = request.getfixturevalue(kind)(*NAMES, **{table: text}), {**DATA_SETS, "own": OWN}[name]
    plain, _ = data_set.read(source)
    task = data_set.task(plain)
    kept = Corrections(corrections.beside(source), plain, task)
    kept.label(plain["image"][0], to)
    kept.exclude(plain["image"][1])
    changed, _ = data_set.read(source)
    assert "corrections.csv in" in (said := capsys.readouterr().err)
    assert ": 1 labels changed, 1 images left out\n" in said
    assert list(changed["image"]) == [plain["image"][0], *plain["image"][2:]]
    assert written_labels(changed, task)[0] == to
    assert changed["corrected"].fillna("").tolist() == [written_labels(plain, task)[0], "", ""]
