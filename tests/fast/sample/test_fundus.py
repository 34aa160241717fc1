"""The drawn retinopathy set: reproducible, in the published layout, with the lesions and faults that it says it has."""

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.errors import MedicError
from medic.files import sha256
from medic.sample.fundus import HOSPITALS, LESIONS, fundus_photograph
from medic.sample.fundus_set import write_sample

COMMITTED = Path(__file__).parents[3] / "sample_data" / "retinopathy"
SMALL = {"patients": 40, "seed": 1, "width": 64, "height": 48}


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def table(folder: Path, split: str, twin: str = "") -> pd.DataFrame:
    images, labels = (
        pd.read_csv(folder / f"{split}_{what}{twin}.csv", header=None, dtype=str)[0] for what in ("img", "label")
    )
    patients = images.str.split("_").str[0]
    return pd.DataFrame({"image": images, "patient": patients, "label": labels.astype(int), "split": split})


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a sample"
    write_sample(folder, **SMALL)
    return folder


@pytest.mark.parametrize("hospital", HOSPITALS)
@pytest.mark.parametrize("grade", range(5))
def test_a_photograph_is_a_round_red_field_with_a_mask_of_its_lesions(grade, hospital):
    shown, mask = fundus_photograph(
        grade, "left", np.random.default_rng(grade), (256, 192), hospital=HOSPITALS[hospital]
    )
    assert shown.shape == (192, 256, 3) and mask.shape == (192, 256)  # noqa: PT018
    assert shown.dtype == mask.dtype == np.uint8
    assert shown[:8, :8].max() < 10
    red, green, blue = shown[60:130, 90:170].mean(axis=(0, 1))
    assert red > green > blue
    found = {LESIONS[value - 1] for value in np.unique(mask[mask > 0])}
    assert bool(found) == (grade > 0)
    assert ("shunt" in found) == (grade == 3)
    assert not mask[shown.max(axis=2) < 5].any()


@pytest.mark.parametrize("kind", ["haemorrhage", "exudate"])
def test_a_mask_lies_where_the_lesion_is_seen(kind):
    contrast = []
    for seed in range(6):
        shown, mask = fundus_photograph(3, "left", np.random.default_rng(seed), (256, 192))
        lesion = (mask == LESIONS.index(kind) + 1).astype(np.uint8)
        around = (cv2.dilate(lesion, np.ones((9, 9))) > 0) & (mask == 0)
        if lesion.any():
            contrast.append(shown[lesion > 0, 1].mean() - shown[around, 1].mean())
    assert np.mean(contrast) < -10 if kind == "haemorrhage" else np.mean(contrast) > 10


@pytest.mark.parametrize(("eye", "left_half"), [("left", True), ("right", False)])
def test_the_optic_disc_lies_on_the_side_of_the_eye(eye, left_half):
    hits = 0
    for seed in range(20):
        shown, _ = fundus_photograph(0, eye, np.random.default_rng(seed), (128, 96))
        smooth = cv2.GaussianBlur(shown[..., 1], (0, 0), 3)
        hits += (np.unravel_index(smooth.argmax(), smooth.shape)[1] < 64) == left_half
    assert hits >= 17  # stray light at the rim may outshine a disc


def test_the_two_eyes_of_a_person_look_alike_and_two_persons_do_not():
    def colour(person, eye):
        shown, _ = fundus_photograph(0, eye, np.random.default_rng([person, eye == "left"]), (64, 48), person=person)
        return shown.mean(axis=(0, 1)) / shown.mean()

    left, right = (np.array([colour(person, eye) for person in range(12)]) for eye in ("left", "right"))
    assert np.abs(left - right).mean() < 0.7 * np.abs(left - np.roll(right, 1, axis=0)).mean()


@pytest.mark.parametrize("wrong", [{"grade": 5}, {"eye": "third"}, {"size": (8, 96)}])
def test_a_photograph_that_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(MedicError, match="cannot draw"):
        fundus_photograph(**{"grade": 0, "eye": "left", "rng": np.random.default_rng(0), **wrong})


def test_the_same_seed_writes_the_same_bytes_and_masks_on_request_over_an_earlier_sample(small, tmp_path):
    records = write_sample(tmp_path, **SMALL, masks=True)
    written = content(tmp_path)
    assert {name for name in written if name.startswith("masks/")} == {f"masks/{name}.png" for name in records["image"]}
    assert {name: digest for name, digest in written.items() if not name.startswith("masks/")} == content(small)
    write_sample(tmp_path, **SMALL, hospital=2)
    assert content(tmp_path).keys() == content(small).keys()
    assert content(tmp_path) != content(small)


@pytest.mark.parametrize("foreign", ["notes.txt", "SYNTHETIC.md", "images/12_left.jpeg", "images/holiday.jpeg"])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(MedicError, match="empty or a new folder"):
        write_sample(tmp_path)
    assert content(tmp_path).keys() == {foreign}


def test_a_sample_that_fails_half_way_leaves_the_earlier_one(small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = content(small)
    monkeypatch.setattr("medic.sample.fundus_set.write_bytes", full)
    with pytest.raises(MedicError, match="No space left"):
        write_sample(small, **SMALL | {"seed": 2})
    assert content(small) == before
    assert list(small.parent.iterdir()) == [small]


@pytest.mark.parametrize(("wrong", "said"), [({"patients": 39}, "at least 40"), ({"hospital": 3}, "hospital 1 or 2")])
def test_a_sample_that_cannot_be_made_is_refused(tmp_path, wrong, said):
    with pytest.raises(MedicError, match=said):
        write_sample(tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MedicError, match="it is a file"):
        write_sample(tmp_path / "file")


class TestTheCommittedSample:
    def test_is_small_and_says_that_it_is_synthetic(self):
        assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) <= 9_000_000
        assert "**Synthetic.**" in (COMMITTED / "SYNTHETIC.md").read_text()

    @pytest.mark.parametrize("twin", ["", "_small"])
    def test_has_both_eyes_of_each_patient_in_one_split_and_every_grade_in_each(self, twin):
        train, test = (table(COMMITTED, split, twin) for split in ("train", "test"))
        assert not set(train["patient"]) & set(test["patient"])
        for rows in (train, test):
            assert set(rows["label"]) == set(range(5))
            assert (rows["patient"].value_counts() == 2).all()
        if twin:
            assert len(train) + len(test) <= 40
        else:
            assert len(test) >= 300
            assert test["label"].value_counts().min() >= 20
            assert 350 <= len(train) <= 450

    def test_has_the_faults_that_it_lists_and_none_in_the_small_twins(self):
        listed = pd.read_csv(COMMITTED / "planted_faults.csv")
        faults = listed.groupby("fault")["image"].agg(list)
        files = {name: (COMMITTED / "images" / f"{name}.jpeg").read_bytes() for name in listed["image"]}
        for fault in ("truncated", "not an image"):
            with pytest.raises(OSError, match=r"truncated|cannot identify"):
                Image.open(io.BytesIO(files[faults[fault][0]])).load()
        labels = pd.concat([table(COMMITTED, split) for split in ("train", "test")]).set_index("image")
        one, two = faults["duplicate"]
        assert files[one] == files[two]
        assert (labels.loc[one] != labels.loc[two])[["patient", "label"]].all()
        assert np.asarray(Image.open(io.BytesIO(files[faults["nearly black"][0]]))).mean() < 8
        for split in ("train", "test"):
            assert not set(listed["image"]) & set(table(COMMITTED, split, "_small")["image"])

    def test_is_what_the_generator_writes(self, monkeypatch, tmp_path):
        drawn = {}

        def draw_few(grade, eye, rng, size, **of):
            drawn[len(drawn)] = None
            few = len(drawn) % 60 == 1
            return fundus_photograph(grade, eye, rng, size, **of) if few else (np.zeros((8, 8, 3), np.uint8),) * 2

        monkeypatch.setattr("medic.sample.fundus_set.fundus_photograph", draw_few)
        write_sample(tmp_path)
        made, committed = content(tmp_path), content(COMMITTED)
        assert made.keys() == committed.keys()
        assert all(made[name] == committed[name] for name in made if not name.startswith("images/"))
        for path in (path for path in (tmp_path / "images").iterdir() if path.stat().st_size > 4000):
            # bytes may differ between OpenCV versions, the picture may not
            pictures = [np.asarray(Image.open(home / "images" / path.name), int) for home in (tmp_path, COMMITTED)]
            assert np.abs(pictures[0] - pictures[1]).mean() < 1.5
