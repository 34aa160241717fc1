"""A model over many images, to memory and to a CSV file: unreadable ones, interruptions, very many."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medic.data.images.preprocess import Preprocessing
from medic.data.stores import FolderStore, open_store
from medic.errors import MedicError
from medic.predict import MeanOverFlips, average, predict
from medic.predict.batch import BATCH, predict_to
from medic.task import CHEST_XRAY_BINARY, RETINOPATHY, Prediction

COUNT = 40
BAD = {"03_left.jpeg": "unsupported", "05_right.jpeg": "truncated", "11_right.jpeg": "empty"}


class Stopped(Exception):
    """What ends a run in the middle of these tests, in this very process."""


class Brightness:
    """A model that answers at once: the grade is the mean of the left half. It counts the batches."""

    task = RETINOPATHY
    preprocessing = Preprocessing(size=32)

    def __init__(self, weights: str = "a"):
        self.digest, self.batches = weights, []

    def to_dict(self) -> dict:
        return {"kind": "brightness"}

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        # A blank image asks only what there is to say. A list, as threads that add to a number lose some.
        self.batches += [len(images)] * bool(images.any())
        grade = (images[:, :, :16].mean(axis=(1, 2, 3)) / 64).astype(np.float32)
        distance = np.exp(-np.abs(grade[:, None] - np.arange(5, dtype=np.float32)))
        return Prediction(self.task, (distance / distance.sum(axis=1, keepdims=True)).astype(np.float32), grade)


@pytest.fixture
def images(tiny, tmp_path) -> Path:
    """A folder of forty files: pairs of eyes, some of them no photographs."""
    folder = tmp_path / "images"
    folder.mkdir()
    faulty = set(pd.read_csv(tiny / "planted_faults.csv")["image"])
    good = [path for path in sorted((tiny / "images").iterdir()) if path.stem not in faulty][:COUNT]
    for number, path in enumerate(good):
        shutil.copy(path, folder / f"{number // 2:02}_{('left', 'right')[number % 2]}.jpeg")
    whole = good[0].read_bytes()
    contents = {"unsupported": b"no photograph", "truncated": whole[: len(whole) // 2], "empty": b""}
    for name, reason in BAD.items():
        (folder / name).write_bytes(contents[reason])
    return folder


def written(images: Path, to: Path, model: object = None, **options: object) -> bytes:
    """The file that a run makes of all images."""
    store = open_store(images)
    predict_to(model or Brightness(), store, store.images(), to, **options)
    return to.read_bytes()


def interrupted(images: Path, to: Path, batches: int = 3, **options: object) -> None:
    """End a run when so many batches are written."""

    class Stopping(FolderStore):
        def read(self, name: str) -> bytes:
            if name >= self.images()[batches * BATCH]:
                raise Stopped
            return super().read(name)

    store = Stopping(images)
    with pytest.raises(Stopped):
        predict_to(Brightness(), store, store.images(), to, **options)


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"error": ""}).set_index("image")


def rows_kept(capsys: pytest.CaptureFixture) -> int:
    """How many images the last run said were done already."""
    said = capsys.readouterr().out
    return int(said.rpartition("going on: ")[2].split()[0]) if "going on" in said else 0


@pytest.mark.parametrize("size", [1, 7, 64])
def test_every_image_has_a_row_in_the_order_of_the_names_whatever_the_batch(size, images):
    (images / "20_link.jpeg").symlink_to(images / "nowhere.jpeg")
    store, reasons = open_store(images), BAD | {"20_link.jpeg": "unreadable", "21_absent.jpeg": "unreadable"}
    names = sorted({*os.listdir(images), *reasons}, reverse=True)
    found = predict(Brightness(), store, names, batch_size=size)
    assert found.names == [name for name in names if name not in reasons]
    assert found.failed.set_index("image")["reason"].to_dict() == reasons
    one = Brightness().predict_pixels(Brightness.preprocessing.pixels(store.read(found.names[4]))[None])
    assert np.allclose(found.prediction.probabilities[4], one.probabilities[0], atol=1e-6)
    table = found.to_frame()
    assert list(table["image"]) == names
    bad = table["image"].isin(list(reasons))
    assert (table["error"][~bad] == "").all()
    assert (table["error"][bad].str.partition(": ")[0] == table["image"][bad].map(reasons)).all()
    assert table["grade"][bad].isna().all()
    assert table["grade"].dtype == "Int64", "a whole number stays one beside missing ones"


def test_what_is_averaged_loses_its_operating_point_and_must_be_of_one_task_and_the_same_images():
    rows = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)
    one = Prediction(RETINOPATHY, rows, np.array([0, 1], np.float32))
    other = Prediction(RETINOPATHY, rows[::-1], np.array([1, 2], np.float32))
    mean = average([one, other])
    assert mean.probabilities.tolist() == [[0.5, 0.5, 0, 0, 0]] * 2
    assert (mean.grade.tolist(), mean.probabilities.dtype) == ([0.5, 1.5], np.float32)
    binary = Prediction(CHEST_XRAY_BINARY, np.full((2, 2), 0.5, np.float32), thresholds=(0.1,))
    assert average([binary, binary]).thresholds is None
    for some, said in (([], "nothing to"), ([one, one.rows([0])], "the same images"), ([one, binary], "of one task")):
        with pytest.raises(MedicError, match=said):
            average(some)


def test_test_time_augmentation_is_the_mean_over_the_image_and_its_flips(images, tmp_path):
    model, store = MeanOverFlips(Brightness(), ("horizontal", "vertical")), open_store(images)
    names = ["00_left.jpeg", "00_right.jpeg"]
    pixels = np.stack([model.preprocessing.pixels(store.read(name)) for name in names])
    views = [Brightness().predict_pixels(view) for view in (pixels, pixels[:, :, ::-1], pixels[:, ::-1])]
    said = predict(model, store, names).prediction
    assert np.allclose(said.probabilities, np.mean([view.probabilities for view in views], axis=0), atol=1e-6)
    assert np.allclose(said.grade, np.mean([view.grade for view in views], axis=0), atol=1e-6)
    written(images, tmp_path / "flips.csv", model)
    table = table_of(tmp_path / "flips.csv")
    assert list(table)[-2:] == ["tta", "error"]
    assert set(table["tta"]) == {"horizontal+vertical"}
    with pytest.raises(MedicError, match="name one or more of horizontal, vertical"):
        MeanOverFlips(Brightness(), ("diagonal",))


def test_the_file_holds_what_predict_says_in_the_order_of_the_names(images, tmp_path):
    store, to = open_store(images), tmp_path / "to" / "result.csv"
    done = predict_to(Brightness(), store, store.images(), to)
    assert (done.predicted, list(done.failed)) == (COUNT - len(BAD), sorted(BAD))
    wanted = predict(Brightness(), store, store.images()).to_frame().astype({"grade": float}).set_index("image")
    pd.testing.assert_frame_equal(table_of(to), wanted, check_dtype=False, atol=1e-6)
    assert [path.name for path in to.parent.iterdir()] == ["result.csv"]


@pytest.mark.parametrize("options", [{}, {"at_once": 3}], ids=str)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(options, images, tmp_path, capsys):
    whole, to = written(images, tmp_path / "whole.csv", **options), tmp_path / "result.csv"
    interrupted(images, to, 2, **options)
    assert not to.exists()
    interrupted(images, to, 3, **options)
    model = Brightness()
    assert written(images, to, model, **options) == whole
    assert rows_kept(capsys) == 3 * BATCH
    assert len(model.batches) == COUNT / BATCH - 3, "nothing is done twice"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "result.csv", "whole.csv"]


HARMED = {
    "a line is cut": (lambda rows: rows[:-20], BATCH),
    "no text": (lambda rows: rows + b"\0\xff\n", 2 * BATCH),
    "a row of another image": (lambda rows: rows.replace(b"\n05_", b"\n95_"), BATCH),
    "another table": (lambda rows: b"image,grade\n00_left.jpeg,2\n", 0),
}


@pytest.mark.parametrize("harm", HARMED)
def test_what_is_cut_or_of_another_kind_is_done_again(harm, images, tmp_path, capsys):
    whole, to = written(images, tmp_path / "whole.csv"), tmp_path / "result.csv"
    interrupted(images, to, 2)
    rows = tmp_path / "result.csv.partial"
    spoil, kept = HARMED[harm]
    rows.write_bytes(spoil(rows.read_bytes()))
    capsys.readouterr()
    assert written(images, to) == whole
    assert (found := rows_kept(capsys)) == kept, found


def test_what_belongs_to_another_model_folder_or_option_is_not_mixed_in(images, tmp_path, capsys):
    other = Path(shutil.copytree(images, tmp_path / "other"))
    flips = MeanOverFlips(Brightness(), ("horizontal",))
    for changed in ({"model": Brightness("b")}, {"model": flips}, {"images": other}):
        whole = written(**{"images": images, "to": tmp_path / "whole.csv"} | changed)
        to = tmp_path / "result.csv"
        interrupted(images, to)
        capsys.readouterr()
        assert written(**{"images": images, "to": to} | changed) == whole
        assert f"starting anew: {to}.partial is of another model, folder or option" in capsys.readouterr().out


def test_images_that_have_come_or_gone_meanwhile_are_as_they_are_now(images, tmp_path, capsys):
    to = tmp_path / "result.csv"
    interrupted(images, to, 4)
    shutil.copy(images / "00_left.jpeg", images / "06_left_again.jpeg")
    (images / "08_left.jpeg").unlink()
    assert written(images, to) == written(images, tmp_path / "whole.csv")
    assert rows_kept(capsys) == BATCH, "up to the batch in which a name has come"


def test_every_name_comes_back_as_it_was(images, tmp_path):
    odd = ["=1+1.jpeg", "+a.jpeg", "-b.jpeg", "@c.jpeg", 'a "quoted", name.jpeg', "two\nlines.jpeg"]
    odd += [" space.jpeg", "ünï.jpeg", "007.jpeg", "semi;colon.jpeg", "'.jpeg"]
    for number, name in enumerate(odd):
        (images / name).write_bytes((images / "00_left.jpeg").read_bytes() if number % 2 else b"no photograph")
    names = open_store(images).images()
    whole = written(images, tmp_path / "whole.csv")
    with open(tmp_path / "whole.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert [line[0] for line in lines[1:]] == names
    assert {len(line) for line in lines} == {10}
    interrupted(images, tmp_path / "result.csv", 4)
    assert written(images, tmp_path / "result.csv") == whole


def test_what_cannot_be_done_is_refused_and_leaves_nothing(images, tmp_path):
    class Second(Brightness):
        """Starts another run to the same file in the middle of this one."""

        def predict_pixels(self, pixels: np.ndarray) -> Prediction:
            if pixels.any():
                with pytest.raises(MedicError, match="another process writes"):
                    written(images, tmp_path / "result.csv")
            return super().predict_pixels(pixels)

    assert written(images, tmp_path / "result.csv", Second()) == written(images, tmp_path / "whole.csv")
    with pytest.raises(MedicError, match="it is a folder; name a file"):
        written(images, images)
    for path in images.iterdir():
        path.write_bytes(b"no photograph")
    none = r"not one of 40 images .* could be read; the first: 00_left\.jpeg, .*these 13"
    with pytest.raises(MedicError, match=none):
        written(images, tmp_path / "none.csv")
    with pytest.raises(MedicError, match=none):
        predict(Brightness(), open_store(images), sorted(os.listdir(images)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "result.csv", "whole.csv"]


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


def test_a_cluster_of_which_a_worker_dies_writes_the_same_file(discs, tmp_path, monkeypatch, kill_a_worker):
    from medic.deployment.bundle import Bundle

    folder, partial = tmp_path / "images", tmp_path / "there.csv.partial"
    folder.mkdir()
    for number in range(600):
        (folder / f"{number:04}.jpeg").symlink_to(discs.photographs[number % len(discs.photographs)])
    (folder / "0500.jpeg").unlink()
    (folder / "0500.jpeg").write_bytes(b"no photograph")
    whole = written(folder, tmp_path / "here.csv", discs.bundle.predictor(threads=1))
    monkeypatch.chdir(discs.bundle.folder.parent)  # a path that workers, who work elsewhere, would not find
    model = Bundle.load(discs.bundle.folder.name).predictor(threads=1)
    third = len(whole) // 3
    kill_a_worker(
        lambda: partial.exists() and partial.stat().st_size >= third, written, folder, tmp_path / "there.csv", model
    )
    assert (tmp_path / "there.csv").read_bytes() == whole


MANY = """
import json, resource, sys, tempfile
from pathlib import Path
import cv2
import numpy as np
from medic.data.images.preprocess import Preprocessing
from medic.data.stores import FolderStore
from medic.predict.batch import predict_to
from medic.task import RETINOPATHY, Prediction

PNG = cv2.imencode(".png", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()

class Same(FolderStore):
    def __contains__(self, name):
        return True
    def read(self, name):
        return PNG

class Flat:
    task, preprocessing, digest = RETINOPATHY, Preprocessing(size=16, crop="square"), "a"
    def to_dict(self):
        return {}
    def predict_pixels(self, images):
        return Prediction(self.task, np.full((len(images), 5), 0.2, np.float32), np.zeros(len(images), np.float32))

peaks = []
for count in (1_000, 30_000):
    names = [f"{number:06}.png" for number in range(count)]
    done = predict_to(Flat(), Same(sys.argv[1]), names, Path(sys.argv[1]) / "result.csv")
    assert done.predicted == count
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_thirty_times_as_many_images_take_hardly_more_memory(tmp_path):
    """In a process of its own, with one small image under all names and a model that answers at once."""
    told = subprocess.check_output([sys.executable, "-c", MANY, tmp_path], text=True)
    few, many = json.loads(told.splitlines()[-1])
    assert many - few < 20, "MiB; 29,000 names and what is said of them would be more"
    assert len((tmp_path / "result.csv").read_text().splitlines()) == 30_001
