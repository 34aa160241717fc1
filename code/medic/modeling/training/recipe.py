"""How to train: all the settings of a training but the model and the data."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.metrics import CHOOSABLE, metrics_for
from medic.task import Task


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all processes together.
        learning_rate: peak of the one-cycle schedule, start of the one in steps.
        head_factor: by how much the learning rate of the last layer, which starts from nothing, is higher.
        weight_decay: of AdamW (Loshchilov & Hutter, arXiv 1711.05101).
        augmentation: how training images are varied, by ``medic.modeling.augment``; None not at all.
        seed: of the order and the augmentation. (The initial weights are the model's own.)
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; ``auto`` is bf16 where that is faster.
        workers: processes that load images, for each training process; 0 loads in the training process.
        schedule: ``one_cycle`` (Smith & Topin, arXiv 1708.07120), or ``steps``: a tenth after each third of the epochs.
        amsgrad: let AdamW divide by the largest second moment so far (Reddi, Kale & Kumar, arXiv 1904.09237, alg. 2).
        choose_by: metric on the validation split by which the best epoch is kept, one of ``metrics_for(task)``; its
            last one when None. ``last`` keeps the last epoch: the better choice where few images validate.
        sensitivity: share, 0 to 1, of the validation images with a finding that the operating point shall find, for
            tasks that ask whether something is present. None leaves it at 0.5.
        frozen: parts of the network whose weights and statistics of batches stay, such as ``("conv1", "bn1")``.
        track: ``mlflow`` or ``tensorboard`` (see ``tracker`` beside ``Run``); None writes history.csv alone.

    Raises:
        MedicError: a setting makes no sense; the message says which values do.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    head_factor: float = 1.0
    weight_decay: float = 1e-2
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    seed: int = 0
    precision: str = "auto"
    workers: int = 0
    schedule: str = "one_cycle"
    amsgrad: bool = False
    choose_by: str | None = None
    sensitivity: float | None = None
    frozen: tuple[str, ...] = ()
    track: str | None = None

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0, such as 0.001"),
            "head_factor": (0 < self.head_factor < math.inf, "a number above 0, such as 10"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "seed": (0 <= self.seed < 2**32, "a whole number from 0 to 4294967295"),
            "workers": (0 <= self.workers <= 256, "0 to 256"),
            "sensitivity": (self.sensitivity is None or 0 < self.sensitivity <= 1, "a share above 0 and up to 1"),
        }
        names = {"schedule": ("one_cycle", "steps"), "precision": ("auto", "32-true", "bf16-mixed", "16-mixed")}
        names |= {"choose_by": (None, *CHOOSABLE, "last"), "track": (None, "mlflow", "tensorboard")}
        for name, some in names.items():
            ranges[name] = getattr(self, name) in some, f"one of {', '.join(map(str, some))}"
        for name, (sensible, wanted) in ranges.items():
            if not sensible:
                raise MedicError(f"a recipe's {name} is {wanted}, not {getattr(self, name)!r}")

    def to_dict(self) -> dict:
        """Return what decides the result, as plain values for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("workers", "track")}
        return values | {"augmentation": None if self.augmentation is None else self.augmentation.to_dict()}

    def judged_by(self, task: Task) -> str:
        """Return the metric that judges an epoch: ``choose_by``, or the task's last one where that is open or last."""
        return list(metrics_for(task))[-1] if self.choose_by in (None, "last") else self.choose_by

    def resolved(self, task: Task, network: nn.Module | None = None) -> "Recipe":
        """Return the recipe with everything that was left open decided for this machine and task.

        Raises:
            MedicError: the task has no such metric, or no operating point.
        """
        chosen_by, precision = self.choose_by or list(metrics_for(task))[-1], self.precision
        if chosen_by not in (*metrics_for(task), "last"):
            raise MedicError(
                f"the {task.kind} task {task.name!r} has no {chosen_by} to choose the best epoch by; take "
                f"{' or '.join(name for name in metrics_for(task) if name in CHOOSABLE)}"
            )
        if self.sensitivity is not None and not task.thresholds:
            raise MedicError(f"{task.name!r} chooses among several classes and has no sensitivity; leave that away")
        if precision == "auto" and torch.cuda.is_available():
            precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
        elif precision == "auto":
            # Where a newer processor is told to be an older one, bfloat16 is emulated, which is ten times as slow. And
            # it slows down networks whose second convolution treats each channel by itself: a step of Lite0 takes 1.6
            # times as long with it as without, one of ResNet-18 half.
            able = "AVX512" in torch.backends.cpu.get_cpu_capability() and torch.cpu._is_avx512_bf16_supported()
            groups = [layer.groups for layer in (network.modules() if network else ()) if isinstance(layer, nn.Conv2d)]
            precision = "bf16-mixed" if able and not (len(groups) > 1 and groups[1] > 1) else "32-true"
        return replace(self, precision=precision, choose_by=chosen_by)
