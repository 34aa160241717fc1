"""What is predicted: the words that all three stages share.

Only NumPy is needed here (pandas for tables alone), because this file travels inside every bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from medic.errors import MedicError

if TYPE_CHECKING:
    import pandas as pd

    from medic.referral import Referral

Kind = Literal["multiclass", "ordinal", "multilabel"]


@dataclass(frozen=True)
class Task:
    """A question put to an image; the only place where the kind of problem is decided.

    Attributes:
        name: what the task is called in folders, files and commands.
        kind: ``multiclass`` (one class of several), ``ordinal`` (the same, and the classes have an order, as grades
            do) or ``multilabel`` (each class is present or not).
        classes: class names in the order of their codes 0, 1, 2, ...
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("multiclass", "ordinal", "multilabel"):
            raise MedicError(
                f"task {self.name!r}: kind {self.kind!r} is unknown; use multiclass, ordinal or multilabel"
            )
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise MedicError(f"task {self.name!r}: needs two or more distinct classes, got {self.classes}")

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {"name": self.name, "kind": self.kind, "classes": list(self.classes)}

    @property
    def thresholds(self) -> int:
        """How many thresholds make an operating point: one a class, one for the second of two classes, or none."""
        if self.kind == "multilabel":
            return len(self.classes)
        return 1 if self.kind == "multiclass" and len(self.classes) == 2 else 0

    @classmethod
    def from_dict(cls, values: dict) -> "Task":
        """The task that ``to_dict`` wrote."""
        return cls(values["name"], values["kind"], tuple(values["classes"]))


RETINOPATHY = Task("retinopathy", "ordinal", ("No DR", "Mild", "Moderate", "Severe", "Proliferative"))
"""Diabetic retinopathy, graded on the International Clinical Diabetic Retinopathy scale
(Wilkinson et al., Ophthalmology 110(9), 2003, p. 1677)."""

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The findings of NIH ChestX-ray14, named and ordered as by Wang et al. (CVPR 2017, p. 3462) and Rajpurkar et al.
(arXiv 1711.05225, table 2)."""

NO_FINDING = "No Finding"

CHEST_XRAY = Task("chest_xray", "multilabel", FINDINGS)
"""Which of 14 findings a chest X-ray shows; none of them is the derived "No Finding"."""

CHEST_XRAY_OR_NONE = Task("chest_xray_or_none", "multilabel", (*FINDINGS, NO_FINDING))
"""The same with "No Finding" as a fifteenth output of its own, to compare."""

CHEST_XRAY_BINARY = Task("chest_xray_binary", "multiclass", (NO_FINDING, "Finding"))
"""Whether a chest X-ray shows any of the findings."""

DIGITS = Task("digits", "multiclass", tuple("0123456789"))
"""A handwritten digit (LeCun et al., Proceedings of the IEEE 86(11), 1998, p. 2278)."""

SKIN_LESION = Task("skin_lesion", "multiclass", ("benign", "malignant"))
"""Whether a pigmented lesion of the skin, seen through a dermoscope, is malignant (Gutman et al., Skin Lesion Analysis
toward Melanoma Detection, arXiv 1605.01397, part 3)."""

TASKS = {
    task.name: task for task in (RETINOPATHY, CHEST_XRAY, CHEST_XRAY_OR_NONE, CHEST_XRAY_BINARY, DIGITS, SKIN_LESION)
}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        MedicError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise MedicError(f"no task is called {name!r}; there is: {', '.join(TASKS)}")
    return TASKS[name]


OF_EACH_IMAGE = ("probabilities", "grade", "distance", "brightness", "sharpness")
"""The attributes of a ``Prediction`` that have a row for each image."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of N images: the same structure from torch, from ONNX and from a service.

    Attributes:
        task: the question that was answered.
        probabilities: float32 (N, C), each in 0..1; rows sum to 1 except for multilabel tasks.
        grade: float32 (N,), the continuous grade in 0..C-1, for ordinal tasks; otherwise None.
        thresholds: the operating point, probabilities from which on a class is said to be present: one a class for
            multilabel tasks, one for the second class where there are two. None decides from 0.5 on, or for the most
            probable class.
        distance: float32 (N,), how far each image lies from those of the training, in feature space; None for a model
            that does not measure it.
        brightness: float32 (N,), of the prepared pixels (``medic.referral.appearance``); None as the referral rule.
        sharpness: float32 (N,), of the prepared pixels, as the brightness.
        referral: the rule by which answers are left to a person; None for a model that is not calibrated.
    """

    task: Task
    probabilities: np.ndarray
    grade: np.ndarray | None = None
    thresholds: tuple[float, ...] | None = None
    distance: np.ndarray | None = None
    brightness: np.ndarray | None = None
    sharpness: np.ndarray | None = None
    referral: "Referral | None" = None

    def __post_init__(self) -> None:
        shape = self.probabilities.shape
        if len(shape) != 2 or shape[1] != len(self.task.classes):
            raise MedicError(
                f"task {self.task.name!r} has {len(self.task.classes)} classes, but the probabilities have shape "
                f"{shape}; the model was made for another task"
            )
        if (self.grade is None) == (self.task.kind == "ordinal"):
            raise MedicError(f"task {self.task.name!r}: a continuous grade belongs to ordinal tasks and to no other")
        if self.thresholds is not None and len(self.thresholds) != self.task.thresholds:
            raise MedicError(
                f"task {self.task.name!r} takes {self.task.thresholds or 'no'} thresholds, got {len(self.thresholds)}; "
                "an operating point is for tasks that ask whether something is present"
            )

    @classmethod
    def joined(cls, parts: "Sequence[Prediction]") -> "Prediction":
        """Predictions of one model, one after the other."""
        known = [name for name in OF_EACH_IMAGE if getattr(parts[0], name) is not None]
        return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in known})

    def rows(self, chosen: np.ndarray) -> "Prediction":
        """Those of some images, chosen by position or by a mask."""
        known = {name: value for name in OF_EACH_IMAGE if (value := getattr(self, name)) is not None}
        return replace(self, **{name: value[chosen] for name, value in known.items()})

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def decided(self) -> np.ndarray:
        """The class code of each image, int64 (N,); for multilabel tasks 0 or 1 for each class, (N, C)."""
        if self.task.kind == "multilabel":
            return (self.probabilities >= np.float32(self.thresholds or 0.5)).astype(np.int64)
        if self.thresholds is not None:
            return (self.probabilities[:, 1] >= np.float32(self.thresholds[0])).astype(np.int64)
        return self.probabilities.argmax(axis=1)

    @property
    def sets(self) -> np.ndarray | None:
        """Which classes are possible, bool (N, C), by the model's referral rule; None without one."""
        return None if self.referral is None else self.referral.sets(self)

    @property
    def why(self) -> np.ndarray | None:
        """Why each answer is left to a person, a word of ``medic.referral.REASONS`` or ""; None without a rule."""
        return None if self.referral is None else self.referral.reasons(self)

    @property
    def p_none(self) -> np.ndarray:
        """For multilabel tasks the product of (1 - p) over the classes, float32 (N,).

        It is the probability that none is there as far as classes are independent and probabilities calibrated. Where
        classes often come together it is too small. After a loss weighted by prevalence the probabilities of rare
        classes are too high, and so it is much too small: it ranks images, but is no calibrated probability.
        """
        return np.prod(1 - self.probabilities, axis=1)

    def to_frame(self, names: list[str] | None = None) -> "pd.DataFrame":
        """A table with one row an image: ``image`` (when names are given), the decision, the probabilities.

        For ordinal tasks the decision is ``grade`` (int) with ``grade_continuous`` beside it; for multiclass ones
        ``label``; for multilabel ones a column of 0 and 1 for each class, as the operating point decides, and
        ``p_none``, unless the task has a class for that. A probability's column is ``p_`` and the class's name.

        A model with a referral rule has four columns more: ``set`` (the possible classes, joined by ``|``), ``refer``
        (1 where the answer is left to a person), ``why`` (a word of ``medic.referral.REASONS``, empty where it is not),
        and ``calibration`` (on how many patients).
        """
        import pandas as pd

        columns: dict[str, object] = {} if names is None else {"image": names}
        if self.task.kind == "ordinal":
            columns["grade"] = self.decided
            columns["class"] = [self.task.classes[code] for code in self.decided]
            columns["grade_continuous"] = self.grade
        elif self.task.kind == "multiclass":
            columns["label"] = self.decided
            columns["class"] = [self.task.classes[code] for code in self.decided]
        else:
            columns |= {name: self.decided[:, code] for code, name in enumerate(self.task.classes)}
        columns |= {f"p_{name}": self.probabilities[:, code] for code, name in enumerate(self.task.classes)}
        if self.task.kind == "multilabel" and NO_FINDING not in self.task.classes:
            columns["p_none"] = self.p_none
        if self.referral is not None:
            names_of = np.array(self.task.classes)
            columns["set"] = ["|".join(names_of[possible]) for possible in self.sets]
            columns["refer"] = (self.why != "").astype(int)
            columns["why"] = self.why
            columns["calibration"] = str(self.referral)
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(float_format="%.3f", max_rows=12)
