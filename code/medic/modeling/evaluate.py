"""Evaluation: the same bytes that a service would get, metrics with their intervals, and the mistakes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medic.data.records import originals, targets
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.metrics import (
    auroc,
    average_precision,
    confusion_matrix,
    f1_of_classes,
    interval_of,
    metrics_for,
    recall_of_classes,
    resampled,
    score,
    share_interval,
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
        failed: images that could not be read, with the reason; no metric counts them.
        synthetic: whether the images are generated; said wherever the metrics show.
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

    @property
    def _several(self) -> bool:
        return self.task.kind == "multilabel"

    @cached_property
    def truth(self) -> np.ndarray:
        """int64 (N,) class codes, for multilabel tasks (N, C) of 0 and 1."""
        return targets(self.records, self.task)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64 (C, C), rows are the truth; for multilabel tasks one for each label, (C, 2, 2)."""
        return confusion_matrix(self.truth, self.prediction.decided, 2 if self._several else len(self.task.classes))

    @property
    def baseline(self) -> str:
        """What the baseline says of every image, in words."""
        present = self.majority if self._several else np.eye(len(self.task.classes))[self.majority]
        return f"always {' and '.join(np.array(self.task.classes)[present == 1]) or 'nothing'}"

    @property
    def patients(self) -> int:
        """How many patients the images are of."""
        return len(np.unique(self._whose))

    @property
    def _whose(self) -> np.ndarray:
        return self.records["patient"].to_numpy().astype(str)

    @property
    def heading(self) -> str:
        """The title, which says so where the images are synthetic."""
        return f"{self.title} (synthetic images)" if self.synthetic else self.title

    def table(self) -> pd.DataFrame:
        """Return the metrics with 95 % bootstrap intervals over patients, beside those of the baseline.

        Returns:
            One row a metric: ``value``, ``low``, ``high``, ``baseline``; ``note``: why there is no interval.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        count = len(self.truth)
        answer = self.majority if self._several else np.eye(len(self.task.classes))[self.majority]
        grade = np.full(count, self.majority, np.float32) if self.task.kind == "ordinal" else None
        constant = Prediction(self.task, np.tile(answer, (count, 1)).astype(np.float32), grade)
        rows = {}
        for name, metric in metrics_for(self.task).items():
            value, baseline = (score(metric, self.truth, said) for said in (self.prediction, constant))
            draws = self._draws(metric, self.truth, self.prediction)
            low, high, note = interval_of(name, self.truth, self.prediction.decided, self._whose, draws)
            rows[name] = (value, low, high, baseline, note)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "baseline", "note"])

    def _draws(self, metric, truth: np.ndarray, said: Prediction | np.ndarray) -> np.ndarray:
        return resampled(metric, truth, said, self._whose, seed=self.seed)

    def by_class(self) -> pd.DataFrame:
        """Return precision, sensitivity (recall), specificity, F1 and images, one row a class; NaN for 0 of 0.

        Precision, sensitivity and specificity come with 95 % intervals over patients (``precision_low``, ...). A
        multilabel task also has ``threshold``, the ``patients`` with the label, and the areas that need no threshold:
        ``auroc`` with its interval (``low``, ``high``) and ``average_precision``. An interval is NaN for a share of
        fewer than ten patients, and for an area with fewer than ten of either kind.
        """
        names, true, said = self.task.classes, self.truth, self.prediction.decided
        if not self._several:
            true, said = (np.eye(len(names), dtype=int)[codes] for codes in (true, said))
        columns, values, draws = {}, _rates(true, said)[0], self._draws(_rates, true, said).swapaxes(0, 1)
        among = {"precision": said == 1, "sensitivity": true == 1, "specificity": true == 0}
        for (name, of), value, drawn in zip(among.items(), values, draws, strict=True):
            each = zip((true == said).T, of.T, drawn.T, strict=True)
            ends = [share_interval(right[rows], self._whose[rows], one) for right, rows, one in each]
            columns |= dict(zip((name, f"{name}_low", f"{name}_high"), (value, *np.transpose(ends)), strict=True))
        columns |= {"f1": f1_of_classes(confusion_matrix(true, said, 2))[:, 1], "images": true.sum(axis=0)}
        table = pd.DataFrame(columns, pd.Index(names, name="class"))
        if not self._several:
            return table
        table["threshold"] = self.prediction.thresholds or 0.5
        for name, present, scores in zip(names, true.T, self.prediction.probabilities.T, strict=True):
            table.loc[name, "patients"] = self.records.loc[present == 1, "patient"].nunique()
            table.loc[name, "auroc"] = auroc(present, scores)[0]
            table.loc[name, ["low", "high"]] = interval_of(
                "auroc", present, scores, self._whose, self._draws(auroc, present, scores)
            )[:2]
            table.loc[name, "average_precision"] = average_precision(present, scores)[0]
        return table.astype({"patients": int})

    def worst(self, count: int = 8) -> pd.DataFrame:
        """Return the most wrong images: furthest from the truth, then least probability for the truth.

        Returns:
            Up to ``count`` wrongly decided rows with ``decided`` (a code; the labels' names for multilabel tasks),
            ``error`` (grades for ordinal tasks, wrong labels for multilabel ones, else 1) and ``p_truth`` (for
            multilabel tasks the least probability that the truth about any label gets).
        """
        probabilities, decided = self.prediction.probabilities, self.prediction.decided
        if self._several:
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

    @property
    def questions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What is asked with yes or no, by name: int (N,), 1 where it is so, and float (N,), its probability.

        Each label, the second of two classes, each of several classes, or for each grade whether it is that or worse.
        """
        names, scores = np.array(self.task.classes), self.prediction.probabilities
        true = self.truth if self._several else np.eye(len(names), dtype=int)[self.truth]
        if self.task.kind == "ordinal":
            names = [f"{name} or worse" for name in names]
            true, scores = (of[:, ::-1].cumsum(axis=1)[:, ::-1] for of in (true, scores))
        first = int(self.task.kind == "ordinal" or self.task.thresholds == 1)
        return dict(zip(names[first:], zip(true.T[first:], scores.T[first:], strict=True), strict=True))

    def plot_confusion(self) -> Figure:
        """Draw the confusion matrix, with the shares of each row; not for multilabel tasks, which have one a label."""
        if self._several:
            raise MedicError(f"{self.task.name!r} asks several questions an image; use plot_curves() or by_class()")
        return evaluation_plots.confusion_matrix(self.confusion, self.task, self.heading)

    def plot_curves(self) -> Figure:
        """Draw ROC and precision-recall curves with the operating point, of each label or of the second of two classes.

        Raises:
            MedicError: the task chooses among several classes, or no label is both present and absent.
        """
        if not self.task.thresholds:
            raise MedicError(f"{self.task.name!r} chooses among several classes; use plot_confusion()")
        first = 0 if self._several else 1
        truth, scores = self.truth.reshape(len(self.truth), -1), self.prediction.probabilities[:, first:]
        points = self.prediction.thresholds or [0.5] * truth.shape[1]
        each = zip(self.task.classes[first:], truth.T, scores.T, points, strict=True)
        curves = {name: evaluation_plots.Ranked(*one) for name, *one in each if 0 < one[0].mean() < 1}
        if not curves:
            raise MedicError(f"{self.title}: a curve takes images with a label and images without; there are not both")
        return evaluation_plots.curves(curves, self.heading)

    def to_dict(self) -> dict:
        """Return plain values for JSON: metrics, counts, confusion matrix; null where a metric cannot be told."""
        said = {
            "title": self.title,
            "synthetic": self.synthetic,
            "images": len(self.records),
            "patients": self.patients,
            "unreadable_images": len(self.failed),
            "baseline": self.baseline,
            "interval": "95 % percentile bootstrap over patients, 2,000 draws; exact for shares near 0 and 1",
            "figures": json.loads(self._table.to_json(orient="index", double_precision=4)),
            "classes": list(self.task.classes),
        }
        if self._several:
            by_class = self.by_class().reset_index().to_json(orient="records", double_precision=4)
            said["by_class"] = json.loads(by_class)
        if self.prediction.thresholds is not None:
            said["thresholds"] = list(self.prediction.thresholds)
        return said | {"confusion_matrix": self.confusion.tolist()}

    def save(self, folder: str | os.PathLike) -> Path:
        """Write ``evaluation.json`` and ``predictions.csv`` (truth and prediction of every image)."""
        folder, predictions = Path(folder), self.prediction.to_frame(list(self.records["image"]))
        for column in self.task.classes if self._several else ["label"]:
            predictions[f"truth_{column}" if self._several else "truth"] = self.records[column].to_numpy()
        with replacing(folder / "predictions.csv") as temporary:
            predictions.to_csv(temporary, index=False)
        write_json(folder / "evaluation.json", self.to_dict())
        return folder

    def __repr__(self) -> str:
        lines = [f"{self.heading}: {len(self.records)} images of {self.patients} patients"]
        for name, value, low, high, baseline, note in self._table.itertuples():
            said = note or f"95 % interval {low:.3f} to {high:.3f}"
            lines.append(f"  {name.replace('_', ' '):<26}{value:.3f}  ({said}; {self.baseline}: {baseline:.3f})")
        return "\n".join(lines + ([f"  {len(self.failed)} images could not be read"] if len(self.failed) else []))


def evaluate(run: Run, split: str = "test", which: str = "best", tta: tuple[str, ...] = ()) -> Evaluation:
    """Evaluate a run's model on one split, from the original image files.

    Args:
        run: a finished run.
        split: ``test`` unless something is still to be chosen; then ``validation``.
        which: ``best`` or ``last``.
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
    prepared, recipe = run.prepared, run.about["settings"]["recipe"]
    model = MeanOverFlips(run.model(which), tuple(tta)) if tta else run.model(which)
    predicted = predict(model, prepared.store, list(rows["image"]))
    skipped = prepared.skipped[prepared.skipped["split"] == split][["image", "reason", "detail"]]
    title = f"{run.folder.name}, {split} split{', mean over flips' if tta else ''}"
    if split == "validation" and (recipe.get("cut_points") or recipe.get("sensitivity")) is not None:
        title += " (the thresholds were chosen on it)"
    several, usual = run.task.kind == "multilabel", int(trained_on["label"].mode()[0])
    return Evaluation(
        title=title,
        prediction=predicted.prediction,
        records=rows[rows["image"].isin(predicted.names)].reset_index(drop=True),
        majority=(targets(trained_on, run.task).mean(axis=0) > 0.5).astype(int) if several else usual,
        failed=pd.concat([skipped.astype(str), predicted.failed], ignore_index=True),
        synthetic=prepared.synthetic,
        seed=recipe["seed"],
    )


def _rates(true: np.ndarray, said: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Precision, sensitivity and specificity of each class, 0 or 1 (N, C), in D samples of counts (D, N): (D, 3, C)."""
    tables = confusion_matrix(true, said, 2, np.ones((1, len(true))) if counts is None else counts)
    precision, recall = recall_of_classes(tables.swapaxes(-1, -2)), recall_of_classes(tables)
    return np.stack([precision[..., 1], recall[..., 1], recall[..., 0]], axis=1)
