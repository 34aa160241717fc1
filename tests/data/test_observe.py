"""What is told about a data set before a network sees it, on tables that can be counted by hand."""

import numpy as np
import pandas as pd
import pytest

from medic.data import explore as observe
from medic.data.check import check
from medic.data.readers import chest_xray, retinopathy
from medic.data.stores import FolderStore
from medic.sample.chest.files import dicom, png
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING, RETINOPATHY, Task

ANIMALS = Task("animals", "multilabel", ("cat", "dog", "owl"))
PERSON = {"id": "1", "age": "058Y", "sex": "F", "view": "PA"}


def animals(*shown: str, patients: str | None = None) -> pd.DataFrame:
    """One row for each text such as "cat dog"; a letter of `patients` each."""
    table = pd.DataFrame({name: [int(name in text.split()) for text in shown] for name in ANIMALS.classes})
    return table.assign(
        image=[f"{row}.png" for row in range(len(shown))],
        patient=list(patients or map(str, range(len(shown)))),
        split="train",
        label=table.max(axis=1),
    )


def chest(*shown: str, **columns: list) -> pd.DataFrame:
    """One row for each text such as "Mass|Nodule"."""
    table = pd.DataFrame({name: [int(name in text.split("|")) for text in shown] for name in FINDINGS})
    label = table.max(axis=1)
    rows = [f"{row}" for row in range(len(shown))]
    table = table.assign(label=label, **{NO_FINDING: 1 - label}, image=rows, patient=rows, split="train", view="PA")
    return table.assign(**columns)


# Which images


def test_only_images_without_pixels_are_unreadable():
    records = animals("cat", "dog", "owl", "cat")
    findings = pd.DataFrame(
        {"image": ["0.png", "1.png", "2.png"], "finding": ["truncated", "identical", "absent"], "detail": ""}
    )
    assert list(observe.readable(records, findings)["image"]) == ["1.png", "3.png"]
    assert list(observe.readable(records, findings).index) == [0, 1]
    assert observe.readable(records, findings.head(0)).equals(records)


def test_each_class_has_as_many_examples_as_the_rarest_that_occurs():
    records = pd.DataFrame({"label": [0, 0, 0, 1, 1, 3, 3, 3, 3], "split": "train"})
    chosen = observe.examples(records, RETINOPATHY, 5)
    assert list(chosen["class"]) == ["No DR"] * 2 + ["Mild"] * 2 + ["Severe"] * 2
    assert [RETINOPATHY.classes[label] for label in chosen["label"]] == list(chosen["class"])
    assert len(set(chosen.index)) == 6
    assert list(observe.examples(records, RETINOPATHY, 1)["class"]) == ["No DR", "Mild", "Severe"]


def test_the_seed_chooses_the_examples():
    records = pd.DataFrame({"label": 0, "split": "train"}, index=range(100))
    chosen = [tuple(observe.examples(records, RETINOPATHY, 5, seed=seed).index) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_of_several_labels_the_images_with_the_fewest_are_examples_and_frequent_classes_come_first():
    records = animals("cat dog", "dog", "cat dog owl", "dog", "")
    chosen = observe.examples(records, ANIMALS, 1)
    assert list(chosen["class"]) == ["dog", "cat", "owl"]
    assert chosen.index[0] in (1, 3)
    assert list(chosen.index[1:]) == [0, 2]
    assert list(chosen["others"]) == [0, 1, 2]


def test_an_image_without_findings_can_be_an_example_where_the_task_has_a_class_for_it():
    records = chest("", "Mass", "", "Mass|Nodule")
    assert list(observe.examples(records, CHEST_XRAY_OR_NONE, 1)["class"]) == ["Mass", NO_FINDING, "Nodule"]
    assert list(observe.examples(records, CHEST_XRAY, 1)["class"]) == ["Mass", "Nodule"]


def test_there_are_no_examples_without_images():
    chosen = observe.examples(animals(), ANIMALS, 3)
    assert chosen.empty
    assert {"image", "class", "others"} <= set(chosen)


def test_patients_are_drawn_with_all_their_images():
    records = animals(*["cat"] * 40, patients="abcdefghij" * 4)
    some = observe.some_patients(records, 20, seed=1)
    assert (some["patient"].value_counts() == 4).all()
    assert some["patient"].nunique() == 5
    assert some.equals(observe.some_patients(records, 20, seed=1))
    for enough in (None, 40, 1000):
        assert observe.some_patients(records, enough).equals(records)


# Groups


def test_a_standardised_difference_counts_in_standard_deviations():
    one = pd.DataFrame({"far": [1.0, 3.0], "same": [0.0, 5.0], "flat": [2.0, 2.0]})
    other = pd.DataFrame({"far": [4.0, 6.0], "same": [5.0, 0.0], "flat": [2.0, 2.0]})
    difference = observe.standardised_difference(one, other)
    assert difference["far"] == pytest.approx(3 / np.sqrt(2))
    assert difference["same"] == 0
    assert np.isnan(difference["flat"])
    assert observe.standardised_difference(other, one)["far"] == -difference["far"]


def test_a_group_that_is_not_there_has_no_difference():
    measures = pd.DataFrame({"brightness": [1.0, 2.0, 4.0]})
    assert observe.standardised_difference(measures, measures.head(0)).isna().all()


def test_only_patients_with_both_eyes_are_compared():
    records = pd.DataFrame(
        {
            "patient": ["1", "1", "2", "3", "3"],
            "eye": ["right", "left", "left", "left", "right"],
            "label": [4, 2, 1, 2, 4],
        }
    )
    both = observe.both_eyes(records)
    assert both.loc[["1", "3"]].to_numpy().tolist() == [[2, 4], [2, 4]]
    counts = observe.cross_counts(both, RETINOPATHY).to_numpy()
    assert counts.shape == (5, 5)
    assert counts[2, 4] == counts.sum() == 2
    assert observe.both_eyes(records.assign(eye=pd.NA)).empty
    assert observe.cross_counts(both.head(0), RETINOPATHY).to_numpy().sum() == 0


def test_an_eye_named_after_its_twin_has_its_disc_on_the_wrong_side(sample):
    records, store = retinopathy.read(sample)
    records = observe.readable(records, check(records, store)).head(40)
    wrong = observe.disc_on_wrong_side(records, store)
    assert wrong.dtype == bool
    assert wrong.mean() < 0.1
    swapped = records.assign(eye=records["eye"].map({"left": "right", "right": "left"}))
    assert (observe.disc_on_wrong_side(swapped, store) == ~wrong).mean() > 0.95


# Kinds of files


def test_each_kind_of_file_is_called_by_its_name(tmp_path, encode, smooth):
    pixels = smooth(40, 50)[:, :, 0]
    files = {
        "PNG, grey": png(pixels),
        "PNG, RGB": png(pixels, "RGB"),
        "PNG, RGBA": png(pixels, "RGBA"),
        "PNG, 16 bits": png(pixels, "I;16"),
        "PNG, palette": encode(pixels, mode="P"),
        "JPEG, grey": encode(pixels, "JPEG", "L"),
        "DICOM, 8 bits, MONOCHROME2": dicom(pixels, PERSON),
        "DICOM, 12 bits, MONOCHROME1": dicom(pixels, PERSON, bits=12, inverted=True),
    }
    for number, data in enumerate(files.values()):
        (tmp_path / f"{number}.png").write_bytes(data)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(png(pixels)[:100])
    names = [*(f"{number}.png" for number in range(len(files))), "text.png", "cut.png", "absent.png"]
    kinds = observe.file_kinds(pd.DataFrame({"image": names}, index=range(5, 5 + len(names))), FolderStore(tmp_path))
    assert list(kinds.iloc[: len(files)]) == list(files)
    assert kinds.iloc[len(files) :].isna().all()
    assert kinds.index[0] == 5


def test_the_kinds_of_files_in_the_sample_are_those_that_were_planted(repository):
    records, store = chest_xray.read(repository / "sample_data" / "chest_xray")
    kinds = observe.file_kinds(records, store)
    assert (kinds == "PNG, grey").sum() == len(records) - 8
    assert kinds.isna().sum() == 2
    assert kinds.nunique() == 7


# Several classes an image


def test_images_with_each_two_classes_are_counted():
    together = observe.co_occurrence(animals("cat", "cat dog", "cat dog", "owl", ""), ANIMALS)
    assert list(together.index) == list(together.columns) == ["cat", "dog", "owl"]
    assert together.to_numpy().tolist() == [[3, 2, 0], [2, 2, 0], [0, 0, 1]]


def test_frequent_classes_stand_first_and_absent_ones_nowhere():
    together = observe.co_occurrence(animals("owl cat", "owl"), ANIMALS)
    assert list(together.index) == ["owl", "cat"]
    assert observe.co_occurrence(animals("", ""), ANIMALS).shape == (0, 0)


def test_pairs_say_which_class_rides_on_which():
    pairs = observe.pairs(observe.co_occurrence(animals("cat", "cat dog", "cat dog", "cat", "owl"), ANIMALS))
    assert pairs.to_dict("records") == [
        {"class": "dog", "with": "cat", "images": 2, "share": 1.0},
        {"class": "cat", "with": "dog", "images": 2, "share": 0.5},
    ]
    assert observe.pairs(observe.co_occurrence(animals("cat", "owl"), ANIMALS)).empty


# Several images a patient


def test_the_next_image_of_a_patient_is_compared_with_the_one_before():
    records = animals("cat", "cat", "dog", "owl", "owl", "", patients="aaabbc")
    found = observe.repeats(records, ANIMALS)
    assert (found.patients, found.most) == (2, 3)
    assert found.alike == pytest.approx((1 / 2 + 1) / 2)  # of a: alike, then not; of b: alike
    assert found.by_chance == 0


def test_patients_that_agree_by_chance_are_counted_in_pairs_of_images():
    records = animals("cat", "cat", "cat", "dog", patients="aabb")
    # Four pairs of images of the two patients: two of them cat and cat.
    assert observe.repeats(records, ANIMALS).by_chance == pytest.approx(0.5)


def test_images_are_compared_in_the_order_of_follow_up():
    records = animals("cat", "dog", "cat", "dog", patients="aaaa").assign(follow_up=[0, 2, 1, 3])
    assert observe.repeats(records, ANIMALS).alike == pytest.approx(2 / 3)
    assert observe.repeats(records.drop(columns="follow_up"), ANIMALS).alike == 0


def test_a_part_of_the_classes_is_not_alike():
    assert observe.repeats(animals("cat", "cat dog", patients="aa"), ANIMALS).alike == 0


def test_patients_with_one_image_each_say_nothing_of_repeats():
    found = observe.repeats(animals("cat", "cat", "dog"), ANIMALS)
    assert (found.patients, found.most) == (0, 1)
    assert np.isnan(found.alike)
    assert found.by_chance == pytest.approx(1 / 3)
    assert np.isnan(observe.repeats(animals("cat", "cat", patients="aa"), ANIMALS).by_chance)


def test_classes_of_which_an_image_has_one_can_be_compared_too():
    records = pd.DataFrame({"label": [0, 0, 3], "patient": ["a", "a", "b"], "split": "train"})
    assert observe.repeats(records, RETINOPATHY).alike == 1


def test_a_set_of_radiographs_in_five_figures():
    records = chest(
        "", "Mass", "Mass|Nodule", "Edema", patient=["1", "1", "2", "3"], view=pd.array(["AP", "PA", "AP", pd.NA])
    )
    assert observe.chest_figures(records) == {
        "chest_images": 4,
        "chest_patients": 3,
        "share_no_finding": 0.25,
        "share_several_findings": 0.25,
        "share_ap": pytest.approx(2 / 3),
    }


@pytest.mark.real_data
def test_patients_of_nih_have_the_follow_ups_that_its_table_lists(real_data):
    records, _ = chest_xray.read(real_data / "chest_xray_64px")
    found = observe.repeats(records, CHEST_XRAY)
    assert (found.patients, found.most) == (95, 66)
    assert found.alike > 2 * found.by_chance
    together = observe.co_occurrence(records, CHEST_XRAY)
    assert together.loc["Edema", "Effusion"] == 19
    assert together.index[0] == "Effusion"
    assert (together.to_numpy() == together.to_numpy().T).all()
