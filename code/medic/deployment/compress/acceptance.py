"""Is the compressed model still the same model? Judged by its decisions, with the uncertainty of the images at hand."""

from __future__ import annotations

import gzip
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medic.deployment.bundle.predictor import INPUT, open_session, run
from medic.errors import MedicError
from medic.modeling.metrics import interval, metrics_for, resampled, score
from medic.task import Prediction, Task

if TYPE_CHECKING:
    import pandas as pd

FEW = 20
"""Images of a class below which its sensitivity is shown but not judged: one image would move it by over 0.05."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images to judge by.

    Attributes:
        images: prepared pixels, uint8 (N, size, size, 3) RGB.
        labels: class codes, int (N,); for multilabel tasks int (N, C), 0 or 1.
        patients: whose image it is (N,): the bootstrap draws patients, for two eyes of one person are no two
            independent observations. None takes each image for a person of its own.
    """

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray | None = None


@dataclass(frozen=True)
class AcceptanceCriteria:
    """When a compressed model may stand in for the original. All of it must hold, on labelled images it has not seen.

    The metric is quadratic weighted kappa for ordinal tasks, the (mean) area under the ROC curve where the task asks
    whether something is present, and accuracy for other multiclass tasks. Its difference
    (compressed minus original) gets a 95 % interval from a paired bootstrap: the same resampled patients for both. With
    few images that interval is wide, and a model whose decisions changed fails: the gate then says that it cannot be
    told, which is no reason to trust it. Where the metric counts decisions (kappa, accuracy), a model with the same
    decision on every image always passes; the area under the ROC curve asks for the same ranking.

    Attributes:
        agreement: smallest share of the same decisions, 0..1; there is one an image, for multilabel tasks one a class.
        loss: how far below zero the interval of the metric's difference may reach.
        sensitivity: how much sensitivity any class with ``FEW`` images or more may lose.
    """

    agreement: float = 0.97
    loss: float = 0.03
    sensitivity: float = 0.10

    def __str__(self) -> str:
        return (
            f"gate: at least {self.agreement:.0%} of the decisions stay the same; the 95 % interval of the metric's "
            f"difference stays above {-self.loss:g}; no class with {FEW} images or more loses over "
            f"{self.sensitivity:g} of its sensitivity"
        )


@dataclass(frozen=True, eq=False)
class GraphComparison:
    """Two graphs of one model side by side.

    Attributes:
        task: what is predicted.
        images: how many images the figures rest on.
        metric: the metric's name.
        rows: one mapping a model (fp32, fp16, int8), as ``table`` shows them.
        sensitivity: one mapping a class: its images, the sensitivity of both models and the difference.
        gate: the rule.
        reasons: why the gate failed, one sentence each; empty when it passed.
    """

    task: Task
    images: int
    metric: str
    rows: list[dict]
    sensitivity: list[dict]
    gate: AcceptanceCriteria
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the compressed model may stand in for the original."""
        return not self.reasons

    @property
    def table(self) -> pd.DataFrame:
        """Size, speed, agreement and metric of each model; ``low`` and ``high`` bound the metric's difference."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("model")

    @property
    def sensitivities(self) -> pd.DataFrame:
        """Share of each class's images that each model finds."""
        import pandas as pd

        return pd.DataFrame(self.sensitivity).set_index("class")

    def __str__(self) -> str:
        tables = "\n\n".join(
            table.to_string(float_format="%.3f", na_rep="") for table in (self.table, self.sensitivities)
        )
        return f"{tables}\n\n{self._verdict()}"

    def _repr_html_(self) -> str:
        tables = "".join(table.to_html(float_format="%.3f", na_rep="") for table in (self.table, self.sensitivities))
        return f"{tables}<p>{self._verdict()}</p>"

    def _verdict(self) -> str:
        outcome = "passed" if self.passed else "failed: " + "; ".join(self.reasons)
        return f"{self.gate}. On {self.images} images it {outcome}."


def compare(
    fp32: str | Path, int8: str | Path, examples: Examples, task: Task, gate: AcceptanceCriteria | None = None
) -> GraphComparison:
    """Compare a compressed graph with the original on labelled images, and judge it.

    Milliseconds are the median of interleaved calls at batch 1 on one thread, so that a busy machine slows all alike. A
    row for fp16 (fp32 at its inputs and outputs) is there to compare size with; CPUs rarely gain speed by it.

    Args:
        fp32: the original graph.
        int8: the compressed graph.
        examples: what it is judged on; the calibration must not have seen it.
        task: what is predicted.
        gate: the rule; the default one when None.

    Raises:
        MedicError: no images, another number of labels, a label outside the task, or a graph that does not load.
    """
    gate = gate or AcceptanceCriteria()
    _check(examples, task)
    images = examples.images
    with tempfile.TemporaryDirectory() as folder:
        half = _write_fp16(Path(fp32), Path(folder) / "fp16.onnx")
        paths = {"fp32": Path(fp32), "fp16": half, "int8": Path(int8)}
        # One thread, as the service runs it; with more, whatever else runs on the machine decides the order.
        sessions = {name: open_session(path, threads=1) for name, path in paths.items()}
        predictions = {name: run(session, task, images) for name, session in sessions.items()}
        milliseconds = _interleaved(sessions, images[:1])
        sizes = {name: (path.stat().st_size, _compressed_size(path)) for name, path in paths.items()}
    original = predictions["fp32"]
    rows = []
    for name, prediction in predictions.items():
        value, low, high = _difference(original, prediction, examples, task)
        rows.append(
            {
                "model": name,
                "MB": sizes[name][0] / 1e6,
                "share of fp32": sizes[name][0] / sizes["fp32"][0],
                "MB gzipped": sizes[name][1] / 1e6,
                "ms an image": milliseconds[name],
                "agreement": float((prediction.decided == original.decided).mean()),
                _metric(task): value,
                "low": low,
                "high": high,
            }
        )
    sensitivity = _sensitivities(original, predictions["int8"], examples.labels, task)
    return GraphComparison(
        task, len(images), _metric(task), rows, sensitivity, gate, _reasons(gate, rows[-1], sensitivity, task)
    )


def _check(examples: Examples, task: Task) -> None:
    images, labels = examples.images, examples.labels
    counts = {len(images), len(labels), len(labels if examples.patients is None else examples.patients)}
    if not len(images) or len(counts) > 1:
        raise MedicError(
            f"{len(images)} images cannot be compared with {len(labels)} labels; give as many of each (and of "
            "patients), one or more"
        )
    wanted, top = ((len(task.classes),), 1) if task.kind == "multilabel" else ((), len(task.classes) - 1)
    if labels.shape[1:] != wanted:
        raise MedicError(
            f"labels of the shape {labels.shape} are not those of the {task.kind} task {task.name!r}; take them from "
            "medic.data.records.targets"
        )
    if labels.min() < 0 or labels.max() > top:
        raise MedicError(
            f"labels {labels.min()}..{labels.max()} reach outside 0..{top} of the task {task.name!r}; correct the "
            "records"
        )


def _reasons(gate: AcceptanceCriteria, row: dict, sensitivity: list[dict], task: Task) -> tuple[str, ...]:
    reasons = []
    if not row["agreement"] >= gate.agreement:
        reasons.append(f"{row['agreement']:.1%} of the decisions are the same, less than {gate.agreement:.0%}")
    if np.isnan(row["low"]):
        reasons.append(f"these images are too few to tell the difference in {_metric(task)}")
    elif not row["low"] >= -gate.loss:
        reasons.append(f"the interval of the difference in {_metric(task)} reaches {row['low']:.3f}")
    for entry in sensitivity:
        if entry["images"] >= FEW and not entry["difference"] >= -gate.sensitivity:
            reasons.append(f"the sensitivity for {entry['class']} falls by {-entry['difference']:.2f}")
    return tuple(reasons)


def _metric(task: Task) -> str:
    """The name of the figure that decides."""
    return list(metrics_for(task))[-1] if task.kind == "ordinal" or task.thresholds else "accuracy"


def _difference(original: Prediction, other: Prediction, examples: Examples, task: Task) -> tuple[float, float, float]:
    """The other's metric, and the 95 % interval of its difference to the original's, by a paired bootstrap.

    Both are counted on the same resampled patients (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
    """
    metric = metrics_for(task)[_metric(task)]
    patients = np.arange(len(examples.labels)) if examples.patients is None else examples.patients
    ours, theirs = (resampled(metric, examples.labels, prediction, patients) for prediction in (other, original))
    return score(metric, examples.labels, other), *interval(ours - theirs)


def _sensitivities(original: Prediction, other: Prediction, labels: np.ndarray, task: Task) -> list[dict]:
    entries = []
    for code, name in enumerate(task.classes):
        several = task.kind == "multilabel"
        of_class = labels[:, code] == 1 if several else labels == code
        if of_class.any():
            before, after = (
                (p.decided[of_class, code] if several else p.decided[of_class] == code).mean()
                for p in (original, other)
            )
            entries.append(
                {
                    "class": name,
                    "images": int(of_class.sum()),
                    "sensitivity fp32": float(before),
                    "sensitivity int8": float(after),
                    "difference": float(after - before),
                }
            )
    return entries


def _interleaved(sessions: dict, image: np.ndarray, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of one image, the models taking turns."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            session.run(None, {INPUT: image})  # the caches belong to this model again
            start = time.perf_counter()
            session.run(None, {INPUT: image})
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def _write_fp16(fp32: Path, path: Path) -> Path:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = convert_float_to_float16(onnx.load(fp32), keep_io_types=True, disable_shape_infer=True)
    path.write_bytes(graph.SerializeToString())
    return path


def _compressed_size(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))
