"""Move the threshold and see what it does: to the curves, to the confusion matrix, to a thousand people."""

from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from sklearn import metrics

from medic.errors import MedicError
from medic.plots import headline
from medic.plots.evaluation import curves
from medic.widgets.pictured import PicturedWidget, front_end

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation


class ThresholdExplorer(PicturedWidget):
    """A slider for the threshold, with the point on the ROC and the precision-recall curve and the confusion matrix.

    It starts at the model's operating point. Keys on the slider: arrows go from one image's score to the next, page
    up and down take ten of those steps.

    Args:
        evaluation: of a task with two classes, or of a multilabel one, where each finding has its own threshold.

    Attributes:
        finding: the class that is looked at.
        threshold: images with this probability or a higher one are called positive, 0..1.
        prevalence: share of a thousand people who have the finding, for which the page counts, 0..1.

    Raises:
        MedicError: the task chooses among several classes, or no class has both images with it and without.
    """

    _esm, _css = front_end("threshold_explorer", "js"), front_end("threshold_explorer", "css")

    finding = traitlets.Unicode().tag(sync=True)
    threshold = traitlets.Float(0.5, min=0.0, max=1.0).tag(sync=True)
    prevalence = traitlets.Float(0.5, min=0.0, max=1.0).tag(sync=True)

    def __init__(self, evaluation: "Evaluation"):
        if not evaluation.task.thresholds:
            raise MedicError(f"{evaluation.task.name!r} has no threshold, but several classes; use ResultsViewer")
        self._questions = {name: one for name, one in evaluation.questions.items() if 0 < one[0].mean() < 1}
        if not self._questions:
            raise MedicError(f"{evaluation.title}: no class has both images with it and without; add images")
        self._choices = {"finding": self._questions}
        super().__init__(evaluation.title, evaluation.synthetic, finding=next(iter(self._questions)))
        self.observe(self._look_at, ["finding"])
        self._look_at()

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix at the present threshold, int (2, 2): rows the truth, columns the decision."""
        truth, scores, _ = self._questions[self.finding]
        return metrics.confusion_matrix(truth, scores >= np.float32(self.threshold), labels=[0, 1])

    def _look_at(self, _: Any = None) -> None:
        truth, scores, operating_point = self._questions[self.finding]
        # at each different score, from the highest on: the shares of images without it and with it that are called
        alarms, found, levels = (part[1:] for part in metrics.roc_curve(truth, scores, drop_intermediate=False))
        with self.hold_sync():
            self.threshold = operating_point
            self.prevalence = float(truth.mean())
            self.show(
                findings=list(self._questions),
                finding=self.finding,
                operating_point=operating_point,
                scores=levels.astype(float).tolist(),
                found=np.rint(found * truth.sum()).astype(int).tolist(),
                alarms=np.rint(alarms * (1 - truth).sum()).astype(int).tolist(),
                auroc=float(metrics.roc_auc_score(truth, scores)),
                average_precision=float(metrics.average_precision_score(truth, scores)),
            )

    def __repr__(self) -> str:
        (rejected, alarms), (missed, found) = self.confusion
        with_it = f"{self.finding} from {self.threshold:.3f} on: {found} of {found + missed} images with it found"
        return f"{with_it}, {alarms} of {alarms + rejected} without it called"

    def static(self) -> Figure:
        """Return ROC and precision-recall curve with the present threshold marked, and what it decides as title."""
        truth, scores, _ = self._questions[self.finding]
        figure = curves({self.finding: (truth, scores, self.threshold)})
        headline(figure, f"{self._title}: {self!r}")
        return figure
