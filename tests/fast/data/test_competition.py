"""Two archives become one set: balanced to train on, natural to validate on, and no patient on both sides."""

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medic import cli
from medic.data import competition
from medic.data.competition import select, write
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared
from medic.errors import MedicError

SMALL = Preprocessing(size=32)
COUNTS = {0: 40, 1: 10, 2: 20, 3: 5, 4: 10}
GRADES = {f"{grade}{place:03x}c{grade}": grade for grade, count in COUNTS.items() for place in range(count)}
EYES = {f"{patient}_{eye}": patient % 5 for patient in range(10, 40) for eye in ("left", "right")}
LAYOUTS = {  # the table, its header, the ending of images, and their grades
    "main": ("kaggle/train.csv", "id_code,diagnosis", ".png", GRADES),
    "extra": ("all/trainLabels.csv", "image,level", ".jpeg", EYES),
}


def picture(number: int, suffix: str) -> bytes:
    """A small coloured disc, another one for each number."""
    pixels = np.zeros((40, 44, 3), np.uint8)  # too small to be told apart by what they show
    cv2.circle(pixels, (22, 20), 18, np.random.default_rng(number).integers(90, 250, 3).tolist(), -1)
    cv2.putText(pixels, f"{number}", (8, 24), cv2.FONT_HERSHEY_PLAIN, 0.7, (0, 0, 0))
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.fixture
def archive(pack) -> Callable[..., Path]:
    """A zip file in the layout of ``main`` or ``extra``; ``files`` by name stand for the drawn ones, None for none."""

    def make(kind: str, grades: dict | None = None, to: str = "", **files: bytes | None) -> Path:
        table, header, suffix, all_grades = LAYOUTS[kind]
        grades = grades or all_grades
        drawn = {name: picture(1000 * (kind == "extra") + place, suffix) for place, name in enumerate(grades)} | files
        images = {f"{table.partition('/')[0]}/train/{name}{suffix}": data for name, data in drawn.items() if data}
        lines = "\n".join([header, *(f"{name},{grade}" for name, grade in grades.items())])
        return pack(to=f"{to or kind}.zip", **{table: lines} | images)

    return make


@pytest.fixture
def archives(archive) -> tuple[Path, Path]:
    return archive("main"), archive("extra")


def counts(listed: pd.DataFrame, split: str, archive: str = "") -> list[int]:
    rows = listed[(listed["split"] == split) & listed["image"].str.startswith(archive)]
    return np.bincount(rows["label"], minlength=5).tolist()


def people(listed: pd.DataFrame, split: str) -> set[str]:
    return set(listed.loc[listed["split"] == split, "patient"])


def left_out(listed: pd.DataFrame, reason: str) -> list[str]:
    return listed.loc[listed["reason"] == reason, "image"].tolist()


def test_training_is_balanced_and_filled_up_and_validation_natural(archives):
    listed, _ = select(*archives, per_class=12)
    assert counts(listed, "train") == [12] * 5
    # Main keeps 32, 8, 16, 4 and 8 for training: only what is missing comes from the extra archive.
    assert counts(listed, "train", "extra/") == [0, 4, 0, 8, 4]
    assert counts(listed, "validation") == [8, 2, 4, 1, 2]
    assert counts(select(*archives, per_class=22)[0], "train") == [22, 20, 22, 16, 20]
    assert counts(select(archives[0], per_class=12)[0], "train") == [12, 8, 12, 4, 8]
    for path in archives:
        shutil.unpack_archive(path, path.with_suffix(""))
    folders, _ = select(*(path.with_suffix("") for path in archives), per_class=12)
    assert folders.equals(listed), "folders are read as zip files are"
    chosen, more, other = (
        set(select(*archives, **how)[0].query("split != ''")["image"])
        for how in ({"per_class": 12}, {"per_class": 14}, {"per_class": 12, "seed": 1})
    )
    assert chosen < more, "a larger target only adds"
    assert chosen != other


def test_a_patient_of_both_archives_is_never_on_both_sides(archive):
    lefts, rights = ({f"{number}_{eye}": number % 5 for number in range(10, 40)} for eye in ("left", "right"))
    listed, _ = select(archive("main", lefts), archive("extra", rights))
    assert not people(listed, "train") & people(listed, "validation")
    dropped = left_out(listed, "patient_in_validation")
    assert {name.split("/")[-1].split("_")[0] for name in dropped} == people(listed, "validation")
    listed, _ = select(archive("main", {str(number): number % 5 for number in range(10, 40)}), archive("extra"))
    assert set(listed["reason"]) == {""}, "a bare number is not the patient of that number in the other archive"


def test_absent_images_are_left_out_and_copies_stay_on_one_side(archive):
    copies = dict.fromkeys(list(GRADES)[:20], picture(0, ".png"))
    listed, _ = select(archive("main", **copies), archive("extra", **{"39_right": None}))
    assert left_out(listed, "absent") == ["extra/39_right"]
    assert len(set(listed.loc[listed["image"].str.contains("|".join(copies)), "split"])) == 1


def test_what_will_not_do_is_refused_in_one_sentence(archive, archives):
    main, extra = archives
    label = archive("extra", {"10_left": 0, "10_right": 5}, "label")
    alone = archive("main", {"a": 0}, "alone")
    for given, how, message in [
        ((main, "gone.zip"), {}, "there is no folder or zip file"),
        ((main, label), {}, r"trainLabels\.csv in .* line 3: .* is no grade"),
        ((alone, extra), {}, "too few for training"),
        ((main,), {"per_class": 0}, "do not fit"),
        ((main,), {"validation": 1.0}, "do not fit"),
        ((main,), {"seed": -1}, "do not fit"),
    ]:
        with pytest.raises(MedicError, match=message):
            select(*given, **how)


def test_interrupted_it_goes_on_and_leaves_nothing_of_an_earlier_selection(archives, tmp_path, monkeypatch, contents):
    folder = tmp_path / "data"
    write(*select(*archives, per_class=5), folder, SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(competition, "prepare", lambda *_: sys.exit("interrupted"))
        with pytest.raises(SystemExit):
            write(*select(*archives, per_class=8), folder, SMALL)
    assert "selection.csv" not in contents(folder)
    write(*select(*archives, per_class=8), folder, SMALL)
    before = contents(folder)
    monkeypatch.setattr(Preprocessing, "pixels", lambda *_: pytest.fail("an image was decoded again"))
    write(*select(*archives, per_class=8), folder, SMALL)
    assert contents(folder) == before


def test_the_command_makes_a_prepared_set_and_says_what_was_chosen_and_what_was_not(
    archive, tmp_path, capsys, monkeypatch
):
    (project := tmp_path / "project").mkdir()
    archive("main", to="project/main")
    archive("extra", to="project/extra", **{"11_left": None, "13_left": picture(0, ".jpeg")[:500]})
    command = "medic data --zip_main main.zip --zip_2015 extra.zip -d set --per-class 18 --size 32"
    monkeypatch.setattr(sys, "argv", command.split())
    with contextlib.chdir(project), contextlib.suppress(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["train", "validation", "total"]
    assert "Severe: 15 training images of the 18 asked for" in out
    assert "1 images left out: absent" in out
    assert "skipped extra/all/train/13_left.jpeg: truncated" in err
    shutil.move(project, tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere" / "set"
    prepared, account = Prepared.load(folder), pd.read_csv(folder / "selection.csv", keep_default_na=False)
    assert all(prepared.store.read(name) for name in prepared.records["image"])
    for split, file in (("train", "labels_train.csv"), ("validation", "labels_val.csv")):
        labels, rows = pd.read_csv(folder / file), prepared.split(split)
        assert (labels["archive"] + "/" + labels["image"]).tolist() == rows["image"].tolist()
        assert labels[["label", "file"]].to_numpy().tolist() == rows[["label", "file"]].to_numpy().tolist()
    assert counts(account, "train") == [18, 18, 18, 16, 18]
    assert left_out(account, "absent") == ["extra/11_left"]
    assert len(account) == len(GRADES) + len(EYES)
