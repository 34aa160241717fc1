"""Networks by name: any torchvision classification model, its last layer made to fit the task."""

from __future__ import annotations

import os
import pickle
import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from medic.errors import MedicError

_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
"""How the published files name what today's DenseNet calls ``norm1``; torchvision renames it on loading, too."""


def backbone(name: str, outputs: int, weights: str | None = None) -> nn.Module:
    """Build a torchvision classification network with ``outputs`` raw outputs.

    Args:
        name: a name of ``torchvision.models.list_models(module=torchvision.models)``, such as ``resnet18``.
        outputs: raw outputs of the new last layer.
        weights: None starts from scratch, drawn from torch's global random generator; ``"imagenet"`` starts from
            torchvision's own weights, all layers but the last.

    Returns:
        A network: float32 (N, 3, H, W) to raw outputs float32 (N, outputs).

    Raises:
        MedicError: no such network, or its weights cannot be had (never random weights instead).
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise MedicError(
            f"torchvision has no classification network called {name!r}; "
            "see torchvision.models.list_models(), for instance resnet18, efficientnet_v2_s or densenet121"
        )
    if weights not in (None, "imagenet"):
        raise MedicError(f"weights {weights!r} are unknown; use None (from scratch) or 'imagenet'")
    # These two were trained with other constants than the rest, and convert their input themselves when told so.
    options = {"aux_logits": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **options)
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
    _replace_head(network, outputs)
    return network


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


def _replace_head(network: nn.Module, outputs: int) -> None:
    """Put a fresh last layer in place of the one for ImageNet's 1,000 classes."""
    layers = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    classifying = [(p, m) for p, m in layers if getattr(m, "out_features", getattr(m, "out_channels", 0)) == 1000]
    path, old = classifying[-1]
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, outputs)
    else:
        new = nn.Conv2d(old.in_channels, outputs, old.kernel_size)
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, new)
