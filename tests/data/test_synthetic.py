"""The synthetic retinopathy set: reproducible, in the published layout, with the faults that it says it has."""

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.errors import MedicError
from medic.files import sha256
from medic.sample.fundus_set import fundus_photograph, sample_anatomy, write_sample

COMMITTED = Path(__file__).parents[2] / "sample_data" / "retinopathy"
TABLES = [
    f"{split}_{what}{twin}.csv" for split in ("train", "test") for what in ("img", "label") for twin in ("", "_small")
]
GRADES = {"0", "1", "2", "3", "4"}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def faults(folder: Path) -> pd.Series:
    return pd.read_csv(folder / "planted_faults.csv").groupby("fault")["image"].agg(list)


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "retinopathy"
    return folder, write_sample(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a sample"
    write_sample(folder, patients=40, seed=1, width=128, height=96)
    return folder


@pytest.mark.parametrize("grade", range(5))
def test_a_photograph_is_a_round_field_on_black(grade):
    photograph = fundus_photograph(grade, "left", np.random.default_rng(grade), width=256, height=192)
    assert photograph.shape == (192, 256, 3)
    assert photograph.dtype == np.uint8
    assert photograph[:8, :8].max() < 10
    red, green, blue = photograph[60:130, 90:170].mean(axis=(0, 1))
    assert red > green > blue


@pytest.mark.parametrize(("eye", "left_half"), [("left", True), ("right", False)])
def test_the_optic_disc_lies_on_the_side_of_the_eye(eye, left_half):
    hits = 0
    for seed in range(20):
        photograph = fundus_photograph(0, eye, np.random.default_rng(seed), width=256, height=192)
        smooth = cv2.GaussianBlur(photograph[..., 1], (0, 0), 6)
        hits += (np.unravel_index(smooth.argmax(), smooth.shape)[1] < 128) == left_half
    assert hits >= 18  # stray light at the rim may outshine a disc


def test_the_two_eyes_of_a_person_look_alike_and_two_persons_do_not():
    def colour(anatomy, eye, seed):
        photograph = fundus_photograph(0, eye, np.random.default_rng(seed), anatomy=anatomy, width=128, height=96)
        mean = photograph.mean(axis=(0, 1))
        return mean / mean.sum()

    people = [sample_anatomy(np.random.default_rng(seed)) for seed in range(12)]
    left = np.array([colour(person, "left", [seed, 1]) for seed, person in enumerate(people)])
    right = np.array([colour(person, "right", [seed, 2]) for seed, person in enumerate(people)])
    assert np.abs(left - right).mean() < 0.7 * np.abs(left - np.roll(right, 1, axis=0)).mean()


def test_more_severe_grades_show_more_blood():
    def blood(grade):
        same_eye = sample_anatomy(np.random.default_rng(0))
        shown = [
            fundus_photograph(grade, "left", np.random.default_rng(seed), anatomy=same_eye, width=256, height=192)
            for seed in range(12)
        ]
        closing = [cv2.morphologyEx(image[..., 1], cv2.MORPH_BLACKHAT, np.ones((11, 11), np.uint8)) for image in shown]
        return np.mean(closing)

    assert blood(0) < blood(2) < blood(3)


@pytest.mark.parametrize("wrong", [{"grade": 5}, {"eye": "third"}, {"width": 8}])
def test_a_photograph_that_cannot_be_drawn_is_refused(wrong):
    arguments = {"grade": 0, "eye": "left", "rng": np.random.default_rng(0), **wrong}
    with pytest.raises(MedicError, match="cannot draw"):
        fundus_photograph(**arguments)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(small, tmp_path):
    write_sample(tmp_path / "again", patients=40, seed=1, width=128, height=96)
    write_sample(tmp_path / "other", patients=40, seed=2, width=128, height=96)
    assert content(tmp_path / "again") == content(small)
    assert content(tmp_path / "other").values() != content(small).values()


def test_an_earlier_sample_is_replaced_whole(tmp_path, small):
    write_sample(tmp_path, patients=41, seed=3, width=64, height=48)
    (tmp_path / "images" / ".1_left.jpeg.0123.part").write_bytes(b"left by a run that was killed")
    write_sample(tmp_path, patients=40, seed=1, width=128, height=96)
    assert content(tmp_path) == content(small)


@pytest.mark.parametrize("foreign", ["notes.txt", "SYNTHETIC.md", "images/12_left.jpeg", "images/holiday.jpeg"])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(MedicError, match="empty or a new folder"):
        write_sample(tmp_path)
    assert content(tmp_path).keys() == {foreign}


def test_a_foreign_file_beside_an_earlier_sample_is_refused(small, tmp_path):
    write_sample(tmp_path, patients=40, width=64, height=48)
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(MedicError, match=r"images/mine\.png"):
        write_sample(tmp_path, patients=40, width=64, height=48)


def test_a_file_in_place_of_the_folder_and_too_few_patients_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MedicError, match="it is a file"):
        write_sample(tmp_path / "file")
    with pytest.raises(MedicError, match="at least 40"):
        write_sample(tmp_path / "few", patients=39)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("patients", [40, 110])
def test_every_grade_is_in_every_split_for_any_size(tmp_path, patients):
    records = write_sample(tmp_path, patients=patients, seed=patients, width=32, height=32)
    sound = records[records["fault"] == ""]
    for rows in (sound, sound[sound["small"]]):
        assert (rows.groupby("split")["label"].nunique() == 5).all()
    assert len(records) == 2 * patients


class TestTheCommittedSample:
    def test_is_small_and_says_that_it_is_synthetic(self):
        assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) <= 6_000_000
        readme = (COMMITTED / "SYNTHETIC.md").read_text()
        assert "**Synthetic.**" in readme
        assert "seed 2026" in readme

    @pytest.mark.parametrize("twin", ["", "_small"])
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_has_one_label_for_each_image_and_no_header(self, split, twin):
        names, labels = lines(COMMITTED / f"{split}_img{twin}.csv"), lines(COMMITTED / f"{split}_label{twin}.csv")
        assert len(names) == len(labels) == len(set(names))
        assert set(labels) == GRADES
        assert all((COMMITTED / "images" / f"{name}.jpeg").is_file() for name in names)
        patients = {name.split("_")[0] for name in names}
        assert set(names) == {f"{patient}_{eye}" for patient in patients for eye in ("left", "right")}

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_has_small_twins_in_the_same_order(self, split):
        full = dict(zip(lines(COMMITTED / f"{split}_img.csv"), lines(COMMITTED / f"{split}_label.csv"), strict=True))
        twin = lines(COMMITTED / f"{split}_img_small.csv")
        assert twin == [name for name in full if name in set(twin)]
        assert lines(COMMITTED / f"{split}_label_small.csv") == [full[name] for name in twin]
        assert 0.2 <= len(twin) / len(full) <= 0.35

    def test_keeps_patients_in_one_split_and_has_at_least_60(self):
        train, test = (
            {name.split("_")[0] for name in lines(COMMITTED / f"{split}_img.csv")} for split in ("train", "test")
        )
        assert not train & test
        assert len(train | test) >= 60

    def test_is_imbalanced_as_in_life_with_enough_patients_of_the_rare_grades(self, regenerated):
        _, records = regenerated
        share = records["label"].value_counts(normalize=True)
        assert share.idxmax() == 0
        assert share[3] + share[4] < 0.25
        patients = records.groupby(["split", "label"])["patient"].nunique()
        assert patients["train"][[3, 4]].min() >= 3
        assert patients["test"][[3, 4]].min() >= 2
        eyes = records.pivot_table(index="patient", columns="eye", values="label")
        assert 0.15 <= (eyes["left"] != eyes["right"]).mean() <= 0.35

    def test_has_the_faults_that_it_lists(self):
        listed = faults(COMMITTED)
        images = COMMITTED / "images"
        for fault in ("truncated", "not an image"):
            with pytest.raises(OSError, match=r"truncated|cannot identify"):
                Image.open(io.BytesIO((images / f"{listed[fault][0]}.jpeg").read_bytes())).load()
        original, twin = listed["duplicate"]
        labels = {
            name: label
            for split in ("train", "test")
            for name, label in zip(
                lines(COMMITTED / f"{split}_img.csv"), lines(COMMITTED / f"{split}_label.csv"), strict=True
            )
        }
        assert sha256(images / f"{original}.jpeg") == sha256(images / f"{twin}.jpeg")
        assert labels[original] != labels[twin]
        assert original.split("_")[0] != twin.split("_")[0]
        assert pixels(images / f"{listed['nearly black'][0]}.jpeg").mean() < 8
        sharpness = {
            name: cv2.Laplacian(
                cv2.imread(str(images / f"{name}.jpeg"), cv2.IMREAD_GRAYSCALE)[160:320, 240:400], 3
            ).var()
            for name in [listed["blurred"][0], original, *lines(COMMITTED / "test_img_small.csv")]
        }
        assert min(sharpness, key=sharpness.get) == listed["blurred"][0]
        left, right = sorted(listed["swapped eyes"])
        assert (
            pixels(images / f"{left}.jpeg")[120:360, :320, 1].max()
            < pixels(images / f"{left}.jpeg")[120:360, 320:, 1].max()
        )
        assert (
            pixels(images / f"{right}.jpeg")[120:360, :320, 1].max()
            > pixels(images / f"{right}.jpeg")[120:360, 320:, 1].max()
        )

    def test_has_all_faults_but_one_unreadable_file_in_train_and_none_in_the_small_twins(self):
        listed = pd.read_csv(COMMITTED / "planted_faults.csv")["image"]
        assert len(listed[listed.isin(lines(COMMITTED / "test_img.csv"))]) == 1
        for split in ("train", "test"):
            assert not set(listed) & set(lines(COMMITTED / f"{split}_img_small.csv"))

    def test_is_what_the_generator_writes(self, regenerated):
        folder, records = regenerated
        for name in [*TABLES, "planted_faults.csv", "SYNTHETIC.md"]:
            assert (folder / name).read_bytes() == (COMMITTED / name).read_bytes()
        files = {path.name for path in (COMMITTED / "images").iterdir()}
        assert files == {f"{name}.jpeg" for name in records["image"]}
        for name in records.loc[records["fault"] == "", "image"][::12]:
            # bytes may differ between OpenCV versions, the picture may not
            made, committed = (pixels(home / "images" / f"{name}.jpeg").astype(int) for home in (folder, COMMITTED))
            assert np.abs(made - committed).mean() < 1.5
