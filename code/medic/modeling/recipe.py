"""How to train: all the settings of a training but the model and the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.cut_points import METRICS
from medic.modeling.metrics import HIGHER_IS_BETTER, metrics_for
from medic.task import Task

SCHEDULES = ("one_cycle", "steps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all processes together.
        learning_rate: peak of the one-cycle schedule, start of the one in steps.
        weight_decay: of AdamW (Loshchilov & Hutter, arXiv 1711.05101).
        augmentation: how training images are varied; None not at all. A ``PublishedAugmentation`` can stand here too.
        balanced: draw training images so that every class is equally likely.
        seed: of the order and the augmentation. (The initial weights are the model's own.)
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; ``auto`` is bf16 where the processor computes in it.
        workers: processes that load images, for each training process; 0 loads in the training process.
        schedule: ``one_cycle`` (Smith & Topin, arXiv 1708.07120), or ``steps``: a tenth after each third of the epochs.
        amsgrad: let AdamW divide by the largest second moment so far (Reddi, Kale & Kumar, arXiv 1904.09237, alg. 2).
        ema: decay, between 0 and 1, of a moving average of the weights by steps; what is validated and kept is then the
            average (Polyak & Juditsky, SIAM J. Control Optim. 30(4), 1992). None: the weights themselves.
        choose_by: figure on the validation split by which the best epoch is kept: ``quadratic_weighted_kappa`` (that of
            ordinal tasks when None), ``macro_f1`` (that of others when None) or ``accuracy``; ``last`` keeps the last
            epoch, which is the better choice where the validation split is small and the best epoch is mostly luck.
        cut_points: figure for which, after the last epoch, cut points between the grades are fitted on the validation
            split and written into the kept models; None leaves the objective's own. The history is not touched by it.
        compile: compile the network with ``torch.compile``; worth its start-up time on a GPU.
        device_augmentation: vary images where the network computes, a batch at a time, which gives slightly other
            pixels than OpenCV does. None: where there is a GPU and the augmentation can.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    balanced: bool = False
    seed: int = 0
    precision: str = "auto"
    workers: int = 0
    schedule: str = "one_cycle"
    amsgrad: bool = False
    ema: float | None = None
    choose_by: str | None = None
    cut_points: str | None = None
    compile: bool = False
    device_augmentation: bool | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise MedicError("a recipe needs at least one epoch, one image a batch and a learning rate above 0")
        if self.workers < 0 or self.weight_decay < 0:
            raise MedicError("a recipe cannot have fewer than 0 workers, nor a weight decay below 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise MedicError(f"the decay of averaged weights lies between 0 and 1, not at {self.ema}; 0.98 is usual")
        for name, known in (
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("choose_by", (None, *HIGHER_IS_BETTER, "last")),
            ("cut_points", (None, *METRICS)),
        ):
            if getattr(self, name) not in known:
                allowed = ", ".join(str(value) for value in known)
                raise MedicError(f"a recipe's {name} is one of {allowed}, not {getattr(self, name)!r}")

    @property
    def decider(self) -> str:
        """Of a resolved recipe, the column of the history that is highest in the epoch that is kept as the best."""
        return "epoch" if self.choose_by == "last" else f"validation_{self.choose_by}"

    def to_dict(self) -> dict:
        """What decides the result, as plain values for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "workers"}
        return values | {"augmentation": None if self.augmentation is None else self.augmentation.to_dict()}

    def resolved(self, task: Task) -> Recipe:
        """The recipe with everything that was left open decided for this machine and task.

        Raises:
            MedicError: the task has no such figure, or the augmentation cannot work on the device.
        """
        chosen_by = self.choose_by or list(metrics_for(task))[-1]
        if chosen_by not in (*metrics_for(task), "last"):
            raise MedicError(
                f"the best epoch cannot be chosen by {chosen_by}, which the {task.kind} task {task.name!r} does not "
                f"have; choose by {' or '.join(name for name in metrics_for(task) if name in HIGHER_IS_BETTER)}"
            )
        if self.cut_points is not None and task.kind != "ordinal":
            raise MedicError(
                f"cut points are for ordered grades, and the task {task.name!r} is {task.kind}; leave cut_points away"
            )
        able = hasattr(self.augmentation, "apply_batch")
        if self.device_augmentation and not able:
            raise MedicError(
                f"{type(self.augmentation).__name__} cannot vary images on the device, a batch at a time; leave "
                "device_augmentation away, or take the default augmentation"
            )
        on_device = (
            (able and torch.cuda.is_available()) if self.device_augmentation is None else self.device_augmentation
        )
        return replace(self, precision=_precision(self.precision), choose_by=chosen_by, device_augmentation=on_device)


def _precision(asked: str) -> str:
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"
