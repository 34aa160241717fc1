"""torchvision's transforms as a recipe's augmentation, on the fly and as a written set."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.transforms import v2

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.augment.augmented_set import write_augmented
from medic.modeling.augment.harm import hue_of_lesion, lesion_mask, losses
from medic.modeling.augment.torchvision import Pipeline, Transforms
from medic.modeling.ensemble import folds
from medic.modeling.evaluate import evaluate
from medic.modeling.training.fit import fit
from medic.modeling.training.loading import EpochSampler, PreparedDataset, SampleKey, loader
from medic.task import RETINOPATHY

NOTHING = Transforms(
    crop=1, stretch=0, flip=False, hairs=0, rotate=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0
)
EVERYTHING = Transforms(blur=1)


@pytest.fixture(scope="module")
def lesion() -> np.ndarray:
    """A brown spot with a darker half on skin, 96 pixels a side."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    pixels = np.empty((96, 96, 3), np.uint8)
    pixels[:] = (225, 180, 160)
    pixels[x**2 + (1.4 * y) ** 2 < 0.3] = (140, 85, 50)
    pixels[(x**2 + (1.4 * y) ** 2 < 0.3) & (x + y > 0.1)] = (70, 40, 30)
    return cv2.GaussianBlur(pixels, (0, 0), 1)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestThePicture:
    def test_the_seed_decides_every_pixel_and_every_seed_gives_another(self, lesion):
        made = [EVERYTHING.apply(lesion, 64, generator(seed)) for seed in range(20)]
        assert all(pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8 for pixels in made)
        assert len({pixels.tobytes() for pixels in made}) == 20
        assert all(
            np.array_equal(pixels, EVERYTHING.apply(lesion, 64, generator(seed))) for seed, pixels in enumerate(made)
        )

    def test_with_everything_switched_off_no_pixel_changes(self, lesion):
        assert np.array_equal(NOTHING.apply(lesion, 96, generator()), lesion)
        smaller = cv2.resize(lesion, (48, 48), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(NOTHING.apply(lesion, 48, generator()) - smaller).mean() < 1

    def test_the_image_that_was_given_is_left_as_it_was(self, lesion):
        before = lesion.copy()
        for seed in range(10):
            EVERYTHING.apply(lesion, 96, generator(seed))
        assert np.array_equal(lesion, before)

    def test_torchs_own_generator_stands_where_it_stood(self, lesion):
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        varied = EVERYTHING.apply(lesion, 64, generator(1))
        assert torch.equal(torch.rand(3), expected)
        torch.manual_seed(8)
        assert np.array_equal(EVERYTHING.apply(lesion, 64, generator(1)), varied), "and does not matter"

    def test_an_image_is_varied_in_one_thread_and_the_others_are_given_back(self, lesion):
        seen = []

        class Counting(v2.Transform):
            def transform(self, inpt, params):
                seen.append(torch.get_num_threads())
                return inpt

        torch.set_num_threads(2)  # `_in_one_thread` of the conftest puts back what was
        Pipeline((Counting(),)).apply(lesion, 96, generator())
        assert (seen, torch.get_num_threads()) == ([1], 2)

    def test_it_stands_there_also_when_a_transform_fails(self, lesion):
        class Failing(v2.Transform):
            def transform(self, inpt, params):
                torch.rand(1)
                raise ValueError("no")

        torch.manual_seed(7)
        before = torch.get_rng_state()
        with pytest.raises(ValueError, match="no"):
            Pipeline((Failing(),)).apply(lesion, 64, generator())
        assert torch.equal(torch.get_rng_state(), before)

    def test_flips_happen_each_in_half_of_the_cases(self, lesion):
        flipping = replace(NOTHING, flip=True)
        seen = [flipping.apply(lesion, 96, generator(seed)) for seed in range(400)]
        ways = (lesion, lesion[:, ::-1], lesion[::-1], lesion[::-1, ::-1])
        counts = [sum(np.array_equal(pixels, way) for pixels in seen) for way in ways]
        assert sum(counts) == 400
        assert all(70 < count < 130 for count in counts)

    def test_the_defaults_keep_the_lesion_in_view_and_brown(self, lesion):
        for seed in range(100):
            varied = Transforms(hairs=0).apply(lesion, 64, generator(seed)).reshape(-1, 3).astype(int)
            spot = varied[(varied.sum(axis=1) < 330) & (varied.sum(axis=1) > 60)]
            assert len(spot) > 0.5 * 0.3 * np.pi / 1.4 / 4 * 64**2
            red, green, blue = spot.mean(axis=0)
            assert red > green > blue, "brown is a dark orange"

    def test_a_hair_is_thin_dark_and_hides_little(self, lesion):
        hairy = replace(NOTHING, hairs=0.02)
        shares = []
        for seed in range(60):
            changed = (hairy.apply(lesion, 96, generator(seed)) != lesion).any(axis=2)
            shares.append(changed.mean())
            if changed.any():
                assert min(changed.any(axis=0).sum(), changed.any(axis=1).sum()) <= 4
        assert max(shares) < 0.03
        assert 0.3 < np.mean(np.array(shares) > 0) < 0.7

    def test_each_transform_alone_changes_the_picture_and_none_is_left_out(self, lesion):
        singles = EVERYTHING.singles(96)
        assert len(singles) == 10
        pictures = {caption: one.apply(lesion, 96, generator(3)) for caption, one in singles.items()}
        assert all(not np.array_equal(picture, lesion) for picture in pictures.values())
        assert len({picture.tobytes() for picture in pictures.values()}) == 10
        assert all(len(one.steps) == 1 for one in singles.values())
        assert list(NOTHING.singles(96)) == ["crop 100%, stretch 0%"]

    def test_at_its_limit_a_transform_has_nothing_left_to_draw(self, lesion):
        for caption, one in EVERYTHING.singles(96).items():
            if not caption.startswith(("crop", "a hair")):  # where these fall is drawn
                assert np.array_equal(one.apply(lesion, 96, generator(1)), one.apply(lesion, 96, generator(2))), caption


class TestSettings:
    def test_they_are_plain_values_that_tell_one_augmentation_from_another(self):
        own = Pipeline((v2.RandomApply([v2.GaussianBlur(3)], p=0.2), v2.RandomRotation(20)))
        kinds = [json.loads(json.dumps(one.to_dict())) for one in (Transforms(), Augmentation(), own)]
        assert kinds[0]["kind"] == "torchvision"
        assert kinds[2]["steps"][0] == {
            "name": "RandomApply",
            "p": 0.2,
            "steps": [{"name": "GaussianBlur", "kernel_size": [3, 3], "sigma": [0.1, 2.0]}],
        }
        assert len({json.dumps(kind) for kind in kinds}) == 3
        other = Pipeline((v2.RandomApply([v2.GaussianBlur(3)], p=0.3), v2.RandomRotation(20)))
        assert other.to_dict() != own.to_dict()

    @pytest.mark.parametrize("wrong", [{"crop": 0}, {"hue": 0.6}, {"rotate": -1}, {"brightness": 1.5}, {"hairs": 0.2}])
    def test_values_out_of_range_are_refused(self, wrong):
        with pytest.raises(MedicError, match=f"{next(iter(wrong))} of the transforms lies between"):
            Transforms(**wrong)

    @pytest.mark.parametrize(
        ("step", "said"),
        [(v2.Lambda(lambda image: image), "cannot be written down"), (str.upper, "is none")],
    )
    def test_what_settings_cannot_say_is_refused(self, step, said):
        with pytest.raises(MedicError, match=said):
            Pipeline((step,))

    @pytest.mark.parametrize("step", [v2.ToDtype(torch.float32, scale=True), v2.Grayscale()])
    def test_steps_that_leave_no_rgb_bytes_are_refused(self, step, lesion):
        with pytest.raises(MedicError, match="have to keep uint8 and three channels"):
            Pipeline((step,)).apply(lesion, 64, generator())

    def test_a_pipeline_of_ones_own_is_resized_to_what_the_network_wants(self, lesion):
        own = Pipeline([v2.CenterCrop(50), v2.RandomPosterize(4)])
        assert own.apply(lesion, 64, generator()).shape == (64, 64, 3)


def batches(prepared: Prepared, workers: int) -> list:
    dataset = PreparedDataset(prepared, "validation", EVERYTHING, size=48, seed=3)
    sampler = EpochSampler(dataset.labels, RETINOPATHY, 3)
    sampler.set_epoch(2)
    return [batch.images for batch in loader(dataset, 8, sampler, workers)]


class TestOnTheFly:
    def test_workers_give_the_pixels_that_this_process_gives(self, tiny_prepared):
        here, there = batches(tiny_prepared, 0), batches(tiny_prepared, 2)
        assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))

    def test_an_image_looks_different_in_every_epoch(self, tiny_prepared):
        dataset = PreparedDataset(tiny_prepared, "train", EVERYTHING, 48)
        assert not torch.equal(dataset[SampleKey(0, 0)][0], dataset[SampleKey(0, 1)][0])


@pytest.fixture(scope="module")
def written(tiny_prepared, tmp_path_factory) -> Prepared:
    """Two copies of each training image of the small set; not to be changed."""
    return write_augmented(tiny_prepared, tmp_path_factory.mktemp("written") / "set", EVERYTHING, 2, seed=4)


def files_of(prepared: Prepared) -> dict[str, bytes]:
    return {path.relative_to(prepared.folder).as_posix(): path.read_bytes() for path in prepared.folder.rglob("*.jpg")}


class TestAsAWrittenSet:
    def test_it_holds_the_originals_as_they_are_and_so_many_copies(self, written, tiny_prepared):
        originals = written.records[written.records["copy"] == 0]
        assert originals["image"].tolist() == tiny_prepared.records["image"].tolist()
        assert set(originals["copy_of"]) == {""}
        for file in tiny_prepared.records["file"]:
            assert (written.folder / file).read_bytes() == (tiny_prepared.folder / file).read_bytes()
        count = len(tiny_prepared.split("train"))
        assert len(written.split("train")) == 3 * count
        assert written.records["copy"].value_counts().to_dict() == {0: len(tiny_prepared.records), 1: count, 2: count}
        for split in ("validation", "test"):
            assert len(written.split(split)) == len(tiny_prepared.split(split))
        assert written.synthetic
        assert written.preprocessing == tiny_prepared.preprocessing

    def test_a_copy_keeps_patient_label_and_split_of_its_original(self, written):
        copies = written.records[written.records["copy"] > 0]
        there = written.records.set_index("image").loc[copies["copy_of"]]
        for column in ("patient", "label", "split", "eye"):
            assert copies[column].tolist() == there[column].tolist()
        assert written.records["image"].is_unique
        assert len(written.records[["patient", "split"]].drop_duplicates()) == written.records["patient"].nunique()

    def test_copies_show_their_original_varied_and_no_two_are_alike(self, written):
        copies = written.records[written.records["copy"] > 0]
        assert copies["file"].is_unique
        assert len({written.pixels(file).tobytes() for file in copies["file"]}) == len(copies)
        assert written.pixels(copies["file"].iloc[0]).shape == (96, 96, 3)

    def test_seed_and_image_decide_the_files_not_the_number_of_threads(self, written, tiny_prepared, tmp_path):
        again = write_augmented(tiny_prepared, tmp_path / "again", EVERYTHING, 2, seed=4, workers=3)
        assert files_of(again) == files_of(written)
        pd.testing.assert_frame_equal(again.records, written.records)
        other = write_augmented(tiny_prepared, tmp_path / "other", EVERYTHING, 1, seed=5)
        assert not set(other.records["file"][other.records["copy"] > 0]) & set(written.records["file"])

    def test_an_interrupted_writing_goes_on_and_ends_with_the_same_files(
        self, written, tiny_prepared, tmp_path, monkeypatch
    ):
        made, apply = [], Transforms.apply

        def until_the_tenth(self, *arguments):
            made.append(1)
            if len(made) > 10:
                raise KeyboardInterrupt
            return apply(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Transforms, "apply", until_the_tenth)
            with pytest.raises(KeyboardInterrupt):
                write_augmented(tiny_prepared, tmp_path / "set", EVERYTHING, 2, seed=4, workers=1)
        with pytest.raises(MedicError, match="no complete prepared set"):
            Prepared.load(tmp_path / "set")
        whole = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.jpg")}
        ended = write_augmented(tiny_prepared, tmp_path / "set", EVERYTHING, 2, seed=4)
        assert files_of(ended) == files_of(written)
        assert all(path.stat().st_mtime_ns == when for path, when in whole.items()), "nothing was made twice"
        assert len(whole) > 10

    def test_a_network_learns_from_it_and_is_judged_by_the_originals(
        self, written, tiny_prepared, network, quick, tmp_path
    ):
        recipe = replace(quick, epochs=1, augmentation=None)
        run = fit(network(), written, tmp_path / "run", recipe)
        assert len(run.records) == len(written.records)
        for split in ("train", "test"):
            judged = evaluate(run, split)
            rows = written.records[(written.records["split"] == split) & (written.records["copy"] == 0)]
            assert judged.records["image"].tolist() == rows["image"].tolist()
            unread = tiny_prepared.skipped
            assert judged.failed["image"].tolist() == unread["image"][unread["split"] == split].tolist()
            assert judged.synthetic

    def test_folds_of_it_are_refused_because_they_would_validate_on_copies(self, written):
        with pytest.raises(MedicError, match="holds varied copies"):
            folds(written, 3)

    def test_copies_of_copies_none_at_all_and_a_folder_of_something_else_are_refused(
        self, written, tiny_prepared, tmp_path
    ):
        with pytest.raises(MedicError, match="1 or more"):
            write_augmented(tiny_prepared, tmp_path / "none", EVERYTHING, 0)
        assert not (tmp_path / "none").exists()
        with pytest.raises(MedicError, match="'copy' already"):
            write_augmented(written, tmp_path / "twice", EVERYTHING, 1)
        with pytest.raises(MedicError, match="the prepared set itself"):
            write_augmented(tiny_prepared, tiny_prepared.folder, EVERYTHING, 1)
        with pytest.raises(MedicError, match=r"made with other settings \(copies 2 there, 1 here\)"):
            write_augmented(tiny_prepared, written.folder, EVERYTHING, 1, seed=4)

    def test_a_prepared_file_that_is_gone_is_named(self, tiny_prepared, tmp_path):
        lost = replace(tiny_prepared, records=tiny_prepared.records.assign(file="images/00/lost.jpg"))
        with pytest.raises(MedicError, match=r"images/00/lost\.jpg"):
            write_augmented(lost, tmp_path / "set", EVERYTHING, 1)

    def test_names_made_of_digits_stay_text(self, tiny_prepared, tmp_path):
        rows = tiny_prepared.split("train").head(3).assign(image=["007", "NA", "1e5"])
        made = write_augmented(replace(tiny_prepared, records=rows), tmp_path / "set", EVERYTHING, 1)
        assert made.records["copy_of"].tolist() == ["", "", "", "007", "NA", "1e5"]
        assert made.records["image"].tolist()[3:] == ["007#1", "NA#1", "1e5#1"]

    def test_the_store_is_that_of_the_originals(self, written, tiny_prepared):
        name = tiny_prepared.records["image"].iloc[0]
        assert written.store.read(name) == tiny_prepared.store.read(name)


class TestWhenItHurts:
    def test_the_lesion_is_found_without_the_black_surround(self, lesion):
        framed = lesion.copy()
        framed[:30] = framed[-10:] = 3
        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        spot = (x**2 + (1.4 * y) ** 2 < 0.28) & (np.abs(x) < 0.5) & (np.abs(y) < 0.5) & (y > -1 + 60 / 96)
        found = lesion_mask(framed)
        assert found[spot].mean() > 0.95
        assert found.sum() < 1.15 * spot.sum()
        assert not found[:30].any()
        assert not lesion_mask(np.zeros((64, 64, 3), np.uint8)).any()

    @pytest.mark.parametrize(("colour", "hue"), [((150, 90, 45), 26), ((200, 40, 40), 0), ((60, 60, 200), -120)])
    def test_hues_are_those_of_the_colour_circle(self, colour, hue):
        pixels = np.full((8, 8, 3), colour, np.uint8)
        assert hue_of_lesion(pixels, np.ones((8, 8), bool)) == pytest.approx(hue, abs=1)

    def test_strong_hue_and_a_hard_crop_take_away_what_the_defaults_keep(self, lesion):
        table = losses([lesion] * 80, {"defaults": Transforms(), "strong": Transforms(crop=0.08, hue=0.5)}, seed=1)
        assert table.loc["as prepared"].tolist() == [0, 0]
        assert table.loc["defaults"].tolist() == [0, 0]
        assert table.loc["strong", "no longer brown"] == pytest.approx(1 - 55 / 360, abs=0.12)
        assert table.loc["strong", "cut off"] > 0.25
        with pytest.raises(MedicError, match="no lesion was found in 1 images"):
            losses([np.zeros((64, 64, 3), np.uint8)], {"defaults": Transforms()})
