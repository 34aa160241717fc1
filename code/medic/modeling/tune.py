"""Tuning: a study of short trainings that looks for better settings than a plan's own; stopped, it goes on."""

import os
import shutil
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import torch
from filelock import FileLock
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.backbones import own_dropout
from medic.modeling.training.plans import Plan
from medic.modeling.training.run import refuse_other_settings, settings_of

HEARTBEAT = 5
"""Seconds between two signs of life of a trial; after four without one it counts as killed and is taken up again."""

STARTUP = 5
"""Trials drawn at random before the sampler learns from them and one can be pruned."""

RANGES = {"learning_rate": {"log": True}, "dropout": {"step": 0.05}}
"""What varies between two ends, and how Optuna draws it; all else is one of several choices."""

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class SearchSpace:
    """What may vary, and how far. What is None stays as the plan has it.

    Attributes:
        learning_rate: lowest and highest, drawn on a logarithmic scale.
        dropout: least and most, in steps of 0.05.
        batch_size: which ones.
        image_size: sides of the network's input in pixels, which ones.
        backbone: networks by name, which ones.
    """

    learning_rate: tuple[float, float] | None = None
    dropout: tuple[float, float] | None = None
    batch_size: tuple[int, ...] | None = None
    image_size: tuple[int, ...] | None = None
    backbone: tuple[str, ...] | None = None

    @classmethod
    def around(cls, plan: Plan) -> "SearchSpace":
        """Return a usual space with the plan in it; network and image size, which decide the time, do not vary."""
        rate, size = plan.recipe.learning_rate, plan.recipe.batch_size
        return cls(
            learning_rate=(rate / 10, rate * 10),
            dropout=(0.0, 0.5),
            batch_size=tuple(sorted({max(2, size // 2), size, 2 * size})),
        )

    @property
    def varied(self) -> dict[str, tuple]:
        """What varies, by name."""
        return {name: given for name, given in asdict(self).items() if given is not None}

    def suggest(self, trial: optuna.Trial, plan: Plan) -> Plan:
        """Return the plan with the settings that the study's sampler proposes for a trial."""
        network = {
            name: trial.suggest_float(name, *given, **RANGES[name])
            if name in RANGES
            else trial.suggest_categorical(name, given)
            for name, given in self.varied.items()
        }
        recipe = {name: network.pop(name) for name in ("learning_rate", "batch_size") if name in network}
        return replace(plan, recipe=replace(plan.recipe, **recipe), **network)

    def own(self, plan: Plan) -> dict[str, float | int | str]:
        """Return the plan's own settings, without those that lie outside of the space."""
        dropout = own_dropout(plan.backbone) if plan.dropout is None else plan.dropout
        own = vars(plan.recipe) | vars(plan) | {"dropout": dropout}
        return {
            name: own[name]
            for name, given in self.varied.items()
            if (given[0] <= own[name] <= given[1] if name in RANGES else own[name] in given)
        }


def tune(
    plan: Plan, prepared: Prepared, folder: str | os.PathLike, space: SearchSpace | None = None, trials: int = 20
) -> optuna.Study:
    """Look for better settings than a plan's own, on the validation split alone; the test split is not touched.

    The first trial is the plan as it is, as far as the space holds it. The next are drawn at random, and from the sixth
    on by Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 24, 2011). From a third of the epochs on, a
    trial whose best score lies below the median of the earlier ones after as many epochs is pruned.

    All of it is in ``study.db`` (SQLite) in the folder. Stopped in any way and called again with the same arguments, a
    study goes on, its interrupted trial from that one's last epoch. Several processes that call this with the same
    folder work on one study together; a few more trials than asked for may then end. Only the best trial's run is kept.

    Args:
        plan: network, start and recipe from which the trials differ; the recipe's seed is also the sampler's.
        prepared: the prepared set; needs the splits ``train`` and ``validation``.
        folder: where the study goes, on a disk of this machine.
        space: what varies; ``SearchSpace.around(plan)`` when None.
        trials: how many are wanted in all, finished and pruned ones.

    Returns:
        Optuna's study, for ``trials_dataframe()``, ``optuna.importance`` and ``optuna.visualization.matplotlib``. Each
        trial's user attribute ``run`` names its run in the folder.

    Raises:
        MedicError: the space does not suit the plan, the folder holds another study, or no trial has finished.
    """
    space, folder, recipe = space or SearchSpace.around(plan), Path(folder), plan.recipe.resolved(plan.task)
    score = recipe.judged_by(plan.task)
    if not space.varied:
        raise MedicError("there is nothing to tune; let the learning rate vary, for one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
        study = _open(folder, plan, prepared, space, retry)
        study.set_metric_names([score])

    def train(trial: optuna.Trial) -> float:
        def each_epoch(row: dict[str, float]) -> None:
            trial.report(row[f"validation_{score}"], int(row["epoch"]))
            if row["epoch"] < plan.recipe.epochs and trial.should_prune():
                raise optuna.TrialPruned

        # Seeded by trial: processes that share a study draw different settings, and a resumed one repeats none.
        seed = np.random.SeedSequence([plan.recipe.seed, trial.number]).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=int(seed))
        run = trial.user_attrs.get("run", f"trial-{trial.number:03d}")  # a trial taken up again inherits its run
        trial.set_user_attr("run", run)
        try:
            trained = space.suggest(trial, plan).train(prepared, folder / run, each_epoch=each_epoch)
        except KeyboardInterrupt:
            retry(study, study.trials[trial.number])  # to Optuna an interrupt is a failure
            raise
        scores = trained.history[f"validation_{score}"]
        return float(scores.iloc[-1] if recipe.choose_by == "last" else scores.max())

    def forget_runs(*_: object) -> None:
        """Delete the runs that are not the best: their scores are in the study, and their weights fill the disk."""
        ended = study.get_trials(deepcopy=False, states=ENDED)
        best = study.best_trial.number if any(trial.state == TrialState.COMPLETE for trial in ended) else None
        for trial in ended:
            if trial.number != best:
                shutil.rmtree(folder / trial.user_attrs["run"], ignore_errors=True)

    missing = trials - len(study.get_trials(deepcopy=False, states=ENDED))
    if missing > 0:
        if study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            print(f"a trial was killed, or runs elsewhere: waiting {4 * HEARTBEAT} s to see which", flush=True)
            time.sleep(4 * HEARTBEAT + 1)
        until = [optuna.study.MaxTrialsCallback(trials, states=ENDED), forget_runs]
        # A RuntimeError is one trial's alone, such as too little memory for its batch size.
        study.optimize(train, missing, catch=(RuntimeError,), callbacks=until)
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise MedicError(f"no trial of the study in {folder} has finished; see why above, and change plan or space")
    return study


def _open(
    folder: Path, plan: Plan, prepared: Prepared, space: SearchSpace, retry: RetryHeartbeatStaleTrialCallback
) -> optuna.Study:
    """Open the study in a folder, or begin one; another one is refused."""
    torch.manual_seed(plan.recipe.seed)
    model = plan.classifier(prepared)
    varied = {f"space {name}": given for name, given in asdict(space).items()}
    settings = settings_of(model, prepared, plan.recipe.to_dict() | varied, model.digest)
    given = {"study_name": plan.task.name}
    given["pruner"] = optuna.pruners.MedianPruner(STARTUP - 1, n_warmup_steps=-(-plan.recipe.epochs // 3))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(
            folder / "study.lock"
        ):  # of two processes that make the file at once, one would find it half made
            address = f"sqlite:///{folder.resolve().as_posix()}/study.db"
            timing = {"heartbeat_interval": HEARTBEAT, "grace_period": 4 * HEARTBEAT}
            given["storage"] = RDBStorage(address, **timing, heartbeat_stale_trial_callback=retry)
            study = optuna.create_study(**given, direction="maximize", load_if_exists=True)
            if "settings" not in study.user_attrs:
                study.set_user_attr("settings", settings)
                study.enqueue_trial(space.own(plan))
    except (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise MedicError(
            f"{folder / 'study.db'} cannot be used ({str(error).splitlines()[0]}); choose a folder that can be "
            "written, or delete the file if it is damaged"
        ) from error
    refuse_other_settings(folder, study.user_attrs["settings"], settings)
    return study
