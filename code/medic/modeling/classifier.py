"""The model: resize, normalise, network and decoding as one module, so that one export holds all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.files import write_bytes, write_json
from medic.modeling.backbones import backbone as build_backbone
from medic.modeling.backbones import published
from medic.modeling.metrics import refuse_nan
from medic.modeling.objectives import Objective, default_objective, objective_from_dict
from medic.modeling.training.distance import FeatureDistance, LastInput
from medic.referral import Referral, appearance
from medic.task import Prediction, Task

SETTINGS = {"flips": False, "dropout": None, "thresholds": None, "calibration": None, "referral": None}
"""What a ``model.json`` that was written before there were these settings stands for."""
_DISTANCE = "distance."  # what its weights' names begin with, in the file


class Classifier(nn.Module):
    """Prepared pixels in, probabilities out.

    New weights come from torch's global random generator: call ``torch.manual_seed`` first (``begin`` in a notebook
    and ``--seed`` on the command line do).

    Args:
        task: what is predicted; fixes the number of outputs and their meaning.
        backbone: a network's name (see ``medic.modeling.backbones.backbone``).
        objective: loss and decoding; the usual one of the task's kind when None.
        preprocessing: how the bytes of an image became the pixels this model is trained on.
        image_size: side, in pixels, to which images are resized inside the model (bilinear, antialiased); None is that
            of the images that the network's published weights were trained on.
        weights: None (from scratch), ``"imagenet"``, the folder of a saved model whose layers but the last start it, or
            a file of weights for a ``timm/`` network.
        flips: in evaluation mode, average the raw outputs for the image and for its mirror image (left and right
            exchanged); twice the work. Training does without.
        dropout: share of the features that a training step leaves out before the last layer, 0 up to but not 1; None is
            the network's own.

    Attributes:
        thresholds: the operating point, as ``medic.task.Prediction`` has it; None until one has been chosen (see
            ``medic.modeling.thresholds``).
        scale: of the raw outputs, K numbers, the inverse of a temperature where they are equal; None until it has been
            calibrated (see ``medic.modeling.calibrate``). Set to None, the network gives its own probabilities again.
        shift: of the scaled outputs, K numbers; None with ``scale``.
        distance: measures how far the last layer's input lies from that of training images; None until it is fitted.
        referral: the rule by which answers are left to a person; None until one has been fitted.

    Raises:
        MedicError: unknown network, weights that cannot be had, an objective that does not fit the task, a side that is
            none, a dropout that is no share.
    """

    def __init__(
        self,
        task: Task,
        backbone: str = "resnet18",
        objective: Objective | None = None,
        preprocessing: Preprocessing | None = None,
        image_size: int | None = None,
        weights: str | Path | None = None,
        flips: bool = False,
        dropout: float | None = None,
    ):
        super().__init__()
        about = published(backbone)
        self.task = task
        self.backbone_name = backbone
        self.objective = objective or default_objective(task)
        self.preprocessing = preprocessing or Preprocessing()
        self.image_size = about.size if image_size is None else image_size
        if self.image_size < 1:
            raise MedicError(f"a network cannot learn from images of {image_size} px; give an image_size such as 224")
        self.flips = flips
        self.dropout = dropout
        self.thresholds: tuple[float, ...] | None = None
        self.scale: tuple[float, ...] | None = None
        self.shift: tuple[float, ...] | None = None
        self.distance: FeatureDistance | None = None
        self.referral: Referral | None = None
        saved = weights not in (None, "imagenet") and not Path(weights).is_file()
        start = None if saved else weights if weights in (None, "imagenet") else Path(weights)
        self.backbone = build_backbone(backbone, self.objective.outputs(task), start, self.image_size, dropout)
        self.register_buffer("mean", 255 * torch.tensor(about.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(about.std).view(1, 3, 1, 1), persistent=False)
        if saved:
            self._start_from(Path(weights))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classify.

        Args:
            images: uint8 (N, H, W, 3) RGB, values 0..255.

        Returns:
            What ``output_names`` says: probabilities float32 (N, C), calibrated where ``scale`` is set; for ordinal
            tasks the continuous grade float32 (N,) in 0..C-1; with ``distance``, that float32 (N,), from 0.
        """
        return self.outputs(self.inputs(images))

    @property
    def output_names(self) -> list[str]:
        """What ``forward`` returns, in its order."""
        graded, measured = self.task.kind == "ordinal", self.distance is not None
        return ["probabilities", *["grade"] * graded, *["distance"] * measured]

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what ``forward`` does, from the network's inputs float32 (N, 3, S, S)."""
        if self.distance is None:
            return self.decode(self.raw(x))
        raw, features = self.raw_and_features(x)
        return (*self.decode(raw), self.distance(features))

    def decode(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities, and the grade of ordinal tasks, of raw outputs (N, K), calibrated."""
        if self.scale is None:
            return self.objective.decode(raw, self.task)
        return self.objective.decode(raw, self.task, raw.new_tensor(self.scale), raw.new_tensor(self.shift))

    def raw_and_features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return ``raw`` and the last linear layer's input (N, D), if there is one, over the mirror image likewise."""
        with LastInput() as last:
            raw = self.raw(x)
        count, features = x.shape[0], last.features
        if self.flips and not self.training and features is not None:
            features = (features[:count] + features[count:]) / 2
        return raw, features

    def raw(self, x: Tensor) -> Tensor:
        """Run the network on its inputs (N, 3, S, S): raw outputs (N, outputs), averaged over the mirror image if set.

        In training mode nothing is mirrored.
        """
        if not self.flips or self.training:
            return self.backbone(x)
        # One batch of twice the size: the exported graph then holds the network once, not twice.
        both = self.backbone(torch.cat([x, x.flip(3)]))
        count = x.shape[0]  # not len(x), which the exporter would take for a constant
        return (both[:count] + both[count:]) / 2

    def inputs(self, images: Tensor) -> Tensor:
        """Resize and normalise uint8 (N, H, W, 3) to the network's input, float32 (N, 3, S, S)."""
        x = images.permute(0, 3, 1, 2).float()
        if x.shape[2] != self.image_size or x.shape[3] != self.image_size:
            size = (self.image_size, self.image_size)
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (x - self.mean) / self.std

    @torch.inference_mode()
    def predict_pixels(self, images: np.ndarray) -> Prediction:
        """Classify prepared pixels in evaluation mode.

        Args:
            images: uint8 (N, S, S, 3) RGB, as ``preprocessing.pixels`` gives them.

        Returns:
            The prediction for the N images.

        Raises:
            MedicError: an answer is not a number.
        """
        outputs = self.eval()(torch.from_numpy(images).to(self.mean.device))
        found = {name: output.cpu().numpy() for name, output in zip(self.output_names, outputs, strict=True)}
        refuse_nan(found["probabilities"])
        if self.referral is not None:
            found["brightness"], found["sharpness"] = appearance(images)
        return Prediction(self.task, thresholds=self.thresholds, referral=self.referral, **found)

    def save(self, folder: str | Path) -> Path:
        """Write ``model.safetensors`` (weights) and ``model.json`` (all that is needed to build the model again)."""
        folder = Path(folder)
        weights = {key: value.contiguous() for key, value in self.backbone.state_dict().items()}
        if self.distance is not None:
            weights |= {f"{_DISTANCE}{name}": value.contiguous() for name, value in self.distance.state_dict().items()}
        write_bytes(folder / "model.safetensors", save(weights))
        write_json(folder / "model.json", self.to_dict())
        return folder

    @property
    def digest(self) -> str:
        """SHA-256 of the weights: the same for a model and for its copies on disk, whatever file they lie in."""
        found = hashlib.sha256()
        for name, value in sorted(self.backbone.state_dict().items()):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def to_dict(self) -> dict:
        """The settings, as plain values for JSON; what was fitted after the training only where it was."""
        fitted: dict = {}
        if self.scale is not None:
            fitted["calibration"] = {"scale": list(self.scale), "shift": list(self.shift)}
        if self.referral is not None:
            fitted["referral"] = self.referral.to_dict()
        return {
            "task": self.task.to_dict(),
            "backbone": self.backbone_name,
            "objective": self.objective.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "image_size": self.image_size,
            "flips": self.flips,
            "dropout": self.dropout,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            **fitted,
        }

    @classmethod
    def load(cls, folder: str | Path, task: Task | None = None) -> Classifier:
        """Load what ``save`` wrote, in evaluation mode.

        Args:
            folder: the folder with ``model.safetensors`` and ``model.json``.
            task: what the caller is going to predict; a model made for another task is refused.

        Raises:
            MedicError: a file is missing or damaged, the weights do not fit the network, or the task is another.
        """
        folder = Path(folder)
        settings, weights = _read(folder)
        try:
            settings = SETTINGS | settings
            if settings.get("contrast") is not None:
                raise TypeError("it was trained with the setting contrast, which there is no longer")
            made_for, objective = Task.from_dict(settings["task"]), objective_from_dict(settings["objective"])
            options = {name: settings[name] for name in ("backbone", "image_size", "flips", "dropout")}
            options["preprocessing"] = Preprocessing.from_dict(settings["preprocessing"])
            referral = None if settings["referral"] is None else Referral.from_dict(settings["referral"])
            calibration = {name: tuple(values) for name, values in (settings["calibration"] or {}).items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise MedicError(
                f"the checkpoint {folder} is damaged or of another version ({error!r}); restore it or train again"
            ) from error
        if task is not None and task != made_for:
            raise MedicError(
                f"the checkpoint {folder} is for the task {made_for.name!r} ({', '.join(made_for.classes)}), "
                f"not for {task.name!r} ({', '.join(task.classes)}); give a checkpoint of that task"
            )
        model = cls(made_for, objective=objective, **options)
        model.thresholds = None if settings["thresholds"] is None else tuple(settings["thresholds"])
        model.scale, model.shift, model.referral = calibration.get("scale"), calibration.get("shift"), referral
        measures = {key.removeprefix(_DISTANCE): weights.pop(key) for key in [*weights] if key.startswith(_DISTANCE)}
        try:
            if measures:
                model.distance = FeatureDistance(**measures)
            model.backbone.load_state_dict(weights)
        except (RuntimeError, TypeError) as error:
            raise MedicError(f"the weights in {folder} do not fit a {model.backbone_name}: {error}") from error
        return model.eval()

    def _start_from(self, folder: Path) -> None:
        settings, weights = _read(folder)
        own, there = self.backbone.state_dict(), settings.get("backbone")
        head = list(own)[-1].rpartition(".")[0]
        if there != self.backbone_name or own.keys() - weights.keys():
            raise MedicError(f"{folder} holds the weights of a {there}, not of a {self.backbone_name}; name others")
        taken = {key: value for key, value in weights.items() if not key.startswith((f"{head}.", _DISTANCE))}
        self.backbone.load_state_dict(own | taken)


def last_layer(model: Classifier) -> nn.Linear:
    """Return the layer that turns features into raw outputs; raises a ``MedicError`` where it is no linear one."""
    layers = [layer for layer in model.backbone.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not isinstance(layers[-1], nn.Linear):
        raise MedicError(
            f"{model.backbone_name} ends in a convolution and has no features; take another, such as resnet18"
        )
    return layers[-1]


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return the settings and the weights of a saved model."""
    try:
        return json.loads((folder / "model.json").read_text()), load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        missing = Path(error.filename or folder / "model.safetensors").name
        raise MedicError(f"there is no checkpoint at {folder} (no {missing}); train one or correct the path") from error
    except (ValueError, SafetensorError) as error:
        raise MedicError(f"the checkpoint {folder} is damaged ({error}); restore it or train again") from error


def parts(model: Classifier, names: tuple[str, ...]) -> list[nn.Module]:
    """Return parts of the network to be frozen; raises a ``MedicError`` where one is absent, or there is no other."""
    there = dict(model.backbone.named_modules())
    if unknown := [name for name in names if not name or name not in there]:
        outermost = ", ".join(name for name, _ in model.backbone.named_children())
        raise MedicError(
            f"a {model.backbone_name} has no part {unknown[0]!r} that could be frozen; its outermost are {outermost}"
        )
    found = [there[name] for name in names]
    if {id(own) for own in model.backbone.parameters()} <= {id(own) for part in found for own in part.parameters()}:
        raise MedicError(f"with {', '.join(names)} frozen nothing of a {model.backbone_name} is left to train")
    return found
