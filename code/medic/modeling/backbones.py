"""Networks by name: any torchvision classification model, its last layer made to fit the task."""

from __future__ import annotations

import os
import pickle
import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from medic.errors import MedicError

_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
"""How the published files name what today's DenseNet calls ``norm1``; torchvision renames it on loading, too."""


def backbone(
    name: str, outputs: int, weights: str | None = None, image_size: int = 224, dropout: float | None = None
) -> nn.Module:
    """Build a torchvision classification network with ``outputs`` raw outputs.

    Args:
        name: a name of ``torchvision.models.list_models(module=torchvision.models)``, such as ``resnet18``.
        outputs: raw outputs of the new last layer.
        weights: None starts from scratch, drawn from torch's global random generator; ``"imagenet"`` starts from
            torchvision's own weights, all layers but the last.
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
        state = imagenet_weights(name)
        state = {
            _DENSENET_KEY.sub(r"\1\2", key): value
            for key, value in state.items()
            if not key.startswith(("aux", "AuxLogits"))
        }
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise MedicError(f"the ImageNet weights of {name} do not fit the network: {error}") from error
    _replace_head(network, outputs, dropout)
    return network


def own_dropout(name: str) -> float:
    """Share of the features that a network leaves out in training before its last layer, as torchvision has it."""
    with torch.device("meta"):
        network = backbone(name, 1)
    return max((layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)), default=0.0)


def published_accuracy(name: str) -> float:
    """Top-1 accuracy on ImageNet-1K, in per cent, of the weights that ``"imagenet"`` names.

    The figure is the one that torchvision states with the weights; nothing is downloaded.

    Raises:
        MedicError: torchvision has no such network.
    """
    _check_name(name)
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
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise MedicError(
            f"torchvision has no classification network called {name!r}; "
            "see torchvision.models.list_models(), for instance resnet18, efficientnet_v2_s or densenet121"
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
