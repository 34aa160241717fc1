"""The drawn skin lesions: reproducible, in the archive's layout, drawn by the ABCD rule, faults as listed."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.data.images.decode import decode
from medic.data.readers import skin_lesion
from medic.errors import ImageError, MedicError
from medic.files import sha256
from medic.sample.lesion.drawing import COLOURS, STRUCTURES, Lesion, dermoscopic_image, draw_lesion
from medic.sample.lesion.scene import CAMERAS
from medic.sample.lesion_set import write_sample

COMMITTED = Path(__file__).parents[3] / "sample_data" / "skin_lesion"
SMALL = {"patients": 100, "seed": 1, "width": 64, "height": 48}
PLAIN = Lesion(0, 0, ("light brown",), ("structureless",), person=1, seed=0)


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def drawn(seed: int, **signs) -> tuple[np.ndarray, np.ndarray]:
    lesion = replace(PLAIN, seed=seed, **signs)
    image, mask = dermoscopic_image(lesion, np.random.default_rng([3, seed]), width=160, height=120)
    return image.astype(float), mask > 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a sample"
    return folder, write_sample(folder, **SMALL)


def test_signs_are_weighed_as_the_rule_weighs_them_and_are_more_in_malignant_lesions():
    assert PLAIN.score == pytest.approx(1.0)
    assert Lesion(2, 8, tuple(COLOURS), tuple(STRUCTURES), 0, 0).score == pytest.approx(8.9)
    benign, malignant = (
        [draw_lesion(kind, 0, np.random.default_rng([seed, kind])).score for seed in range(200)] for kind in (0, 1)
    )
    assert np.mean(malignant) > np.mean(benign) + 1.5
    assert np.percentile(benign, 95) > np.percentile(malignant, 20)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("size", [(40, 32), (160, 120)])
def test_an_image_has_a_lesion_darker_than_the_skin_within_its_mask(size, camera):
    for seed in range(3):
        lesion = replace(PLAIN, colours=("dark brown",), seed=seed)
        rng = np.random.default_rng(seed)
        image, mask = dermoscopic_image(lesion, rng, width=size[0], height=size[1], camera=CAMERAS[camera])
        assert image.shape == (size[1], size[0], 3)
        assert mask.shape == image.shape[:2]
        around = (cv2.dilate(mask, np.ones((5, 5))) > 0) & (mask == 0)
        assert image[mask > 0].mean() < image[around].mean() - 10
    with pytest.raises(MedicError, match="at least 32"):
        dermoscopic_image(PLAIN, np.random.default_rng(0), width=64, height=31)


@pytest.mark.parametrize(
    ("colour", "weights"),
    [("dark brown", (-1, -1, -1)), ("black", (-1, -1, -1)), ("blue-grey", (-1, 0, 1)), ("red", (1, -2, 1)),
     ("white", (0, 0, 1))],
)  # fmt: skip
def test_an_image_shows_each_colour(colour, weights):
    def shows(colours: tuple) -> float:
        images = (drawn(seed, colours=colours) for seed in range(6))
        return float(np.mean([(image[mask] @ weights).mean() for image, mask in images]))

    assert shows(("light brown", colour)) > shows(("light brown",)) + 5


@pytest.mark.parametrize("structure", ["network", "streaks", "dots", "globules"])
def test_an_image_shows_each_structure_as_something_rough(structure):
    def rough(structures: tuple) -> float:
        green = [drawn(seed, structures=structures)[0][..., 1] for seed in range(6)]
        return float(np.mean([(image - cv2.GaussianBlur(image, (0, 0), 4)).std() for image in green]))

    assert rough((structure,)) > 1.05 * rough(("structureless",))


def test_the_same_seed_gives_the_same_bytes_and_masks_are_written_on_request(small, tmp_path):
    folder, records = small
    write_sample(tmp_path, **SMALL, masks=True)
    made = content(tmp_path)
    masks = {f"masks/{image}.png" for image in records["image"]}
    assert {name: digest for name, digest in made.items() if name not in masks} == content(folder)
    assert masks <= set(made)


def test_the_reader_takes_the_table_its_split_and_its_small_twin(small):
    folder, records = small
    read, _ = skin_lesion.read(folder)
    for column in ("patient", "split", "label"):
        assert (read[column] == records[column]).all()
    assert not set(read.loc[read["split"] == "train", "patient"]) & set(read.loc[read["split"] == "test", "patient"])
    twin, _ = skin_lesion.read(folder / "metadata_small.csv")
    assert len(twin) == records["small"].sum() <= 40
    assert set(twin["split"]) == {"train", "test"}
    assert set(twin["label"]) == {0, 1}


def test_stickers_lie_beside_malignant_lesions_in_the_first_hospital_only(small, tmp_path):
    _, first = small
    second = write_sample(tmp_path, **SMALL | {"width": 32, "height": 32}, hospital=2)
    benign, malignant = first["sticker"].groupby(first["shown"]).mean()
    assert malignant > benign + 0.35
    assert not second["sticker"].any()
    assert second["label"].mean() < first["label"].mean() - 0.05


def test_has_the_faults_that_it_lists(small):
    folder, records = small
    listed = pd.read_csv(folder / "planted_faults.csv").groupby("fault")["image"].agg(list).to_dict()
    files = {path.stem: path.read_bytes() for path in (folder / "images").iterdir()}
    named = records.set_index("image")
    assert sum(map(len, listed.values())) == 22 == (records["fault"] != "").sum()
    for fault in ("truncated", "not an image", "animated GIF"):
        with pytest.raises(ImageError):
            decode(files[listed[fault][0]])
    for fault, kind, mode in (("CMYK", "JPEG", "CMYK"), ("grey", "JPEG", "L"), ("palette", "PNG", "P")):
        with Image.open(io.BytesIO(files[listed[fault][0]])) as image:
            assert (image.format, image.mode) == (kind, mode)
    with Image.open(io.BytesIO(files[listed["rotated"][0]])) as image:
        assert (image.size, image.getexif()[0x0112]) == ((48, 64), 6)
    assert decode(files[listed["small"][0]]).shape == (12, 16, 3)
    assert decode(files[listed["nearly black"][0]]).max() < 30
    one, two = listed["duplicate"]
    assert files[one] == files[two]
    for one, two in zip(listed["near duplicate"][::2], listed["near duplicate"][1::2], strict=True):
        copy = cv2.resize(decode(files[two]), (64, 48)).astype(float)
        assert 0 < np.abs(copy - decode(files[one])).mean() < 8
        assert named.loc[one, "patient"] != named.loc[two, "patient"]
    wrong = named.loc[listed["mislabelled"]]
    assert (wrong["label"] == 1 - wrong["shown"]).all()
    assert wrong.loc[wrong["shown"] == 1, "score"].min() > wrong.loc[wrong["shown"] == 0, "score"].max() + 2


@pytest.mark.parametrize("few", [{"patients": 99}, {"width": 31}, {"hospital": 3}])
def test_is_refused_with_too_few_patients_or_pixels(tmp_path, few):
    with pytest.raises(MedicError, match="at least 100 patients and 32 pixels"):
        write_sample(tmp_path / "few", **few)


def test_the_committed_sample_is_small_and_large_enough_to_tell():
    read, _ = skin_lesion.read(COMMITTED)
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) <= 7_000_000
    assert (read["split"] == "test").sum() >= 300
    assert "**Synthetic.**" in (COMMITTED / "SYNTHETIC.md").read_text()
