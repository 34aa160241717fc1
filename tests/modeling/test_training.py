"""Frozen parts stay as they are to the bit, and cycles begin anew at their top."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
import torch

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.training.callbacks import EpochRecorder
from medic.modeling.training.fit import fit
from medic.modeling.training.module import Training
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, RETINOPATHY

FROZEN = ("conv1", "bn1", "layer1")
QUICK = Recipe(epochs=2, batch_size=32, learning_rate=3e-3, weight_decay=0.5, precision="32-true")
CYCLES = replace(QUICK, epochs=4, schedule="cycles", cycles=2)


class Stopped(Exception):
    """As a process is killed: after an epoch is written."""


@pytest.fixture(scope="module")
def few(chest_prepared) -> Prepared:
    """64 images to train on, and all that validate: nothing here is about how well it learns."""
    records = chest_prepared.records
    kept = [records[records["split"] == "train"].head(64), records[records["split"] == "validation"]]
    return replace(chest_prepared, records=pd.concat(kept, ignore_index=True))


@pytest.fixture
def build(chest_prepared) -> Callable[..., Classifier]:
    def make(seed: int = 1) -> Classifier:
        torch.manual_seed(seed)
        settings = {"preprocessing": chest_prepared.preprocessing, "image_size": 32}
        return Classifier(CHEST_XRAY_BINARY, "resnet18", **settings)

    return make


def stop_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = EpochRecorder.on_train_epoch_end

    def then_stop(self: EpochRecorder, trainer: object, training: Training) -> None:
        written(self, trainer, training)
        if len(self.rows) == epoch:
            raise Stopped

    monkeypatch.setattr(EpochRecorder, "on_train_epoch_end", then_stop)


def resumed(build: Callable, prepared: Prepared, folder: object, recipe: Recipe, epoch: int) -> Run:
    """A run that was ended after an epoch, and then went on."""
    with pytest.MonkeyPatch.context() as patched:
        stop_after(epoch, patched)
        with pytest.raises(Stopped):
            fit(build(), prepared, folder, recipe)
    return fit(build(), prepared, folder, recipe)


def states(run: Run, which: str = "last") -> dict[str, torch.Tensor]:
    return run.model(which).backbone.state_dict()


@pytest.mark.parametrize("way", ["plain", "averaged", "resumed"])
def test_frozen_parts_are_the_same_to_the_bit_and_all_others_change(build, few, tmp_path, way):
    """Also with a heavy weight decay, and with their batch normalisation among images unlike those it knew."""
    recipe = replace(QUICK, frozen=FROZEN, ema=0.5 if way == "averaged" else None)
    start = {name: value.clone() for name, value in build().backbone.state_dict().items()}
    if way == "resumed":
        run = resumed(build, few, tmp_path / "run", recipe, epoch=1)
    else:
        run = fit(build(), few, tmp_path / "run", recipe)
    for which in ("best", "last"):
        for name, value in states(run, which).items():
            frozen = name.startswith(tuple(f"{part}." for part in FROZEN))
            if frozen or name.endswith("num_batches_tracked"):
                assert not frozen or torch.equal(value, start[name]), name
            else:
                assert not torch.equal(value, start[name]), name


def test_frozen_parts_are_in_the_settings_of_the_run(build, few, tmp_path):
    recipe = replace(QUICK, epochs=1, frozen=("layer1",))
    run = fit(build(), few, tmp_path / "run", recipe)
    assert run.about["settings"]["recipe"]["frozen"] == ["layer1"]
    with pytest.raises(MedicError, match=r"recipe\.frozen \['layer1'\] there, \[\] here"):
        fit(build(), few, tmp_path / "run", replace(recipe, frozen=()))


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (("layer9",), "a resnet18 has no part 'layer9' that could be frozen; its outermost are conv1, bn1, relu"),
        (("",), "has no part ''"),
        (
            ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"),
            "frozen nothing of a resnet18 is left to train",
        ),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused_before_anything_is_written(
    build, chest_prepared, tmp_path, frozen, said
):
    with pytest.raises(MedicError, match=said):
        fit(build(), chest_prepared, tmp_path / "run", replace(QUICK, frozen=frozen))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def rates(monkeypatch) -> list[float]:
    """The learning rate of every step."""
    seen: list[float] = []
    step = Training.training_step

    def watched(self: Training, batch: object, number: int) -> torch.Tensor:
        seen.append(self.optimizers().param_groups[0]["lr"])
        return step(self, batch, number)

    monkeypatch.setattr(Training, "training_step", watched)
    return seen


def test_each_cycle_goes_from_the_full_rate_down_to_nearly_nothing(build, few, tmp_path, rates):
    run = fit(build(), few, tmp_path / "run", CYCLES)
    length = len(rates) // 2
    expected = [CYCLES.learning_rate * (1 + math.cos(math.pi * step / length)) / 2 for step in range(length)]
    assert rates == pytest.approx(expected * 2)
    assert rates[length] == CYCLES.learning_rate
    assert run.snapshots == ("snapshot-1", "snapshot-2")
    first, second = (states(run, which) for which in run.snapshots)
    assert all(torch.equal(value, second[name]) for name, value in states(run).items())
    assert any(not torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_that_was_stopped_within_a_cycle_ends_as_if_undisturbed(build, few, tmp_path, rates):
    whole = fit(build(), few, tmp_path / "whole", CYCLES)
    undisturbed = rates.copy()
    rates.clear()
    other = resumed(build, few, tmp_path / "stopped", CYCLES, epoch=3)
    assert rates == undisturbed
    assert other.snapshots == whole.snapshots
    for which in (*whole.snapshots, "best", "last"):
        expected = states(whole, which)
        assert all(torch.equal(value, expected[name]) for name, value in states(other, which).items())


def test_snapshots_have_the_operating_point_that_was_asked_for(build, few, tmp_path):
    recipe = replace(CYCLES, epochs=2, sensitivity=0.9)
    run = fit(build(), few, tmp_path / "run", recipe)
    for which in ("best", "last", *run.snapshots):
        assert len(run.model(which).thresholds) == 1
    assert run.model("snapshot-2").thresholds == run.model("last").thresholds


def test_a_finding_that_no_validation_image_has_is_named_and_decided_at_a_half(chest_prepared, tmp_path, capsys):
    records = chest_prepared.records.copy()
    records.loc[records["split"] == "validation", "Hernia"] = 0
    settings = {"preprocessing": chest_prepared.preprocessing, "image_size": 32}
    recipe = replace(QUICK, epochs=1, sensitivity=0.9)
    run = fit(
        Classifier(CHEST_XRAY, "resnet18", **settings), replace(chest_prepared, records=records), tmp_path, recipe
    )
    assert run.model().thresholds[CHEST_XRAY.classes.index("Hernia")] == 0.5
    shown = capsys.readouterr().out
    assert re.search("^no validation image has .*Hernia: decided at 0.5$", shown, re.MULTILINE)


def test_other_schedules_leave_no_snapshots(chest_runs):
    run = chest_runs[CHEST_XRAY.name]
    assert run.snapshots == ()
    with pytest.raises(MedicError, match="the models best, last, not 'snapshot-1'"):
        run.model("snapshot-1")


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 5, "cycles": 2, "schedule": "cycles"},
        {"epochs": 4, "cycles": 2},
        {"epochs": 4, "cycles": 0, "schedule": "cycles"},
    ],
)
def test_cycles_that_do_not_divide_the_epochs_or_have_another_schedule_are_refused(settings):
    with pytest.raises(MedicError, match="give a number of cycles that divides the epochs, and the schedule 'cycles'"):
        Recipe(**settings)


@pytest.mark.parametrize("sensitivity", [0, -0.1, 1.1])
def test_a_sensitivity_that_is_no_share_is_refused(sensitivity):
    with pytest.raises(MedicError, match="a wanted sensitivity is a share above 0 and up to 1"):
        Recipe(sensitivity=sensitivity)


def test_settings_that_the_task_cannot_have_are_refused():
    with pytest.raises(MedicError, match="'retinopathy' chooses among several classes; leave sensitivity away"):
        Recipe(sensitivity=0.9).resolved(RETINOPATHY)
    with pytest.raises(MedicError, match="weigh the loss instead"):
        Recipe(balanced=True).resolved(CHEST_XRAY)
    with pytest.raises(MedicError, match="choose by macro_f1 or mean_average_precision or mean_auroc"):
        Recipe(choose_by="auroc").resolved(CHEST_XRAY)
    with pytest.raises(MedicError, match="cut points are for ordered grades"):
        Recipe(cut_points="macro_f1").resolved(CHEST_XRAY)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "the best epoch cannot be chosen by auroc: the validation split has not both"),
        ({"choose_by": "last", "sensitivity": 0.9}, "no operating point can be chosen: the validation split has no"),
    ],
)
def test_a_validation_split_that_cannot_choose_is_refused_before_training(
    build, chest_prepared, tmp_path, settings, said
):
    records = chest_prepared.records
    without = replace(chest_prepared, records=records[(records["split"] != "validation") | (records["label"] == 0)])
    with pytest.raises(MedicError, match=said):
        fit(build(), without, tmp_path / "run", replace(QUICK, **settings))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_asked_before_it_is_trained_trains_as_any_other(build, few, tmp_path):
    """Asking puts it into evaluation mode, in which batch normalisation and dropout do not learn."""
    asked = build()
    asked.predict_pixels(few.pixels(few.records["file"].iloc[0])[None])
    recipe = replace(QUICK, epochs=1)
    one, other = (fit(model, few, tmp_path / str(number), recipe) for number, model in enumerate([build(), asked]))
    assert one.history["train_loss"].equals(other.history["train_loss"])


def test_a_last_batch_of_one_image_does_not_stop_a_training_at_32_pixels(build, few, tmp_path):
    """At that size a ResNet's last maps are one pixel, and one image then has no variance to normalise by."""
    count = len(few.split("train"))
    size = next(size for size in range(2, count) if count % size == 1)
    run = fit(build(), few, tmp_path / "run", replace(QUICK, epochs=1, batch_size=size))
    assert run.finished
