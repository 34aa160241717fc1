"""What a notebook takes over from an earlier one is made where it is absent, for every line of the series."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medic.data.corrections import Corrections
from medic.data.readers import DATA_SETS, OWN, lesions_or_own
from medic.data.stores import idx
from medic.errors import MedicError
from medic.notebooks.products import PREPARED_SIZE, corrections_file, prepared_set
from medic.notebooks.session import Session, begin
from medic.sample.digits import write_sample


def test_every_line_has_a_size_in_every_profile():
    assert set(PREPARED_SIZE) == set(DATA_SETS)
    assert all(set(sizes) == {"quick", "full"} for sizes in PREPARED_SIZE.values())


def test_digits_are_prepared_at_their_own_size_and_found_again(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    write_sample(clone / "sample_data" / "digits")
    for path in (clone / "sample_data" / "digits").glob("*.gz"):
        idx.write(path, idx.read(path)[:120])
    session = begin("quick", "sample_data", line="digits")
    prepared = prepared_set(session, "digits")
    assert prepared.preprocessing.size == 28
    assert set(prepared.records["split"]) == {"train", "validation", "test"}
    capsys.readouterr()
    assert prepared_set(session, "digits").records.equals(prepared.records)
    assert "prepared set: found" in capsys.readouterr().out


def write_images(folder: Path, *names: str) -> None:
    """A plain picture under each name, each of another colour."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((24, 32, 3), (60 + 5 * number, 120, 200), np.uint8))


@pytest.fixture
def lesions(clone, monkeypatch) -> Session:
    """A clone whose data folder holds 20 lesions, every fourth of them malignant."""
    monkeypatch.chdir(clone)
    place = clone / "data" / "skin_lesion"
    write_images(place, *(f"images/L{number:02}.png" for number in range(20)))
    verdicts = (f"L{number:02},{'benign' if number % 4 else 'malignant'}\n" for number in range(20))
    (place / "groundtruth.csv").write_text("".join(verdicts))
    return begin("quick", "data", line="skin_lesion")


@pytest.fixture
def own(clone, monkeypatch) -> Session:
    """A clone beside a folder of somebody's own images: three classes, one of them with one image."""
    monkeypatch.chdir(clone)
    folder = clone / "my photographs"
    write_images(folder, *(f"{kind}/{number}.PNG" for kind in ("wart", "mole") for number in range(6)), "scar/0.PNG")
    return begin("quick", "my photographs", line="skin_lesion")


def journal_of(session: Session) -> Corrections:
    line, source = lesions_or_own(session.data)
    records, _ = line.read(source)
    return Corrections(corrections_file(session), records, line.task(records), who="Ann")


def test_skin_lesions_are_prepared_in_three_splits_and_found_again(lesions, capsys):
    prepared = prepared_set(lesions, "skin_lesion")
    assert prepared.preprocessing.size == PREPARED_SIZE["skin_lesion"]["quick"]
    assert prepared.preprocessing.crop == "square"
    assert prepared.records.groupby("split")["class"].nunique().to_dict() == dict.fromkeys(
        ("test", "train", "validation"), 2
    )
    capsys.readouterr()
    assert prepared_set(lesions, "skin_lesion").records.equals(prepared.records)
    assert "prepared set: found" in capsys.readouterr().out


def test_corrections_are_applied_and_newer_ones_have_the_set_made_anew(lesions, capsys):
    journal = journal_of(lesions)
    journal.label("images/L01.png", "malignant")
    first = prepared_set(lesions, "skin_lesion").records.set_index("image")
    assert "corrections: applied" in capsys.readouterr().out
    assert first.loc["images/L01.png", ["label", "corrected"]].tolist() == [1, "benign"]
    assert first["corrected"].notna().sum() == 1
    prepared_set(lesions, "skin_lesion")
    assert "prepared set: found" in capsys.readouterr().out
    journal.exclude("images/L02.png")
    second = prepared_set(lesions, "skin_lesion").records
    assert "prepared set: of other corrections, making it from skin_lesion" in capsys.readouterr().out
    assert set(first.index) - set(second["image"]) == {"images/L02.png"}
    assert not (lesions.data / "skin_lesion" / "corrections.csv").exists(), "the data folder stays as it is"


def test_corrections_beside_the_source_are_no_reason_to_make_the_set_anew_each_time(lesions, capsys):
    line, source = lesions_or_own(lesions.data)
    records, _ = line.read(source)
    prepared_set(lesions, "skin_lesion")
    Corrections(source / "corrections.csv", records, line.task(records), who="Ann").exclude("images/L02.png")
    capsys.readouterr()
    assert "images/L02.png" not in set(prepared_set(lesions, "skin_lesion").records["image"])
    assert "prepared set: of other corrections" in capsys.readouterr().out
    prepared_set(lesions, "skin_lesion")
    assert "prepared set: found" in capsys.readouterr().out
    (source / "corrections.csv").unlink()
    assert "images/L02.png" in set(prepared_set(lesions, "skin_lesion").records["image"])
    assert "prepared set: of other corrections" in capsys.readouterr().out


def test_corrections_that_do_not_fit_are_no_reason_to_go_on_without_them(lesions):
    corrections_file(lesions).parent.mkdir(parents=True)
    corrections_file(lesions).write_text("when,who,image,from,to\n,,images/gone.png,benign,malignant\n")
    with pytest.raises(MedicError, match=r"images/gone.png is none of the records' images"):
        prepared_set(lesions, "skin_lesion")


def test_a_persons_own_folder_is_prepared_with_nothing_but_its_path_changed(own, capsys):
    prepared = prepared_set(own, "skin_lesion")
    out = capsys.readouterr().out
    assert "making it from my photographs" in out
    assert "the class 'scar' has no image in test" in out
    assert OWN.task(prepared.records).classes == ("mole", "scar", "wart")
    assert set(prepared.records["split"]) == {"train", "validation", "test"}
    assert len(prepared.records) == 13


def test_a_class_of_ones_own_that_corrections_have_emptied_is_gone_from_the_set(own, capsys):
    journal_of(own).label("scar/0.PNG", "mole")
    prepared = prepared_set(own, "skin_lesion")
    assert OWN.task(prepared.records).classes == ("mole", "wart")
    ended = capsys.readouterr()
    assert "'scar'" not in ended.out


def test_columns_that_are_named_are_read_and_other_ones_have_the_set_made_anew(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    folder = clone / "scans"
    write_images(folder, *(f"{number}.png" for number in range(12)))
    rows = "".join(f"{number}.png,{'ab'[number % 2]},p{number // 3}\n" for number in range(12))
    (folder / "list.csv").write_text(f"image,verdict,who\n{rows}")
    session = begin("quick", "scans", line="skin_lesion")
    assert prepared_set(session, "skin_lesion", {"label": "verdict"}).records["patient"].nunique() == 12
    titles = {"label": "verdict", "patient": "who"}
    capsys.readouterr()
    assert prepared_set(session, "skin_lesion", titles).records["patient"].nunique() == 4
    assert "prepared set: of other columns" in capsys.readouterr().out
    prepared_set(session, "skin_lesion", titles)
    assert "prepared set: found" in capsys.readouterr().out
