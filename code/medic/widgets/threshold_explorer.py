"""What an evaluation says of one finding: the truth, the scores, and what each threshold would decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import traitlets
from matplotlib.figure import Figure

from medic.errors import MedicError
from medic.plots import evaluation as evaluation_plots
from medic.plots.evaluation import Ranked
from medic.widgets.pictured import PicturedWidget, front_end, marked, titled

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation


class Counts(NamedTuple):
    """A confusion matrix of two: images with the finding that are called or missed, and those without it."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


def questions(evaluation: Evaluation) -> dict[str, Ranked]:
    """Truth, scores and operating point of each finding, by name; of the second of two classes.

    Raises:
        MedicError: the task chooses among several classes, so that no single threshold decides.
    """
    task, prediction = evaluation.task, evaluation.prediction
    if not task.thresholds:
        raise MedicError(f"{task.name!r} chooses among several classes, and no threshold decides; use ResultsViewer")
    thresholds = prediction.thresholds or (0.5,) * task.thresholds
    if task.kind == "multilabel":
        columns = [(name, evaluation.truth[:, code], code) for code, name in enumerate(task.classes)]
    else:
        columns = [(task.classes[1], evaluation.truth, 1)]
    return {
        name: Ranked(truth, prediction.probabilities[:, code], float(threshold))
        for (name, truth, code), threshold in zip(columns, thresholds, strict=True)
    }


def called(one: Ranked, threshold: float) -> np.ndarray:
    """Which images are said to have it, bool (N,); compared as ``Prediction.decided`` does, in single precision."""
    return np.asarray(one.scores, np.float32) >= np.float32(threshold)


def counts(one: Ranked, threshold: float) -> Counts:
    """The confusion matrix at a threshold."""
    truth, said = np.asarray(one.truth) == 1, called(one, threshold)
    return Counts(*(int(cell.sum()) for cell in (truth & said, ~truth & said, truth & ~said, ~truth & ~said)))


def steps(one: Ranked) -> dict[str, list]:
    """The confusion matrix at every threshold that makes a difference.

    Returns:
        ``scores``, all different and falling, and how many images with the finding (``found``) and without it
        (``alarms``) have that score or a higher one.
    """
    order = np.argsort(-np.asarray(one.scores, np.float32), kind="stable")
    scores, truth = np.asarray(one.scores, np.float32)[order], (np.asarray(one.truth) == 1)[order]
    last = np.append(scores[1:] != scores[:-1], True)
    return {
        "scores": scores[last].astype(float).tolist(),
        "found": np.cumsum(truth)[last].tolist(),
        "alarms": np.cumsum(~truth)[last].tolist(),
    }


_BARS = 40


class ThresholdExplorer(PicturedWidget):
    """A slider for the threshold, with the point on the ROC and the precision-recall curve and the confusion matrix.

    It starts at the model's operating point. Keys on the slider: arrows go from one image's score to the next, page
    up and down take ten of those steps.

    Args:
        evaluation: of a task with two classes, or of a multilabel one, where each finding has its own threshold.

    Attributes:
        finding: the class that is looked at.
        threshold: images with this probability or a higher one are called positive, 0..1.
        prevalence: share of a thousand people who have the finding, for which the page counts; above 0 and below 1.

    Raises:
        MedicError: the task chooses among several classes, or no class has both images with it and without.
    """

    _esm = front_end("threshold_explorer", "js")
    _css = front_end("threshold_explorer", "css")

    finding = traitlets.Unicode().tag(sync=True)
    threshold = traitlets.Float().tag(sync=True)
    prevalence = traitlets.Float().tag(sync=True)

    def __init__(self, evaluation: Evaluation):
        self._title, self._synthetic = evaluation.title, evaluation.synthetic
        both = {name: one for name, one in questions(evaluation).items() if 0 < np.mean(one.truth) < 1}
        if not both:
            raise MedicError(
                f"{evaluation.title}: no class has both images with it and without, so no threshold can be looked at"
            )
        self._questions = both
        first = next(iter(both))
        super().__init__(None, [], finding=first, **self._start(first))
        self.observe(self._look_at, ["finding"])
        self._show()

    @property
    def confusion(self) -> Counts:
        """The confusion matrix at the present threshold."""
        return counts(self._questions[self.finding], self.threshold)

    @traitlets.validate("finding")
    def _is_finding(self, proposal: Any) -> str:
        if proposal.value not in self._questions:
            raise traitlets.TraitError(
                f"there is no curve for {proposal.value!r}; there is one for {', '.join(self._questions)}"
            )
        return proposal.value

    @traitlets.validate("threshold")
    def _is_probability(self, proposal: Any) -> float:
        if not 0 <= proposal.value <= 1:
            raise traitlets.TraitError(f"a threshold is a probability, 0 to 1, and {proposal.value} is none")
        return proposal.value

    @traitlets.validate("prevalence")
    def _is_share(self, proposal: Any) -> float:
        if not 0 < proposal.value < 1:
            raise traitlets.TraitError(f"a prevalence is above 0 and below 1, and {proposal.value} is not")
        return proposal.value

    def _start(self, finding: str) -> dict[str, float]:
        one = self._questions[finding]
        return {"threshold": one.threshold, "prevalence": float(np.mean(one.truth))}

    def _look_at(self, _: Any) -> None:
        with self.hold_sync():
            for name, value in self._start(self.finding).items():
                setattr(self, name, value)
            self._show()

    def _show(self) -> None:
        from medic.modeling.metrics import auroc, average_precision

        one = self._questions[self.finding]
        truth, scores = np.asarray(one.truth) == 1, np.asarray(one.scores)
        edges = np.histogram_bin_edges(scores, _BARS)
        self.set_trait(
            "state",
            {
                "title": marked(self._title, self._synthetic),
                "findings": list(self._questions),
                "finding": self.finding,
                "operating_point": one.threshold,
                "present": int(truth.sum()),
                "absent": int((~truth).sum()),
                **steps(one),
                "auroc": float(auroc(truth, scores)[0]),
                "average_precision": float(average_precision(truth, scores)[0]),
                "edges": [float(edges[0]), float(edges[-1])],
                "bars": {
                    "present": np.histogram(scores[truth], edges)[0].tolist(),
                    "absent": np.histogram(scores[~truth], edges)[0].tolist(),
                },
                "notice": "",
                "error": "",
            },
        )

    def summary(self) -> str:
        """The threshold and what it decides, in one line."""
        found, alarms, missed, rejected = self.confusion
        return (
            f"{self.finding} from {self.threshold:.3f} on: {found} of {found + missed} images with it found, "
            f"{alarms} of {alarms + rejected} without it called"
        )

    def static(self) -> Figure:
        """ROC and precision-recall curve with the present threshold marked, and what it decides in the title."""
        one = self._questions[self.finding]._replace(threshold=self.threshold)
        return titled(evaluation_plots.curves({self.finding: one}, ""), self.summary(), self._synthetic)
