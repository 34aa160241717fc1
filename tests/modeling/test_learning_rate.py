"""The learning-rate range test: finds where the loss falls, changes nothing, refuses to read what is not there."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.readers import own
from medic.data.split import split_by_image
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.training.recipe import Recipe
from medic.modeling.tune.learning_rate import LearningRates, find_learning_rate
from medic.task import Task

STRIPES = Task("stripes", "multiclass", ("lying", "standing"))
RECIPE = Recipe(batch_size=16, precision="32-true", augmentation=None)


def network(prepared) -> Classifier:
    torch.manual_seed(3)
    return Classifier(STRIPES, "mobilenet_v3_small", preprocessing=prepared.preprocessing, image_size=32, dropout=0.2)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory):
    """Stripes that lie and stripes that stand, in noise: what a network learns in a few steps."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("stripes") / "images"
    for number in range(96):
        lying = number % 2
        wave = 60 * np.sin(np.arange(32) * 1.2 + random.uniform(0, 6))
        pixels = 128 + (wave[:, None] if lying else wave[None]) + random.normal(0, 20, (32, 32))
        path = folder / ("lying" if lying else "standing") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB").save(path)
    records, store = own.read(folder, task=STRIPES)
    records = split_by_image(records, test=0.1, validation=0.1)
    return prepare(records, store, folder.parent / "prepared", Preprocessing(size=32, crop="square"))


@pytest.fixture(scope="module")
def tested(learnable) -> LearningRates:
    torch.set_num_threads(1)
    return find_learning_rate(network(learnable), learnable, RECIPE, steps=80)


def test_the_suggestion_lies_where_the_loss_falls(tested):
    assert 1e-6 < tested.suggestion <= tested.lowest < 1
    table = tested.table().set_index("learning_rate")["smoothed"]
    assert table[tested.lowest] == table.min()
    assert table.iloc[0] > table[tested.lowest] < table[tested.suggestion]


def test_the_rates_rise_evenly_on_a_logarithmic_scale_from_the_first_asked_for(tested):
    assert tested.rates[0] == 1e-6
    assert np.diff(np.log10(tested.rates)) == pytest.approx(6 / 80)


def test_the_losses_are_those_of_single_batches_without_what_lightning_smooths(tested):
    assert tested.losses[:10].mean() == pytest.approx(np.log(2), abs=0.15), "two classes, and nothing learned yet"


def test_neither_the_model_nor_the_random_numbers_are_changed(learnable):
    model = network(learnable).eval()
    digest, state = model.digest, torch.random.get_rng_state()
    one = find_learning_rate(model, learnable, RECIPE, steps=40, low=1e-5)
    assert model.digest == digest
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    other = find_learning_rate(model, learnable, RECIPE, steps=40, low=1e-5)
    assert np.array_equal(one.losses, other.losses), "the same once more"


def test_the_validation_and_test_images_are_not_read(learnable):
    records = learnable.records[learnable.records["split"] == "train"]
    alone = find_learning_rate(network(learnable), replace(learnable, records=records), RECIPE, steps=40, low=1e-5)
    assert len(alone.losses) <= 40


def test_a_loss_that_never_falls_is_an_error_that_says_what_to_look_at(learnable):
    random = np.random.default_rng(0).permutation(learnable.records["label"])
    shuffled = replace(learnable, records=learnable.records.assign(label=random))
    with pytest.raises(MedicError, match="falls at no learning rate from 1e-02 on; look at the images and labels"):
        find_learning_rate(network(learnable), shuffled, RECIPE, low=1e-2, high=10, steps=20)


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


def test_a_curve_is_read_where_it_falls_not_where_it_breaks():
    rates = np.logspace(-6, 0, 100)
    place = np.log10(rates)
    losses = 0.7 - 0.3 / (1 + np.exp(-6 * (place + 3))) + np.maximum(0, place + 1.5) * 5
    read = LearningRates(rates, losses)
    assert read.suggestion == pytest.approx(1e-3, rel=0.5)
    assert read.lowest < 10**-1.3
