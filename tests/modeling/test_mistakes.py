"""Mistakes: each is committed for real, and its cost is the one that can be counted by hand."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as reference

from medic.errors import MedicError
from medic.modeling.mistakes import (
    ChannelsApart,
    Mistake,
    channels_cropped_apart,
    crop_channels_apart,
    eyes_on_both_sides,
    header_assumed,
    table,
)
from medic.modeling.mistakes.scoring import majority_praised, rounded_not_clipped, weights_never_loaded
from medic.modeling.objectives import Regression
from medic.modeling.training.fit import Recipe, fit
from medic.task import RETINOPATHY


@pytest.fixture(scope="module")
def graded(tiny_prepared, network, tmp_path_factory):
    """A short regression run."""
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=1e-3, precision="32-true")
    torch.set_num_threads(1)
    return fit(network(Regression()), tiny_prepared, tmp_path_factory.mktemp("graded") / "run", recipe)


def labelled(*labels: int) -> pd.DataFrame:
    names = [f"{number}.jpeg" for number in range(len(labels))]
    return pd.DataFrame({"image": names, "patient": names, "split": "train", "label": labels})


def test_a_header_that_is_none_costs_a_row_or_shifts_every_label():
    mistake = header_assumed(labelled(0, 4, 0, 4, 0), RETINOPATHY)
    assert mistake.figures["rows_lost"] == 1
    assert mistake.figures["share_of_wrong_labels"] == 1.0
    assert mistake.wrong == pytest.approx(reference.cohen_kappa_score([0, 4, 0, 4], [4, 0, 4, 0], weights="quadratic"))
    assert mistake.cost == mistake.wrong - 1


def test_labels_that_are_all_alike_survive_the_shift():
    assert header_assumed(labelled(0, 0, 0, 2), RETINOPATHY).figures["share_of_wrong_labels"] == pytest.approx(1 / 3)


def test_a_channel_that_is_dark_at_the_side_is_stretched_over_the_box_of_all():
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[10:50, 20:80] = (200, 200, 0)
    pixels[10:50, 20:50, 2] = 100  # blue is lit in the left half only
    spoilt, moved = crop_channels_apart(pixels)
    assert (spoilt[..., :2] == pixels[..., :2]).all(), "two channels fill the box already"
    assert (spoilt[10:50, 20:80, 2] == 100).all()
    assert moved == pytest.approx(60), "what was at the right edge of the box would land a whole half further out"


def test_channels_that_are_lit_alike_stay_where_they_are():
    pixels = np.zeros((40, 40, 3), np.uint8)
    cv2.circle(pixels, (20, 20), 15, (90, 60, 30), -1)
    spoilt, moved = crop_channels_apart(pixels)
    assert (spoilt == pixels).all()
    assert moved == 0


@pytest.mark.parametrize("value", [0, 7])
def test_a_black_photograph_is_left_alone(value):
    spoilt, moved = crop_channels_apart(np.full((8, 8, 3), value, np.uint8))
    assert (spoilt == value).all()
    assert moved == 0


def test_spoilt_images_can_be_read_as_a_store(tiny_prepared):
    store, name = tiny_prepared.store, tiny_prepared.records["image"][0]
    spoilt = ChannelsApart(store)
    assert name in spoilt
    assert "absent.jpeg" not in spoilt
    assert tiny_prepared.preprocessing.pixels(spoilt.read(name)).shape == (96, 96, 3)


def test_cropping_channels_apart_is_measured_on_the_originals(run):
    mistake = channels_cropped_apart(run)
    rows = run.records.query("split == 'validation'")
    decided = run.model().predict_pixels(
        np.stack([run.prepared.preprocessing.pixels(run.prepared.store.read(name)) for name in rows["image"]])
    )
    kappa = reference.cohen_kappa_score(rows["label"], decided.decided, weights="quadratic")
    assert mistake.right == pytest.approx(0.0 if np.isnan(kappa) else kappa)
    assert mistake.example in set(rows["image"])
    assert 0 <= mistake.figures["median_px"] <= mistake.figures["worst_px"]


def test_eyes_on_both_sides_are_counted_and_the_test_split_takes_no_part(tiny_prepared):
    mistake = eyes_on_both_sides(tiny_prepared, RETINOPATHY, seeds=3)
    assert 0.5 < mistake.figures["share_with_other_eye_trained_on"] < 1
    rows = tiny_prepared.records.query("split != 'test'")
    pairs = rows.pivot_table(index="patient", columns="eye", values="label", aggfunc="first").dropna()
    own, other = [*pairs["left"], *pairs["right"]], [*pairs["right"], *pairs["left"]]
    expected = reference.cohen_kappa_score(own, other, weights="quadratic")
    assert mistake.figures["kappa_of_the_other_eye"] == pytest.approx(expected)
    assert eyes_on_both_sides(tiny_prepared, RETINOPATHY, seeds=3) == mistake


def test_without_pairs_of_eyes_there_is_nothing_to_show(tiny_prepared):
    lonely = dataclasses.replace(tiny_prepared, records=tiny_prepared.records.query("eye == 'left'"))
    with pytest.raises(MedicError, match="both eyes"):
        eyes_on_both_sides(lonely, RETINOPATHY)


def test_what_lies_outside_the_scale_is_a_class_of_its_own_to_scikit_learn(graded):
    mistake = rounded_not_clipped(graded)
    assert mistake.figures["share_outside_as_scored"] > 0
    assert mistake.wrong < mistake.right
    stretched = mistake.figures["stretch"] > 1
    assert stretched == (mistake.figures["share_outside"] == 0), "only where the model itself gives none"
    assert stretched == ("costs nothing" in mistake.sentence)


def test_only_a_regression_can_be_rounded(run):
    with pytest.raises(MedicError, match="no regression outputs"):
        rounded_not_clipped(run)


def test_weights_under_another_prefix_never_arrive_and_are_refused(run):
    mistake = weights_never_loaded(run)
    state = run.model().backbone.state_dict()
    counters = sum(key.endswith("num_batches_tracked") for key in state)
    assert mistake.figures["missing_keys"] in (len(state), len(state) - counters)
    assert mistake.figures["refused_by_medic"] == 1
    assert "refuses" in mistake.sentence


def test_the_most_frequent_class_is_accurate_and_useless():
    records = labelled(0, 0, 0, 2, 1).assign(split=["train"] * 2 + ["validation"] * 3)
    mistake = majority_praised(records, RETINOPATHY)
    assert mistake.wrong == pytest.approx(1 / 3)
    assert mistake.right == pytest.approx((2 * 1 / 4) / 3)
    assert mistake.figures["quadratic_weighted_kappa"] == 0


def test_the_table_has_a_row_a_mistake():
    mistakes = [Mistake("a", "kappa", 0.5, 0.7, "..."), Mistake("b", "macro F1", 0.4, 0.1, "...")]
    shown = table(mistakes)
    assert list(shown.index) == ["a", "b"]
    assert shown["cost"].to_list() == pytest.approx([0.2, -0.3])
    assert "0.70" in mistakes[0]._repr_html_()
