"""Training: what a run leaves behind, and that a killed one ends as if nothing had happened."""

import functools
import json
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.augment.published import PublishedAugmentation
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import confusion_matrix, macro_f1
from medic.modeling.objectives import CrossEntropy, Regression
from medic.modeling.training import loading as load
from medic.modeling.training.fit import Recipe, fit
from medic.modeling.training.module import Training
from medic.modeling.training.run import Run
from medic.task import RETINOPATHY, Task

# The settings of the fixtures `network` and `quick`; stands still in the middle of the second epoch.
TRAIN = """
import itertools
import time
import torch
from medic.data.prepare import Prepared
from medic.modeling.classifier import Classifier
from medic.modeling.training.fit import Recipe, fit
from medic.modeling.training.loading import PreparedDataset
from medic.task import RETINOPATHY

get = PreparedDataset.__getitem__
later = itertools.count()

def until_the_second_epoch(self, draw):
    if (folder / "resume.ckpt").is_file() and next(later) == 20:
        (folder / "still").touch()
        time.sleep(600)
    return get(self, draw)

PreparedDataset.__getitem__ = until_the_second_epoch
torch.set_num_threads(1)
torch.manual_seed(1)
prepared = Prepared.load(source)
model = Classifier(RETINOPATHY, "mobilenet_v3_small", preprocessing=prepared.preprocessing, image_size=64)
recipe = Recipe(epochs=3, batch_size=16, learning_rate=3e-3, precision="32-true")
fit(model, prepared, folder, recipe, watch=("test",))
"""


def without_seconds(run: Run) -> pd.DataFrame:
    return run.history.drop(columns=["images_per_second", "waiting", "seconds"])


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_leaves_its_settings_split_history_and_models(run, tiny_prepared):
    assert run.finished
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "best",
        "history.csv",
        "last",
        "records.csv",
        "run.json",
    ]
    about = json.loads((run.folder / "run.json").read_text())
    assert about["settings"]["recipe"]["epochs"] == 3
    assert torch.__version__.startswith(about["versions"]["torch"])
    assert str(tiny_prepared.folder) not in (run.folder / "run.json").read_text()
    assert run.task == RETINOPATHY


def test_the_split_is_saved_beside_the_result(run, tiny_prepared):
    saved = run.records.set_index("image")["split"]
    assert saved.equals(tiny_prepared.records.set_index("image")["split"])


def test_the_history_has_loss_and_figures_of_every_split_by_epoch(run):
    assert list(run.history["epoch"]) == [1, 2, 3]
    for split in ("train", "validation", "test"):
        for figure in ("loss", "accuracy", "macro_f1", "mean_grade_error", "quadratic_weighted_kappa"):
            assert run.history[f"{split}_{figure}"].notna().all()
    assert run.history["train_accuracy"].between(0, 1).all()


def test_the_best_epoch_is_the_first_with_the_highest_validation_kappa(run):
    kappa = run.history["validation_quadratic_weighted_kappa"]
    assert run.about["best_epoch"] == run.history["epoch"][kappa.idxmax()]
    if run.about["best_epoch"] == 3:
        assert weights(run.folder / "best") == weights(run.folder / "last")
    else:
        assert weights(run.folder / "best") != weights(run.folder / "last")


def test_the_kept_weights_give_the_figures_in_the_history(run, tiny_prepared):
    rows = tiny_prepared.split("validation")
    for which, epoch in (("best", run.about["best_epoch"]), ("last", 3)):
        model = run.model(which)
        images = torch.stack([torch.from_numpy(tiny_prepared.pixels(file)) for file in rows["file"]])
        decided = model.predict_pixels(images.numpy()).decided
        assert (decided == rows["label"]).mean() == pytest.approx(run.history["validation_accuracy"][epoch - 1])


def test_a_finished_run_is_returned_as_it_is(run, tiny_prepared, network, quick):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    again = fit(network(), tiny_prepared, run.folder, quick, watch=("test",))
    assert without_seconds(again).equals(without_seconds(run))
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_the_number_of_workers_is_no_other_setting(run, tiny_prepared, network, quick):
    assert fit(network(), tiny_prepared, run.folder, replace(quick, workers=2), watch=("test",)).finished


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"learning_rate": 1e-4}, r"recipe\.learning_rate 0\.003 there, 0\.0001 here"),
        ({"epochs": 9}, r"recipe\.epochs 3 there, 9 here"),
        ({"augmentation": None}, r"recipe\.augmentation .* there, None here"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(
    change, difference, run, tiny_prepared, network, quick
):
    with pytest.raises(MedicError, match=f"holds a run with other settings.*{difference}"):
        fit(network(), tiny_prepared, run.folder, replace(quick, **change))


def test_another_model_or_split_in_the_same_folder_is_refused(run, tiny_prepared, network, quick):
    with pytest.raises(MedicError, match=r"model\.objective .*regression"):
        fit(network(Regression()), tiny_prepared, run.folder, quick)
    records = tiny_prepared.records.replace({"split": {"validation": "train", "train": "validation"}})
    with pytest.raises(MedicError, match="other images or another split"):
        fit(network(), replace(tiny_prepared, records=records), run.folder, quick)


def test_a_set_without_a_validation_split_is_refused_before_anything_is_written(
    tiny_prepared, network, quick, tmp_path
):
    records = tiny_prepared.records.replace({"split": {"validation": "train"}})
    with pytest.raises(MedicError, match="no images in the split 'validation'"):
        fit(network(), replace(tiny_prepared, records=records), tmp_path / "run", quick)
    assert not (tmp_path / "run").exists()


def test_a_split_that_shares_a_patient_is_refused_before_anything_is_written(tiny_prepared, network, quick, tmp_path):
    records = tiny_prepared.records.copy()
    first = records.index[records["split"] == "train"][0]
    records.loc[first, "split"] = "test"
    with pytest.raises(MedicError, match=f"more than one of train, test: {records['patient'][first]}"):
        fit(network(), replace(tiny_prepared, records=records), tmp_path / "run", quick)
    assert not (tmp_path / "run").exists()


def test_a_model_for_other_pixels_than_the_sets_is_refused_with_the_remedy(tiny_prepared, network, quick, tmp_path):
    with pytest.raises(MedicError, match=r"size=384.*size=96.*preprocessing=prepared\.preprocessing"):
        fit(network(preprocessing=Preprocessing()), tiny_prepared, tmp_path / "run", quick)
    assert not (tmp_path / "run").exists()


def test_a_model_for_fewer_classes_than_the_set_has_is_refused(tiny_prepared, quick, tmp_path):
    task = Task("two", "ordinal", ("none", "some"))
    model = Classifier(task, "squeezenet1_1", preprocessing=tiny_prepared.preprocessing, image_size=64)
    with pytest.raises(MedicError, match="has the label 4, the task 'two' of the model has only 2 classes"):
        fit(model, tiny_prepared, tmp_path / "run", quick)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_a_recipe_that_cannot_train_is_refused(settings):
    with pytest.raises(MedicError, match="at least one epoch"):
        Recipe(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": "cosine"}, "schedule is one of one_cycle, steps, cycles, not 'cosine'"),
        ({"precision": "8-bit"}, "precision is one of auto, 32-true"),
        ({"choose_by": "loss"}, "choose_by is one of None, accuracy"),
        ({"cut_points": "accuracy"}, "cut_points is one of None, macro_f1, quadratic_weighted_kappa"),
        ({"ema": 1.0}, "between 0 and 1, not at 1.0"),
        ({"workers": -1}, "fewer than 0 workers"),
    ],
)
def test_an_unknown_setting_is_refused_with_those_there_are(settings, said):
    with pytest.raises(MedicError, match=re.escape(said)):
        Recipe(**settings)


def test_training_killed_in_the_middle_of_an_epoch_ends_as_if_undisturbed(
    run, tiny_prepared, network, quick, start, tmp_path, capsys
):
    folder = tmp_path / "run"
    process = start(TRAIN, source=tiny_prepared.folder, folder=folder)
    deadline = time.monotonic() + 120
    while not (folder / "still").is_file():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (folder / "still").unlink()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    killed = Run.peek(folder)
    assert not killed.finished
    assert len(killed.history) == 1
    assert "interrupted" in killed._repr_html_()
    with pytest.raises(MedicError, match="was interrupted; start the same training again"):
        Run.load(folder)

    resumed = fit(network(), tiny_prepared, folder, quick, watch=("test",))
    assert "going on after epoch 1" in capsys.readouterr().out
    assert without_seconds(resumed).equals(without_seconds(run))
    for which in ("best", "last"):
        assert weights(folder / which) == weights(run.folder / which)
    assert not list(folder.glob("resume.ckpt"))


@pytest.fixture
def interrupted(tiny_prepared, network, tmp_path, monkeypatch):
    """Trains into a folder, with an interrupt from the keyboard in the second epoch, and then goes on."""

    def train(recipe: Recipe, **settings: object) -> Run:
        get = load.PreparedDataset.__getitem__

        def interrupting(self: load.PreparedDataset, draw: load.SampleKey | int) -> tuple:
            if isinstance(draw, load.SampleKey) and draw.epoch == 1:
                raise KeyboardInterrupt
            return get(self, draw)

        with monkeypatch.context() as patch:
            patch.setattr(load.PreparedDataset, "__getitem__", interrupting)
            with pytest.raises(KeyboardInterrupt):
                fit(network(), tiny_prepared, tmp_path / "run", recipe, **settings)
        assert not Run.peek(tmp_path / "run").finished
        return fit(network(), tiny_prepared, tmp_path / "run", recipe, **settings)

    return train


def test_an_interrupt_from_the_keyboard_stops_the_run_and_it_goes_on_later(interrupted, quick, run):
    handler = signal.getsignal(signal.SIGINT)
    resumed = interrupted(quick, watch=("test",))
    assert signal.getsignal(signal.SIGINT) is handler
    assert without_seconds(resumed).equals(without_seconds(run))
    assert weights(resumed.folder / "last") == weights(run.folder / "last")


def test_averaged_weights_and_a_schedule_in_steps_survive_an_interruption_too(
    interrupted, tiny_prepared, network, quick, tmp_path
):
    recipe = replace(quick, ema=0.9, schedule="steps", amsgrad=True)
    undisturbed = fit(network(), tiny_prepared, tmp_path / "undisturbed", recipe)
    resumed = interrupted(recipe)
    assert without_seconds(resumed).equals(without_seconds(undisturbed))
    for which in ("best", "last"):
        assert weights(resumed.folder / which) == weights(undisturbed.folder / which)


def test_averaged_weights_are_what_is_validated_and_kept(tiny_prepared, network, quick, tmp_path):
    model = network(flips=True)
    run = fit(model, tiny_prepared, tmp_path / "averaged", replace(quick, ema=0.9))
    plain = fit(network(flips=True), tiny_prepared, tmp_path / "plain", quick)
    assert model.digest == run.model("last").digest != plain.model("last").digest
    assert run.history["train_loss"][0] == plain.history["train_loss"][0], "they are trained alike"
    assert_last_epoch_is_that_of_the_last_model(run)


def assert_last_epoch_is_that_of_the_last_model(run: Run) -> None:
    prepared, rows = run.prepared, run.prepared.split("validation")
    images = torch.stack([torch.from_numpy(prepared.pixels(file)) for file in rows["file"]])
    decided = run.model("last").predict_pixels(images.numpy()).decided
    assert (decided == rows["label"]).mean() == pytest.approx(run.history["validation_accuracy"].iloc[-1])


def test_a_schedule_in_steps_takes_a_tenth_after_each_third(tiny_prepared, network, quick, tmp_path, monkeypatch):
    rates = []
    note = Training.on_train_batch_end

    def noting(self: Training, *arguments: object) -> None:
        rates.append(self.optimizers().param_groups[0]["lr"])
        note(self, *arguments)

    monkeypatch.setattr(Training, "on_train_batch_end", noting)
    fit(network(), tiny_prepared, tmp_path / "run", replace(quick, schedule="steps", batch_size=64))
    # The schedule has moved on when a step is over.
    assert rates == pytest.approx([3e-4, 3e-5, 3e-5])


def test_the_best_epoch_can_be_chosen_by_macro_f1(tiny_prepared, network, quick, tmp_path):
    run = fit(network(), tiny_prepared, tmp_path / "run", replace(quick, choose_by="macro_f1"))
    assert run.about["best_epoch"] == run.history["epoch"][run.history["validation_macro_f1"].idxmax()]
    two = Task("two", "multiclass", tuple("abcde"))
    model = Classifier(two, "squeezenet1_1", preprocessing=tiny_prepared.preprocessing, image_size=64)
    with pytest.raises(MedicError, match="multiclass task 'two' does not have; choose by accuracy or macro_f1"):
        fit(model, tiny_prepared, tmp_path / "two", replace(quick, choose_by="quadratic_weighted_kappa"))


def test_cut_points_are_fitted_after_the_last_epoch_and_go_into_both_models(tiny_prepared, network, quick, tmp_path):
    recipe = replace(quick, epochs=2)
    rounded = fit(network(Regression()), tiny_prepared, tmp_path / "rounded", recipe)
    cut = fit(network(Regression()), tiny_prepared, tmp_path / "cut", replace(recipe, cut_points="macro_f1"))
    assert without_seconds(cut).equals(without_seconds(rounded))
    rows = tiny_prepared.split("validation")
    images = torch.stack([torch.from_numpy(tiny_prepared.pixels(file)) for file in rows["file"]]).numpy()
    for which in ("best", "last"):
        assert rounded.model(which).objective.cuts is None
        assert len(cut.model(which).objective.cuts) == 4
        assert weights(cut.folder / which) == weights(rounded.folder / which)
        figures = [
            macro_f1(confusion_matrix(rows["label"], run.model(which).predict_pixels(images).decided, 5))
            for run in (rounded, cut)
        ]
        assert figures[0] <= figures[1]


def test_cut_points_for_classes_without_an_order_are_refused():
    two = Task("two", "multiclass", tuple("ab"))
    with pytest.raises(MedicError, match="cut points are for ordered grades, and the task 'two' is multiclass"):
        Recipe(cut_points="macro_f1").resolved(two)


def test_the_last_epoch_is_kept_when_asked_for(tiny_prepared, network, quick, tmp_path):
    kept = fit(network(), tiny_prepared, tmp_path / "run", replace(quick, choose_by="last"))
    assert kept.about["best_epoch"] == quick.epochs
    assert weights(kept.folder / "best") == weights(kept.folder / "last")


def test_augmentation_on_the_device_trains_nearly_alike_and_is_recorded(tiny_prepared, network, quick, tmp_path, run):
    on_device = fit(network(), tiny_prepared, tmp_path / "run", replace(quick, device_augmentation=True))
    assert on_device.about["settings"]["recipe"]["device_augmentation"] is True
    assert run.about["settings"]["recipe"]["device_augmentation"] is torch.cuda.is_available()
    assert on_device.history["train_loss"][0] == pytest.approx(run.history["train_loss"][0], rel=0.02)
    with pytest.raises(MedicError, match="PublishedAugmentation cannot vary images on the device"):
        Recipe(augmentation=PublishedAugmentation(), device_augmentation=True).resolved(RETINOPATHY)


def test_a_compiled_network_trains_alike_and_its_weights_are_those_of_any_other(
    tiny_prepared, quick, tmp_path, monkeypatch
):
    # The graph is taken and run as always; only the minutes of generating C++ for it are left out.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))

    def trained(name: str, **settings: object) -> Run:
        torch.manual_seed(1)
        model = Classifier(RETINOPATHY, "squeezenet1_1", preprocessing=tiny_prepared.preprocessing, image_size=32)
        model.backbone.classifier[0].p = 0.0  # compiled code draws other numbers
        return fit(model, tiny_prepared, tmp_path / name, replace(quick, epochs=1, batch_size=20, **settings))

    eager, compiled = trained("eager"), trained("compiled", compile=True)
    assert compiled.history["train_loss"][0] == pytest.approx(eager.history["train_loss"][0], rel=1e-3)
    assert compiled.model().backbone.state_dict().keys() == eager.model().backbone.state_dict().keys()


def test_an_input_bound_run_is_told_so_once(tiny_prepared, network, quick, tmp_path, monkeypatch, capsys):
    get = load.PreparedDataset.__getitem__

    def slow(self: load.PreparedDataset, draw: load.SampleKey | int) -> tuple:
        time.sleep(0.03)
        return get(self, draw)

    monkeypatch.setattr(load.PreparedDataset, "__getitem__", slow)
    history = fit(network(), tiny_prepared, tmp_path / "run", replace(quick, epochs=2)).history
    assert (history["waiting"] > 0.3).all()
    assert (history["images_per_second"] < 34).all()
    shown = capsys.readouterr().out
    assert shown.count("of the training time was spent waiting for images") == 1
    assert re.search(r"\d+ images/s, \d+% waiting", shown)
    assert max(map(len, shown.splitlines())) <= 120


def test_a_run_from_before_a_setting_existed_counts_as_one_with_its_default(
    run, tiny_prepared, network, quick, tmp_path
):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    about = json.loads((folder / "run.json").read_text())
    for name in ("schedule", "amsgrad", "ema", "choose_by", "cut_points", "compile", "device_augmentation"):
        del about["settings"]["recipe"][name]
    for name in ("flips", "contrast"):
        del about["settings"]["model"][name]
    (folder / "run.json").write_text(json.dumps(about))
    assert fit(network(), tiny_prepared, folder, quick, watch=("test",)).finished
    with pytest.raises(MedicError, match=r"recipe\.ema None there, 0\.9 here"):
        fit(network(), tiny_prepared, folder, replace(quick, ema=0.9), watch=("test",))


def test_weighted_balanced_training_can_be_asked_for_again(tiny_prepared, network, tmp_path):
    recipe = Recipe(epochs=1, batch_size=32, precision="32-true", balanced=True, augmentation=Augmentation(rotate=180))
    weighted = CrossEntropy(class_weights=(1.0, 2.0, 1.5, 3.0, 4.0))
    first = fit(network(weighted), tiny_prepared, tmp_path / "run", recipe)
    again = fit(network(weighted), tiny_prepared, tmp_path / "run", recipe)
    assert again.history.equals(first.history)


def test_training_lowers_the_loss(tiny_prepared, network, tmp_path):
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=3e-3, augmentation=None, precision="32-true")
    history = fit(network(), tiny_prepared, tmp_path / "run", recipe).history
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"].iloc[0]


def test_a_folder_without_a_run_and_a_damaged_one_are_told_apart(run, tmp_path):
    with pytest.raises(MedicError, match="there is no training run"):
        Run.load(tmp_path)
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"settings"')
    with pytest.raises(MedicError, match=r"run\.json is damaged"):
        Run.load(tmp_path / "run")


def test_a_run_has_two_models(run):
    with pytest.raises(MedicError, match="the models best, last, not 'middle'"):
        run.model("middle")


def test_each_epoch_is_told_when_it_is_written_and_what_that_raises_leaves_a_run_that_goes_on(
    run, tiny_prepared, network, quick, tmp_path
):
    told = []

    class Enough(Exception):
        pass

    def stop_after_two(row: dict[str, float]) -> None:
        told.append(row)
        assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == row["epoch"]
        if row["epoch"] == 2:
            raise Enough

    with pytest.raises(Enough):
        fit(network(), tiny_prepared, tmp_path / "run", quick, ("test",), stop_after_two)
    assert not Run.peek(tmp_path / "run").finished
    resumed = fit(network(), tiny_prepared, tmp_path / "run", quick, ("test",), told.append)
    assert [row["epoch"] for row in told] == [1, 2, 3], "an epoch is told once"
    assert told[2]["validation_accuracy"] == run.history["validation_accuracy"].iloc[2]
    assert without_seconds(resumed).equals(without_seconds(run))
