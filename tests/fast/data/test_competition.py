"""Two archives become one set: balanced to train on, natural to validate on, and nobody on both sides."""

import contextlib
import json
import shutil
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medic import cli
from medic.data.competition import Selection, select, write
from medic.data.competition import folder as folder_module
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared
from medic.errors import MedicError

SMALL = Preprocessing(size=32)


def picture(number: int, suffix: str) -> bytes:
    """A small coloured disc, another one for each number."""
    pixels = np.zeros((40, 48, 3), np.uint8)
    colour = np.random.default_rng(number).integers(90, 250, 3).tolist()
    cv2.circle(pixels, (24, 20), 18, colour, -1)
    cv2.putText(pixels, f"{number}", (8, 24), cv2.FONT_HERSHEY_PLAIN, 0.7, (0, 0, 0))
    return cv2.imencode(suffix, pixels)[1].tobytes()


@dataclass
class Archive:
    """What goes into an archive: grades by name, and where its table and images lie."""

    table: str
    header: str
    images: str
    suffix: str
    grades: dict[str, int | str]
    first: int
    changed: dict[str, bytes | None] = field(default_factory=dict)  # other bytes for a name, None for no file
    more: dict[str, bytes] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        lines = "".join(f"{name},{grade}\n" for name, grade in self.grades.items())
        found = {
            f"{self.images}/{name}{self.suffix}": picture(self.first + place, self.suffix)
            for place, name in enumerate(self.grades)
        }
        found |= {f"{self.images}/{name}{self.suffix}": data for name, data in self.changed.items()}
        return {
            self.table: f"{self.header}\n{lines}".encode(),
            **{name: data for name, data in found.items() if data is not None},
            **self.more,
        }

    def zip(self, path: Path, compression: int = zipfile.ZIP_STORED, top: str = "") -> Path:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in self.files().items():
                archive.writestr(zipfile.ZipInfo(top + name), data, compression)
        return path

    def folder(self, path: Path) -> Path:
        for name, data in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path


def main_archive(grades: dict[str, int | str] | None = None, **how: dict) -> Archive:
    """The competition's layout; by default 40, 10, 20, 5 and 10 images of the five grades."""
    if grades is None:
        counts = {0: 40, 1: 10, 2: 20, 3: 5, 4: 10}
        grades = {f"{grade}{place:03x}c{grade}": grade for grade, count in counts.items() for place in range(count)}
    return Archive("kaggle_retina/train.csv", "id_code,diagnosis", "kaggle_retina/train", ".png", grades, 0, **how)


def extra_archive(grades: dict[str, int | str] | None = None, **how: dict) -> Archive:
    """The 2015 layout; by default 30 patients, six of each grade in both eyes."""
    if grades is None:
        grades = {f"{patient}_{eye}": patient % 5 for patient in range(10, 40) for eye in ("left", "right")}
    table, images = "train_image_resized/trainLabels.csv", "train_image_resized/train"
    return Archive(table, "image,level", images, ".jpeg", grades, 1000, **how)


@pytest.fixture
def archives(tmp_path: Path) -> tuple[Path, Path]:
    return main_archive().zip(tmp_path / "main.zip"), extra_archive().zip(tmp_path / "extra.zip")


def sides(selection: Selection) -> dict[str, set[str]]:
    return {split: set(rows["patient"]) for split, rows in selection.records.groupby("split")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def corrupt(path: Path, name: str) -> None:
    """Change one byte in the middle of a member."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    data[member.header_offset + 30 + len(name) + member.compress_size // 2] ^= 0xFF
    path.write_bytes(data)


# What is chosen


@pytest.mark.parametrize("form", ["stored", "deflated", "below a top folder", "folder"])
def test_both_published_layouts_are_read_without_unpacking(form, tmp_path):
    made = {"main": main_archive(), "extra": extra_archive()}
    if form == "folder":
        places = [archive.folder(tmp_path / key) for key, archive in made.items()]
    else:
        compression = zipfile.ZIP_DEFLATED if form == "deflated" else zipfile.ZIP_STORED
        top = "download/" if "top" in form else ""
        places = [archive.zip(tmp_path / f"{key}.zip", compression, top) for key, archive in made.items()]
    selection = select(*places, per_class=12)
    image = f"main/{'download/' if 'top' in form else ''}kaggle_retina/train/3000c3.png"
    assert image in set(selection.records["image"])
    assert selection.store.read(image) == made["main"].files()["kaggle_retina/train/3000c3.png"]
    expected = select(made["main"].zip(tmp_path / "a.zip"), made["extra"].zip(tmp_path / "b.zip"), per_class=12)
    for column in ("patient", "split", "label"):
        assert selection.records[column].equals(expected.records[column])
    assert {path.name for path in tmp_path.iterdir()} <= {"main", "extra", "main.zip", "extra.zip", "a.zip", "b.zip"}


def test_training_is_balanced_and_filled_up_and_validation_natural(archives):
    balance = select(*archives, per_class=12).balance()
    assert balance["main"].tolist() == [40, 10, 20, 5, 10]
    assert balance["extra"].tolist() == [12] * 5
    assert balance["train"].tolist() == [12] * 5
    # Main keeps 32, 8, 16, 4 and 8 for training: only what is missing comes from the extra archive.
    assert balance["train_extra"].tolist() == [0, 4, 0, 8, 4]
    assert balance["validation"].tolist() == [8, 2, 4, 1, 2]
    assert select(*archives, validation=0.4).balance()["validation"].tolist() == [16, 4, 8, 2, 4]
    assert select(*archives, per_class=22).short() == {"Mild": 20, "Severe": 16, "Proliferative": 20}
    assert select(archives[0], per_class=12).balance()["train"].tolist() == [12, 8, 12, 4, 8]


def test_the_seed_decides_and_a_larger_target_only_adds(archives):
    one, again, other = (select(*archives, per_class=6, seed=seed).records for seed in (3, 3, 4))
    assert one.equals(again)
    assert set(one["image"]) != set(other["image"])
    larger = select(*archives, per_class=9, seed=3).records
    assert set(one["image"]) < set(larger["image"])


def test_a_patient_of_both_archives_is_never_on_both_sides(tmp_path):
    # Both archives have one eye each of the patients 10 to 39.
    main = main_archive({f"{patient}_left": patient % 5 for patient in range(10, 40)}).zip(tmp_path / "main.zip")
    extra = extra_archive({f"{patient}_right": patient % 5 for patient in range(10, 40)}).zip(tmp_path / "extra.zip")
    selection = select(main, extra)
    found = sides(selection)
    assert found["train"] & found["validation"] == set()
    kept_out = selection.dropped[selection.dropped["reason"] == "patient_in_validation"]
    assert {image.split("/")[-1].split("_")[0] for image in kept_out["image"]} == found["validation"]
    assert selection.balance()["train_extra"].sum() == 30 - len(found["validation"])


def test_a_bare_number_in_the_main_archive_is_not_the_patient_of_that_number(tmp_path):
    main = main_archive({str(number): number % 5 for number in range(10, 40)}).zip(tmp_path / "main.zip")
    selection = select(main, extra_archive().zip(tmp_path / "extra.zip"))
    assert selection.dropped.empty
    assert selection.balance()["train_extra"].sum() == 60


def test_the_extra_archives_copy_of_a_name_is_dropped_and_counted(tmp_path):
    names = [f"{patient}_left" for patient in range(10, 40)]
    main = main_archive({name: 1 if name == "12_left" else int(name[:2]) % 5 for name in names})
    selection = select(main.zip(tmp_path / "main.zip"), extra_archive().zip(tmp_path / "extra.zip"))
    copies = selection.dropped[selection.dropped["reason"] == "same_name"].set_index("image")["detail"]
    assert set(copies.index) == {f"extra/train_image_resized/train/{name}.jpeg" for name in names}
    detail = copies["extra/train_image_resized/train/12_left.jpeg"]
    assert detail.endswith("main/kaggle_retina/train/12_left.png, labelled 2 here and 1 there")
    assert "labelled" not in copies["extra/train_image_resized/train/13_left.jpeg"]


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_the_same_bytes_under_two_names_are_one_photograph_of_one_person(form, tmp_path):
    made = main_archive()
    files = made.files()
    names = list(made.grades)
    twin = files[f"kaggle_retina/train/{names[1]}.png"]
    made.changed[names[0]] = twin  # twice in the main archive
    # Every left eye of the extra archive is a photograph of the main archive: its right eyes show known people.
    grades = {f"{patient}_{eye}": 0 for patient in range(10, 50) for eye in ("left", "right")}
    lefts = [f"{patient}_left" for patient in range(10, 50)]
    files = made.files()
    borrowed = [f"kaggle_retina/train/{name}.png" for name in names[:40]]
    extra = extra_archive(grades, changed={left: files[name] for left, name in zip(lefts, borrowed, strict=True)})
    if form == "zip":
        places = made.zip(tmp_path / "main.zip"), extra.zip(tmp_path / "extra.zip")
    else:
        places = made.folder(tmp_path / "main"), extra.zip(tmp_path / "extra.zip")
    selection = select(*places)
    identical = selection.dropped[selection.dropped["reason"] == "identical"]
    assert len(identical) == 1 + len(lefts)
    assert identical["image"].iloc[0] == f"main/{borrowed[1]}"
    held = set(selection.records.loc[selection.records["split"] == "validation", "image"])
    known = {left.split("_")[0] for left, name in zip(lefts, borrowed, strict=True) if f"main/{name}" in held}
    assert known
    train = selection.records[selection.records["split"] == "train"]
    assert not known & set(train["patient"])
    kept_out = selection.dropped[selection.dropped["reason"] == "patient_in_validation"]
    assert len(kept_out) >= len(known)


def test_images_that_are_listed_but_absent_and_those_in_no_table_are_counted(tmp_path):
    main = main_archive(more={f"kaggle_retina/test/{name}.png": picture(name, ".png") for name in range(7)})
    extra = extra_archive(changed={"11_left": None, "12_right": None})
    selection = select(main.zip(tmp_path / "main.zip"), extra.zip(tmp_path / "extra.zip"))
    assert selection.unlisted == {"main": 7, "extra": 0}
    assert selection.dropped[["image", "reason", "detail"]].to_numpy().tolist() == [
        ["extra/11_left", "absent", "not in extra.zip"],
        ["extra/12_right", "absent", "not in extra.zip"],
    ]
    assert selection.balance()["train_extra"].sum() == 58


def test_what_will_not_do_is_refused_in_one_sentence(archives, tmp_path, unwritable):
    main, extra = archives
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    label = extra_archive({"10_left": 0, "10_right": 5}).zip(tmp_path / "label.zip")
    twice = extra_archive({"10_left": 0, "10_left.jpeg": 1}, changed={"10_left.jpeg": None}).zip(tmp_path / "twice.zip")
    alone = main_archive({"a": 0}).zip(tmp_path / "alone.zip")
    cases = [
        (lambda: select(main, tmp_path / "broken.zip"), r"broken\.zip is no zip file that can be read"),
        (lambda: select(main, tmp_path / "gone.zip"), "there is no folder or zip file"),
        (lambda: select(main, label), r"trainLabels\.csv line 3: .* is no grade"),
        (lambda: select(main, twice), "more than once"),
        (lambda: select(extra, main), r"swapped: .*main\.zip holds the competition's train\.csv"),
        (lambda: select(alone, extra), "too few for training"),
        *(
            (lambda wrong=wrong: select(main, **wrong), "do not fit")
            for wrong in ({"per_class": 0}, {"validation": 1.0}, {"seed": -1})
        ),
        (lambda: write(select(main, extra, per_class=8), unwritable, SMALL), "cannot write"),
        (lambda: write(select(main_archive().folder(tmp_path / "in")), tmp_path / "in" / "data", SMALL), "lies inside"),
    ]
    for attempt, message in cases:
        with pytest.raises(MedicError, match=message):
            attempt()


# The folder that comes of it


def test_the_folder_is_a_prepared_set_with_labels_account_and_chart(archives, tmp_path):
    prepared = write(select(*archives, per_class=8), tmp_path / "data", SMALL)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *(".medic-product", "images", "index.txt", "manifest.json", "records.csv", "skipped.csv"),
        *("labels_train.csv", "labels_val.csv", "selection.json"),
    }
    assert set(prepared.records["split"]) == {"train", "validation"}
    for split, file in (("train", "labels_train.csv"), ("validation", "labels_val.csv")):
        labels, rows = pd.read_csv(tmp_path / "data" / file), prepared.split(split)
        assert list(labels) == ["image", "label", "archive", "patient", "file"]
        assert (labels["archive"] + "/" + labels["image"]).tolist() == rows["image"].tolist()
        assert labels[["label", "file"]].to_numpy().tolist() == rows[["label", "file"]].to_numpy().tolist()
    account = json.loads((tmp_path / "data" / "selection.json").read_text())
    pixels = {"size": 32, "crop": "fundus", "grey": False}
    assert account["settings"] == {"per_class": 8, "validation": 0.2, "seed": 0, **pixels}
    assert account["balance"]["Severe"] == {"main": 5, "extra": 12, "train": 8, "train_extra": 4, "validation": 1}
    assert account["archives"]["main"]["bytes"] == archives[0].stat().st_size
    assert account["archives"]["main"]["members"] == 86
    assert account["short"] == {}
    assert str(tmp_path) not in json.dumps(account)


def test_the_originals_are_found_again_when_all_of_it_has_moved(archives, tmp_path):
    (tmp_path / "project").mkdir()
    moved = [Path(shutil.move(path, tmp_path / "project")) for path in archives]
    write(select(*moved, per_class=8), tmp_path / "project" / "data", SMALL)
    shutil.move(tmp_path / "project", tmp_path / "elsewhere")
    prepared = Prepared.load(tmp_path / "elsewhere" / "data")
    for name in prepared.records["image"]:
        assert prepared.store.read(name)


def test_a_damaged_member_is_named_counted_and_in_no_table(archives, tmp_path):
    whole = write(select(*archives), tmp_path / "whole", SMALL)
    bad = sorted(
        {whole.split("validation")["image"].iloc[0], "main/kaggle_retina/train/3000c3.png"}
        | {"extra/train_image_resized/train/14_left.jpeg"}
    )
    for image in bad:
        archive, _, name = image.partition("/")
        corrupt(archives[archive == "extra"], name)
    prepared = write(select(*archives), tmp_path / "data", SMALL)
    assert sorted(prepared.skipped["image"]) == bad
    assert len(prepared.records) == len(whole.records) - len(bad)
    account = json.loads((tmp_path / "data" / "selection.json").read_text())
    assert account["left_out"] == {"unreadable": len(bad)}
    assert sorted(row["image"] for row in account["left_out_images"]) == bad
    listed = [pd.read_csv(tmp_path / "data" / file) for file in ("labels_train.csv", "labels_val.csv")]
    names = {f"{row.archive}/{row.image}" for table in listed for row in table.itertuples()}
    assert names == set(prepared.records["image"])
    assert sum(row["train"] + row["validation"] for row in account["balance"].values()) == len(names)


def test_the_same_again_changes_no_byte_and_decodes_nothing(archives, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    write(select(*archives, per_class=8), folder, SMALL)
    before = contents(folder)
    monkeypatch.setattr(Preprocessing, "pixels", lambda *_: pytest.fail("an image was decoded again"))
    write(select(*archives, per_class=8), folder, SMALL)
    assert contents(folder) == before


def test_interrupted_it_goes_on_and_leaves_nothing_of_an_earlier_selection(archives, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    write(select(*archives, per_class=8), tmp_path / "undisturbed", SMALL)
    write(select(*archives, per_class=5), folder, SMALL)
    (folder / "selection.json").unlink()

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def interrupted(where: str) -> dict[str, bytes]:
        with monkeypatch.context() as patch:
            patch.setattr(folder_module, where, stopped)
            with pytest.raises(KeyboardInterrupt):
                write(select(*archives, per_class=8), folder, SMALL)
        return contents(folder)

    of_the_earlier = {"labels_train.csv", "labels_val.csv", "balance.png", "selection.json"}
    assert not of_the_earlier & interrupted("prepare").keys()
    write(select(*archives, per_class=8), folder, SMALL)
    ended, undisturbed = contents(folder), contents(tmp_path / "undisturbed")
    assert undisturbed.keys() <= ended.keys()
    assert all(ended[name] == data for name, data in undisturbed.items() if name != "index.txt")
    assert not [name for name in ended if name.endswith(".part")]


def test_other_settings_or_archives_in_the_same_folder_are_refused_with_the_difference(archives, tmp_path):
    folder = tmp_path / "data"
    write(select(*archives, per_class=8), folder, SMALL)
    before = contents(folder)
    with pytest.raises(
        MedicError, match=r"holds a selection with per_class=8, not 9; seed=0, not 1; give another folder"
    ):
        write(select(*archives, per_class=9, seed=1), folder, SMALL)
    with pytest.raises(MedicError, match="size=32, not 48"):
        write(select(*archives, per_class=8), folder, Preprocessing(size=48))
    changed = extra_archive(changed={"11_left": picture(7, ".jpeg")}).zip(tmp_path / "changed.zip")
    for extra in (changed, None):
        with pytest.raises(MedicError, match="from other archives"):
            write(select(archives[0], extra, per_class=8), folder, SMALL)
    assert contents(folder) == before
    shutil.move(archives[1], tmp_path / "renamed.zip")
    write(select(archives[0], tmp_path / "renamed.zip", per_class=8), folder, SMALL)
    (folder / "selection.json").write_text("{}")
    with pytest.raises(MedicError, match=r"selection\.json cannot be read as a selection"):
        write(select(archives[0], changed, per_class=9), folder, SMALL)
    (folder / "selection.json").unlink()
    write(select(archives[0], changed, per_class=9), folder, SMALL)
    assert json.loads((folder / "selection.json").read_text())["settings"]["per_class"] == 9


def medic(*arguments: object, cwd: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd):
        patch.setattr(sys, "argv", ["medic", *map(str, arguments)])
        cli.main()


@pytest.mark.parametrize(
    "names",
    [("-m", "-a", "-d"), ("--main", "--additional", "--directory"), ("--zip_main", "--zip_2015", "--directory")],
)
def test_the_command_says_what_was_there_what_was_chosen_and_what_was_not(names, archives, tmp_path, capsys):
    extra = extra_archive(changed={"11_left": None}).zip(tmp_path / "extra.zip")
    corrupt(extra, "train_image_resized/train/13_left.jpeg")
    given = [part for pair in zip(names, ("main.zip", "extra.zip", "set"), strict=True) for part in pair]
    with contextlib.suppress(SystemExit):
        medic("data", *given, "--per-class", "18", "--size", "32", cwd=tmp_path)
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["main", "extra", "train", "train_extra", "validation"]
    assert "Severe: 15 training images of the 18 asked for" in out
    assert "1 images left out (absent), the first: extra/11_left, not in extra.zip" in out
    assert "skipped extra/train_image_resized/train/13_left.jpeg: unreadable" in err
    assert (tmp_path / "set" / "selection.json").is_file()
