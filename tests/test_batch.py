"""Many images into a CSV file: what is written, and how an interrupted run goes on."""

import csv
import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medic.data.images.preprocess import Preprocessing
from medic.data.stores import FolderStore, is_image_name, open_store
from medic.errors import MedicError
from medic.predict import predict
from medic.predict.batch import BATCH, predict_to, start_over
from medic.sample.chest_set import dicom
from medic.task import CHEST_XRAY_BINARY, RETINOPATHY, Prediction

COUNT = 40


class Stopped(Exception):
    """What ends a run in the middle of these tests, in this very process."""


class Brightness:
    """A model that answers at once: the grade is the mean of the pixels. ``stop_after`` batches it fails."""

    task = RETINOPATHY
    preprocessing = Preprocessing(size=32)

    def __init__(self, weights: str = "a", stop_after: int = 1_000_000):
        self.digest, self.left = weights, stop_after

    def to_dict(self) -> dict:
        return {"kind": "brightness"}

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        self.left -= 1
        if self.left < 0:
            raise Stopped
        grade = (images.mean(axis=(1, 2, 3)) / 64).astype(np.float32)
        distance = np.exp(-np.abs(grade[:, None] - np.arange(5, dtype=np.float32)))
        return Prediction(self.task, (distance / distance.sum(axis=1, keepdims=True)).astype(np.float32), grade)


@pytest.fixture
def images(tiny, tmp_path) -> Path:
    """A folder of forty files: pairs of eyes, some of them no photographs."""
    folder = tmp_path / "images"
    folder.mkdir()
    originals = sorted((tiny / "images").iterdir())[:COUNT]
    for number, path in enumerate(originals):
        shutil.copy(path, folder / f"{number // 2:02}_{('left', 'right')[number % 2]}.jpeg")
    (folder / "03_left.jpeg").write_bytes(b"no photograph")
    (folder / "11_right.jpeg").write_bytes(b"")
    return folder


def names_in(store: FolderStore) -> list[str]:
    return [name for name in store.names() if is_image_name(name)]


def written(images: Path, to: Path, model: object = None, **options: object) -> bytes:
    """The file that a run makes of all images."""
    store = open_store(images)
    predict_to(model or Brightness(), store, names_in(store), to, **options)
    return to.read_bytes()


def interrupted(images: Path, to: Path, batches: int = 3, **options: object) -> None:
    with pytest.raises(Stopped):
        written(images, to, Brightness(stop_after=batches), **options)


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).set_index("image")


def rows_kept(capsys: pytest.CaptureFixture) -> int:
    """How many images the last run said were done already."""
    said = capsys.readouterr().out
    return int(said.split("going on: ")[1].split()[0]) if "going on" in said else 0


def test_the_file_holds_what_predict_says_in_the_order_of_the_names(images, tmp_path):
    store = open_store(images)
    names, to = names_in(store), tmp_path / "to" / "result.csv"
    done = predict_to(Brightness(), store, names, to)
    assert (done.predicted, done.failed) == (COUNT - 2 - _faulty(images), 2 + _faulty(images))
    table, expected = table_of(to), predict(Brightness(), store, names).to_frame().set_index("image")
    assert list(table.index) == names
    assert list(table) == list(expected)
    numbers = [column for column in table if column.startswith(("p_", "grade"))]
    assert np.allclose(table[numbers].astype(float), expected[numbers].astype(float), atol=1e-6, equal_nan=True)
    assert table["error"].fillna("").tolist() == expected["error"].tolist()
    assert table.loc["03_left.jpeg", "error"].startswith("unsupported: ")
    assert [path.name for path in to.parent.iterdir()] == ["result.csv"]


def _faulty(images: Path) -> int:
    """Planted faults of the sample among the images, besides the two of the fixture."""
    store = open_store(images)
    failed = predict(Brightness(), store, names_in(store)).failed["image"]
    return len(set(failed) - {"03_left.jpeg", "11_right.jpeg"})


@pytest.mark.parametrize("options", [{}, {"both_eyes": 0.3}, {"at_once": 3}], ids=str)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(options, images, tmp_path, capsys):
    whole, to = written(images, tmp_path / "whole.csv", **options), tmp_path / "result.csv"
    interrupted(images, to, 2, **options)
    assert not to.exists()
    interrupted(images, to, 1, **options)
    assert rows_kept(capsys) >= BATCH
    model = Brightness()
    assert written(images, to, model, **options) == whole
    kept = rows_kept(capsys)
    assert kept >= 2 * BATCH
    assert 1_000_000 - model.left <= (COUNT - kept) / BATCH + ("both_eyes" in options), "nothing is done twice"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "result.csv", "whole.csv"]


def test_rows_and_lines_that_were_cut_or_damaged_are_done_again(images, tmp_path, capsys):
    whole, to = written(images, tmp_path / "whole.csv"), tmp_path / "result.csv"
    rows, journal = tmp_path / "result.csv.partial", tmp_path / "result.csv.partial.jsonl"
    harms = {
        "a line of the journal is cut": lambda: journal.write_bytes(journal.read_bytes()[:-20]),
        "rows without their line": lambda: rows.write_bytes(rows.read_bytes() + b"99_left.jpeg,2,Moder"),
        "a row is cut": lambda: rows.write_bytes(rows.read_bytes()[:-30]),
        "a row is another": lambda: rows.write_bytes(rows.read_bytes().replace(b"10_left", b"10_lefd")),
        "no rows": rows.unlink,
        "no journal": journal.unlink,
        "an empty journal": lambda: journal.write_bytes(b""),
        "no journal at all": lambda: journal.write_bytes(b"[]\n{}\n"),
    }
    for what, harm in harms.items():
        interrupted(images, to)
        assert rows.read_bytes() == whole[: rows.stat().st_size], what
        harm()
        capsys.readouterr()
        assert written(images, to) == whole, what
        said = capsys.readouterr().out
        assert ("starting anew" in said) == ("journal" in what and "line" not in what), (what, said)
        to.unlink()


def test_what_belongs_to_another_model_option_or_folder_is_not_mixed_in(images, tmp_path, capsys):
    other = Path(shutil.copytree(images, tmp_path / "other"))
    runs = {
        "of another model": {"model": Brightness("b")},
        "with another --both-eyes": {"both_eyes": 0.5},
        "of other images": {"images": other},
    }
    for why, changed in runs.items():
        whole = written(**{"images": images, "to": tmp_path / "whole.csv"} | changed)
        to = tmp_path / "result.csv"
        interrupted(images, to)
        capsys.readouterr()
        assert written(**{"images": images, "to": to} | changed) == whole
        assert f"starting anew: {to}.partial is {why}" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["another", "gone", "new"])
def test_an_image_that_changed_meanwhile_and_all_after_it_are_done_again(change, images, tmp_path, capsys):
    to, name = tmp_path / "result.csv", images / f"{BATCH // 2 + 1:02}_left.jpeg"
    interrupted(images, to, 4)
    if change == "another":
        shutil.copy(images / "00_left.jpeg", name)
    elif change == "gone":
        name.unlink()
    else:
        shutil.copy(name, name.with_name(f"{name.stem}_again.jpeg"))
    capsys.readouterr()
    found = written(images, to)
    assert rows_kept(capsys) == BATCH
    assert found == written(images, tmp_path / "whole.csv")


def test_start_over_forgets_what_was_done_and_keeps_the_earlier_table(images, tmp_path, capsys):
    to = tmp_path / "result.csv"
    to.write_text("earlier\n")
    interrupted(images, to)
    start_over(to)
    start_over(tmp_path / "nowhere" / "result.csv")
    assert to.read_text() == "earlier\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "result.csv"]
    written(images, to)
    assert "going on" not in capsys.readouterr().out


def test_both_eyes_count_as_they_do_without_a_file(images, tmp_path):
    from medic.data.readers.retinopathy import eyes
    from medic.modeling.both_eyes import combine_eyes

    store = open_store(images)
    expected = predict(Brightness(), store, names_in(store))
    mixed = combine_eyes(expected.prediction, eyes(expected.names), 0.3)
    done = predict_to(Brightness(), store, names_in(store), tmp_path / "result.csv", both_eyes=0.3)
    expected = dataclasses.replace(expected, prediction=mixed).to_frame()
    assert "patients have both eyes; each counts 0.3 for the other" in done.both_eyes
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "result.csv", keep_default_na=False, na_values=[""]).fillna({"error": ""}),
        expected.astype({"grade": float}),
        check_dtype=False,
        atol=1e-6,
    )
    with pytest.raises(MedicError, match=r"outside 0\.\.1"):
        written(images, tmp_path / "odd.csv", both_eyes=2)
    assert not list(tmp_path.glob("odd*")), "a wrong weight shows before any work"


def test_both_eyes_are_decided_at_the_models_operating_point(images, tmp_path):
    class Any(Brightness):
        task = CHEST_XRAY_BINARY

        def predict_pixels(self, images: np.ndarray) -> Prediction:
            p = (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32)
            return Prediction(self.task, np.stack([1 - p, p], axis=1), thresholds=(0.2,))

    written(images, tmp_path / "result.csv", Any(), both_eyes=0.5)
    table = table_of(tmp_path / "result.csv").dropna(subset="label")
    assert (table["label"] == (table["p_Finding"] >= 0.2)).all()
    assert (table["label"] != (table["p_Finding"] >= 0.5)).any()


def test_every_name_comes_back_as_it_was(images, tmp_path):
    odd = ["=1+1.jpeg", "+a.jpeg", "-b.jpeg", "@c.jpeg", 'a "quoted", name.jpeg', "two\nlines.jpeg", "\r.jpeg"]
    odd += [" space.jpeg", "ünï.jpeg", "return\r\nline.jpeg", "007.jpeg", "semi;colon.jpeg", "'.jpeg"]
    good = (images / "00_left.jpeg").read_bytes()
    for number, name in enumerate(odd):
        (images / name).write_bytes(good if number % 2 else b"no photograph")
    names = names_in(open_store(images))
    written(images, tmp_path / "result.csv")
    assert list(table_of(tmp_path / "result.csv").index) == names
    with open(tmp_path / "result.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert [line[0] for line in lines[1:]] == names
    assert {len(line) for line in lines} == {10}


def test_what_happens_to_single_images_meanwhile_is_a_row_with_a_reason(images, tmp_path):
    class Meddling(FolderStore):
        """While an image is read, another is removed, and a third becomes a folder."""

        def read(self, name: str) -> bytes:
            if name == "00_left.jpeg":
                (self.location / "15_left.jpeg").unlink()
                (self.location / "16_left.jpeg").unlink()
                (self.location / "16_left.jpeg").mkdir()
            return super().read(name)

    (images / "17_left.jpeg").unlink()
    (images / "17_left.jpeg").symlink_to("17_left.jpeg")
    store = Meddling(images)
    predict_to(Brightness(), store, names_in(store), tmp_path / "result.csv")
    table = table_of(tmp_path / "result.csv")
    assert len(table) == COUNT
    for name in ("15_left.jpeg", "16_left.jpeg", "17_left.jpeg"):
        assert table.loc[name, "error"].startswith(f"unreadable: cannot read {name} in ")


def test_a_file_that_may_not_be_read_is_a_row_with_a_reason(images, tmp_path):
    (images / "05_left.jpeg").chmod(0)
    if os.access(images / "05_left.jpeg", os.R_OK):
        pytest.skip("this user may read every file")
    written(images, tmp_path / "result.csv")
    assert "Permission denied" in table_of(tmp_path / "result.csv").loc["05_left.jpeg", "error"]


def test_a_broken_member_of_a_zip_is_a_row_and_a_folder_called_like_an_image_is_a_folder(images, tmp_path):
    (images / "18_left.jpeg").unlink()
    (images / "18_left.jpeg").mkdir()
    shutil.copy(images / "00_left.jpeg", images / "18_left.jpeg" / "inside.jpeg")
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in names_in(open_store(images)):
            packed.write(images / name, name)
        place = packed.getinfo("07_left.jpeg").header_offset
    data = bytearray(archive.read_bytes())
    data[place + 200 : place + 300] = bytes(100)
    archive.write_bytes(data)
    for source in (images, archive):
        written(source, tmp_path / "result.csv")
        table = table_of(tmp_path / "result.csv")
        assert "18_left.jpeg/inside.jpeg" in table.index[table["error"].isna()]
    assert table.loc["07_left.jpeg", "error"].startswith("unreadable: cannot read 07_left.jpeg in ")


def test_dicom_files_are_predicted_like_any_other(images, tmp_path):
    grey = np.full((64, 64), 200, np.uint8)
    person = {"id": "1", "age": "058Y", "sex": "F", "view": "PA"}
    for bits in (8, 12):
        (images / f"chest {bits}.dcm").write_bytes(dicom(grey, person, bits=bits))
    written(images, tmp_path / "result.csv")
    table = table_of(tmp_path / "result.csv")
    assert table.loc[["chest 8.dcm", "chest 12.dcm"], "grade"].tolist() == [3, 3]


def test_when_no_image_can_be_read_nothing_is_left(images, tmp_path):
    for path in images.iterdir():
        path.write_bytes(b"no photograph")
    with pytest.raises(MedicError, match=r"not one of 40 images .* could be read; the first: 00_left\.jpeg, these 13"):
        written(images, tmp_path / "result.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_full_disk_is_one_sentence_and_what_is_done_is_kept(images, tmp_path, capsys):
    to, whole = tmp_path / "result.csv", written(images, tmp_path / "whole.csv")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) * 2 // 3, hard))
    try:
        with pytest.raises(MedicError, match=r"cannot write .*result\.csv: File too large; free some space .* is kept"):
            written(images, to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not to.exists()
    assert written(images, to) == whole
    assert rows_kept(capsys) >= BATCH


def test_two_runs_do_not_write_the_same_file(images, tmp_path):
    class Second(Brightness):
        """Starts another run to the same file in the middle of this one."""

        def predict_pixels(self, pixels: np.ndarray) -> Prediction:
            with pytest.raises(MedicError, match="another process writes"):
                written(images, tmp_path / "result.csv", Brightness())
            return super().predict_pixels(pixels)

    assert written(images, tmp_path / "result.csv", Second()) == written(images, tmp_path / "whole.csv")


def test_a_target_that_is_a_folder_is_refused_before_any_work(images, tmp_path):
    with pytest.raises(MedicError, match="it is a folder; name a file"):
        written(images, images, Brightness(stop_after=0))


STRUCK = """
import itertools, os, sys
import numpy as np
from medic.predict.batch import predict_to
from medic.data.images.preprocess import Preprocessing
from medic.data.stores import open_store
from medic.task import DIGITS, Prediction

images, to, moment, blow = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

class Model:
    task, preprocessing, digest = DIGITS, Preprocessing(size=16), "a"
    calls = itertools.count(1)

    def to_dict(self):
        return {}

    def predict_pixels(self, images):
        if next(self.calls) == moment:
            os.kill(os.getpid(), blow)
        p = 1 + images.reshape(len(images), -1)[:, 100:110] + np.arange(10)
        return Prediction(self.task, (p / p.sum(axis=1, keepdims=True)).astype(np.float32))

store = open_store(images)
predict_to(Model(), store, store.names(), to, at_once=2)
"""


def test_killed_or_interrupted_in_the_middle_it_ends_with_the_same_bytes(images, tmp_path, capfd):
    for number in range(600 - COUNT):
        os.link(images / "00_left.jpeg", images / f"more_{number:03}.jpeg")

    def run(to: str, moment: int = 0, blow: int = 0) -> int:
        # A shell's background job ignores interrupts, and so would what it starts.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        command = [sys.executable, "-c", heard + STRUCK, images, tmp_path / to, str(moment), str(blow)]
        return subprocess.run(command, check=False).returncode

    assert run("whole.csv") == 0
    for moment, blow in ((20, signal.SIGKILL), (1, signal.SIGKILL), (15, signal.SIGINT), (12, signal.SIGKILL)):
        assert run("result.csv", moment, blow) == -blow
        assert not (tmp_path / "result.csv").exists()
    capfd.readouterr()
    assert run("result.csv") == 0
    assert rows_kept(capfd) >= 30 * BATCH
    assert (tmp_path / "result.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "result.csv", "whole.csv"]
