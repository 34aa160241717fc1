"""Tuning: many short trainings with other settings, chosen by what the earlier ones gave; stopped, it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import torch

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.files import write_json
from medic.modeling.metrics import metrics_for
from medic.modeling.training.plans import Plan
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import difference, digest_of, json_values
from medic.modeling.tune.space import SearchSpace, Settings, with_settings
from medic.modeling.tune.study import Study, Trial
from medic.modeling.tune.trials import Job, Row, TrialResult, forget_weights, run_here, run_in_processes

STARTUP = 5
"""Trials drawn at random, the plan's own among them, before the sampler learns from them and any is cut short."""


@dataclass(frozen=True)
class Budget:
    """How long a study goes on.

    Attributes:
        trials: how many are wanted in all, finished and pruned ones; failed ones do not count.
        seconds: from when on no further trial starts, counted from this call; None does not look at the clock.
        workers: processes that train at the same time and share the cores. With 1 the trials are a function of the
            seed; with more also of which ends first.
    """

    trials: int = 20
    seconds: float | None = None
    workers: int = 1


def tune(
    plan: Plan,
    prepared: Prepared,
    folder: str | os.PathLike,
    space: SearchSpace | None = None,
    budget: Budget | None = None,
    weights: str | Path | None = None,
) -> Study:
    """Look for better settings than a plan's own, on the validation split alone.

    The first trial is the plan as it is, if the space holds it. Then settings are drawn at random, and from the sixth
    trial on by Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 24, 2011), seeded with the recipe's
    seed and the trial's place, so that a resumed study proposes what an uninterrupted one would have. A trial whose
    best figure so far lies below the median of the earlier ones after as many epochs is cut short (from a third of the
    epochs on: under a schedule that first warms up, the earliest epochs tell little). Hyperband would spare more in
    hundreds of trials; a few dozen are too few for its brackets, and it cuts earliest, where the warm-up is.

    All that happens is in ``study.db`` (SQLite) and ``trials/``. Called again with the same arguments, an interrupted
    study goes on, in the epoch in which its trial was; a complete one is returned; one with more trials asked for is
    extended. Every trial starts from the same initial weights. When the study ends, weights are kept of the trials that
    ``Study.recommended`` names.

    Args:
        plan: network and recipe from which the trials differ; its recipe's seed is the study's.
        prepared: the prepared set; the test split is not touched.
        folder: where the study goes.
        space: what varies; ``SearchSpace.around(plan)`` when None.
        budget: how many trials, how long, in how many processes.
        weights: what every trial starts from, as ``Classifier`` takes them.

    Raises:
        MedicError: the space or the budget is none, the folder holds another study, another process is at work in it,
            or the first trials all failed.
    """
    space, budget, folder = space or SearchSpace.around(plan), budget or Budget(), Path(folder)
    space.check(plan)
    if budget.trials < 1 or budget.workers < 1:
        raise MedicError("a study needs at least one trial and one worker")
    if weights not in (None, "imagenet") and space.backbone is not None:
        raise MedicError(
            f"{weights} holds the weights of one network and cannot start the others; leave the backbone as it is, or "
            "start from None or 'imagenet'"
        )
    plan.recipe.resolved(plan.task)
    for split in ("train", "validation"):
        prepared.split(split)
    torch.manual_seed(plan.recipe.seed)
    start = plan.classifier(prepared, weights).digest
    with _alone(folder):
        _same_study(folder, _described(plan, space, digest_of(prepared.records, plan.task), start))
        ledger = _Ledger(folder, plan, space, weights, budget)
        ledger.recover()
        given = (ledger.following, prepared, ledger.tell, ledger.end)
        if budget.workers == 1:
            run_here(*given)
        else:
            run_in_processes(*given, budget.workers)
        study = Study(folder, plan, space, ledger.metric, ledger.trials(), prepared.synthetic)
        # By folder: a trial with the settings of an earlier one shares its run.
        places = set(study.recommended()["trial"]) if study.finished else set()
        kept = {trial.folder for trial in study.finished if trial.place in places}
        for trial in study.finished:
            if trial.folder not in kept:
                forget_weights(trial.folder)
    return study


class _Ledger:
    """The study's SQLite file: what is tried next, and what came of it. One process alone writes it."""

    def __init__(self, folder: Path, plan: Plan, space: SearchSpace, weights: str | Path | None, budget: Budget):
        self.folder, self.plan, self.space, self.weights, self.budget = folder, plan, space, weights, budget
        chosen_by = plan.recipe.resolved(plan.task).choose_by
        self.last = chosen_by == "last"
        self.metric = list(metrics_for(plan.task))[-1] if self.last else chosen_by
        self.since = time.monotonic()
        self.failures = 0
        self.running: dict[int, tuple[optuna.Trial, Settings, list[Row]]] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _check_file(folder / "study.db")
        self.study = optuna.create_study(
            study_name="study",
            storage=f"sqlite:///{(folder / 'study.db').resolve().as_posix()}",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP - 1, n_warmup_steps=_warm_up(plan.recipe)),
            direction="maximize",
            load_if_exists=True,
        )
        if not self.study.trials and (own := space.own(plan)) is not None:
            self.study.enqueue_trial(own)

    def recover(self) -> None:
        """Line the trials up again that were running when an earlier process ended.

        In the file they have failed, without a reason.
        """
        for trial in self.study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            # One that had not got all its settings is drawn again, from the same seed.
            whole = set(self.space.varied) <= trial.params.keys()
            settings = trial.params if whole else trial.system_attrs.get("fixed_params")
            if settings is not None:
                place = {"place": trial.user_attrs["place"]} if "place" in trial.user_attrs else {}
                self.study.enqueue_trial(settings, user_attrs=place)

    def following(self) -> Job | None:
        """The next trial; None when there are enough, or the time is over."""
        known = [trial for trial in self.trials() if trial.state in ("finished", "pruned")]
        if self.failures >= min(3, self.budget.trials) and not known:
            raise MedicError(
                f"the first {self.failures} trials failed, the last one with: {self.trials()[-1].reason}; see "
                f"training.log in {self.folder / 'trials'}, and change plan or space"
            )
        late = self.budget.seconds is not None and time.monotonic() - self.since >= self.budget.seconds
        if late or self.failures >= self.budget.trials or len(known) + len(self.running) >= self.budget.trials:
            return None
        places = [trial.place for trial in self.trials()] + list(self.running)
        waiting = self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING])
        place = (waiting[0].user_attrs.get("place") if waiting else None) or 1 + max(places, default=0)
        self.study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP,
            seed=int(np.random.SeedSequence([self.plan.recipe.seed, place]).generate_state(1)[0]),
        )
        asked = self.study.ask()
        settings = self.space.draw(asked)
        # The same settings again, which a space of choices alone proposes now and then, are not trained again.
        same = (trial.folder for trial in known if trial.state == "finished" and trial.settings == settings)
        folder = next(same, self.folder / "trials" / f"{place:03d}")
        for name, value in {"place": place, "settings": settings, "folder": folder.name}.items():
            asked.set_user_attr(name, value)
        self.running[place] = (asked, settings, [])
        return Job(place, with_settings(self.plan, settings), folder, self.weights)

    def tell(self, place: int, row: Row) -> bool:
        """Note an epoch; whether its trial is not worth another one."""
        asked, _, rows = self.running[place]
        rows.append(row)
        asked.report(row[f"validation_{self.metric}"], len(rows))
        return len(rows) < self.plan.recipe.epochs and asked.should_prune()

    def end(self, place: int, ended: TrialResult) -> None:
        """Note and print what came of a trial."""
        asked, settings, rows = self.running.pop(place)
        values = [row[f"validation_{self.metric}"] for row in rows]
        value = None
        if ended.state == "finished":
            value = values[-1] if self.last else max(values, key=lambda one: -np.inf if np.isnan(one) else one)
            if np.isnan(value):
                ended = TrialResult(
                    "failed", f"{self.metric} cannot be told on the validation split; give it more patients"
                )
        about = {"values": values, "reason": ended.reason, "seconds": sum(row["seconds"] for row in rows)}
        if rows:
            about["seconds_an_epoch"] = float(np.median([row["seconds"] for row in rows]))
            about["images_per_second"] = float(np.median([row["images_per_second"] for row in rows]))
        for name, content in about.items():
            asked.set_user_attr(name, content)
        state = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[ended.state]
        self.study.tell(asked, values=value, state=optuna.trial.TrialState[state])
        self.failures += ended.state == "failed"
        shown = f"{self.metric} {value:.3f}" if value is not None else ended.reason or f"{len(rows)} epochs"
        said = ", ".join(f"{name} {setting}" for name, setting in settings.items())
        print(f"trial {place:>3}  {ended.state:<8}  {shown}, {about['seconds']:.1f} s  {said}", flush=True)

    def trials(self) -> tuple[Trial, ...]:
        """What came of the trials so far, in the order of their places; without those that run or were interrupted."""
        states = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        found = []
        for trial in self.study.get_trials(deepcopy=False):
            about = trial.user_attrs
            if trial.state.name not in states or (trial.state.name == "FAIL" and about.get("reason") is None):
                continue
            state, values = states[trial.state.name], tuple(about["values"])
            best = (values[-1] if self.last else max(values)) if values and state == "pruned" else trial.value
            found.append(
                Trial(
                    place=about["place"],
                    settings=about["settings"],
                    state=state,
                    value=best if state != "failed" else None,
                    by_epoch=values,
                    seconds=about["seconds"],
                    seconds_an_epoch=about.get("seconds_an_epoch"),
                    images_per_second=about.get("images_per_second"),
                    folder=self.folder / "trials" / about["folder"],
                    reason=about["reason"],
                )
            )
        return tuple(sorted(found, key=lambda trial: trial.place))


def _check_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        try:
            found = database.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = error
    if found != "ok":
        raise MedicError(f"{path} is damaged ({found}); delete the folder and tune again")


def _warm_up(recipe: Recipe) -> int:
    return -(-recipe.epochs // 3)


def _described(plan: Plan, space: SearchSpace, data: str, start: str) -> dict:
    """What decides the result, as plain values."""
    model = {
        name: getattr(plan, name) for name in ("backbone", "image_size", "contrast", "flips", "weighted", "dropout")
    }
    model |= {"task": plan.task.to_dict(), "objective": plan.objective.to_dict()}
    model |= {f"space {name}": ends for name, ends in space.to_dict().items()}
    settings = {"model": model, "recipe": plan.recipe.to_dict(), "start": start, "watch": [], "data": data}
    return json_values(settings)


def _same_study(folder: Path, settings: dict) -> None:
    """Write what the study is, or refuse to mix it with another one that lies there."""
    path = folder / "study.json"
    if not path.is_file():
        write_json(path, settings)
        return
    try:
        there = json.loads(path.read_text())
    except ValueError as error:
        raise MedicError(f"{path} is damaged ({error}); delete the folder and tune again") from error
    if there != settings:
        raise MedicError(
            f"{folder} holds a study with other settings ({difference(there, settings)}); choose another folder, or "
            "delete that one"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder; however this one ends, the lock ends with it.

    The lock is SQLite's own, on an empty file: it is the one that works on every system.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / "study.lock", timeout=0, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise MedicError(f"cannot write {folder} ({error}); choose a folder that can be written") from error
    with contextlib.closing(connection):
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise MedicError(
                f"another process is tuning in {folder}; wait for it, or choose another folder (several processes "
                "share one study with Budget(workers=...) or --workers)"
            ) from error
        yield
