"""Evaluation: the same bytes that a service would get, the figures with their uncertainty, and the mistakes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.records import originals, targets
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.metrics import (
    auroc,
    average_precision,
    confusion_matrix,
    f1,
    interval,
    metrics_for,
    precision,
    precision_on_grid,
    resampled,
    roc_on_grid,
    score,
    sensitivity,
    shares_of_hits,
    specificity,
)
from medic.modeling.training.run import Run
from medic.plots import evaluation as evaluation_plots
from medic.predict import MeanOverFlips, predict
from medic.task import Prediction, Task


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What one model does on one split.

    Attributes:
        title: what was evaluated, for figures and files.
        prediction: of the images in ``records``, in their order.
        records: rows with ``image``, ``patient``, and what the task asks for.
        majority: what the baseline always says: the most frequent label of the training split, for multilabel tasks
            int (C,) whether more than half of it has each label.
        failed: images that could not be read, with the reason; they are in no figure.
        synthetic: whether the images are generated; said wherever the figures show.
        seed: of the bootstrap.
    """

    title: str
    prediction: Prediction
    records: pd.DataFrame
    majority: int | np.ndarray
    failed: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["image", "reason", "detail"]))
    synthetic: bool = False
    seed: int = 0

    @property
    def task(self) -> Task:
        """What was predicted."""
        return self.prediction.task

    @cached_property
    def truth(self) -> np.ndarray:
        """int64 (N,) class codes, for multilabel tasks (N, C) of 0 and 1."""
        return targets(self.records, self.task)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64 (C, C), rows are the truth; for multilabel tasks one for each label, (C, 2, 2)."""
        if self.task.kind == "multilabel":
            return confusion_matrix(self.truth, self.prediction.decided, 2)
        return confusion_matrix(self.truth, self.prediction.decided, len(self.task.classes))

    @property
    def baseline(self) -> str:
        """What the baseline says of every image, in words."""
        if self.task.kind != "multilabel":
            return f"always {self.task.classes[self.majority]}"
        named = [name for name, present in zip(self.task.classes, self.majority, strict=True) if present]
        return f"always {' and '.join(named) or 'nothing'}"

    @cached_property
    def _constant(self) -> Prediction:
        """The baseline as a prediction."""
        classes = len(self.task.classes)
        row = self.majority if self.task.kind == "multilabel" else np.eye(classes)[self.majority]
        grade = np.full(len(self.truth), self.majority, np.float32) if self.task.kind == "ordinal" else None
        return Prediction(self.task, np.tile(row, (len(self.truth), 1)).astype(np.float32), grade)

    def table(self) -> pd.DataFrame:
        """The figures, with 95 % bootstrap intervals over patients, beside those of the baseline.

        Returns:
            One row a figure: ``value``, ``low``, ``high``, ``baseline``.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        rows = {}
        for name, metric in metrics_for(self.task).items():
            draws = resampled(metric, self.truth, self.prediction, self.records["patient"], seed=self.seed)
            value, constant = (score(metric, self.truth, said) for said in (self.prediction, self._constant))
            rows[name] = (value, *interval(draws), constant)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "baseline"])

    def by_class(self) -> pd.DataFrame:
        """Precision, sensitivity (recall), F1 and the number of images, one row a class.

        Precision and sensitivity come with their 95 % intervals over patients (``precision_low``, ...) where an image
        has one class. For multilabel tasks also ``specificity``, ``threshold``, and the areas that need none: ``auroc``
        with its 95 % interval over patients (``low``, ``high``) and ``average_precision``, missing where no image or
        every image has the label, and the number of ``patients`` with it.
        """
        index = pd.Index(self.task.classes, name="class")
        if self.task.kind == "multilabel":
            return pd.DataFrame([self._of_label(code) for code in range(len(index))], index=index)
        hits, true, called = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        columns = {}
        with np.errstate(invalid="ignore"):
            for name, whole, along in (("precision", called, -2), ("sensitivity", true, -1)):
                columns[name] = hits / whole
                ends = [interval(draws) for draws in self._shares(along).T]
                columns[f"{name}_low"], columns[f"{name}_high"] = zip(*ends, strict=True)
            columns["f1"] = 2 * hits / (true + called)
        return pd.DataFrame(columns, index=index).assign(images=true)

    def _shares(self, along: int) -> np.ndarray:
        """Of each class the share of hits, along an axis of the confusion matrix, over bootstrap samples: (D, C)."""
        metric = shares_of_hits(along)
        return resampled(metric, self.truth, self.prediction, self.records["patient"], seed=self.seed)

    def _of_label(self, code: int) -> dict[str, float]:
        truth, scores, confusion = self.truth[:, code], self.prediction.probabilities[:, code], self.confusion[code]
        low, high = interval(resampled(auroc, truth, scores, self.records["patient"], seed=self.seed))
        thresholds = self.prediction.thresholds
        return {
            "auroc": float(auroc(truth, scores)[0]),
            "low": low,
            "high": high,
            "average_precision": float(average_precision(truth, scores)[0]),
            "threshold": 0.5 if thresholds is None else thresholds[code],
            **{f.__name__: float(f(confusion)) for f in (sensitivity, specificity, precision, f1)},
            "images": int(truth.sum()),
            "patients": self.records.loc[truth == 1, "patient"].nunique(),
        }

    def worst(self, count: int = 8) -> pd.DataFrame:
        """The most wrong images: furthest from the truth, then least probability for the truth.

        Returns:
            Up to ``count`` wrongly decided rows with ``decided`` (a code; the labels' names for multilabel tasks),
            ``error`` (grades for ordinal tasks, wrong labels for multilabel ones, else 1) and ``p_truth`` (for
            multilabel tasks the least probability that the truth about any label gets).
        """
        probabilities, decided = self.prediction.probabilities, self.prediction.decided
        if self.task.kind == "multilabel":
            distance = (decided != self.truth).sum(axis=1)
            p_truth = np.where(self.truth == 1, probabilities, 1 - probabilities).min(axis=1)
            names = np.array(self.task.classes)
            decided = ["|".join(names[row == 1]) for row in decided]
        else:
            distance = np.abs(decided - self.truth) if self.task.kind == "ordinal" else (decided != self.truth) * 1
            p_truth = probabilities[np.arange(len(self.truth)), self.truth]
        table = self.records.assign(decided=decided, error=distance, p_truth=p_truth)
        wrong = table[table["error"] > 0]
        return wrong.sort_values(["error", "p_truth"], ascending=[False, True], kind="stable").head(count)

    def plot_confusion(self):
        """The confusion matrix, normalised by row, with counts; a matplotlib Figure.

        Raises:
            MedicError: the task is multilabel, where each label has a matrix of its own.
        """
        if self.task.kind == "multilabel":
            raise MedicError(f"{self.task.name!r} asks several questions an image; use plot_curves() or by_class()")
        return evaluation_plots.confusion_matrix(self.confusion, self.task, self._said())

    def plot_curves(self, classes: Sequence[str] | None = None):
        """ROC and precision-recall curves with the operating point, of each label or of the second of two classes.

        A single curve has its 95 % interval around it, over patients and point by point.

        Args:
            classes: which labels; all that some images have and some have not, when None.

        Raises:
            MedicError: the task does not ask whether something is present, has no such label, or none (of those named)
                that some images have and some have not.
        """
        if not self.task.thresholds:
            raise MedicError(f"{self.task.name!r} chooses among several classes; use plot_confusion()")
        several = self.task.kind == "multilabel"
        truth, scores = (
            (self.truth, self.prediction.probabilities)
            if several
            else (self.truth[:, None], self.prediction.probabilities[:, 1:])
        )
        names = self.task.classes if several else self.task.classes[1:]
        known = [name for code, name in enumerate(names) if 0 < truth[:, code].mean() < 1]
        chosen = known if classes is None else list(classes)
        if not chosen or set(chosen) - set(known):
            odd = ", ".join(name for name in chosen if name not in known) or "any label"
            raise MedicError(
                f"there is no curve for {odd}: it takes images with it and images without; of these images that holds "
                f"for {', '.join(known) or 'none'}"
            )
        thresholds = self.prediction.thresholds or (0.5,) * len(names)
        curves = {
            name: evaluation_plots.Ranked(truth[:, code], scores[:, code], thresholds[code])
            for code, name in enumerate(names)
            if name in chosen
        }
        if len(curves) == 1:
            curves = {name: one._replace(bands=self._bands(one)) for name, one in curves.items()}
        return evaluation_plots.curves(curves, self._said())

    def _bands(self, one: evaluation_plots.Ranked) -> np.ndarray:
        ends = []
        for curve in (roc_on_grid, precision_on_grid):
            draws = resampled(curve, one.truth, one.scores, self.records["patient"], seed=self.seed)
            ends.append(np.nanpercentile(draws, [2.5, 97.5], axis=0))
        return np.stack(ends)

    def _said(self) -> str:
        return f"{self.title} (synthetic images)" if self.synthetic else self.title

    def to_dict(self) -> dict:
        """Plain values, for JSON: figures, counts, confusion matrix."""
        return {
            "title": self.title,
            "synthetic": self.synthetic,
            "images": len(self.records),
            "patients": int(self.records["patient"].nunique()),
            "unreadable_images": len(self.failed),
            "baseline": self.baseline,
            "interval": "95 % percentile bootstrap over patients, 2,000 draws",
            "figures": {name: _to_json(row) for name, row in self.table().to_dict("index").items()},
            "classes": list(self.task.classes),
            **({"by_class": self._by_class_plain()} if self.task.kind == "multilabel" else {}),
            **({} if self.prediction.thresholds is None else {"thresholds": list(self.prediction.thresholds)}),
            "confusion_matrix": self.confusion.tolist(),
        }

    def _by_class_plain(self) -> list[dict]:
        return [_to_json(row) for row in self.by_class().reset_index().to_dict("records")]

    def save(self, folder: str | os.PathLike) -> Path:
        """Write ``evaluation.json`` and ``predictions.csv`` (truth and prediction of every image)."""
        folder, figures = Path(folder), self.to_dict()
        predictions = self.prediction.to_frame(list(self.records["image"]))
        truths = {"truth": self.records["label"]}
        if self.task.kind == "multilabel":
            truths = {f"truth_{name}": self.records[name] for name in self.task.classes}
        with replacing(folder / "predictions.csv") as temporary:
            predictions.assign(**{name: values.to_numpy() for name, values in truths.items()}).to_csv(
                temporary, index=False
            )
        write_json(folder / "evaluation.json", figures)
        return folder

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        table = self.table()
        lines = [f"{self._said()}: {len(self.records)} images of {self.records['patient'].nunique()} patients"]
        lines += [
            f"  {name.replace('_', ' '):<26}{row['value']:.3f}  (95 % interval {row['low']:.3f} to {row['high']:.3f}; "
            f"{self.baseline}: {row['baseline']:.3f})"
            for name, row in table.iterrows()
        ]
        return "\n".join(lines + ([f"  {len(self.failed)} images could not be read"] if len(self.failed) else []))

    def _repr_html_(self) -> str:
        return (
            f"<b>{self._said()}</b>: {len(self.records)} images of {self.records['patient'].nunique()} patients, "
            f"{len(self.failed)} unreadable; baseline: {self.baseline}" + self.table().round(3).to_html()
        )


def evaluate(run: Run, split: str = "test", which: str = "best", tta: tuple[str, ...] = ()) -> Evaluation:
    """Evaluate a run's model on one split, from the original image files.

    Args:
        run: a finished run.
        split: ``test`` unless something is still to be chosen; then ``validation``.
        which: ``best``, ``last`` or one of ``run.snapshots``.
        tta: flips, ``horizontal`` or ``vertical``, over which probabilities and grades are averaged.

    Returns:
        The evaluation; ``save`` keeps it.

    Raises:
        MedicError: the prepared set or the originals are gone, or a patient of the split was trained on.
    """
    # Varied copies that were trained on have no original file: the training split is judged by its photographs.
    rows = originals(run.records[run.records["split"] == split]).reset_index(drop=True)
    if rows.empty:
        raise MedicError(f"the run {run.folder} has no images in the split {split!r}")
    trained_on = run.records[run.records["split"] == "train"]
    shared = set(rows["patient"]) & set(trained_on["patient"]) if split != "train" else set()
    if shared:
        raise MedicError(
            f"{len(shared)} patients of the split {split!r} were trained on (for instance {min(shared)}); "
            "split by patient, prepare and train again"
        )
    prepared = run.prepared
    model = MeanOverFlips(run.model(which), tuple(tta)) if tta else run.model(which)
    predicted = predict(model, prepared.store, list(rows["image"]))
    skipped = prepared.skipped[prepared.skipped["split"] == split][["image", "reason", "detail"]]
    return Evaluation(
        title=f"{run.folder.name}, {split} split{_flattered(run, split)}{', mean over flips' if tta else ''}",
        prediction=predicted.prediction,
        records=rows[rows["image"].isin(predicted.names)].reset_index(drop=True),
        majority=_majority(trained_on, run.task),
        failed=pd.concat([skipped.astype(str), predicted.failed], ignore_index=True),
        synthetic=prepared.synthetic,
        seed=run.about["settings"]["recipe"]["seed"],
    )


def _to_json(row: dict) -> dict:
    """Rounded for JSON, which has no NaN: what cannot be told is null there."""
    return {
        key: (round(value, 4) if value == value else None) if isinstance(value, float) else value
        for key, value in row.items()
    }


def _majority(trained_on: pd.DataFrame, task: Task) -> int | np.ndarray:
    if task.kind == "multilabel":
        return (targets(trained_on, task).mean(axis=0) > 0.5).astype(np.int64)
    return int(trained_on["label"].mode()[0])


def _flattered(run: Run, split: str) -> str:
    """What has to be said of figures on the images that the cut points or the operating point have seen."""
    recipe = run.about["settings"]["recipe"]
    fitted = {"cut_points": "the cut points were fitted on it", "sensitivity": "the operating point was chosen on it"}
    said = [sentence for name, sentence in fitted.items() if recipe.get(name) is not None]
    return f" ({', '.join(said)})" if said and split == "validation" else ""
