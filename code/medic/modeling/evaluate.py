"""Evaluation: the same bytes that a service would get, metrics with their intervals, and the mistakes."""

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from medic.data.records import targets
from medic.data.split import refuse_crossing
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling import metrics
from medic.modeling.metrics import present, resampled
from medic.predict import MeanOverFlips, predict
from medic.task import Prediction, Task

if TYPE_CHECKING:
    from medic.modeling.training.run import Run


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

    @cached_property
    def truth(self) -> np.ndarray:
        """int64 (N,) class codes, for multilabel tasks (N, C) of 0 and 1."""
        return targets(self.records, self.task)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64 (C, C), rows are the truth; for multilabel tasks one for each label, (C, 2, 2)."""
        if self.task.kind == "multilabel":
            return multilabel_confusion_matrix(self.truth, self.prediction.decided)
        return confusion_matrix(self.truth, self.prediction.decided, labels=range(len(self.task.classes)))

    @property
    def baseline(self) -> str:
        """What the baseline says of every image, in words."""
        return f"always {' and '.join(np.array(self.task.classes)[present(self.majority, self.task)]) or 'nothing'}"

    @property
    def patients(self) -> int:
        """How many patients the images are of."""
        return len(np.unique(self.whose))

    @property
    def whose(self) -> np.ndarray:
        """The patient of each image, str (N,)."""
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
        always = np.tile(present(self.majority, self.task).astype(np.float32), (len(self.truth), 1))
        grade = always.argmax(axis=1).astype(np.float32) if self.task.kind == "ordinal" else None
        constant, rows = Prediction(self.task, always, grade), {}
        for name, metric in metrics.metrics_for(self.task).items():
            value, baseline = (metrics.score(metric, self.truth, said) for said in (self.prediction, constant))
            draws = resampled(metric, self.truth, self.prediction, self.whose, seed=self.seed)
            low, high, note = metrics.interval_of(name, self.truth, self.prediction.decided, self.whose, draws)
            rows[name] = (value, low, high, baseline, note)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "baseline", "note"])

    def by_class(self) -> pd.DataFrame:
        """Return precision, sensitivity (recall), specificity, F1 and images, one row a class; NaN for 0 of 0.

        Precision, sensitivity and specificity come with 95 % intervals over patients (``precision_low``, ...). A
        multilabel task also has ``threshold``, the ``patients`` with the label, and the areas that need no threshold:
        ``auroc`` with its interval (``low``, ``high``) and ``average_precision``. An interval is NaN for a share of
        fewer than ten patients, and for an area with fewer than ten of either kind.
        """
        whose, columns = self.whose, {}
        true, said = (present(codes, self.task) for codes in (self.truth, self.prediction.decided))
        for name, of in {"precision": said, "sensitivity": true, "specificity": ~true}.items():
            right = (true == said) & of
            draws = resampled(metrics.ratio, right, of, whose, seed=self.seed)
            ends = [
                metrics.interval_of("accuracy", true[rows, code], said[rows, code], whose[rows], draws[:, code])[:2]
                for code, rows in enumerate(of.T)
            ]
            columns |= {name: metrics.ratio(right, of)[0]}
            columns |= dict(zip((f"{name}_low", f"{name}_high"), np.transpose(ends), strict=True))
        columns |= {"f1": metrics.f1_of_classes(true, said)[0], "images": true.sum(axis=0)}
        table = pd.DataFrame(columns, pd.Index(self.task.classes, name="class"))
        if self.task.kind != "multilabel":
            return table
        table["threshold"] = self.prediction.thresholds or 0.5
        table["patients"] = [len(np.unique(whose[having])) for having in true.T]
        areas = []
        for having, scores in zip(true.T, self.prediction.probabilities.T, strict=True):
            draws = resampled(metrics.auroc, having, scores, whose, seed=self.seed)
            ends = metrics.interval_of("auroc", having, scores, whose, draws)[:2]
            areas.append((metrics.auroc(having, scores)[0], *ends, metrics.average_precision(having, scores)[0]))
        table[["auroc", "low", "high", "average_precision"]] = areas
        return table

    def worst(self, count: int = 8) -> pd.DataFrame:
        """Return the most wrong images: furthest from the truth, then least probability for the truth.

        Returns:
            Up to ``count`` wrongly decided rows with ``truth`` and ``decided`` in words, ``error`` (grades for ordinal
            tasks, wrong labels for multilabel ones, else 1) and ``p_truth`` (for multilabel tasks the least probability
            that the truth about any label gets).
        """
        said, true, decided = self.prediction.probabilities, self.truth, self.prediction.decided
        if self.task.kind == "multilabel":
            error, p_truth = (decided != true).sum(axis=1), np.where(true, said, 1 - said).min(axis=1)
        else:
            error = np.abs(decided - true) if self.task.kind == "ordinal" else (decided != true) * 1
            p_truth = said[np.arange(len(true)), true]
        columns = {
            name: ["|".join(np.array(self.task.classes)[there]) or "nothing" for there in present(codes, self.task)]
            for name, codes in {"truth": true, "decided": decided}.items()
        }
        table = self.records.assign(**columns, error=error, p_truth=p_truth).query("error > 0")
        return table.sort_values(["error", "p_truth"], ascending=[False, True], kind="stable").head(count)

    @property
    def questions(self) -> dict[str, tuple[np.ndarray, np.ndarray, float | None]]:
        """What is asked with yes or no, by name: int (N,), 1 where it is so; float (N,), its probability; threshold.

        Each label, the second of two classes, each of several classes, or for each grade whether it is that or worse.
        The threshold is the operating point, from which on yes is said; None where a task has none.
        """
        names, scores = self.task.classes, self.prediction.probabilities
        true = present(self.truth, self.task).astype(int)
        if self.task.kind == "ordinal":
            names = [f"{name} or worse" for name in names]
            true, scores = (of[:, ::-1].cumsum(axis=1)[:, ::-1] for of in (true, scores))
        first = int(self.task.kind == "ordinal" or self.task.thresholds == 1)
        points = self.prediction.thresholds or [0.5 if self.task.thresholds else None] * (len(names) - first)
        return dict(zip(names[first:], zip(true.T[first:], scores.T[first:], points, strict=True), strict=True))

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
        if self.task.kind == "multilabel":
            by_class = self.by_class().reset_index().to_json(orient="records", double_precision=4)
            said["by_class"] = json.loads(by_class)
        if self.prediction.thresholds is not None:
            said["thresholds"] = list(self.prediction.thresholds)
        return said | {"confusion_matrix": self.confusion.tolist()}

    def save(self, folder: str | os.PathLike) -> Path:
        """Write ``evaluation.json`` and ``predictions.csv`` (truth and prediction of every image)."""
        folder, predictions = Path(folder), self.prediction.to_frame(list(self.records["image"]))
        several = self.task.kind == "multilabel"
        for column in self.task.classes if several else ["label"]:
            predictions[f"truth_{column}" if several else "truth"] = self.records[column].to_numpy()
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


def evaluate(run: "Run", split: str = "test", which: str = "best", tta: tuple[str, ...] = ()) -> Evaluation:
    """Evaluate a run's model on one split, from the original image files.

    Args:
        run: a finished run.
        split: ``test`` unless something is still to be chosen; then ``validation``.
        which: ``best`` or ``last``.
        tta: flips, ``horizontal`` or ``vertical``, over which probabilities and grades are averaged.

    Returns:
        The evaluation; ``save`` keeps it.

    Raises:
        MedicError: the prepared set or the originals are gone, or a patient is in two splits.
    """
    rows = run.records[run.records["split"] == split].reset_index(drop=True)
    if rows.empty:
        raise MedicError(f"the run {run.folder} has no images in the split {split!r}")
    trained_on = run.records[run.records["split"] == "train"]
    refuse_crossing(run.records)
    prepared, recipe = run.prepared, run.about["settings"]["recipe"]
    model = MeanOverFlips(run.model(which), tuple(tta)) if tta else run.model(which)
    predicted = predict(model, prepared.store, list(rows["image"]))
    skipped = prepared.skipped[prepared.skipped["split"] == split][["image", "reason", "detail"]]
    title = f"{run.folder.name}, {split} split{', mean over flips' if tta else ''}"
    if split == "validation" and recipe["sensitivity"] is not None:
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
