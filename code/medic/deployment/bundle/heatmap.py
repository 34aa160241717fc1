"""From a class activation map to the heatmap of one answer. This file travels inside every bundle.

A heatmap is relative evidence within one image: 1 is the place that speaks most for the answer, however weak the
evidence. Heatmaps of two images cannot be compared, and none is a segmentation: a place is as large as a cell of the
network's last feature map, and what it shows is what the network went by, which need not be the disease.
"""

from dataclasses import dataclass

import numpy as np

from medic.task import Prediction

HIGHER = "a higher grade"
"""What a heatmap argues for where the network says how far along the scale an image lies, and not which class it is."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """The answer for one image, and where it comes from.

    Attributes:
        prediction: of that one image.
        pixels: what the network saw, uint8 (S, S, 3) RGB; the heatmap covers exactly this square.
        heatmap: float32 (h, w) in 0..1, rows from the top, far coarser than the pixels; all 0 where no place argues for
            ``of``; None where the network has none.
        of: the class that the heatmap argues for, or ``HIGHER``; None without a heatmap.
    """

    prediction: Prediction
    pixels: np.ndarray
    heatmap: np.ndarray | None
    of: str | None


def heatmap(activation: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the positive part of a weighted sum of maps over its maximum (Selvaraju et al., ICCV 2017, section 3).

    Args:
        activation: float32 (K, h, w), one map a raw output.
        weights: float32 (K,).

    Returns:
        float32 (h, w) in 0..1; all 0 if nothing is positive.
    """
    evidence = np.maximum(np.tensordot(weights, activation, axes=1), 0).astype(np.float32)
    return evidence / (evidence.max() or 1)


def evidence_weights(objective: dict, prediction: Prediction) -> tuple[np.ndarray, str]:
    """Return which raw outputs speak for an answer, and for what.

    It is the decided class or, where classes do not exclude each other, the one whose probability is highest relative
    to its threshold. Its evidence depends on what the raw outputs mean:

    - Cross entropy and multilabel have one for each class: that class's own. Of two classes that exclude each other
      only the difference of their outputs decides: the other's is subtracted.
    - Regression has one, the grade. Nothing in it speaks for a single grade; the map shows what raises it.
    - CORN asks one question a step of the scale, given that the steps below were taken, and multiplies the answers. A
      grade needs a yes to each question up to its own step: the maps of those are added, as log odds are. The questions
      beyond were never taught with images like this one. For the lowest grade, which needs no yes, the map shows what
      would raise it.

    Args:
        objective: the objective's settings, as the manifest has them under ``model``.
        prediction: of one image.

    Returns:
        The weight of each raw output, float32 (K,), and what they argue for: a class or ``HIGHER``.
    """
    task, codes = prediction.task, np.arange(len(prediction.task.classes))
    if objective["name"] == "regression":
        return np.ones(1, np.float32), HIGHER
    if task.kind == "multilabel":
        code = int(np.argmax(prediction.probabilities[0] / np.asarray(prediction.thresholds or 0.5)))
    else:
        code = int(prediction.decided[0])
    if objective["name"] == "corn":
        return np.float32(codes[:-1] < (code or 1)), task.classes[code] if code else HIGHER
    other = -1 if len(codes) == 2 and task.kind != "multilabel" else 0
    return np.where(codes == code, 1, other).astype(np.float32), task.classes[code]
