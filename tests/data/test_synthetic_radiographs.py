"""The synthetic chest X-ray set: reproducible, in NIH's layout, each finding where it belongs, faults as listed."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medic.errors import MedicError
from medic.files import sha256
from medic.sample.chest.anatomy import Changes, pose
from medic.sample.chest.findings import changes_of
from medic.sample.chest_set import radiograph, sample_anatomy, write_sample
from medic.task import FINDINGS, NO_FINDING

COMMITTED = Path(__file__).parents[2] / "sample_data" / "chest_xray"
REAL_TABLE = Path(__file__).parents[3] / "shared" / "data" / "chest_xray" / "Data_Entry_2017.csv"
FILES = [
    "Data_Entry_2017.csv",
    "SYNTHETIC.md",
    "images.zip",
    "planted_faults.csv",
    "test_list.txt",
    "train_val_list.txt",
]
SMALL = {"patients": 120, "seed": 1, "size": 64}


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def table(folder: Path) -> pd.DataFrame:
    rows = [line.split(",") for line in lines(folder / "Data_Entry_2017.csv")[1:]]
    names = ["image", "labels", "follow_up", "patient", "age", "sex", "view", "width", "height", "x", "y"]
    return pd.DataFrame(rows, columns=names)


def members(folder: Path) -> dict[str, str]:
    """Member names by the name of the file without its ending."""
    with zipfile.ZipFile(folder / "images.zip") as archive:
        return {Path(name).stem: name for name in archive.namelist()}


def member(folder: Path, image: str) -> bytes:
    with zipfile.ZipFile(folder / "images.zip") as archive:
        return archive.read(members(folder)[Path(image).stem])


def faults(folder: Path) -> dict[str, list[str]]:
    return pd.read_csv(folder / "planted_faults.csv").groupby("fault")["image"].agg(list).to_dict()


def pairs(findings: dict[str, float], view: str = "PA", count: int = 8, size: int = 128):
    """The same people in the same exposure without and with findings, and how they stand before the detector."""
    for seed in range(count):
        anatomy = sample_anatomy(np.random.default_rng([7, seed]))
        without, shown = (
            radiograph(which, view, np.random.default_rng([8, seed]), anatomy=anatomy, size=size).astype(float)
            for which in ({}, findings)
        )
        chest = pose(anatomy, view, changes_of(findings, anatomy), np.random.default_rng([8, seed]), size)
        yield without, shown, chest


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a sample"
    return folder, write_sample(folder, **SMALL)


class TestARadiograph:
    @pytest.mark.parametrize("view", ["PA", "AP"])
    @pytest.mark.parametrize("size", [64, 200])
    def test_is_grey_and_shows_dark_lungs_beside_a_bright_middle(self, view, size):
        image = radiograph({}, view, np.random.default_rng(3), size=size)
        assert image.shape == (size, size)
        assert image.dtype == np.uint8
        row = image[round(0.45 * size)].astype(float)
        left, middle, right = (row[round(at * size) - 3 : round(at * size) + 3].mean() for at in (0.28, 0.5, 0.76))
        assert middle > max(left, right) + 20

    def test_has_the_heart_at_the_images_right_and_the_higher_diaphragm_at_its_left(self):
        for seed in range(10):
            anatomy = sample_anatomy(np.random.default_rng(seed))
            chest = pose(anatomy, "PA", Changes(), np.random.default_rng(seed), 128)
            image = radiograph({}, "PA", np.random.default_rng(seed), anatomy=anatomy, size=128).astype(float)
            beside = (np.abs(chest.v - 0.85 * chest.height) < 0.08) & (np.abs(np.abs(chest.u) - 0.42) < 0.05)
            assert image[beside & (chest.u > 0)].mean() > image[beside & (chest.u < 0)].mean()
            between = (chest.v > chest.height + 0.005) & (chest.v < chest.height + 0.05)
            between &= np.abs(np.abs(chest.u) - 0.45) < 0.04
            if (between & (chest.u > 0)).any():
                assert image[between & (chest.u < 0)].mean() > image[between & (chest.u > 0)].mean() - 5

    def test_is_the_same_for_the_same_seed_and_keeps_the_anatomy_between_follow_ups(self):
        def lungs(person, visit):
            image = radiograph({}, "PA", np.random.default_rng(visit), anatomy=person, size=64)
            return cv2.GaussianBlur(image, (0, 0), 1).astype(float).ravel()

        people = [sample_anatomy(np.random.default_rng(seed)) for seed in range(8)]
        first, second = (np.array([lungs(person, [k, visit]) for k, person in enumerate(people)]) for visit in (1, 2))
        assert np.array_equal(first[0], lungs(people[0], [0, 1]))
        alike = np.corrcoef(first, second)[:8, 8:]
        assert np.diag(alike).mean() > alike[~np.eye(8, dtype=bool)].mean() + 0.01

    def test_in_bed_has_a_larger_heart_and_less_inspiration(self):
        for seed in range(5):
            anatomy = sample_anatomy(np.random.default_rng(seed))
            standing, bed = (pose(anatomy, view, Changes(), np.random.default_rng(seed), 64) for view in ("PA", "AP"))
            assert sum(bed.heart) > sum(standing.heart)
            assert bed.height < standing.height

    @pytest.mark.parametrize(
        "wrong", [{"findings": {"Cough": 0.5}}, {"findings": {"Mass": 2}}, {"view": "LATERAL"}, {"size": 32}]
    )
    def test_that_cannot_be_drawn_is_refused(self, wrong):
        arguments = {"findings": {}, "view": "PA", "rng": np.random.default_rng(0), **wrong}
        with pytest.raises(MedicError, match="cannot draw"):
            radiograph(**arguments)


class TestAFinding:
    @pytest.mark.parametrize("finding", FINDINGS)
    @pytest.mark.parametrize("view", ["PA", "AP"])
    def test_changes_the_picture_within_the_chest(self, finding, view):
        for without, shown, chest in pairs({finding: 0.7}, view, count=4):
            change = np.abs(shown - without)
            inside = (np.abs(chest.u) < 1.05) & (chest.v > -0.1) & (chest.v < chest.height + 0.6)
            assert change[inside].max() > 12
            outside = (np.abs(chest.u) > 1.2) & (chest.v > 0.5)
            if finding not in ("Emphysema", "Fibrosis") and outside.any():  # these change how the patient is placed
                assert change[inside].mean() > 2 * change[outside].mean()

    @pytest.mark.parametrize("finding", FINDINGS)
    def test_shows_more_when_it_is_more_severe(self, finding):
        def change(severity):
            return np.mean(
                [np.abs(shown - without).mean() for without, shown, _ in pairs({finding: severity}, count=6)]
            )

        assert change(0.9) > change(0.2)

    @pytest.mark.parametrize("also", [{}, {"Emphysema": 1.0}])
    def test_cardiomegaly_is_a_cardiothoracic_ratio_over_a_half_and_is_so_drawn(self, also):
        for without, shown, chest in pairs({"Cardiomegaly": 0.4, **also}):
            assert sum(chest.heart) / 2 > 0.5
            rows = np.abs(chest.v - 0.88 * chest.height) < 0.06
            border = rows & (chest.u > chest.heart[1] - 0.14) & (chest.u < chest.heart[1] - 0.06)
            assert shown[border].mean() > without[border].mean() + 10

    def test_a_healthy_heart_is_less_than_half_as_wide_as_the_thorax(self):
        for _, _, chest in pairs({}):
            assert sum(chest.heart) / 2 < 0.5

    def test_effusion_hides_a_costophrenic_angle_and_rises_along_the_wall(self):
        for without, shown, chest in pairs({"Effusion": 0.6}):
            corner = (
                (np.abs(np.abs(chest.u) - 0.9) < 0.06) & (chest.v < chest.dome - 0.03) & (chest.v > chest.dome - 0.2)
            )
            brighter = [(shown - without)[corner & (side * chest.u > 0)].mean() for side in (-1, 1)]
            side = 1 if brighter[1] > brighter[0] else -1
            assert max(brighter) > 20
            fluid = (shown - without > 20) & (chest.lung > 0.9)
            lateral, medial = (chest.v[fluid & (np.abs(side * chest.u - at) < 0.06)] for at in (0.88, 0.62))
            assert np.percentile(lateral, 5) < np.percentile(medial, 5)

    def test_pneumothorax_is_a_rim_that_is_darker_and_smoother_than_the_lung(self):
        for without, shown, chest in pairs({"Pneumothorax": 0.6}):
            rim = (chest.wall - np.abs(chest.u) > 0.05) & (chest.wall - np.abs(chest.u) < 0.12) & (chest.lung > 0.9)
            darker = min((shown - without)[rim & (side * chest.u > 0)].mean() for side in (-1, 1))
            assert darker < -8

    def test_a_nodule_is_less_than_3_cm_across_and_a_mass_is_more(self):
        half_of_a_thorax = 14  # cm

        def widest(finding, severity):
            for without, shown, chest in pairs({finding: severity}, size=256):
                change = cv2.GaussianBlur(shown - without, (0, 0), 1.5)
                _, _, stats, _ = cv2.connectedComponentsWithStats((change > 8).astype(np.uint8))
                yield stats[1:, cv2.CC_STAT_WIDTH].max() / chest.radius * half_of_a_thorax

        assert max(widest("Nodule", 1.0)) < 3.3  # antialiasing and blur included
        assert min(widest("Mass", 0.2)) > 3

    def test_emphysema_has_long_lungs_over_a_flat_diaphragm_and_a_small_heart(self):
        for seed in range(5):
            anatomy = sample_anatomy(np.random.default_rng(seed))
            well, ill = (
                pose(anatomy, "PA", changes_of(findings, anatomy), np.random.default_rng(seed), 128)
                for findings in ({}, {"Emphysema": 0.6})
            )
            assert ill.height > well.height
            assert sum(ill.heart) < sum(well.heart)
            lung = np.abs(well.u) < 1
            assert np.ptp(ill.dome[lung]) < 0.7 * np.ptp(well.dome[lung])

    def test_edema_lies_at_both_hila_and_fibrosis_at_both_bases(self):
        for finding, inner, outer in (("Edema", 0.35, 0.7), ("Fibrosis", 0.8, 0.2)):
            grown = []
            for without, shown, chest in pairs({finding: 0.8}, count=12):
                change, lung = np.abs(shown - without), chest.lung > 0.9
                if finding == "Edema":
                    near = (
                        lung & (np.abs(np.abs(chest.u) - inner) < 0.12) & (np.abs(chest.v / chest.height - 0.5) < 0.15)
                    )
                    far = lung & (np.abs(chest.u) > outer) & (chest.v < 0.5 * chest.height)
                else:
                    near, far = (lung & (np.abs(chest.v / chest.height - at) < 0.15) for at in (inner, outer))
                grown.append([change[near & (side * chest.u > 0)].mean() - change[far].mean() for side in (-1, 1)])
            assert (np.mean(grown, axis=0) > 2).all()

    def test_a_hernia_lies_behind_the_heart_with_gas_over_a_level(self):
        for without, shown, chest in pairs({"Hernia": 0.7}):
            behind = (np.abs(chest.u - 0.09) < 0.12) & (np.abs(chest.v - chest.height + 0.25) < 0.08)
            assert (shown - without)[behind].mean() < -15

    def test_thickening_lies_along_a_wall_and_atelectasis_in_the_lower_half(self):
        for without, shown, chest in pairs({"Pleural_Thickening": 0.8}):
            inward = chest.wall - np.abs(chest.u)
            middle = (np.abs(chest.v - 0.65 * chest.height) < 0.2 * chest.height) & (chest.lung > 0.5)
            rim, deep = middle & (inward < 0.08), middle & (inward > 0.25)
            assert max((shown - without)[rim & (side * chest.u > 0)].mean() for side in (-1, 1)) > 10
            assert np.abs(shown - without)[deep].mean() < 3
        for without, shown, chest in pairs({"Atelectasis": 0.3}):
            brighter = np.clip(shown - without, 0, None) * (chest.lung > 0.5)
            assert brighter[chest.v > 0.5 * chest.height].sum() > 5 * brighter[chest.v < 0.5 * chest.height].sum()

    def test_pneumonia_is_denser_than_infiltration_and_consolidation_denser_still(self):
        def density(finding):
            changes = [
                np.percentile((shown - without)[chest.lung > 0.9], 95)
                for without, shown, chest in pairs({finding: 0.5}, count=16)
            ]
            return np.mean(changes)

        assert density("Infiltration") < density("Pneumonia") < density("Consolidation")

    def test_several_show_in_one_radiograph(self):
        anatomy = sample_anatomy(np.random.default_rng(5))
        everything = radiograph(dict.fromkeys(FINDINGS, 0.8), "AP", np.random.default_rng(5), anatomy=anatomy, size=64)
        assert everything.std() > 20


class TestASample:
    def test_has_the_files_of_nih_and_the_same_seed_gives_the_same_bytes(self, small, tmp_path):
        folder, _ = small
        assert sorted(content(folder)) == FILES
        write_sample(tmp_path / "again", **SMALL)
        assert content(tmp_path / "again") == content(folder)
        write_sample(tmp_path / "other", **{**SMALL, "seed": 2})
        differ = {name for name, digest in content(tmp_path / "other").items() if digest != content(folder)[name]}
        assert differ == set(FILES)

    def test_has_one_line_a_radiograph_of_which_the_reader_can_make_sense(self, small):
        folder, records = small
        rows = table(folder)
        assert rows["image"].tolist() == records["image"].tolist()
        assert (rows["patient"].astype(int) == rows["image"].str[:8].astype(int)).all()
        assert (rows["follow_up"].astype(int) == rows["image"].str[9:12].astype(int)).all()
        shown = rows["labels"].str.get_dummies("|")
        assert set(shown) == {*FINDINGS, NO_FINDING}
        for finding in FINDINGS:
            assert (shown[finding] == records[finding]).all()
        assert (shown[NO_FINDING] == 1 - records["label"]).all()
        assert set(rows["sex"]) == {"F", "M"}
        assert set(rows["view"]) == {"PA", "AP"}
        assert records.groupby("patient")["sex"].nunique().max() == 1
        assert records.groupby("patient")["age"].apply(lambda ages: ages.is_monotonic_increasing).all()
        assert set(records.groupby("patient").size()) == {1, 2, 3, 4, 5}

    @pytest.mark.real_data
    @pytest.mark.skipif(not REAL_TABLE.is_file(), reason="the real table is not in ../shared/data")
    def test_has_the_header_of_the_real_table(self, small):
        assert lines(small[0] / "Data_Entry_2017.csv")[0] == lines(REAL_TABLE)[0]

    def test_keeps_patients_in_one_list_and_a_fifth_of_them_in_the_test_list(self, small):
        folder, records = small
        train, test = (lines(folder / name) for name in ("train_val_list.txt", "test_list.txt"))
        assert sorted(train + test) == sorted(records["image"])
        train, test = ({name[:8] for name in names} for names in (train, test))
        assert not train & test
        assert 0.15 < len(test) / len(train | test) < 0.27

    @pytest.mark.parametrize("patients", [120, 250])
    def test_has_every_finding_in_both_splits(self, tmp_path, patients):
        records = write_sample(tmp_path, patients=patients, seed=patients, size=64)
        sound = records[records["fault"] == ""]
        for finding in FINDINGS:
            having = sound[sound[finding] == 1].groupby("split")["patient"].nunique()
            assert having["train"] >= 3
            assert having["test"] >= 1

    def test_stores_its_images_uncompressed_under_the_mark(self, small):
        folder, records = small
        with zipfile.ZipFile(folder / "images.zip") as archive:
            infos = archive.infolist()
            assert infos[0].filename == "SYNTHETIC.md"
            assert archive.read("SYNTHETIC.md") == (folder / "SYNTHETIC.md").read_bytes()
        assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
        assert {info.filename.split("/images/")[0] for info in infos[1:]} == {f"images_00{k}" for k in (1, 2, 3)}
        found = {Path(info.filename).stem for info in infos[1:]}
        listed = {Path(name).stem for name in records["image"]}
        assert listed - found == {Path(name).stem for name in faults(folder)["no image"]}
        assert found - listed == {Path(name).stem for name in faults(folder)["no row"]}

    def test_has_the_faults_that_it_lists_in_few_rows(self, small):
        folder, records = small
        listed = faults(folder)
        assert sum(records["fault"] != "") == 12
        for fault, mode in (("RGBA", "RGBA"), ("RGB", "RGB"), ("16 bit", "I;16")):
            image = Image.open(io.BytesIO(member(folder, listed[fault][0])))
            assert image.mode == mode
        sixteen = np.asarray(Image.open(io.BytesIO(member(folder, listed["16 bit"][0]))))
        assert (sixteen % 257 == 0).all()
        colour = np.asarray(Image.open(io.BytesIO(member(folder, listed["RGBA"][0]))))
        assert (colour[..., 0] == colour[..., 1]).all()
        assert (colour[..., 3] == 255).all()
        with pytest.raises(OSError, match="truncated"):
            Image.open(io.BytesIO(member(folder, listed["truncated"][0]))).load()
        ages = table(folder).set_index("image")["age"]
        assert ages[listed["age with a unit"][0]] == "058Y"
        assert ages[listed["impossible age"][0]] == "412"
        one, other = listed["duplicate"]
        assert member(folder, one) == member(folder, other)
        labels = table(folder).set_index("image")["labels"]
        assert {labels[one], labels[other]} == {NO_FINDING, "Infiltration"}
        assert one[:8] != other[:8]
        assert records.set_index("image").loc[listed["truncated"], "split"].tolist() == ["test"]

    def test_has_dicom_files_whose_window_gives_the_pixels_back(self, small):
        from pydicom.pixels import apply_modality_lut, apply_voi_lut

        folder, _ = small
        kinds = []
        for image in faults(folder)["DICOM"]:
            assert members(folder)[Path(image).stem].endswith(".dcm")
            data = pydicom.dcmread(io.BytesIO(member(folder, image)))
            assert str(data.PatientName) == "Synthetic^Sample"
            assert data.PatientID == image[:8]
            assert data.PatientSex == table(folder).set_index("image")["sex"][image]
            kinds.append((data.PhotometricInterpretation, data.BitsStored))
            stored = data.pixel_array
            if data.BitsStored > 8:
                shown = apply_voi_lut(apply_modality_lut(stored, data), data)
                low, high = shown.min(), shown.max()
                grey = np.rint((stored.astype(int) - 1000) / 8)
                assert np.abs(np.interp(shown, (low, high), (grey.min(), grey.max())) - grey).max() < 0.5
            grey = stored if data.BitsStored == 8 else (stored.astype(int) - 1000) // 8
            grey = 255 - grey if data.PhotometricInterpretation == "MONOCHROME1" else grey
            assert grey[:, 28:36].mean() > 128  # mediastinum and spine are bright
        assert kinds == [("MONOCHROME2", 8), ("MONOCHROME1", 16), ("MONOCHROME2", 12)]

    def test_replaces_an_earlier_sample_whole_and_nothing_else(self, small, tmp_path):
        folder, _ = small
        write_sample(tmp_path, **{**SMALL, "seed": 3})
        (tmp_path / ".images.zip.0123.part").write_bytes(b"left by a run that was killed")
        write_sample(tmp_path, **SMALL)
        assert content(tmp_path) == content(folder)
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(MedicError, match=r"holds mine\.txt, which no earlier sample made"):
            write_sample(tmp_path, **SMALL)

    @pytest.mark.parametrize("foreign", ["images.zip", "SYNTHETIC.md", "images/00000001_000.png"])
    def test_leaves_a_folder_of_real_data_alone(self, tmp_path, foreign):
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).write_text("mine")
        with pytest.raises(MedicError, match="empty or a new folder"):
            write_sample(tmp_path, **SMALL)
        assert content(tmp_path).keys() == {foreign}

    def test_is_refused_into_a_file_and_with_too_few_patients_or_pixels(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(MedicError, match="it is a file"):
            write_sample(tmp_path / "file")
        for few in ({"patients": 119}, {"size": 63}):
            with pytest.raises(MedicError, match="at least 120 patients and 64 pixels"):
                write_sample(tmp_path / "few", **few)
        assert not (tmp_path / "few").exists()


def test_a_simple_model_learns_cardiomegaly_but_not_without_fault():
    def images(seeds):
        for seed in seeds:
            rng = np.random.default_rng([11, seed])
            findings = {"Cardiomegaly": rng.uniform(0.1, 1)} if seed % 2 else {}
            if rng.random() < 0.4:
                findings["Effusion"] = rng.uniform(0.1, 1)
            image = radiograph(findings, "AP" if rng.random() < 0.4 else "PA", rng, size=64)
            image = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(float).ravel()
            yield (image - image.mean()) / image.std()

    train, test = range(200), range(200, 300)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(list(images(train)), [seed % 2 for seed in train])
    area = roc_auc_score([seed % 2 for seed in test], model.decision_function(list(images(test))))
    assert 0.8 < area < 1


class TestTheCommittedSample:
    def test_is_small_and_says_that_it_is_synthetic(self):
        assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= 4_000_000
        assert (COMMITTED / "images.zip").stat().st_size <= 3_600_000
        about = (COMMITTED / "SYNTHETIC.md").read_text()
        assert "**Synthetic.**" in about
        assert "seed 2026" in about
        assert sorted(path.name for path in COMMITTED.iterdir()) == FILES

    def test_has_the_mixture_of_the_real_set(self):
        rows = table(COMMITTED)
        share = rows["labels"].str.get_dummies("|").mean()
        assert len(rows) >= 300
        assert 0.45 <= share[NO_FINDING] <= 0.5
        assert set(share[list(FINDINGS)].nlargest(4).index) == {
            "Infiltration",
            "Effusion",
            "Atelectasis",
            "Cardiomegaly",
        }
        assert share[["Hernia", "Pneumonia"]].max() < 0.04
        assert 0.12 < rows["labels"].str.contains("|", regex=False).mean() < 0.3

    def test_shows_sicker_patients_in_bed(self):
        rows = table(COMMITTED)
        by_view = rows["labels"].str.get_dummies("|").groupby(rows["view"]).mean()
        assert 0.3 < (rows["view"] == "AP").mean() < 0.5
        for finding in ("Effusion", "Edema", "Consolidation", "Infiltration"):
            assert by_view.loc["AP", finding] > by_view.loc["PA", finding]
        assert by_view.loc["AP", NO_FINDING] < by_view.loc["PA", NO_FINDING]

    def test_is_what_the_generator_writes(self, tmp_path):
        records = write_sample(tmp_path)
        for name in FILES:
            if name != "images.zip":
                assert (tmp_path / name).read_bytes() == (COMMITTED / name).read_bytes()
        assert members(tmp_path) == members(COMMITTED)
        for image in records.loc[records["fault"] == "", "image"][::12]:
            # bytes may differ between OpenCV versions, the picture may not
            made, committed = (
                np.asarray(Image.open(io.BytesIO(member(home, image)))).astype(int) for home in (tmp_path, COMMITTED)
            )
            assert np.abs(made - committed).mean() < 1.5
