"""How to train: all the settings of a training but the model and the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.metrics import CHOOSABLE, metrics_for
from medic.modeling.thresholds import METRICS
from medic.task import Task

SCHEDULES = ("one_cycle", "steps", "cycles")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all processes together.
        learning_rate: peak of the one-cycle schedule, start of the one in steps.
        weight_decay: of AdamW (Loshchilov & Hutter, arXiv 1711.05101).
        augmentation: how training images are varied; None not at all. A ``PublishedAugmentation``, or ``Transforms`` or
            a ``Pipeline`` of torchvision's, can stand here too.
        balanced: draw training images so that every class is equally likely.
        seed: of the order and the augmentation. (The initial weights are the model's own.)
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; ``auto`` is bf16 where the processor computes in it.
        workers: processes that load images, for each training process; 0 loads in the training process.
        schedule: ``one_cycle`` (Smith & Topin, arXiv 1708.07120); ``steps``: a tenth after each third of the epochs;
            ``cycles``: from the full rate down to nothing along a cosine, several times over (Huang et al., Snapshot
            ensembles, arXiv 1704.00109, eq. 2), and the weights at the end of each are kept as a snapshot.
        cycles: how many, for the schedule of that name; the epochs are a multiple of it.
        amsgrad: let AdamW divide by the largest second moment so far (Reddi, Kale & Kumar, arXiv 1904.09237, alg. 2).
        ema: decay, between 0 and 1, of a moving average of the weights by steps; what is validated and kept is then the
            average (Polyak & Juditsky, SIAM J. Control Optim. 30(4), 1992). None: the weights themselves.
        choose_by: figure on the validation split by which the best epoch is kept, one of ``metrics_for(task)``; its
            last one when None: ``quadratic_weighted_kappa`` for ordinal tasks, ``auroc`` for two classes,
            ``mean_auroc`` for several labels, else ``macro_f1``. ``last`` keeps the last epoch, which is the better
            choice where the validation split is small and the best epoch is mostly luck.
        cut_points: figure for which, after the last epoch, cut points between the grades are fitted on the validation
            split and written into the kept models; None leaves the objective's own. The history is not touched by it.
        sensitivity: share, 0 to 1, of the validation images with a finding that shall be found: after the last epoch
            the operating point is chosen for it and written into the kept models. For tasks that ask whether something
            is present. None leaves it at 0.5.
        frozen: parts of the network that stay as they are, such as ``("conv1", "bn1", "layer1")`` of a ResNet: neither
            their weights nor their statistics of batches change.
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
    cycles: int = 1
    amsgrad: bool = False
    ema: float | None = None
    choose_by: str | None = None
    cut_points: str | None = None
    sensitivity: float | None = None
    frozen: tuple[str, ...] = ()
    compile: bool = False
    device_augmentation: bool | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise MedicError("a recipe needs at least one epoch, one image a batch and a learning rate above 0")
        if self.workers < 0 or self.weight_decay < 0:
            raise MedicError("a recipe cannot have fewer than 0 workers, nor a weight decay below 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise MedicError(f"the decay of averaged weights lies between 0 and 1, not at {self.ema}; 0.98 is usual")
        if self.sensitivity is not None and not 0 < self.sensitivity <= 1:
            raise MedicError(f"a wanted sensitivity is a share above 0 and up to 1, not {self.sensitivity}")
        if self.cycles < 1 or self.epochs % self.cycles or (self.cycles > 1 and self.schedule != "cycles"):
            raise MedicError(
                f"{self.epochs} epochs with the schedule {self.schedule} cannot have {self.cycles} cycles; give a "
                "number of cycles that divides the epochs, and the schedule 'cycles'"
            )
        for name, known in (
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("choose_by", (None, *CHOOSABLE, "last")),
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
            MedicError: the task has no such figure, no operating point or no one class an image to be drawn by, or the
                augmentation cannot work on the device.
        """
        chosen_by = self.choose_by or list(metrics_for(task))[-1]
        if chosen_by not in (*metrics_for(task), "last"):
            raise MedicError(
                f"the best epoch cannot be chosen by {chosen_by}, which the {task.kind} task {task.name!r} does not "
                f"have; choose by {' or '.join(name for name in metrics_for(task) if name in CHOOSABLE)}"
            )
        if self.cut_points is not None and task.kind != "ordinal":
            raise MedicError(
                f"cut points are for ordered grades, and the task {task.name!r} is {task.kind}; leave cut_points away"
            )
        if self.sensitivity is not None and not task.thresholds:
            raise MedicError(
                f"an operating point is for tasks that ask whether something is present, and {task.name!r} chooses "
                "among several classes; leave sensitivity away"
            )
        if self.balanced and task.kind == "multilabel":
            raise MedicError(
                f"images of the multilabel task {task.name!r} cannot be drawn so that every class is equally likely; "
                "weigh the loss instead (medic.modeling.objectives.weighted)"
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
