"""The learning-rate range test: finds where the loss falls, changes nothing, refuses to read what is not there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.training.recipe import Recipe
from medic.modeling.tune.learning_rate import LearningRates, check_falls, find_learning_rate
from medic.task import Task

COLOURS = Task("colours", "multiclass", ("red", "blue"))
RECIPE = Recipe(batch_size=32, precision="32-true", augmentation=None)


def network(prepared: Prepared) -> Classifier:
    torch.manual_seed(3)
    return Classifier(COLOURS, "resnet18", preprocessing=prepared.preprocessing, image_size=32)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory) -> Prepared:
    """Red images and blue ones: learned in a few steps, whatever the last bits of a processor's sums are."""
    random, folder, rows = np.random.default_rng(0), tmp_path_factory.mktemp("prepared"), []
    for number in range(96):
        label, file = number % 2, f"{number:03d}.png"
        pixels = random.normal(90, 10, (32, 32, 3))
        pixels[..., 2 * label] += 90
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file)
        split = ("train", "train", "train", "train", "validation", "test")[number // 16]
        rows.append({"image": file, "patient": str(number), "label": label, "split": split, "file": file})
    return Prepared(folder, pd.DataFrame(rows), pd.DataFrame(), Preprocessing(size=32, crop="square"), True)


@pytest.fixture(scope="module")
def tested(learnable) -> LearningRates:
    torch.set_num_threads(1)
    return find_learning_rate(network(learnable), learnable, RECIPE, steps=40)


def test_the_suggestion_lies_where_the_loss_falls(tested):
    assert 1e-6 < tested.suggestion <= tested.lowest < 1
    table = tested.table().set_index("learning_rate")["smoothed"]
    assert table[tested.lowest] == table.min()
    assert table.iloc[0] > table[tested.lowest] < table[tested.suggestion]


def test_the_rates_rise_evenly_on_a_logarithmic_scale_from_the_first_asked_for(tested):
    assert tested.rates[0] == 1e-6
    assert np.diff(np.log10(tested.rates)) == pytest.approx(6 / 40)


def test_the_losses_are_those_of_single_batches_without_what_lightning_smooths(tested):
    assert tested.losses[:6].mean() == pytest.approx(np.log(2), abs=0.4), "two classes, and nothing learned yet"


def test_neither_the_model_nor_the_random_numbers_are_changed(learnable):
    model = network(learnable).eval()
    digest, state = model.digest, torch.random.get_rng_state()
    one = find_learning_rate(model, learnable, RECIPE, steps=40)
    assert model.digest == digest
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    other = find_learning_rate(model, learnable, RECIPE, steps=40)
    assert np.array_equal(one.losses, other.losses), "the same once more"


def test_the_validation_and_test_images_are_not_read(learnable):
    records = learnable.records[learnable.records["split"] == "train"]
    alone = find_learning_rate(network(learnable), replace(learnable, records=records), RECIPE, steps=40)
    assert len(alone.losses) <= 40


@pytest.mark.parametrize("limits", [{"low": 0.0}, {"low": 1e-2, "high": 1e-3}, {"steps": 5}])
def test_a_range_that_is_none_is_refused(limits, learnable):
    with pytest.raises(MedicError, match="cannot be tested"):
        find_learning_rate(network(learnable), learnable, RECIPE, **limits)


def test_the_figure_marks_the_suggestion_and_the_table_shows_itself(tested):
    axes = tested.plot().axes[0]
    assert axes.get_xscale() == "log"
    assert f"falls most steeply: {tested.suggestion:.1e}" in [text.get_text() for text in axes.get_legend().texts]
    assert f"falls most steeply at {tested.suggestion:.1e}" in tested._repr_html_()
    assert "synthetic" in replace(tested, synthetic=True)._repr_html_()


RATES = np.logspace(-6, 0, 100)
PLACE = np.log10(RATES)
SCATTER = np.where(np.arange(100) % 2, 0.1, -0.1)
BREAKS = np.maximum(0, PLACE + 1.5) * 5
FALLS = 0.7 - 0.3 / (1 + np.exp(-6 * (PLACE + 3))) + BREAKS


def test_a_curve_is_read_where_it_falls_not_where_it_breaks():
    read = LearningRates(RATES, FALLS)
    assert read.suggestion == pytest.approx(1e-3, rel=0.5)
    assert read.lowest < 10**-1.3


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        (FALLS, True),
        (FALLS + SCATTER, True),
        (0.7 + SCATTER, False),
        (0.7 + BREAKS, False),
        (0.7 + SCATTER + BREAKS, False),
        (FALLS + 20 * SCATTER, False),
        (FALLS[:10], False),
    ],
    ids=["falls", "falls and scatters", "scatters", "rises", "scatters and rises", "drowns", "ends at once"],
)
def test_a_loss_that_never_falls_is_an_error_that_says_what_to_look_at(losses, falls):
    curve = LearningRates(RATES[: len(losses)], losses)
    if falls:
        check_falls(curve)
    else:
        with pytest.raises(MedicError, match="falls at no learning rate from 1e-06 on; look at the images and labels"):
            check_falls(curve)
