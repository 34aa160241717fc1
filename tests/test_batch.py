"""Many images into a CSV file: what is written, and how an interrupted run goes on."""

import csv
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medic.data.images.preprocess import Preprocessing
from medic.data.stores import FolderStore, is_image_name, open_store
from medic.errors import MedicError
from medic.predict import MeanOverFlips, predict
from medic.predict.batch import BATCH, predict_to, start_over
from medic.task import RETINOPATHY, Prediction

COUNT = 40


class Stopped(Exception):
    """What ends a run in the middle of these tests, in this very process."""


class Brightness:
    """A model that answers at once: the grade is the mean of the left half. ``stop_after`` batches it fails."""

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
        grade = (images[:, :, :16].mean(axis=(1, 2, 3)) / 64).astype(np.float32)
        distance = np.exp(-np.abs(grade[:, None] - np.arange(5, dtype=np.float32)))
        return Prediction(self.task, (distance / distance.sum(axis=1, keepdims=True)).astype(np.float32), grade)


@pytest.fixture
def images(tiny, tmp_path) -> Path:
    """A folder of forty files: pairs of eyes, some of them no photographs."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, path in enumerate(sorted((tiny / "images").iterdir())[:COUNT]):
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
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"error": ""}).set_index("image")


def rows_kept(capsys: pytest.CaptureFixture) -> int:
    """How many images the last run said were done already."""
    said = capsys.readouterr().out
    return int(said.split("going on: ")[1].split()[0]) if "going on" in said else 0


def test_the_file_holds_what_predict_says_in_the_order_of_the_names(images, tmp_path):
    store, to = open_store(images), tmp_path / "to" / "result.csv"
    done = predict_to(Brightness(), store, names_in(store), to)
    expected = predict(Brightness(), store, names_in(store))
    assert done.names == expected.names
    wanted = expected.to_frame().astype({"grade": float}).set_index("image")
    pd.testing.assert_frame_equal(table_of(to), wanted, check_dtype=False, atol=1e-6)
    assert table_of(to).loc["03_left.jpeg", "error"].startswith("unsupported: ")
    assert [path.name for path in to.parent.iterdir()] == ["result.csv"]


@pytest.mark.parametrize("options", [{}, {"at_once": 3}], ids=str)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(options, images, tmp_path, capsys):
    whole, to = written(images, tmp_path / "whole.csv", **options), tmp_path / "result.csv"
    interrupted(images, to, 2, **options)
    assert not to.exists()
    interrupted(images, to, 1, **options)
    assert rows_kept(capsys) >= BATCH - 2
    model = Brightness()
    assert written(images, to, model, **options) == whole
    assert (kept := rows_kept(capsys)) >= 2 * BATCH
    assert 1_000_000 - model.left <= (COUNT - kept) / BATCH + 1, "nothing is done twice"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "result.csv", "whole.csv"]


@pytest.mark.parametrize(
    ("harm", "anew"),
    [
        (lambda rows: rows[:-20], False),
        (lambda rows: rows + b'["99_left.jpeg", nul', False),
        (lambda rows: b"", False),
        (lambda rows: b"[]\n{}\n", True),
        (lambda rows: b"image,grade\n00_left.jpeg,2\n", True),
    ],
    ids=["a line is cut", "half a line more", "empty", "other lines", "a table"],
)
def test_what_is_cut_or_of_another_kind_is_done_again(harm, anew, images, tmp_path, capsys):
    whole, to = written(images, tmp_path / "whole.csv"), tmp_path / "result.csv"
    interrupted(images, to)
    rows = tmp_path / "result.csv.partial"
    rows.write_bytes(harm(rows.read_bytes()))
    capsys.readouterr()
    assert written(images, to) == whole
    assert ("starting anew" in capsys.readouterr().out) == anew


def test_what_belongs_to_another_model_flips_or_folder_is_not_mixed_in(images, tmp_path, capsys):
    runs = {
        "model": {"model": Brightness("b")},
        "tta": {"model": MeanOverFlips(Brightness(), ("horizontal",))},
        "images": {"images": Path(shutil.copytree(images, tmp_path / "other"))},
    }
    for why, changed in runs.items():
        whole = written(**{"images": images, "to": tmp_path / "whole.csv"} | changed)
        to = tmp_path / "result.csv"
        interrupted(images, to)
        capsys.readouterr()
        assert written(**{"images": images, "to": to} | changed) == whole
        assert f"starting anew: {to}.partial is of another {why}\n" in capsys.readouterr().out


def test_images_that_were_mended_or_have_come_or_gone_meanwhile_are_as_they_are_now(images, tmp_path, capsys):
    to = tmp_path / "result.csv"
    interrupted(images, to, 4)
    shutil.copy(images / "00_left.jpeg", images / "03_left.jpeg")
    shutil.copy(images / "00_left.jpeg", images / "06_left_again.jpeg")
    (images / "05_left.jpeg").unlink()
    assert written(images, to) == written(images, tmp_path / "whole.csv")
    assert rows_kept(capsys) > BATCH


def test_the_mean_over_flips_is_named_in_the_file(images, tmp_path):
    written(images, tmp_path / "flips.csv", MeanOverFlips(Brightness(), ("horizontal",)))
    flips, names = table_of(tmp_path / "flips.csv"), ["00_left.jpeg", "00_right.jpeg"]
    assert list(flips)[-2:] == ["tta", "error"]
    assert set(flips["tta"]) == {"horizontal"}
    store, size = open_store(images), Brightness.preprocessing
    whole = [size.pixels(store.read(name)).mean() / 64 for name in names]
    assert flips.loc[names, "grade_continuous"].tolist() == pytest.approx(whole, abs=1e-5)


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


def test_every_name_comes_back_as_it_was(images, tmp_path):
    odd = ["=1+1.jpeg", "+a.jpeg", "-b.jpeg", "@c.jpeg", 'a "quoted", name.jpeg', "two\nlines.jpeg", "\r.jpeg"]
    odd += [" space.jpeg", "ünï.jpeg", "007.jpeg", "semi;colon.jpeg", "'.jpeg"]
    for number, name in enumerate(odd):
        (images / name).write_bytes((images / "00_left.jpeg").read_bytes() if number % 2 else b"no photograph")
    names = names_in(open_store(images))
    written(images, tmp_path / "result.csv")
    assert list(table_of(tmp_path / "result.csv").index) == names
    with open(tmp_path / "result.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert [line[0] for line in lines[1:]] == names
    assert {len(line) for line in lines} == {10}


def test_an_image_that_goes_meanwhile_is_a_row_with_a_reason(images, tmp_path):
    class Meddling(FolderStore):
        def read(self, name: str) -> bytes:
            if name == "00_left.jpeg":
                (self.location / "15_left.jpeg").unlink()
            return super().read(name)

    store = Meddling(images)
    predict_to(Brightness(), store, names_in(store), tmp_path / "result.csv")
    assert table_of(tmp_path / "result.csv").loc["15_left.jpeg", "error"].startswith("unreadable: cannot read 15_left")


def test_what_cannot_be_done_is_refused_and_leaves_nothing(images, tmp_path):
    with pytest.raises(MedicError, match="it is a folder; name a file"):
        written(images, images, Brightness(stop_after=0))
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
