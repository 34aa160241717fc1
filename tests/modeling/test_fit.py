"""Training: what a run leaves behind, and that a killed one ends as if nothing had happened."""

import errno
import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Regression
from medic.modeling.training.fit import Recipe, fit
from medic.modeling.training.run import Run
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, RETINOPATHY

# Stands still when an epoch is written.
TRAIN = """
import time
import torch
from medic.modeling.training.fit import fit

def stand_still(row):
    (folder / "still").touch()
    time.sleep(600)

torch.set_num_threads(1)
fit(model, prepared, folder, recipe, stand_still)
"""


class Enough(Exception):
    """Ends a training after an epoch."""


def without_seconds(run: Run) -> pd.DataFrame:
    return run.history.drop(columns=["images_per_second", "seconds"])


def digests(run: Run) -> list[str]:
    return [run.model(which).digest for which in ("best", "last")]


def resumed(build: Callable[[], Classifier], prepared: Prepared, folder: Path, recipe: Recipe, after: int) -> Run:
    """A run that ended after an epoch, and then went on."""

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == after:
            raise Enough

    with pytest.raises(Enough):
        fit(build(), prepared, folder, recipe, each_epoch=stop)
    assert not Run.peek(folder).finished
    return fit(build(), prepared, folder, recipe)


@pytest.fixture(scope="module")
def build(chest_prepared) -> Callable[..., Classifier]:
    def make() -> Classifier:
        torch.manual_seed(1)
        settings = {"preprocessing": chest_prepared.preprocessing, "image_size": 32}
        return Classifier(CHEST_XRAY_BINARY, "resnet18", **settings)

    return make


def test_a_run_leaves_its_settings_split_history_and_models(run, tiny_prepared):
    left = {path.name for path in run.folder.iterdir()}
    assert left == {"best", "history.csv", "last", "records.csv", "run.json"}
    assert (run.task, run.about["settings"]["recipe"]["epochs"]) == (RETINOPATHY, 3)
    assert torch.__version__.startswith(run.about["versions"]["torch"])
    assert str(tiny_prepared.folder) not in (run.folder / "run.json").read_text()
    assert run.records.set_index("image")["split"].equals(tiny_prepared.records.set_index("image")["split"])
    assert list(run.history["epoch"]) == [1, 2, 3]
    for split in ("train", "validation"):
        for metric in ("loss", "accuracy", "macro_f1", "mean_grade_error", "quadratic_weighted_kappa"):
            assert run.history[f"{split}_{metric}"].notna().all()
    with pytest.raises(MedicError, match="the models best and last, not 'middle'"):
        run.model("middle")


def test_best_is_the_first_epoch_with_the_highest_kappa_and_both_models_give_what_the_history_says(run, tiny_prepared):
    kappa = run.history["validation_quadratic_weighted_kappa"]
    assert run.about["best_epoch"] == run.history["epoch"][kappa.idxmax()]
    rows = tiny_prepared.split("validation")
    images = torch.stack([torch.from_numpy(tiny_prepared.pixels(file)) for file in rows["file"]]).numpy()
    for which, epoch in (("best", run.about["best_epoch"]), ("last", 3)):
        decided = run.model(which).predict_pixels(images).decided
        assert (decided == rows["label"]).mean() == pytest.approx(run.history["validation_accuracy"][epoch - 1])


def test_a_finished_run_is_returned_as_it_is_and_another_one_refused_with_the_difference(
    run, tiny_prepared, network, quick
):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    again = fit(network(), tiny_prepared, run.folder, replace(quick, workers=2))
    assert without_seconds(again).equals(without_seconds(run))
    swapped = tiny_prepared.records.replace({"split": {"validation": "train", "train": "validation"}})
    others = [
        (network(), tiny_prepared, replace(quick, augmentation=None), r"recipe\.augmentation .* there, None here"),
        (network(Regression()), tiny_prepared, quick, r"model\.objective .*regression"),
        (network(seed=2), tiny_prepared, quick, "other initial weights"),
        (network(), replace(tiny_prepared, records=swapped), quick, "other images or another split"),
    ]
    for model, prepared, recipe, said in others:
        with pytest.raises(MedicError, match=f"holds a training with other settings.*{said}"):
            fit(model, prepared, run.folder, recipe)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def _crossing(records: pd.DataFrame) -> pd.DataFrame:
    first = records.index[records["split"] == "train"][0]
    return records.assign(split=records["split"].where(records.index != first, "test"))


@pytest.mark.parametrize(
    ("records", "model", "recipe", "said"),
    [
        (lambda records: records.replace({"split": {"validation": "train"}}), {}, {}, "no images in the split 'valid"),
        (_crossing, {}, {}, "more than one of train, test"),
        (None, {"preprocessing": Preprocessing()}, {}, r"size=384.*size=96.*preprocessing=prepared\.preprocessing"),
        (lambda records: records.replace({"label": {4: 5}}), {}, {}, "has the label 5, .* of the model has only 5 cl"),
        (None, {"image_size": 0}, {}, "images of 0 px"),
        (None, {}, {"frozen": ("layer9",)}, "no part 'layer9' to freeze; its outermost are fea"),
        (None, {}, {"frozen": ("features", "classifier")}, "nothing of a mobilenet_v3_small is left to train"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    records, model, recipe, said, tiny_prepared, network, quick, tmp_path
):
    prepared = tiny_prepared if records is None else replace(tiny_prepared, records=records(tiny_prepared.records))
    with pytest.raises(MedicError, match=said):
        fit(network(**model), prepared, tmp_path / "run", replace(quick, **recipe))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{}, {"choose_by": "last", "sensitivity": 0.9}])
def test_a_validation_split_that_cannot_choose_is_refused(build, few, quick, tmp_path, settings):
    records = few.records.query("split != 'validation' or label == 0")
    with pytest.raises(MedicError, match="'chest_xray_binary': the validation split needs images with and without"):
        fit(build(), replace(few, records=records), tmp_path / "run", replace(quick, **settings))


def test_a_training_killed_after_an_epoch_ends_as_if_undisturbed(
    run, tiny_prepared, network, quick, start, tmp_path, capsys
):
    folder = tmp_path / "run"
    process = start(TRAIN, model=network(), prepared=tiny_prepared, folder=folder, recipe=quick)
    deadline = time.monotonic() + 120
    while not (folder / "still").is_file():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(MedicError, match="another process is training in"):
        fit(network(), tiny_prepared, folder, quick)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    killed = Run.peek(folder)
    assert len(killed.history) == 1
    assert "interrupted" in repr(killed)
    with pytest.raises(MedicError, match="was interrupted; start the same training again"):
        Run.load(folder)

    moved = folder.rename(tmp_path / "moved")
    ended = fit(network(), tiny_prepared, moved, quick)
    assert "epoch   1/3" not in capsys.readouterr().out
    assert without_seconds(ended).equals(without_seconds(run))
    assert ended.about["best_epoch"] == run.about["best_epoch"]
    assert digests(ended) == digests(run)


def test_each_epoch_is_told_once_when_it_is_written_also_around_an_interrupt_from_the_keyboard(
    run, tiny_prepared, network, quick, tmp_path
):
    told, handler = [], signal.getsignal(signal.SIGINT)

    def interrupt_after_two(row: dict[str, float]) -> None:
        told.append(row)
        assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == row["epoch"]
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), tiny_prepared, tmp_path / "run", quick, interrupt_after_two)
    assert signal.getsignal(signal.SIGINT) is handler
    fit(network(), tiny_prepared, tmp_path / "run", quick, told.append)
    assert [row["epoch"] for row in told] == [1, 2, 3]
    assert told[2]["validation_accuracy"] == run.history["validation_accuracy"].iloc[2]


@pytest.mark.parametrize(
    "changed",
    [
        {"amsgrad": True, "head_factor": 10, "choose_by": "last"},
        {"schedule": "steps", "sensitivity": 0.9},
        {"frozen": ("conv1", "bn1", "layer1"), "weight_decay": 0.5},
    ],
)
def test_every_kind_of_training_goes_on_as_it_was(build, few, quick, tmp_path, changed):
    recipe = replace(quick, **changed)
    whole = fit(build(), few, tmp_path / "whole", recipe)
    after = recipe.epochs - (not recipe.amsgrad)  # also when all is trained and nothing has been kept yet
    ended = resumed(build, few, tmp_path / "resumed", recipe, after)
    assert without_seconds(ended).equals(without_seconds(whole))
    assert digests(ended) == digests(whole)
    if recipe.choose_by == "last":
        assert whole.about["best_epoch"] == recipe.epochs
    if recipe.sensitivity:
        assert all(len(whole.model(which).thresholds) == 1 for which in ("best", "last"))
    frozen = tuple(f"{part}." for part in recipe.frozen)
    started = build().backbone.state_dict()
    for name, value in whole.model("last").backbone.state_dict().items():
        assert torch.equal(value, started[name]) == bool(frozen and name.startswith(frozen)), name


def test_the_last_layer_learns_at_its_own_rate(build, few, quick, tmp_path):
    """With next to no rate for all else, that stays as it is but for rounding."""
    recipe = replace(quick, epochs=1, learning_rate=1e-9, head_factor=1e7, weight_decay=0)
    trained = fit(build(), few, tmp_path / "run", recipe).model("last").backbone
    started = build().backbone
    assert torch.allclose(trained.conv1.weight, started.conv1.weight, atol=1e-6)
    assert not torch.allclose(trained.fc.weight, started.fc.weight, atol=1e-4)


def test_a_finding_that_no_validation_image_has_is_named_and_decided_at_a_half(few, quick, tmp_path, capsys):
    records = few.records.copy()
    records.loc[records["split"] == "validation", "Hernia"] = 0
    model = Classifier(CHEST_XRAY, "resnet18", preprocessing=few.preprocessing, image_size=32)
    run = fit(model, replace(few, records=records), tmp_path, replace(quick, epochs=1, sensitivity=0.9))
    assert run.model().thresholds[CHEST_XRAY.classes.index("Hernia")] == 0.5
    assert "Hernia: decided at 0.5" in capsys.readouterr().out


def cut(folder: Path) -> None:
    resume = folder / "resume.ckpt"
    resume.write_bytes(resume.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("settings", "harm", "said"),
    [
        ({"learning_rate": 1e30, "batch_size": 64}, None, "has diverged: its validation loss is no longer a number"),
        ({"learning_rate": 1e30}, None, "diverged: its train loss .* in a new folder with a lower learning rate"),
        ({"batch_size": 1}, None, "the last maps of resnet18 are one pixel at 32 px, .*; take 2 images a step"),
        ({}, lambda folder: (folder / "resume.ckpt").write_bytes(b""), "resume.ckpt is damaged; the best weights so"),
        ({}, cut, r"are in best\.ckpt beside it; delete resume\.ckpt to train again from the first epoch"),
    ],
    ids=["diverged at its last step", "diverged", "one image a step", "empty", "cut"],
)
def test_a_training_that_cannot_go_on_ends_with_a_sentence(settings, harm, said, build, few, quick, tmp_path):
    recipe = replace(quick, **({"epochs": 1, "choose_by": "last"} | settings))
    if harm:
        recipe = replace(recipe, epochs=2)
        with pytest.raises(Enough):
            fit(build(), few, tmp_path, recipe, lambda row: (_ for _ in ()).throw(Enough))
        harm(tmp_path)
    with pytest.raises(MedicError, match=said):
        fit(build(), few, tmp_path, recipe)
    assert not Run.peek(tmp_path).finished
    assert (tmp_path / "history.csv").exists() == bool(harm), "no figure comes from what is no number"


@pytest.mark.parametrize(
    ("where", "writes", "said"),
    [
        (Path, "write_bytes", "cannot write .*model.safetensors: No space left on device; free some space"),
        (torch, "save", "cannot write .*run: No space left on device; free some space, and start again: it goes on"),
    ],
)
def test_a_full_disk_ends_a_training_with_a_sentence_and_it_goes_on(
    where, writes, said, build, few, quick, tmp_path, monkeypatch
):
    write = getattr(where, writes)

    def full(*given: object, **named: object) -> object:
        if isinstance(given[0], Path) and "model.safetensors" not in given[0].name:
            return write(*given, **named)
        raise OSError(errno.ENOSPC, "No space left on device")

    recipe = replace(quick, epochs=1, choose_by="last")
    with monkeypatch.context() as patch:
        patch.setattr(where, writes, full)
        with pytest.raises(MedicError, match=said):
            fit(build(), few, tmp_path / "run", recipe)
    assert fit(build(), few, tmp_path / "run", recipe).finished


def test_a_model_that_was_asked_before_it_is_trained_trains_as_any_other(build, few, quick, tmp_path):
    """Asking puts it into evaluation mode, in which batch normalisation and dropout do not learn."""
    asked, count = build(), len(few.split("train"))
    asked.predict_pixels(few.pixels(few.records["file"].iloc[0])[None])
    # A last batch of one image: at 32 pixels a ResNet's last maps are one pixel, without variance to normalise by.
    recipe = replace(quick, epochs=1, batch_size=next(size for size in range(2, count) if count % size == 1))
    one, other = (fit(model, few, tmp_path / str(number), recipe) for number, model in enumerate([build(), asked]))
    assert digests(one) == digests(other)


def test_a_folder_without_a_run_a_damaged_one_and_one_of_another_version_are_told_apart(
    run, tiny_prepared, network, quick, tmp_path
):
    with pytest.raises(MedicError, match="there is no training run"):
        Run.load(tmp_path)
    shutil.copytree(run.folder, tmp_path / "run")
    about = json.loads((run.folder / "run.json").read_text())
    about["settings"]["recipe"]["ema"] = None
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert Run.load(tmp_path / "run").model().digest == run.model().digest, "it can be used all the same"
    with pytest.raises(MedicError, match="another version of medic wrote it"):
        fit(network(), tiny_prepared, tmp_path / "run", quick)
    for text in ('{"settings"', "[]", "{}", '{"settings": {}, "finished": true, "prepared": "."}'):
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(MedicError, match=r"run\.json is damaged"):
            Run.load(tmp_path / "run")
    (tmp_path / "run" / "history.csv").write_text("")
    (tmp_path / "run" / "records.csv").unlink()
    for read in (lambda gone: gone.history, lambda gone: gone.records):
        with pytest.raises(MedicError, match=r"(history|records)\.csv is gone or damaged"):
            read(Run(tmp_path / "run", about))
