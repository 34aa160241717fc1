"""What a notebook takes over from an earlier one is made where it is absent, for every line of the series."""

from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def made(capsys):
    """Prepares a set as a notebook does: its records by image, and the first line that says where it comes from."""

    def prepare(session: Session, *asked: object):
        capsys.readouterr()
        prepared = prepared_set(session, *asked)
        told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("reading")]
        return SimpleNamespace(prepared=prepared, records=prepared.records.set_index("image"), told=told)

    return prepare


def test_digits_are_prepared_at_their_own_size_and_found_again(clone, monkeypatch, made):
    monkeypatch.chdir(clone)
    write_sample(clone / "sample_data" / "digits")
    for path in (clone / "sample_data" / "digits").glob("*.gz"):
        idx.write(path, idx.read(path)[:120])
    session = begin("quick", "sample_data", line="digits")
    first, again = (made(session, "digits") for _ in range(2))
    assert first.prepared.preprocessing.size == 28
    assert set(first.records["split"]) == {"train", "validation", "test"}
    assert again.records.equals(first.records)
    assert again.told[0].startswith("prepared set: found")


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


def test_corrections_are_applied_and_newer_ones_have_the_set_made_anew(lesions, made):
    journal = journal_of(lesions)
    journal.label("images/L01.png", "malignant")
    first = made(lesions, "skin_lesion")
    assert any(line.startswith("corrections: applied") for line in first.told)
    preprocessing = first.prepared.preprocessing
    assert (preprocessing.size, preprocessing.crop) == (PREPARED_SIZE["skin_lesion"]["quick"], "square")
    assert first.records.groupby("split")["class"].nunique().to_dict() == {"test": 2, "train": 2, "validation": 2}
    assert first.records.loc["images/L01.png", ["label", "corrected"]].tolist() == [1, "benign"]
    assert first.records["corrected"].notna().sum() == 1
    again = made(lesions, "skin_lesion")
    assert again.told[0].startswith("prepared set: found")
    assert again.records.equals(first.records)
    journal.exclude("images/L02.png")
    second = made(lesions, "skin_lesion")
    assert second.told[0].startswith("prepared set: of other corrections, making it from skin_lesion")
    assert set(first.records.index) - set(second.records.index) == {"images/L02.png"}
    assert not (lesions.data / "skin_lesion" / "corrections.csv").exists(), "the data folder stays as it is"


def test_corrections_beside_the_source_are_no_reason_to_make_the_set_anew_each_time(lesions, made):
    line, source = lesions_or_own(lesions.data)
    records, _ = line.read(source)
    made(lesions, "skin_lesion")
    Corrections(source / "corrections.csv", records, line.task(records), who="Ann").exclude("images/L02.png")
    for there, state in ((False, "of other corrections"), (False, "found"), (True, "of other corrections")):
        if there:
            (source / "corrections.csv").unlink()
        found = made(lesions, "skin_lesion")
        assert found.told[0].startswith(f"prepared set: {state}")
        assert ("images/L02.png" in found.records.index) == there


def test_corrections_that_do_not_fit_are_no_reason_to_go_on_without_them(lesions):
    corrections_file(lesions).parent.mkdir(parents=True)
    corrections_file(lesions).write_text("when,who,image,from,to\n,,images/gone.png,benign,malignant\n")
    with pytest.raises(MedicError, match=r"images/gone.png is none of the records' images"):
        prepared_set(lesions, "skin_lesion")


def test_a_persons_own_folder_is_prepared_with_nothing_but_its_path_changed(own, made):
    first = made(own, "skin_lesion")
    assert "making it from my photographs" in first.told[0]
    assert any("the class 'scar' has no image in test" in line for line in first.told)
    assert OWN.task(first.prepared.records).classes == ("mole", "scar", "wart")
    assert set(first.records["split"]) == {"train", "validation", "test"}
    assert len(first.records) == 13
    journal_of(own).label("scar/0.PNG", "mole")  # its class is empty then, and gone
    second = made(own, "skin_lesion")
    assert OWN.task(second.prepared.records).classes == ("mole", "wart")
    assert not any("'scar'" in line for line in second.told)


def test_columns_that_are_named_are_read_and_other_ones_have_the_set_made_anew(clone, monkeypatch, made):
    monkeypatch.chdir(clone)
    folder = clone / "scans"
    write_images(folder, *(f"{number}.png" for number in range(12)))
    rows = "".join(f"{number}.png,{'ab'[number % 2]},p{number // 3}\n" for number in range(12))
    (folder / "list.csv").write_text(f"image,verdict,who\n{rows}")
    session, titles = begin("quick", "scans", line="skin_lesion"), {"label": "verdict", "patient": "who"}
    for columns, patients, state in (({"label": "verdict"}, 12, "absent"), (titles, 4, "of other columns")):
        found = made(session, "skin_lesion", columns)
        assert found.records["patient"].nunique() == patients
        assert found.told[0].startswith(f"prepared set: {state}")
    assert made(session, "skin_lesion", titles).told[0].startswith("prepared set: found")
