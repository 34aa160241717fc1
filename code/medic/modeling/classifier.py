"""The model: resize, normalise, network and decoding as one module, so that one export holds all of it."""

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

_DISTANCE = "distance."  # what its weights' names begin with, in the file


class Classifier(nn.Module):
    """Prepared pixels in, probabilities out.

    New weights come from torch's global random generator: call ``torch.manual_seed`` first. The attributes are
    None until ``medic.modeling.training.decide`` has fitted them.

    Args:
        task: what is predicted; fixes the number of outputs and their meaning.
        backbone: a network's name (see ``medic.modeling.backbones.backbone``).
        objective: loss and decoding; the usual one of the task's kind when None.
        preprocessing: how the bytes of an image became the pixels this model is trained on.
        image_size: side, in pixels, to which images are resized inside the model (bilinear, antialiased); None is that
            of the network's published weights.
        weights: None (from scratch), ``"imagenet"``, the folder of a saved model whose layers but the last start it, or
            a file of weights for a ``timm/`` network.
        flips: in evaluation, average the raw outputs for the image and for its mirror image; twice the work.
        dropout: share of the features that training leaves out before the last layer, 0 up to but not 1; None is the
            network's own.

    Attributes:
        thresholds: the operating point, as ``medic.task.Prediction`` has it.
        scale: of the raw outputs, K numbers, the inverse of a temperature where they are equal. Set to None, the
            network gives its own probabilities again.
        shift: of the scaled outputs, K numbers; None with ``scale``.
        distance: measures how far the last layer's input lies from that of training images.
        referral: the rule by which answers are left to a person.

    Raises:
        MedicError: unknown network, weights that cannot be had, an objective that does not fit the task, an image size
            or a dropout that cannot be.
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
        self.task, self.backbone_name, self.objective = task, backbone, objective or default_objective(task)
        self.preprocessing, self.flips, self.dropout = preprocessing or Preprocessing(), flips, dropout
        self.image_size = about.size if image_size is None else image_size
        if not 1 <= self.image_size <= 4096:
            raise MedicError(f"a network cannot learn from images of {image_size} px; give an image_size such as 224")
        self.thresholds: tuple[float, ...] | None = None
        self.scale: tuple[float, ...] | None = None
        self.shift: tuple[float, ...] | None = None
        self.distance: FeatureDistance | None = None
        self.referral: Referral | None = None
        start = weights if weights in (None, "imagenet") else Path(weights)
        saved = isinstance(start, Path) and not start.is_file()
        outputs = self.objective.outputs(task)
        self.backbone = build_backbone(backbone, outputs, None if saved else start, self.image_size, dropout)
        self.register_buffer("mean", 255 * torch.tensor(about.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(about.std).view(1, 3, 1, 1), persistent=False)
        if saved:
            self._start_from(start)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classify images uint8 (N, H, W, 3) RGB.

        Returns:
            What ``output_names`` says: probabilities float32 (N, C), calibrated where ``scale`` is set; for ordinal
            tasks the continuous grade float32 (N,) in 0..C-1; with ``distance``, that float32 (N,), from 0.
        """
        return self.outputs(self.inputs(images))

    @property
    def output_names(self) -> list[str]:
        """What ``forward`` returns, in its order."""
        return [
            "probabilities",
            *["grade"] * (self.task.kind == "ordinal"),
            *["distance"] * (self.distance is not None),
        ]

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
        """Return the raw outputs (N, K) of inputs (N, 3, S, S), in evaluation averaged over mirror images if set."""
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
        """Classify N prepared images, uint8 (N, S, S, 3) RGB, in evaluation mode.

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
        folder, weights = Path(folder), dict(self.backbone.state_dict())
        if self.distance is not None:
            weights |= {f"{_DISTANCE}{name}": value for name, value in self.distance.state_dict().items()}
        write_bytes(folder / "model.safetensors", save({name: one.contiguous() for name, one in weights.items()}))
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
        calibration = self.scale and {"scale": list(self.scale), "shift": list(self.shift)}
        fitted = {"calibration": calibration, "referral": self.referral and self.referral.to_dict()}
        return {
            "task": self.task.to_dict(),
            "backbone": self.backbone_name,
            "objective": self.objective.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "image_size": self.image_size,
            "flips": self.flips,
            "dropout": self.dropout,
            "thresholds": self.thresholds and list(self.thresholds),
            **{name: value for name, value in fitted.items() if value is not None},
        }

    @classmethod
    def load(cls, folder: str | Path, task: Task | None = None) -> "Classifier":
        """Load what ``save`` wrote into a folder, in evaluation mode.

        Raises:
            MedicError: a file is missing or damaged, the weights do not fit the network, or it is not for ``task``.
        """
        folder = Path(folder)
        settings, weights = _read(folder)
        try:
            made_for, options = Task.from_dict(settings["task"]), {}
            options |= {name: settings[name] for name in ("backbone", "image_size", "flips", "dropout")}
            options["objective"] = objective_from_dict(settings["objective"])
            options["preprocessing"] = Preprocessing(**settings["preprocessing"])
            numbers = {"thresholds": settings["thresholds"], **settings.get("calibration", {})}
            fitted = {name: values and tuple(values) for name, values in numbers.items()}
            fitted["referral"] = Referral.from_dict(settings["referral"]) if "referral" in settings else None
            model = cls(made_for, **options)
        except (KeyError, TypeError, AttributeError) as error:
            raise MedicError(
                f"the checkpoint {folder} is damaged or of another version ({error!r}); restore it or train again"
            ) from error
        if task is not None and task != made_for:
            theirs, ours = (f"{one.name!r} ({', '.join(one.classes)})" for one in (made_for, task))
            raise MedicError(f"the checkpoint {folder} is for the task {theirs}, not for {ours}; give another")
        for name, value in fitted.items():
            setattr(model, name, value)
        measures = {key.removeprefix(_DISTANCE): weights.pop(key) for key in [*weights] if key.startswith(_DISTANCE)}
        try:
            if measures:
                model.distance = FeatureDistance(**measures)
            model.backbone.load_state_dict(weights)
        except (RuntimeError, TypeError) as error:
            why = " ".join(str(error).split())[:300]
            raise MedicError(f"the weights in {folder} do not fit a {model.backbone_name}: {why}") from error
        return model.eval()

    def _start_from(self, folder: Path) -> None:
        settings, weights = _read(folder)
        own, there = self.backbone.state_dict(), settings.get("backbone")
        if there != self.backbone_name or own.keys() - weights.keys():
            raise MedicError(f"{folder} holds the weights of a {there}, not of a {self.backbone_name}; name others")
        head = list(own)[-1].rpartition(".")[0]
        taken = {key: value for key, value in weights.items() if not key.startswith((f"{head}.", _DISTANCE))}
        self.backbone.load_state_dict(own | taken)


def last_layer(model: Classifier) -> nn.Linear:
    """Return the layer that turns features into raw outputs; raises a ``MedicError`` where it is no linear one."""
    layers = [layer for layer in model.backbone.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not isinstance(layers[-1], nn.Linear):
        raise MedicError(f"{model.backbone_name} ends in a convolution and has no features; take resnet18, say")
    return layers[-1]


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return the settings and the weights of a saved model."""
    try:
        return json.loads((folder / "model.json").read_text()), load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        missing = Path(error.filename or folder / "model.safetensors").name
        raise MedicError(f"there is no checkpoint at {folder} (no {missing}); train one or correct the path") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise MedicError(f"the checkpoint {folder} is damaged ({error}); restore it or train again") from error


def parts(model: Classifier, names: tuple[str, ...]) -> list[nn.Module]:
    """Return parts of the network to be frozen; raises a ``MedicError`` where one is absent, or there is no other."""
    there, called = dict(model.backbone.named_modules()), model.backbone_name
    if unknown := [name for name in names if not name or name not in there]:
        outermost = ", ".join(name for name, _ in model.backbone.named_children())
        raise MedicError(f"a {called} has no part {unknown[0]!r} to freeze; its outermost are {outermost}")
    found = [there[name] for name in names]
    if set(model.backbone.parameters()) <= {own for part in found for own in part.parameters()}:
        raise MedicError(f"with {', '.join(names)} frozen nothing of a {called} is left to train")
    return found
