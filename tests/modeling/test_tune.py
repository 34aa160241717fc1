"""Tuning: the space is kept, bad trials are pruned, what was stopped goes on, and processes share a study."""

import re
import shlex
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

import medic.modeling.tune as tuning
from medic.cli import app
from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.plans import Plan
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.modeling.tune import SearchSpace, tune
from medic.task import CHEST_XRAY_BINARY

PLAN = Plan(
    task=CHEST_XRAY_BINARY,
    backbone="shufflenet_v2_x0_5",
    image_size=32,
    objective=CrossEntropy(),
    recipe=Recipe(
        epochs=3, batch_size=32, learning_rate=1e-3, precision="32-true", augmentation=Augmentation(rotate=5)
    ),
)
SPACE = SearchSpace(learning_rate=(1e-4, 1e-1), dropout=(0, 0.5), image_size=(24, 32))

# A study in a process of its own, slow enough to be killed in the middle of a trial, or to meet another one.
TUNE = """
import time, torch
from types import SimpleNamespace
import medic.modeling.tune as tuning
from medic.modeling.training.plans import Plan
tuning.HEARTBEAT = heartbeat
if train:
    Plan.train, tuning.time = train, SimpleNamespace(sleep=lambda _: None)
torch.set_num_threads(1)
tell = tuning.optuna.Trial.report
tuning.optuna.Trial.report = lambda *given: (tell(*given), time.sleep(0.5))
tuning.tune(*study)
"""


def pretend(plan, prepared, folder, each_epoch):
    """A training without one: its score is the better, the closer the learning rate is to 0.01."""
    folder.mkdir(parents=True, exist_ok=True)
    best = 1 - abs(np.log10(plan.recipe.learning_rate) + 2) / 4
    rows = [{"epoch": epoch, "validation_auroc": best * epoch / 3} for epoch in range(1, plan.recipe.epochs + 1)]
    for row in rows:
        each_epoch(row)
    return SimpleNamespace(history=pd.DataFrame(rows))


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """Where a study of 12 pretended trials lies."""
    folder = tmp_path_factory.mktemp("studies") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "train", pretend)
        for trials in (5, 12):  # stopped in between
            tune(PLAN, few, folder, SPACE, trials)
    return folder


def test_a_study_begins_with_the_plan_keeps_to_the_space_prunes_and_keeps_the_best_run_alone(few, folder):
    study = tune(PLAN, few, folder, SPACE, trials=12)
    table = study.trials_dataframe()
    assert table.loc[0, ["params_learning_rate", "params_dropout", "params_image_size"]].tolist() == [1e-3, 0.0, 32]
    assert table["params_learning_rate"].between(1e-4, 1e-1).all()
    assert (table["params_dropout"] * 20 % 1 < 1e-6).all()
    assert set(table["params_image_size"]) == {24, 32}
    assert set(table["state"]) == {"COMPLETE", "PRUNED"}
    assert (table["state"].head(4) == "COMPLETE").all()
    assert study.best_value == table.query("state == 'COMPLETE'")["value_auroc"].max() > table.loc[0, "value_auroc"]
    for trial in study.trials:
        pruned = trial.state == optuna.trial.TrialState.PRUNED
        assert len(trial.intermediate_values) in ((1, 2) if pruned else (3,)), "never at the end"
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [study.best_trial.user_attrs["run"]]


def test_two_processes_work_on_one_study(few, start, tmp_path):
    given = (PLAN, few, tmp_path / "study", SPACE, 6)
    processes = [start(TUNE, study=given, train=pretend, heartbeat=5) for _ in range(2)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    study = tune(*given)
    assert 6 <= len(study.trials) <= 7
    assert len({str(trial.params) for trial in study.trials}) == len(study.trials)
    began = [trial.datetime_start for trial in study.trials]
    ended = [trial.datetime_complete for trial in study.trials]
    assert any(one < other for one, other in zip(began[1:], ended, strict=False)), "two at the same time"


def test_a_study_killed_in_the_middle_of_a_trial_goes_on_in_its_epoch(few, start, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "study"
    process = start(TUNE, study=(PLAN, few, folder, SPACE, 2), train=None, heartbeat=1)
    deadline = time.monotonic() + 120
    while not (folder / "trial-001" / "resume.ckpt").is_file():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    monkeypatch.setattr(tuning, "HEARTBEAT", 1)
    study = tune(PLAN, few, folder, SPACE, 2)
    said = capsys.readouterr().out
    assert "waiting 4 s" in said
    assert re.findall(r"epoch +(\d)/3", said)[0] == "2"
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[2].params == study.trials[1].params
    assert study.trials[2].user_attrs["run"] == "trial-001"


def test_an_interrupted_trial_is_the_next_one(few, tmp_path, monkeypatch):
    monkeypatch.setattr(Plan, "train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tune(PLAN, few, tmp_path, SPACE, 1)
    monkeypatch.setattr(Plan, "train", pretend)
    interrupted, again = tune(PLAN, few, tmp_path, SPACE, 1).trials
    assert (again.params, again.user_attrs) == (interrupted.params, interrupted.user_attrs)


def test_a_trial_that_fails_does_not_end_the_study_unless_all_do(few, tmp_path, monkeypatch):
    def unlucky(plan, *given, **named):
        if plan.image_size == 32:
            raise RuntimeError("out of memory")
        return pretend(plan, *given, **named)

    monkeypatch.setattr(Plan, "train", unlucky)
    with pytest.raises(MedicError, match=r"no trial of the study in .* has finished"):
        tune(PLAN, few, tmp_path, SPACE, 1)
    study = tune(PLAN, few, tmp_path, SPACE, 6)
    assert {trial.state.name for trial in study.trials} >= {"COMPLETE", "FAIL"}
    assert study.best_params["image_size"] == 24


def test_another_study_a_damaged_one_and_an_augmentation_without_strength_are_refused(few, folder, tmp_path):
    with pytest.raises(MedicError, match=r"space dropout \[0, 0.5\] there"):
        tune(PLAN, few, folder, replace(SPACE, dropout=(0, 0.3)), 12)
    with pytest.raises(MedicError, match=r"recipe\.epochs 3 there, 4 here"):
        tune(replace(PLAN, recipe=replace(PLAN.recipe, epochs=4)), few, folder, SPACE, 12)
    (tmp_path / "study.db").write_bytes(b"no database" * 200)
    with pytest.raises(MedicError, match=r"study\.db cannot be used .*delete the file if it is damaged"):
        tune(PLAN, few, tmp_path, SPACE, 12)
    with pytest.raises(MedicError, match="there is nothing to tune"):
        tune(PLAN, few, tmp_path / "study", SearchSpace(), 12)


def test_settings_go_from_a_plan_into_the_space_and_back():
    usual = SearchSpace.around(PLAN)
    assert usual.own(PLAN) == {"learning_rate": 1e-3, "dropout": 0.0, "batch_size": 32}
    assert usual.suggest(optuna.trial.FixedTrial(usual.own(PLAN)), PLAN) == replace(PLAN, dropout=0.0)
    assert usual.own(replace(PLAN, backbone="alexnet"))["dropout"] == 0.5, "the network's own"
    assert "learning_rate" not in usual.own(replace(PLAN, recipe=replace(PLAN.recipe, learning_rate=1.0)))
    wide, drawn = SearchSpace(backbone=("resnet18", "alexnet"), batch_size=(8, 16)), {"backbone": "resnet18"}
    changed = wide.suggest(optuna.trial.FixedTrial(drawn | {"batch_size": 8}), PLAN)
    assert (changed.backbone, changed.recipe.batch_size) == ("resnet18", 8)


def test_the_command_that_tune_prints_trains_what_the_best_trial_trained(tiny_prepared, tmp_path):
    asked = "--backbone shufflenet_v2_x0_5 --image-size 32 --epochs 1 --trials 2 --seed 3 --weights none"
    save = ["--save", str(tmp_path / "studies"), "--name", "small"]
    ended = CliRunner().invoke(app, ["tune", "retinopathy", "-d", str(tiny_prepared.folder), *asked.split(), *save])
    assert ended.exit_code == 0, ended.output
    assert "the images are SYNTHETIC" in ended.output
    assert "flatters the best of many" in ended.output
    command = shlex.split(ended.output.strip().splitlines()[-1])
    assert command[:4] == ["medic", "train", "retinopathy", "-d"]
    ended = CliRunner().invoke(app, [*command[1:], "--save", str(tmp_path / "runs")])
    assert ended.exit_code == 0, ended.output
    trained = Run.load(tmp_path / "runs" / "small-best").history
    (best,) = (tmp_path / "studies" / "small").glob("trial-*")
    assert trained["train_loss"].equals(Run.load(best).history["train_loss"])
