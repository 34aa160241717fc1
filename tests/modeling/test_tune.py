"""Tuning: the same study whether it was stopped or not, cut short where it is not worth it, honest about failures."""

import json
import multiprocessing
import re
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from medic.cli import app
from medic.errors import MedicError
from medic.modeling.augment import Augmentation, PublishedAugmentation
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.plans import Plan
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.modeling.tune import Budget, _Ledger, trials, tune
from medic.modeling.tune.space import SearchSpace, with_settings
from medic.modeling.tune.study import Study, Trial
from medic.task import CHEST_XRAY_BINARY

PLAN = Plan(
    task=CHEST_XRAY_BINARY,
    backbone="shufflenet_v2_x0_5",
    image_size=32,
    objective=CrossEntropy(),
    contrast=None,
    flips=False,
    recipe=Recipe(
        epochs=2, batch_size=32, learning_rate=1e-3, precision="32-true", augmentation=Augmentation(rotate=5)
    ),
)
SPACE = SearchSpace(learning_rate=(1e-4, 1e-1), dropout=(0, 0.5), image_size=(24, 32))
BUDGET = Budget(trials=7)

# The same study in a process of its own, slow enough to be killed in the middle of a trial.
TUNE = """
import time
import torch
from medic.modeling.training.module import EpochEnd
from medic.modeling.tune import tune

write = EpochEnd.on_train_epoch_end
EpochEnd.on_train_epoch_end = lambda *given: (write(*given), time.sleep(0.6))
torch.set_num_threads(1)
tune(*study)
"""


@pytest.fixture(scope="module")
def small(chest_prepared):
    """64 images to train on, and all of those that validate."""
    records = chest_prepared.records
    kept = pd.concat([records[records["split"] == "train"].head(64), records[records["split"] != "train"]])
    return replace(chest_prepared, records=kept.reset_index(drop=True))


@pytest.fixture(scope="module")
def study(small, tmp_path_factory) -> Study:
    """A study that nothing disturbed; not to be changed."""
    torch.set_num_threads(1)
    return tune(PLAN, small, tmp_path_factory.mktemp("studies") / "undisturbed", SPACE, BUDGET)


def without_seconds(study: Study) -> pd.DataFrame:
    return study.table().drop(columns="seconds")


def test_the_first_trial_is_the_plan_as_it_is(study):
    assert study.trials[0].settings == {"learning_rate": 1e-3, "dropout": 0.0, "image_size": 32}
    assert with_settings(PLAN, study.trials[0].settings) == replace(PLAN, dropout=0.0)


def test_every_trial_has_a_row_with_settings_inside_the_space_figure_seconds_and_state(study):
    table = study.table()
    assert list(table.index) == list(range(1, 8))
    assert table["learning_rate"].between(1e-4, 1e-1).all()
    assert set(table["image_size"]) == {24, 32}
    assert (table["dropout"] * 20 % 1 < 1e-9).all(), "in steps of 0.05"
    assert table["auroc"].between(0, 1).all()
    assert (table["seconds"] > 0).all()
    assert set(table["state"]) <= {"finished", "pruned"}


def test_a_trial_worse_than_the_median_is_cut_short_and_the_first_ones_never(study):
    assert all(trial.state == "finished" for trial in study.trials[:4])
    for trial in study.trials[4:]:
        earlier = [other.by_epoch[0] for other in study.trials[: trial.place - 1] if other.state == "finished"]
        worse = trial.by_epoch[0] < np.median(earlier)
        assert (trial.state, len(trial.by_epoch)) == (("pruned", 1) if worse else ("finished", 2))
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    assert pruned, "these settings are meant to show it"
    assert not list(pruned[0].folder.rglob("*.safetensors"))
    assert not (pruned[0].folder / "resume.ckpt").exists()


def test_a_trials_figure_is_that_of_the_epoch_that_its_run_keeps(study):
    for trial in study.finished:
        history = Run.load(trial.folder).history
        assert trial.value == history["validation_auroc"].max()
        assert trial.by_epoch == tuple(history["validation_auroc"])


def test_the_test_split_is_not_touched(small, study, tmp_path):
    told = [json.loads((trial.folder / "run.json").read_text())["settings"]["watch"] for trial in study.trials]
    assert told == [[]] * 7
    blind = replace(small, records=small.records[small.records["split"] != "test"])
    again = tune(PLAN, blind, tmp_path / "blind", SPACE, Budget(trials=2))
    assert without_seconds(again).equals(without_seconds(study).head(2))


def test_a_complete_study_is_returned_as_it_is(small, study):
    before = {path: path.stat().st_mtime_ns for path in study.folder.rglob("*") if path.is_file()}
    assert without_seconds(tune(PLAN, small, study.folder, SPACE, BUDGET)).equals(without_seconds(study))
    assert {path: path.stat().st_mtime_ns for path in study.folder.rglob("*") if path.is_file()} == before


def test_a_study_in_two_goes_is_that_in_one(small, study, tmp_path):
    tune(PLAN, small, tmp_path / "study", SPACE, Budget(trials=4))
    extended = tune(PLAN, small, tmp_path / "study", SPACE, BUDGET)
    assert without_seconds(extended).equals(without_seconds(study))


def test_a_study_killed_in_the_middle_of_a_trial_goes_on_in_its_epoch_and_ends_as_if_undisturbed(
    small, study, start, tmp_path
):
    folder = tmp_path / "study"
    process = start(TUNE, study=(PLAN, small, folder, SPACE, BUDGET))
    deadline = time.monotonic() + 120
    while not (folder / "trials" / "002" / "resume.ckpt").is_file():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    resumed = tune(PLAN, small, folder, SPACE, BUDGET)
    assert "going on after epoch 1" in (folder / "trials" / "002" / "training.log").read_text()
    assert without_seconds(resumed).equals(without_seconds(study))
    with sqlite3.connect(folder / "study.db") as database:
        states = [state for (state,) in database.execute("select state from trials")]
    assert states.count("FAIL") == 1, "the interrupted attempt stays in the file, as failed"
    assert len(states) == 8


@pytest.mark.slow
def test_two_processes_share_a_study_and_the_death_of_one_costs_its_trial_alone(small, tmp_path, monkeypatch, capsys):
    told = []
    tell = _Ledger.tell

    def kill_the_first(ledger: _Ledger, place: int, row: trials.Row) -> bool:
        if not told:
            multiprocessing.active_children()[0].kill()
        told.append(place)
        return tell(ledger, place, row)

    monkeypatch.setattr(_Ledger, "tell", kill_the_first)
    shared = tune(PLAN, small, tmp_path / "study", SPACE, Budget(trials=2, workers=2))
    states = [trial.state for trial in shared.trials]
    assert states.count("finished") == 2
    assert states.count("failed") == 1
    (dead,) = [trial for trial in shared.trials if trial.state == "failed"]
    assert "its process was killed (signal 9)" in dead.reason
    assert f"trial {dead.place:>3}  failed" in capsys.readouterr().out


def test_a_failed_trial_is_reported_with_its_reason_and_does_not_end_the_study(small, tmp_path, monkeypatch, capsys):
    train = Plan.train

    def unlucky(plan: Plan, *given: object) -> Run:
        if plan.dropout and plan.dropout > 0.2:
            raise RuntimeError("out of memory")
        return train(plan, *given)

    monkeypatch.setattr(Plan, "train", unlucky)
    found = tune(PLAN, small, tmp_path / "study", SPACE, Budget(trials=3))
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert failed
    assert len(found.finished) == 3
    assert {trial.reason for trial in failed} == {"RuntimeError: out of memory"}
    assert "failed    RuntimeError: out of memory" in capsys.readouterr().out
    assert "RuntimeError: out of memory" in found._repr_html_()


def test_a_study_whose_first_trials_all_fail_ends_with_the_reason(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Plan, "train", lambda *_: 1 / 0)
    with pytest.raises(MedicError, match=r"first 3 trials failed, the last one with: ZeroDivisionError"):
        tune(PLAN, small, tmp_path / "study", SPACE, BUDGET)


def test_no_trial_starts_after_the_time_is_over(small, tmp_path):
    found = tune(PLAN, small, tmp_path / "study", SPACE, Budget(trials=7, seconds=0))
    assert found.trials == ()
    with pytest.raises(MedicError, match=r"no trial of the study in .* has finished"):
        found.recommended()


def test_the_same_settings_are_not_trained_twice(small, tmp_path):
    found = tune(PLAN, small, tmp_path / "study", SearchSpace(image_size=(24, 32)), Budget(trials=3))
    assert len({trial.value for trial in found.trials}) == 2
    assert len(list((tmp_path / "study" / "trials").iterdir())) == 2
    recommended = found.recommended()["trial"].tolist()
    assert [place for place in recommended if (found.trials[place - 1].folder / "best").is_dir()] == recommended


def test_another_study_in_the_same_folder_is_refused_with_the_difference(small, study):
    with pytest.raises(MedicError, match=r"study with other settings \(model.space dropout \[0, 0.5\] there"):
        tune(PLAN, small, study.folder, replace(SPACE, dropout=(0, 0.3)), BUDGET)
    with pytest.raises(MedicError, match=r"recipe\.epochs 2 there, 3 here"):
        tune(replace(PLAN, recipe=replace(PLAN.recipe, epochs=3)), small, study.folder, SPACE, BUDGET)


def test_a_folder_in_which_another_process_tunes_is_refused(small, study):
    with sqlite3.connect(study.folder / "study.lock", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MedicError, match="another process is tuning in"):
            tune(PLAN, small, study.folder, SPACE, BUDGET)
        other.execute("ROLLBACK")


def test_a_damaged_study_is_named_with_the_remedy(small, tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 200)
    with pytest.raises(MedicError, match=r"study\.db is damaged .*delete the folder"):
        tune(PLAN, small, tmp_path, SPACE, BUDGET)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (SearchSpace(), "there is nothing to tune"),
        (SearchSpace(learning_rate=(1e-2, 1e-4)), "cannot vary within (0.01, 0.0001)"),
        (SearchSpace(learning_rate=(0, 1e-2)), "a learning rate of 0 cannot be drawn"),
        (SearchSpace(dropout=(0, 1.0)), "a dropout of 1.0 leaves nothing"),
        (SearchSpace(batch_size=(16,)), "the batch_size cannot vary over (16,)"),
        (SearchSpace(image_size=(0, 32)), "a image_size is at least 1"),
        (SearchSpace(backbone=("resnet18", "resnet19")), "no classification network called 'resnet19'"),
        (SearchSpace(backbone="resnet18"), "the backbone cannot vary over 'resnet18'"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_anything_is_written(space, said, small, tmp_path):
    with pytest.raises(MedicError, match=re.escape(said)):
        tune(PLAN, small, tmp_path / "study", space, BUDGET)
    assert not (tmp_path / "study").exists()


def test_an_augmentation_without_a_strength_is_refused(small, tmp_path):
    published = replace(PLAN, recipe=replace(PLAN.recipe, augmentation=PublishedAugmentation()))
    with pytest.raises(MedicError, match="the strength of PublishedAugmentation cannot vary"):
        tune(published, small, tmp_path / "study", SearchSpace(augmentation=(0, 2)), BUDGET)
    assert "augmentation" not in SearchSpace.around(published).varied


def test_a_usual_space_holds_the_plan():
    space = SearchSpace.around(PLAN)
    assert space.own(PLAN) == {"learning_rate": 1e-3, "batch_size": 32, "dropout": 0.0, "augmentation": 1.0}
    assert space.own(replace(PLAN, backbone="alexnet"))["dropout"] == 0.5, "the network's own"
    assert space.own(replace(PLAN, recipe=replace(PLAN.recipe, learning_rate=1.0))) is None


def made_up(*trials_: tuple[dict, float, float], state: str = "finished") -> Study:
    """A study from settings, figures and seconds an epoch."""
    rows = tuple(
        Trial(place, settings, state, value, (value,), 3 * seconds, seconds, 100 / seconds, Path(f"{place:03d}"))
        for place, (settings, value, seconds) in enumerate(trials_, start=1)
    )
    space = SearchSpace(learning_rate=(1e-4, 1e-1), dropout=(0, 0.5), image_size=(24, 32, 64))
    return Study(Path("made up"), PLAN, space, "auroc", rows)


def given(rate: float, dropout: float, size: int) -> dict:
    return {"learning_rate": rate, "dropout": dropout, "image_size": size}


def test_recommended_is_what_nothing_beats_in_figure_and_time_with_one_time_for_what_costs_the_same():
    found = made_up(
        (given(1e-3, 0.0, 24), 0.70, 1.0),
        (given(1e-2, 0.0, 24), 0.75, 1.4),
        (given(1e-3, 0.0, 32), 0.72, 2.0),
        (given(1e-3, 0.0, 64), 0.80, 4.0),
        (given(1e-3, 0.1, 64), 0.78, 3.9),
    )
    table = found.recommended()
    assert list(table["trial"]) == [2, 4]
    assert list(table["seconds_an_epoch"]) == pytest.approx([1.2, 3.95])
    assert found.best.place == 4
    assert found.best_plan() == replace(PLAN, dropout=0.0, image_size=64)
    assert found.options(2) == "--learning-rate 0.01 --dropout 0.0 --image-size 24"
    with pytest.raises(MedicError, match="no trial 9"):
        found.best_plan(9)


def test_importance_finds_the_setting_that_decides_and_how_much_one_trial_can_change_it():
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(30):
        rate, dropout = float(10 ** draw.uniform(-4, -1)), float(draw.uniform(0, 0.5))
        rows.append((given(rate, dropout, int(draw.choice([24, 32, 64]))), 0.5 + 0.1 * np.log10(rate), 1.0))
    table = made_up(*rows).importance()
    assert table.index[0] == "learning_rate"
    assert table["importance"].sum() == pytest.approx(1)
    assert table.loc["learning_rate", "low"] > 0.8
    assert (table["low"] <= table["importance"]).all()
    with pytest.raises(MedicError, match="at least 6 trials"):
        made_up(*rows[:5]).importance()


def test_the_figures_say_what_was_found_and_that_the_images_are_synthetic(study):
    for figure in (study.plot_history(), study.plot_importance(), study.plot_trade_off()):
        assert "(synthetic images)" in figure.get_suptitle()
        assert "auroc" in figure.axes[0].get_xlabel() + figure.axes[0].get_ylabel()
    best = study.plot_history().axes[0].lines[-1].get_ydata()
    assert best[-1] == study.best.value
    assert list(best) == sorted(best)


def test_weights_are_kept_of_the_recommended_trials_alone(study):
    recommended = set(study.recommended()["trial"])
    assert {trial.place for trial in study.trials if (trial.folder / "best").is_dir()} == recommended
    assert Run.load(study.best.folder).model().image_size == study.best.settings["image_size"]


def test_the_command_that_tune_prints_trains_what_the_trial_trained(tiny_prepared, tmp_path):
    asked = "--backbone shufflenet_v2_x0_5 --image-size 32 --epochs 1 --trials 2 --seed 3"
    save = ["--save", str(tmp_path / "studies"), "--name", "small"]
    ended = CliRunner().invoke(app, ["tune", "retinopathy", "-d", str(tiny_prepared.folder), *asked.split(), *save])
    assert ended.exit_code == 0, ended.output
    assert "the images are SYNTHETIC" in ended.output
    assert "flatters the best of many" in ended.output
    command = ended.output.strip().splitlines()[-1]
    assert command.startswith("medic train retinopathy -d ")
    ended = CliRunner().invoke(app, [*command.split()[1:], "--save", str(tmp_path / "runs")])
    assert ended.exit_code == 0, ended.output
    (trained,) = (Run.load(folder) for folder in (tmp_path / "runs").iterdir())
    trial = Run.load(tmp_path / "studies" / "small" / "trials" / trained.folder.name.rpartition("-")[2])
    columns = ["train_loss", "validation_loss"]
    assert trained.history[columns].equals(trial.history[columns])
