"""The drawn chest X-ray set: reproducible, in NIH's layout, with the findings, masks and faults that it says it has."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from medic.data.images.decode import decode
from medic.data.readers import chest_xray
from medic.errors import ImageError, MedicError
from medic.files import sha256
from medic.sample.chest.body import draw_person
from medic.sample.chest.drawing import FILMS, radiograph
from medic.sample.chest_set import write_sample
from medic.task import FINDINGS

COMMITTED = Path(__file__).parents[3] / "sample_data" / "chest_xray"
SMALL = {"patients": 120, "seed": 1, "size": 64}


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a sample"
    return folder, write_sample(folder, **SMALL)


def pair(finding: str, view: str, seed: int, severity: float = 0.9, hospital: int = 1):
    """The same person in the same exposure without and with a finding, and the finding's mask."""
    person = draw_person(np.random.default_rng([7, seed]))
    (without, _), (shown, masks) = (
        radiograph(which, view, np.random.default_rng([8, seed]), person=person, size=96, film=FILMS[hospital])
        for which in ({}, {finding: severity})
    )
    return without.astype(float), shown.astype(float), masks[finding] > 0


@pytest.mark.parametrize("hospital", FILMS)
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_a_radiograph_shows_dark_lungs_beside_a_bright_middle(view, hospital):
    image, masks = radiograph({}, view, np.random.default_rng(3), size=96, film=FILMS[hospital])
    assert (image.shape, image.dtype, masks) == ((96, 96), np.uint8, {})
    left, middle, right = (image[40:46, round(96 * at) - 2 : round(96 * at) + 2].mean() for at in (0.3, 0.5, 0.75))
    assert middle > max(left, right) + 15


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_picture_where_its_mask_says_and_more_when_severe(finding):
    inside, outside, slight = [], [], []
    for seed in range(3):
        without, shown, mask = pair(finding, "PA", seed)
        change = cv2.GaussianBlur(np.abs(shown - without), (0, 0), 1)
        inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
        slight.append(np.abs(np.subtract(*pair(finding, "PA", seed, severity=0.2)[:2])).mean())
        assert 0 < mask.mean() < 0.4
    assert np.mean(inside) > 2 * np.mean(outside)
    assert np.mean(slight) < np.mean([np.abs(np.subtract(*pair(finding, "PA", seed)[:2])).mean() for seed in range(3)])


@pytest.mark.parametrize(
    "wrong", [{"findings": {"Cough": 0.5}}, {"findings": {"Mass": 2}}, {"view": "LATERAL"}, {"size": 32}]
)
def test_a_radiograph_that_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(MedicError, match="cannot draw"):
        radiograph(**{"findings": {}, "view": "PA", "rng": np.random.default_rng(0), **wrong})


def test_the_same_seed_gives_the_same_bytes_and_masks_are_written_on_request(small, tmp_path):
    folder, records = small
    write_sample(tmp_path, **SMALL, masks=True)
    made = content(tmp_path)
    masks = {name for name in made if name.startswith("masks/")}
    assert {name: digest for name, digest in made.items() if name not in masks} == content(folder)
    named = records[(records["Nodule"] == 1) & (records["fault"] == "")]["image"]
    assert {f"masks/{Path(image).stem}_Nodule.png" for image in named} <= masks
    assert not any(Path(image).stem in name for image in records[records["label"] == 0]["image"] for name in masks)


def test_the_reader_takes_the_table_and_its_small_twin(small):
    folder, records = small
    read, store = chest_xray.read(folder)
    assert read["image"].map(lambda name: Path(name).stem).tolist() == [Path(i).stem for i in records["image"]]
    for column in ("patient", "split", "label", "view", "sex", *FINDINGS):
        wanted = records[column].astype(int) if column == "patient" else records[column]
        assert (read[column].astype(wanted.dtype).to_numpy() == wanted.to_numpy()).all(), column
    assert not set(read.loc[read["split"] == "train", "patient"]) & set(read.loc[read["split"] == "test", "patient"])
    twin, _ = chest_xray.read(folder / "Data_Entry_2017_small.csv")
    assert len(twin) == records["small"].sum() <= 40
    assert set(twin["split"]) == {"train", "test"}
    assert decode(store.read(twin["image"][0])).shape == (64, 64, 3)


def test_the_view_goes_with_findings_in_the_first_hospital_only(tmp_path):
    def gap(records: pd.DataFrame) -> float:
        return (records["view"] == "AP").groupby(records["label"]).mean().diff().iloc[-1]

    first = pd.read_csv(COMMITTED / "Data_Entry_2017.csv", index_col=False, dtype=str)
    first = pd.DataFrame({"view": first["View Position"], "label": first["Finding Labels"] != "No Finding"})
    second = write_sample(tmp_path, **SMALL, hospital=2)
    assert gap(first) > 0.3
    assert abs(gap(second)) < 0.2


def test_has_the_faults_that_it_lists(small):
    folder, records = small
    listed = pd.read_csv(folder / "planted_faults.csv").groupby("fault")["image"].agg(list).to_dict()
    with zipfile.ZipFile(folder / "images.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        files = {Path(name).stem: archive.read(name) for name in archive.namelist()}

    def file(image: str) -> bytes:
        return files[Path(image).stem]

    for fault, mode in (("RGBA", "RGBA"), ("RGB", "RGB"), ("16 bit", "I;16")):
        assert Image.open(io.BytesIO(file(listed[fault][0]))).mode == mode
    with pytest.raises(ImageError):
        decode(file(listed["truncated"][0]))
    one, other = listed["duplicate"]
    assert file(one) == file(other)
    named = records.set_index("image")
    assert named.loc[one, "label"] != named.loc[other, "label"]
    assert Path(listed["no image"][0]).stem not in files
    assert listed["no row"][0] not in named.index
    kinds = [pydicom.dcmread(io.BytesIO(file(image))) for image in listed["DICOM"]]
    assert [(kind.PhotometricInterpretation, kind.BitsStored) for kind in kinds] == [
        ("MONOCHROME2", 8),
        ("MONOCHROME1", 16),
        ("MONOCHROME2", 12),
    ]
    for image in listed["DICOM"]:
        assert decode(file(image))[:, 28:36].mean() > 110  # mediastinum and spine are bright


@pytest.mark.parametrize("few", [{"patients": 119}, {"size": 63}, {"hospital": 3}])
def test_is_refused_with_too_few_patients_or_pixels(tmp_path, few):
    with pytest.raises(MedicError, match="at least 120 patients and 64 pixels"):
        write_sample(tmp_path / "few", **few)


def test_the_committed_sample_is_small_and_large_enough_to_tell():
    read, _ = chest_xray.read(COMMITTED)
    tested = read[read["split"] == "test"]
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= 8_000_000
    assert len(tested) >= 150
    assert (tested[list(FINDINGS)].sum() >= 12).sum() >= 10
    assert "**Synthetic.**" in (COMMITTED / "SYNTHETIC.md").read_text()
