"""When an answer is left to a person: more than one class is possible, or the image cannot be judged.

NumPy is all that is needed here, because this file travels inside every bundle.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medic.task import Prediction

REASONS = ("dark", "bright", "blurred", "unlike", "several", "threshold")
"""The words that say why an answer is left to a person; where several hold, the first of them is said."""


@dataclass(frozen=True)
class Referral:
    """The rule by which a model leaves answers to a person, fitted on images that it was not trained on.

    Attributes:
        patients: how many the rule, and the calibration of the probabilities, were fitted on.
        split: of which images, such as ``validation``.
        set_thresholds: one a class; a class whose calibrated probability is at least that is in the prediction set.
        coverage: share of the sets that are to hold the truth, 0..1.
        brightness: lowest and highest brightness of prepared pixels that can be judged (see ``appearance``); None for
            any.
        sharpness: lowest sharpness of prepared pixels that can be judged; None for any.
        distance: largest distance in feature space to the training images; None for any.
        confidence: least probability of the decision that is answered with; None for any (see
            ``medic.modeling.thresholds.confidence_for``).
    """

    patients: int
    split: str
    set_thresholds: tuple[float, ...]
    coverage: float = 0.9
    brightness: tuple[float, float] | None = None
    sharpness: float | None = None
    distance: float | None = None
    confidence: float | None = None

    def sets(self, prediction: "Prediction") -> np.ndarray:
        """Return which classes are possible: bool (N, C).

        The decision is always among them. Of an ordinal task, so are all grades between two possible ones. Of several
        findings, the set holds those that cannot be ruled out.
        """
        possible = prediction.probabilities >= np.float32(self.set_thresholds)
        decided = prediction.decided
        if prediction.task.kind == "multilabel":
            return possible | (decided == 1)
        possible[np.arange(len(prediction)), decided] = True
        if prediction.task.kind == "ordinal":
            from_below, from_above = (np.logical_or.accumulate(one, axis=1) for one in (possible, possible[:, ::-1]))
            possible = from_below & from_above[:, ::-1]
        return possible

    def reasons(self, prediction: "Prediction") -> np.ndarray:
        """Return why each answer is left to a person: a word of ``REASONS``, or "" where it is not; str (N,).

        ``dark``, ``bright``, ``blurred``: the prepared pixels. ``unlike``: the image is far from those of the training.
        ``several``: the set holds more than one class (not for several findings, which do not exclude each other).
        ``threshold``: the decision is less probable than ``confidence``.
        """
        dark, bright = self.brightness or (None, None)
        found = {
            "dark": _beyond(prediction.brightness, dark, -1),
            "bright": _beyond(prediction.brightness, bright, 1),
            "blurred": _beyond(prediction.sharpness, self.sharpness, -1),
            "unlike": _beyond(prediction.distance, self.distance, 1),
            "several": prediction.task.kind != "multilabel" and self.sets(prediction).sum(axis=1) > 1,
            "threshold": _beyond(confidence(prediction), self.confidence, -1),
        }
        every = np.zeros(len(prediction), bool)
        return np.select([every | found[reason] for reason in REASONS], REASONS, "")

    def __str__(self) -> str:
        return f"calibrated on {self.patients:,} patients of the {self.split} split"

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> "Referral":
        """Return what ``to_dict`` wrote."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _beyond(values: np.ndarray | None, limit: float | None, sign: int) -> np.ndarray | bool:
    """Return which values lie above (sign 1) or below (-1) a limit; what is not a number lies beyond any."""
    return False if values is None or limit is None else ~(sign * values <= np.float32(sign * limit))


def confidence(prediction: "Prediction") -> np.ndarray:
    """Return the probability of each decision, float32 (N,) in 0..1.

    Of several findings it is that of the least certain one: the least probability, over the findings, of what was
    decided of each.
    """
    probabilities, decided = prediction.probabilities, prediction.decided
    if prediction.task.kind == "multilabel":
        return np.where(decided == 1, probabilities, 1 - probabilities).min(axis=1)
    return probabilities[np.arange(len(prediction)), decided]


def appearance(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return brightness and sharpness of prepared pixels.

    Args:
        pixels: uint8 (N, S, S, 3) RGB, S at least 16.

    Returns:
        Brightness float32 (N,), the mean of the green channel, 0..255. Sharpness float32 (N,), the logarithm of fine
        over coarse detail: what 2 x 2 pixels differ in, against what 2 x 2 squares of 4 x 4 pixels differ in.
    """
    level, detail = pixels[..., 1].astype(np.float32), []
    brightness = level.mean(axis=(1, 2))
    for _ in range(3):
        side = level.shape[1] // 2 * 2
        blocks = level[:, :side, :side].reshape(len(level), side // 2, 2, side // 2, 2)
        level = blocks.mean(axis=(2, 4))
        within = np.square(blocks - level[:, :, None, :, None]).mean(axis=(1, 2, 3, 4))
        detail.append(np.sqrt(within) + np.float32(0.05))  # a twentieth of a grey level, or black would divide 0 by 0
    return brightness, np.log(detail[0] / detail[2])


ADVICE = {
    "dark": "The image is too dark for an answer",
    "bright": "The image is too bright for an answer",
    "blurred": "The image is too blurred for an answer",
    "unlike": "The image is not of the kind that the model was trained on",
    "threshold": "The answer is less certain than was asked for",
}
"""What is said for each reason to refer (``REASONS``) but ``several``."""


def advise(answer: dict) -> str:
    """Say in a sentence whether one answer is left to a person, and why; "" where the bundle never refers.

    Args:
        answer: one of ``Predictor.answers``; with a referral rule it has ``set``, ``refer`` and ``why``.
    """
    if "refer" not in answer:
        return ""
    names = [name[:1].upper() + name[1:].replace("_", " ") for name in answer["set"]]
    if not answer["refer"]:
        return f"Possible: {', '.join(names) or 'none'}."
    if answer["why"] != "several":
        return f"{ADVICE[answer['why']]}; please refer."
    # Grades are contiguous: the first and the last say all.
    between = f"Between {names[0]} and {names[-1]}" if "grade" in answer else f"One of {', '.join(names)}"
    return f"{between}; please refer."
