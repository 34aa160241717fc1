"""What a study found: every trial, what mattered, and which settings to take for which time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medic import plots
from medic.errors import MedicError
from medic.modeling.training.plans import Plan
from medic.modeling.tune.space import OPTIONS, SearchSpace, Settings, with_settings
from medic.plots import training as training_plots

COSTLY = ("backbone", "image_size", "batch_size")
"""The settings that decide how long an epoch takes; the others cost nothing that could be measured."""

FEWEST = 6
"""Trials below which nothing is said about importance."""


@dataclass(frozen=True)
class Trial:
    """One trial of a study.

    Attributes:
        place: which one, from 1.
        settings: what it was given.
        state: ``finished``, ``pruned`` (cut short) or ``failed``.
        value: its figure on the validation split: of the epoch that the recipe keeps; of a pruned one up to its end.
        by_epoch: the same after each epoch.
        seconds: of all its epochs.
        seconds_an_epoch: the median.
        images_per_second: in training, the median over the epochs.
        folder: its run.
        reason: why it failed.
    """

    place: int
    settings: Settings
    state: str
    value: float | None
    by_epoch: tuple[float, ...]
    seconds: float
    seconds_an_epoch: float | None
    images_per_second: float | None
    folder: Path
    reason: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """What came of a study.

    Attributes:
        folder: where it lies.
        plan: from which the trials differ.
        space: what varied.
        metric: the figure on the validation split by which it chose; higher is better.
        trials: by place.
        synthetic: whether the images are generated.
    """

    folder: Path
    plan: Plan
    space: SearchSpace
    metric: str
    trials: tuple[Trial, ...]
    synthetic: bool = False

    @property
    def finished(self) -> list[Trial]:
        """The trials that went to their last epoch."""
        return [trial for trial in self.trials if trial.state == "finished"]

    @property
    def best(self) -> Trial:
        """The finished trial with the highest figure; of equals the one that takes less time, then the earlier.

        Raises:
            MedicError: none has finished.
        """
        return max(self._finished(), key=lambda trial: (trial.value, -self._cost(trial), -trial.place))

    def table(self) -> pd.DataFrame:
        """One row a trial: its settings, figure, seconds and state, and the reason where one failed."""
        rows = [
            {"trial": trial.place}
            | trial.settings
            | {
                self.metric: np.nan if trial.value is None else trial.value,
                "epochs": len(trial.by_epoch),
                "seconds": trial.seconds,
                "state": trial.state,
            }
            | ({"reason": trial.reason or ""} if any(other.reason for other in self.trials) else {})
            for trial in self.trials
        ]
        return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()

    def importance(self) -> pd.DataFrame:
        """How much of the spread of the figure each setting explains, by fANOVA, and how much one trial can change it.

        A forest of regression trees (scikit-learn's) is fitted to settings and figures, and its variance is taken apart
        (Hutter, Hoos & Leyton-Brown, ICML 2014, PMLR 32, section 3). PED-ANOVA, Optuna's other way, needs no forest but
        several trials among the best tenth, which a few dozen do not have. Pruned trials count with the figure up to
        their end: left away, a learning rate that ruins every training would look harmless.

        Returns:
            One row a setting, the most important first: ``importance``, of which all together make 1, and ``low`` and
            ``high`` over leaving out one trial after the other.

        Raises:
            MedicError: fewer than six trials, or all with the same figure.
        """
        return self._importance.copy()

    @cached_property
    def _importance(self) -> pd.DataFrame:
        counted = [trial for trial in self.trials if trial.value is not None and np.isfinite(trial.value)]
        if len(counted) < FEWEST or len({trial.value for trial in counted}) < 2:
            raise MedicError(
                f"importance is told from at least {FEWEST} trials with different figures; there are {len(counted)} "
                "trials: give the study more"
            )
        whole = self._fanova(counted)
        without = [self._fanova(counted[:skip] + counted[skip + 1 :]) for skip in range(len(counted))]
        table = pd.DataFrame(
            {
                "importance": whole,
                "low": pd.DataFrame(without).min(),
                "high": pd.DataFrame(without).max(),
            }
        ).rename_axis("setting")
        return table.sort_values("importance", ascending=False, kind="stable")

    def _fanova(self, trials: list[Trial]) -> pd.Series:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        shapes: dict[str, optuna.distributions.BaseDistribution] = {}
        for name in self.space.varied:
            ends, given = getattr(self.space, name), [trial.settings[name] for trial in trials]
            if name in ("learning_rate", "dropout", "augmentation"):
                low, high = min(ends[0], *given), max(ends[1], *given)
                shapes[name] = optuna.distributions.FloatDistribution(low, high, log=name == "learning_rate")
            else:
                shapes[name] = optuna.distributions.CategoricalDistribution(ends)
        study = optuna.create_study(direction="maximize")
        for trial in trials:
            study.add_trial(
                optuna.trial.create_trial(params=dict(trial.settings), distributions=shapes, value=trial.value)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return pd.Series(found).reindex(self.space.varied).fillna(0.0)

    def recommended(self) -> pd.DataFrame:
        """The settings to take for the time there is: of finished trials, those than which none is better and quicker.

        Settings such as the learning rate cost no time, so trials with the same network, image size and batch size get
        one time: the median over all of them. The quickest stands first, the best last.

        Returns:
            ``trial``, its settings, the figure, ``seconds_an_epoch`` and ``images_per_second``.

        Raises:
            MedicError: none has finished.
        """
        rows: list[dict] = []
        for trial in sorted(self._finished(), key=lambda one: (self._cost(one), -one.value, one.place)):
            if not rows or trial.value > rows[-1][self.metric]:
                rows.append(
                    {"trial": trial.place}
                    | trial.settings
                    | {
                        self.metric: trial.value,
                        "seconds_an_epoch": self._cost(trial),
                        "images_per_second": self._cost(trial, "images_per_second"),
                    }
                )
        return pd.DataFrame(rows)

    def _finished(self) -> list[Trial]:
        if not self.finished:
            raise MedicError(f"no trial of the study in {self.folder} has finished; give it more trials or more time")
        return self.finished

    def _cost(self, trial: Trial, what: str = "seconds_an_epoch") -> float:
        key = [trial.settings.get(name) for name in COSTLY]
        alike = [other for other in self.trials if [other.settings.get(name) for name in COSTLY] == key]
        return float(np.median([getattr(other, what) for other in alike if getattr(other, what) is not None]))

    def best_plan(self, trial: int | None = None) -> Plan:
        """The plan with the settings of a trial, by its place; of the best one when None."""
        return with_settings(self.plan, self._settings(trial))

    def options(self, trial: int | None = None) -> str:
        """The same as options of ``medic train``."""
        return " ".join(f"{OPTIONS[name]} {value}" for name, value in self._settings(trial).items())

    def _settings(self, place: int | None) -> Settings:
        if place is None:
            return self.best.settings
        found = {trial.place: trial.settings for trial in self.trials}
        if place not in found:
            raise MedicError(f"the study has the trials 1 to {max(found, default=0)}, and no trial {place}")
        return found[place]

    def plot_history(self) -> Figure:
        """Each trial's figure in its order, and the best so far."""
        return self._said(training_plots.history(self.table(), self.metric))

    def plot_importance(self) -> Figure:
        """How much each setting explains."""
        return self._said(training_plots.importance(self.importance(), self.metric))

    def plot_trade_off(self) -> Figure:
        """Each trial's figure over its seconds an epoch, and the recommended ones joined."""
        cost = {trial.place: self._cost(trial) for trial in self.trials if trial.seconds_an_epoch is not None}
        table = self.table().assign(seconds_an_epoch=pd.Series(cost))
        return self._said(training_plots.trade_off(table, self.recommended(), self.metric))

    def _said(self, figure: Figure) -> Figure:
        plots.headline(figure, self._summary())
        return figure

    def _summary(self) -> str:
        drawn = " (synthetic images)" if self.synthetic else ""
        states = [trial.state for trial in self.trials]
        counts = ", ".join(
            f"{states.count(state)} {state}" for state in ("finished", "pruned", "failed") if state in states
        )
        return f"{self.folder.name}{drawn}: {counts or 'no trial yet'}"

    def _shown(self) -> pd.DataFrame:
        table = self.table()
        return table.round({self.metric: 3, "seconds": 1}) if len(table) else table

    def __repr__(self) -> str:
        return f"<Study {self._summary()}>"

    def __str__(self) -> str:
        return f"{self._summary()}\n{self.table().to_string()}"

    def _repr_html_(self) -> str:
        return f"<b>Study</b> {self._summary()}{self._shown().to_html(max_rows=30)}"
