"""The synthetic skin lesions: reproducible, in the archive's layout, drawn by the ABCD rule, faults as listed."""

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageSequence
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medic.data.images.decode import decode
from medic.errors import ImageError, MedicError
from medic.files import sha256
from medic.sample.lesion.drawing import Lesion, dermoscopic_image
from medic.sample.lesion.nuisances import FRAMES, Nuisances, sample_nuisances
from medic.sample.lesion.signs import COLOURS, STRUCTURES, Signs, sample_signs
from medic.sample.lesion.skin import Skin, sample_skin
from medic.sample.lesion_set import write_sample

COMMITTED = Path(__file__).parents[2] / "sample_data" / "skin_lesion"
REAL = Path(__file__).parents[3] / "shared" / "data" / "skin_lesion"
TABLES = {"SYNTHETIC.md", "groundtruth.csv", "metadata.csv", "planted_faults.csv"}
SMALL = {"patients": 60, "seed": 1, "width": 64, "height": 48}
FAIR = Skin(tone=(0.9, 0.76, 0.7), redness=0.0, freckles=0.0, hairs=12, hair=(0.1, 0.08, 0.06))
NOTHING = Nuisances()
PLAIN = Signs(0, 0, ("light brown",), ("structureless",))


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)


def faults(folder: Path) -> dict[str, list[str]]:
    return pd.read_csv(folder / "planted_faults.csv").groupby("fault")["image"].agg(list).to_dict()


def file(folder: Path, image: str) -> bytes:
    return (folder / "images" / f"{image}.jpg").read_bytes()


def drawn(signs: Signs, seed: int, nuisances: Nuisances = NOTHING, width: int = 160) -> np.ndarray:
    """A lesion on plain fair skin, float (height, width, 3)."""
    rng = np.random.default_rng([3, seed])
    size = {"width": width, "height": width * 3 // 4}
    return dermoscopic_image(Lesion(signs, FAIR, seed), rng, nuisances=nuisances, **size).astype(float)


def with_signs(**changes) -> Signs:
    return Signs(**{**vars(PLAIN), **changes})


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a sample"
    return folder, write_sample(folder, **SMALL)


class TestTheSigns:
    def test_are_weighed_as_the_rule_weighs_them(self):
        assert PLAIN.score == pytest.approx(1.0)
        assert Signs(2, 8, COLOURS, STRUCTURES).score == pytest.approx(8.9)
        assert Signs(1, 3, COLOURS[:3], STRUCTURES[:2]).score == pytest.approx(1.3 + 0.3 + 1.5 + 1.0)

    def test_are_each_more_in_malignant_lesions_and_overlap(self):
        benign, malignant = (
            [sample_signs(malignant, np.random.default_rng([seed, malignant])) for seed in range(600)]
            for malignant in (False, True)
        )
        for count in (
            lambda signs: signs.asymmetry,
            lambda signs: signs.border,
            lambda signs: len(signs.colours),
            lambda signs: len(signs.structures),
        ):
            assert np.mean([count(signs) for signs in malignant]) > 1.4 * np.mean([count(signs) for signs in benign])
        scores = [signs.score for signs in benign + malignant]
        assert 0.9 < roc_auc_score([0] * 600 + [1] * 600, scores) < 0.97
        assert np.mean([signs.score < 4.75 for signs in benign]) > 0.75
        assert np.mean([signs.score > 5.45 for signs in malignant]) > 0.65

    @pytest.mark.parametrize(
        "wrong",
        [
            {"asymmetry": 3},
            {"border": 9},
            {"colours": ()},
            {"colours": ("green",)},
            {"structures": ("dots", "dots")},
        ],
    )
    def test_that_no_lesion_has_are_refused(self, wrong):
        with pytest.raises(MedicError, match="no lesion has the signs"):
            with_signs(**wrong)


class TestAnImage:
    @pytest.mark.parametrize("size", [(32, 40), (64, 48), (256, 192)])
    def test_has_the_size_asked_for_and_a_lesion_darker_than_the_skin(self, size):
        for seed in range(4):
            rng = np.random.default_rng(seed)
            lesion = Lesion(with_signs(colours=("dark brown",)), sample_skin(rng), seed)
            image = dermoscopic_image(lesion, rng, nuisances=Nuisances(), width=size[0], height=size[1])
            assert image.shape == (size[1], size[0], 3)
            assert image.dtype == np.uint8
            height, width = image.shape[:2]
            middle = image[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5]
            corners = image[:: height - 1, :: width - 1]
            assert middle.mean() < corners.mean() - 20

    def test_is_the_same_for_the_same_seed_and_another_from_another_view(self):
        lesion = Lesion(sample_signs(True, np.random.default_rng(1)), FAIR, 1)
        first, again, other = (dermoscopic_image(lesion, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_is_refused_below_32_pixels(self):
        with pytest.raises(MedicError, match="at least 32"):
            dermoscopic_image(Lesion(PLAIN, FAIR, 0), np.random.default_rng(0), width=64, height=31)

    def test_differs_between_the_halves_of_a_lesion_the_more_the_more_asymmetric_it_is(self):
        def difference(asymmetry):
            signs = with_signs(asymmetry=asymmetry, colours=("light brown", "dark brown"), structures=("globules",))
            shown = []
            for seed in range(24):
                dark = 255 - cv2.GaussianBlur(drawn(signs, seed), (0, 0), 2)[..., 1]
                dark = np.clip(dark - np.percentile(dark, 20) - 15, 0, None)
                y, x = np.nonzero(dark + 1)
                weight = dark.ravel() / dark.sum()
                turn = np.array([[-1, 0, 2 * (weight @ x)], [0, -1, 2 * (weight @ y)]])  # half a turn about the centre
                shown.append(np.abs(dark - cv2.warpAffine(dark, turn, dark.shape[::-1])).sum() / dark.sum())
            return np.mean(shown)

        assert difference(0) < 0.8 * difference(2)

    def test_ends_more_abruptly_where_the_border_does(self):
        def steepest(border):
            signs = with_signs(border=border, colours=("dark brown",))
            slopes = [np.percentile(np.hypot(*np.gradient(drawn(signs, seed)[..., 1])), 98) for seed in range(8)]
            return np.mean(slopes)

        assert steepest(8) > steepest(4) > steepest(0)

    @pytest.mark.parametrize(
        ("colour", "shows"),
        [
            ("dark brown", lambda image: -np.percentile(image[..., 1], 5)),
            ("black", lambda image: -np.percentile(image[..., 0], 1)),
            ("blue-grey", lambda image: (image[50:70, 68:92] @ (-1, 0, 1)).mean()),
            ("red", lambda image: (image[50:70, 68:92] @ (1, -2, 1)).mean()),
            ("white", lambda image: image[50:70, 68:92, 2].mean()),
        ],
    )
    def test_shows_each_colour(self, colour, shows):
        without = np.mean([shows(drawn(PLAIN, seed)) for seed in range(10)])
        having = np.mean([shows(drawn(with_signs(colours=("light brown", colour)), seed)) for seed in range(10)])
        assert having > without + 8

    @pytest.mark.parametrize("structure", ["network", "streaks", "dots", "globules"])
    def test_shows_each_structure_as_something_rough(self, structure):
        def rough(structures):
            fine = []
            for seed in range(6):
                green = drawn(with_signs(structures=structures), seed, width=256)[..., 1]
                fine.append((green - cv2.GaussianBlur(green, (0, 0), 4)).std())
            return np.mean(fine)

        assert rough((structure,)) > 1.1 * rough(("structureless",))

    @pytest.mark.parametrize(
        "nuisances",
        [{"hairs": 20}, {"stubble": 30}, {"ruler": True}, {"bubbles": 6}, {"stickers": 2}, {"uneven": 1.0}]
        + [{"frame": frame} for frame in FRAMES[1:]],
    )
    def test_shows_each_nuisance_and_is_otherwise_the_same(self, nuisances):
        changed = np.abs(drawn(PLAIN, 1, Nuisances(**nuisances)) - drawn(PLAIN, 1)).max(axis=2)
        assert 0.003 < (changed > 12).mean() < 0.6

    def test_is_not_made_with_an_unknown_frame(self):
        with pytest.raises(MedicError, match="no dermoscope has the frame 'square'"):
            Nuisances(frame="square")


class TestASample:
    def test_has_the_files_of_the_archive_and_the_same_seed_gives_the_same_bytes(self, small, tmp_path):
        folder, records = small
        images = {f"images/{image}.jpg" for image in records["image"]}
        assert content(folder).keys() == TABLES | images
        write_sample(tmp_path / "again", **SMALL)
        assert content(tmp_path / "again") == content(folder)
        other = write_sample(tmp_path / "other", **{**SMALL, "seed": 2})
        differ = {name for name, digest in content(tmp_path / "other").items() if digest != content(folder)[name]}
        text = {f"images/{image}.jpg" for images in (records, other) for image in images.loc[_text(images), "image"]}
        assert differ >= (TABLES | images) - text

    def test_has_one_line_an_image_in_both_tables(self, small):
        folder, records = small
        rows = table(folder)
        assert rows["isic_id"].tolist() == records["image"].tolist()
        assert rows["benign_malignant"].tolist() == records["label"].map(["benign", "malignant"].__getitem__).tolist()
        truth = [line.split(",") for line in (folder / "groundtruth.csv").read_text().splitlines()]
        assert truth == rows[["isic_id", "benign_malignant"]].to_numpy().tolist()
        assert (rows["patient_id"].to_numpy() == records["patient"]).all()
        assert (rows["lesion_id"].to_numpy() == records["lesion"]).all()
        assert set(rows["sex"]) == {"female", "male", ""}
        assert "" in set(rows["age_approx"])
        assert all(age == "" or (15 <= int(age) <= 85 and int(age) % 5 == 0) for age in rows["age_approx"])
        assert rows["isic_id"].str.startswith("SYN_").all()

    @pytest.mark.real_data
    @pytest.mark.skipif(not REAL.is_dir(), reason="the real set is not in ../shared/data")
    def test_has_the_columns_of_the_real_table_before_its_own_and_none_of_its_names(self, small):
        real, rows = table(REAL), table(small[0])
        assert [*real.columns, "patient_id", "lesion_id"] == rows.columns.tolist()
        for column in ("benign_malignant", "diagnosis", "diagnosis_confirm_type", "melanocytic", "image_type"):
            assert set(rows[column]) == set(real[column])
        assert not set(rows["isic_id"]) & set(real["isic_id"])

    def test_has_patients_with_several_lesions_and_lesions_with_several_images(self, small):
        _, records = small
        assert records["patient"].nunique() == SMALL["patients"]
        assert records.groupby("lesion")["patient"].nunique().max() == 1
        assert set(records.groupby("lesion").size()) == {1, 2, 3}
        assert set(records.groupby("patient")["lesion"].nunique()) == {1, 2}
        assert records.groupby("patient")["sex"].nunique().max() == 1
        assert records.groupby("patient")["age"].nunique(dropna=False).max() == 1
        sound = records[records["fault"] == ""]
        assert sound.groupby("lesion")[["label", "score"]].nunique().max().max() == 1
        assert (sound["label"] == sound["shown"]).all()

    def test_has_stickers_beside_benign_lesions_only(self, small):
        folder, records = small
        beside = records[records["stickers"] > 0]
        assert len(beside) == round(0.12 * (records["label"] == 0).sum())
        assert set(beside["shown"]) == set(beside["label"]) == {0}
        assert set(beside["fault"]) == {""}
        assert f"{len(beside)} images of benign lesions show coloured stickers" in (folder / "SYNTHETIC.md").read_text()

    def test_has_nuisances_as_often_as_life_but_no_stickers_unless_asked(self):
        rng = np.random.default_rng(0)
        shown = [sample_nuisances(rng, FAIR) for _ in range(400)]
        assert {nuisances.stickers for nuisances in shown} == {0}
        assert {nuisances.frame for nuisances in shown} == set(FRAMES)
        for count in (lambda n: n.hairs, lambda n: n.ruler, lambda n: n.bubbles, lambda n: n.frame == "circle"):
            assert 0.08 < np.mean([count(nuisances) > 0 for nuisances in shown]) < 0.5

    @pytest.mark.parametrize("seed", [3, 4])
    def test_has_every_fault_whatever_the_seed(self, tmp_path, seed):
        records = write_sample(tmp_path, **{**SMALL, "seed": seed, "width": 32, "height": 32})
        assert records["fault"].replace("", np.nan).nunique() == 13
        assert 0.27 < records["label"].mean() < 0.34

    def test_replaces_an_earlier_sample_whole_and_nothing_else(self, small, tmp_path):
        folder, _ = small
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / "images" / "SYN_0000999.jpg").write_bytes(b"of a larger sample")
        (tmp_path / "metadata.csv").write_text("of another seed")
        (tmp_path / ".metadata.csv.0123.part").write_bytes(b"left by a run that was killed")
        write_sample(tmp_path, **SMALL)
        assert content(tmp_path) == content(folder)
        (tmp_path / "images" / "ISIC_0000001.jpg").write_text("mine")
        with pytest.raises(MedicError, match=r"holds images/ISIC_0000001\.jpg, which no earlier sample made"):
            write_sample(tmp_path, **SMALL)

    @pytest.mark.parametrize("foreign", ["metadata.csv", "SYNTHETIC.md", "images/SYN_0000001.jpg"])
    def test_leaves_a_folder_of_real_data_alone(self, tmp_path, foreign):
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).write_text("mine")
        with pytest.raises(MedicError, match="empty or a new folder"):
            write_sample(tmp_path, **SMALL)
        assert content(tmp_path).keys() == {foreign}

    @pytest.mark.parametrize("few", [{"patients": 59}, {"width": 31}, {"height": 31}])
    def test_is_refused_with_too_few_patients_or_pixels(self, tmp_path, few):
        with pytest.raises(MedicError, match="at least 60 patients and 32 pixels"):
            write_sample(tmp_path / "few", **few)
        assert not (tmp_path / "few").exists()


def _text(records: pd.DataFrame) -> pd.Series:
    return records["fault"] == "not an image"


class TestTheFaults:
    def test_are_in_few_rows_of_patients_with_one_image(self, small):
        folder, records = small
        listed = faults(folder)
        assert sum(len(images) for images in listed.values()) == 22 == (records["fault"] != "").sum()
        alone = records.groupby("patient").transform("size") == 1
        assert alone[records["fault"] != ""].all()

    def test_make_three_files_unreadable(self, small):
        folder, _ = small
        listed = faults(folder)
        for fault, reason in (
            ("truncated", "truncated"),
            ("not an image", "unsupported"),
            ("animated GIF", "unsupported"),
        ):
            with pytest.raises(ImageError) as error:
                decode(file(folder, listed[fault][0]))
            assert error.value.reason == reason
        with Image.open(io.BytesIO(file(folder, listed["animated GIF"][0]))) as gif:
            frames = [np.asarray(frame.convert("L")).mean() for frame in ImageSequence.Iterator(gif)]
            assert gif.format == "GIF"
        assert len(frames) == 3
        assert frames[0] > frames[1] > frames[2]

    def test_make_files_of_other_kinds_that_show_the_same(self, small):
        folder, _ = small
        listed = faults(folder)
        for fault, kind, mode in (("CMYK", "JPEG", "CMYK"), ("grey", "JPEG", "L"), ("palette", "PNG", "P")):
            data = file(folder, listed[fault][0])
            with Image.open(io.BytesIO(data)) as image:
                assert (image.format, image.mode) == (kind, mode)
                expected = np.asarray(image.convert("RGB")).astype(float)
            assert np.abs(decode(data) - expected).mean() < 4

    def test_lay_one_image_on_its_side_and_say_so_and_make_one_small(self, small):
        folder, _ = small
        listed = faults(folder)
        data = file(folder, listed["rotated"][0])
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (SMALL["height"], SMALL["width"])
            assert image.getexif()[0x0112] == 6
        assert decode(data).shape == (SMALL["height"], SMALL["width"], 3)
        assert decode(file(folder, listed["small"][0])).shape == (SMALL["height"] // 4, SMALL["width"] // 4, 3)

    def test_give_two_patients_the_same_bytes_and_four_nearly_the_same_image(self, small):
        folder, records = small
        named, listed = records.set_index("image"), faults(folder)
        one, two = listed["duplicate"]
        assert file(folder, one) == file(folder, two)
        pairs = [(one, two), *zip(listed["near duplicate"][::2], listed["near duplicate"][1::2], strict=True)]
        for one, two in pairs:
            assert named.loc[one, "patient"] != named.loc[two, "patient"]
            assert named.loc[one, "score"] == named.loc[two, "score"]
        assert [named.loc[one, "label"] == named.loc[two, "label"] for one, two in pairs] == [False, True, False]
        for one, two in pairs[1:]:
            original, copy = decode(file(folder, one)), decode(file(folder, two))
            assert copy.shape == (45, 60, 3)
            again = cv2.resize(copy, (SMALL["width"], SMALL["height"])).astype(float)
            assert 0 < np.abs(again - original).mean() < 8
        assert pd.Series(content(folder)).duplicated().sum() == 1

    def test_mislabel_the_clearest_images_of_each_class(self, small):
        _, records = small
        wrong = records[records["fault"] == "mislabelled"]
        assert sorted(wrong["shown"]) == [0, 0, 0, 1, 1, 1]
        assert (wrong["label"] == 1 - wrong["shown"]).all()
        assert wrong.loc[wrong["shown"] == 0, "score"].max() < 3
        assert wrong.loc[wrong["shown"] == 1, "score"].min() > 6.5

    def test_blur_one_image_and_darken_one(self):
        listed = faults(COMMITTED)
        dull = {listed[fault][0] for fault in ("truncated", "not an image", "animated GIF", "too dark")}
        sharpness = {
            image: cv2.Laplacian(decode(file(COMMITTED, image))[..., 1], cv2.CV_64F).var()
            for image in {*table(COMMITTED)["isic_id"][::6], listed["blurred"][0]} - dull
        }
        blurred = sharpness.pop(listed["blurred"][0])
        assert blurred < 0.5 * min(sharpness.values())
        assert np.percentile(decode(file(COMMITTED, listed["too dark"][0])), 99) < 40


def test_a_simple_model_learns_the_classes_but_not_without_fault():
    def features(seeds):
        for seed in seeds:
            rng = np.random.default_rng([11, seed])
            lesion = Lesion(sample_signs(bool(seed % 2), rng), sample_skin(rng), seed)
            image = dermoscopic_image(lesion, rng, width=64, height=48)
            colours = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[8:40, 12:52].reshape(-1, 3).astype(float)
            yield np.concatenate(
                [np.percentile(colours, (1, 10, 30, 50, 70, 90, 99), axis=0).ravel(), colours.std(axis=0)]
            )

    train, test = range(140), range(140, 240)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(list(features(train)), [seed % 2 for seed in train])
    area = roc_auc_score([seed % 2 for seed in test], model.decision_function(list(features(test))))
    assert 0.75 < area < 0.97


class TestTheCommittedSample:
    def test_is_small_and_says_that_it_is_synthetic(self):
        files = [path for path in COMMITTED.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 3_000_000
        about = (COMMITTED / "SYNTHETIC.md").read_text()
        assert "**Synthetic.**" in about
        assert "seed 2026" in about
        assert {path.name for path in COMMITTED.iterdir()} == {*TABLES, "images"}
        assert all(path.name.startswith("SYN_") for path in (COMMITTED / "images").iterdir())

    def test_has_about_the_mixture_of_the_real_set(self):
        rows = table(COMMITTED)
        assert 180 <= len(rows) <= 220
        assert rows["patient_id"].nunique() == 150
        assert 0.28 < (rows["benign_malignant"] == "malignant").mean() < 0.33

    def test_is_what_the_generator_writes(self, tmp_path):
        records = write_sample(tmp_path)
        for name in TABLES:
            assert (tmp_path / name).read_bytes() == (COMMITTED / name).read_bytes()
        assert content(tmp_path).keys() == content(COMMITTED).keys()
        for image in records.loc[records["fault"] == "", "image"][::10]:
            # bytes may differ between OpenCV versions, the picture may not
            made, committed = (decode(file(home, image)).astype(int) for home in (tmp_path, COMMITTED))
            assert np.abs(made - committed).mean() < 1.5
