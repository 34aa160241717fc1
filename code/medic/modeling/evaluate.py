"""Evaluation: the same bytes that a service would get, the figures with their uncertainty, and the mistakes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from medic import plots
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.metrics import confusion_matrix, metrics_for, resampled_confusions
from medic.modeling.run import Run
from medic.predict import predict
from medic.task import Prediction, Task


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What one model does on one split.

    Attributes:
        title: what was evaluated, for figures and files.
        prediction: of the images in ``records``, in their order.
        records: rows with ``image``, ``patient``, ``label``.
        majority: the most frequent label of the training split: what the baseline always says.
        failed: images that could not be read, with the reason; they are in no figure.
        synthetic: whether the images are generated; said wherever the figures show.
        seed: of the bootstrap.
    """

    title: str
    prediction: Prediction
    records: pd.DataFrame
    majority: int
    failed: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["image", "reason", "detail"]))
    synthetic: bool = False
    seed: int = 0

    @property
    def task(self) -> Task:
        """What was predicted."""
        return self.prediction.task

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64 (C, C), rows are the truth."""
        return confusion_matrix(self.records["label"].to_numpy(), self.prediction.decided, len(self.task.classes))

    def table(self) -> pd.DataFrame:
        """The figures, with 95 % bootstrap intervals over patients, beside those of the majority-class baseline.

        Returns:
            One row a figure: ``value``, ``low``, ``high``, ``baseline``.
        """
        labels, classes = self.records["label"].to_numpy(), len(self.task.classes)
        draws = resampled_confusions(labels, self.prediction.decided, self.records["patient"], classes, seed=self.seed)
        always = confusion_matrix(labels, np.full(len(labels), self.majority), classes)
        rows = {}
        for name, metric in metrics_for(self.task).items():
            low, high = np.percentile(metric(draws), [2.5, 97.5])
            rows[name] = (float(metric(self.confusion)), low, high, float(metric(always)))
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "baseline"])

    def by_class(self) -> pd.DataFrame:
        """Precision, sensitivity (recall), F1 and the number of images, one row a class."""
        hits, true, called = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        with np.errstate(invalid="ignore"):
            columns = {"precision": hits / called, "sensitivity": hits / true, "f1": 2 * hits / (true + called)}
        return pd.DataFrame(columns, index=pd.Index(self.task.classes, name="class")).assign(images=true)

    def worst(self, count: int = 8) -> pd.DataFrame:
        """The most wrong images: furthest from the truth in grades, then least probability for the truth.

        Returns:
            Up to ``count`` wrongly decided rows with ``decided``, ``error`` (in codes; 1 for tasks without order) and
            ``p_truth``.
        """
        labels = self.records["label"].to_numpy()
        decided = self.prediction.decided
        distance = np.abs(decided - labels) if self.task.kind == "ordinal" else (decided != labels).astype(int)
        table = self.records.assign(
            decided=decided, error=distance, p_truth=self.prediction.probabilities[np.arange(len(labels)), labels]
        )
        wrong = table[table["error"] > 0]
        return wrong.sort_values(["error", "p_truth"], ascending=[False, True], kind="stable").head(count)

    def plot_confusion(self):
        """The confusion matrix, normalised by row, with counts; a matplotlib Figure."""
        return plots.confusion_matrix(self.confusion, self.task, self._said())

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
            "baseline": f"always {self.task.classes[self.majority]}",
            "interval": "95 % percentile bootstrap over patients, 2,000 draws",
            "figures": {name: {k: round(float(v), 4) for k, v in row.items()} for name, row in self.table().iterrows()},
            "classes": list(self.task.classes),
            "confusion_matrix": self.confusion.tolist(),
        }

    def save(self, folder: str | os.PathLike) -> Path:
        """Write ``evaluation.json`` and ``predictions.csv`` (truth and prediction of every image)."""
        folder, figures = Path(folder), self.to_dict()
        predictions = self.prediction.to_frame(list(self.records["image"]))
        with replacing(folder / "predictions.csv") as temporary:
            predictions.assign(truth=self.records["label"].to_numpy()).to_csv(temporary, index=False)
        write_json(folder / "evaluation.json", figures)
        return folder

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        table = self.table()
        lines = [f"{self._said()}: {len(self.records)} images of {self.records['patient'].nunique()} patients"]
        lines += [
            f"  {name.replace('_', ' '):<26}{row['value']:.3f}  (95 % interval {row['low']:.3f} to {row['high']:.3f}; "
            f"always {self.task.classes[self.majority]}: {row['baseline']:.3f})"
            for name, row in table.iterrows()
        ]
        return "\n".join(lines + ([f"  {len(self.failed)} images could not be read"] if len(self.failed) else []))

    def _repr_html_(self) -> str:
        return (
            f"<b>{self._said()}</b>: {len(self.records)} images of {self.records['patient'].nunique()} patients, "
            f"{len(self.failed)} unreadable; baseline: always {self.task.classes[self.majority]}"
            + self.table().round(3).to_html()
        )


def evaluate(run: Run, split: str = "test", which: str = "best") -> Evaluation:
    """Evaluate a run's model on one split, from the original image files.

    Args:
        run: a finished run.
        split: ``test`` unless something is still to be chosen; then ``validation``.
        which: ``best`` or ``last``.

    Returns:
        The evaluation; ``save`` keeps it.

    Raises:
        MedicError: the prepared set or the originals are gone, or a patient of the split was trained on.
    """
    rows = run.records[run.records["split"] == split].reset_index(drop=True)
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
    predicted = predict(run.model(which), prepared.store, list(rows["image"]))
    skipped = prepared.skipped[prepared.skipped["split"] == split][["image", "reason", "detail"]]
    return Evaluation(
        title=f"{run.folder.name}, {split} split{_flattered(run, split)}",
        prediction=predicted.prediction,
        records=rows[rows["image"].isin(predicted.names)].reset_index(drop=True),
        majority=int(trained_on["label"].mode()[0]),
        failed=pd.concat([skipped.astype(str), predicted.failed], ignore_index=True),
        synthetic=prepared.synthetic,
        seed=run.about["settings"]["recipe"]["seed"],
    )


def _flattered(run: Run, split: str) -> str:
    """What has to be said of figures on the images that the cut points have seen."""
    fitted = run.about["settings"]["recipe"].get("cut_points") is not None
    return " (the cut points were fitted on it)" if fitted and split == "validation" else ""
