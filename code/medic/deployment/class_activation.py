"""The class activation map: what each place of an image adds to each raw output, as one more output of the graph.

A network that averages its last feature map over all places and then applies one linear layer may as well apply the
layer first, place by place, and average afterwards (Zhou et al., Learning Deep Features for Discriminative
Localization, CVPR 2016, section 2). The map before the average says where an output comes from: its mean over the
places plus the layer's bias is the raw output, exactly. Grad-CAM (Selvaraju et al., ICCV 2017) is, for such networks,
the positive part of the same map divided by the number of places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medic.modeling.classifier import Classifier

_AVERAGES = (F.adaptive_avg_pool2d, torch.mean, Tensor.mean)
"""What torchvision's networks average over all places with, as a layer or in the middle of ``forward``."""


class WithActivation(nn.Module):
    """A classifier that gives its class activation map, too. For networks of which ``has_activation`` is true."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classify in evaluation mode, and say where the raw outputs come from.

        Args:
            images: as ``Classifier.forward`` takes them.

        Returns:
            What ``Classifier.forward`` gives, and last the map float32 (N, K, h, w) for K raw outputs. With the mirror
            image averaged in, so is its map, mirrored back.
        """
        model = self.model
        with _Ending() as ending:
            answers = model.outputs(model.inputs(images))
        activation = ending.activation()
        if model.flips:
            count = images.shape[0]
            activation = (activation[:count] + activation[count:].flip(3)) / 2
        return (*answers, activation)


@torch.inference_mode()
def has_activation(model: Classifier) -> bool:
    """Whether the raw outputs are averages over the places of a map: found by trying, not by the network's name.

    What the network averages over all places is moved by noise; what comes out must be the last linear layer of just
    those averages, or the averages themselves. A hidden layer or a normalisation in between shows as a difference. An
    untrained network, whose features can be next to nothing, is told apart as well as a trained one.

    Args:
        model: a classifier in evaluation mode, on the CPU.
    """
    size = model.image_size
    generator = torch.Generator().manual_seed(0)
    with _Ending(generator) as ending:
        raw = model.backbone(torch.randn((2, 3, size, size), generator=generator))
    expected = ending.raw()
    return expected is not None and expected.shape == raw.shape and torch.allclose(expected, raw, rtol=1e-4, atol=1e-4)


class _Ending(TorchFunctionMode):
    """Notes, while a network runs, the last average over all places and the last linear layer after it.

    Hooks on layers would not do: many networks average by a function in ``forward``.

    Args:
        noise: where to draw noise from that every average is moved by; None moves nothing.
    """

    def __init__(self, noise: torch.Generator | None = None):
        super().__init__()
        self.noise = noise
        self.features: Tensor | None = None
        self.averages: Tensor | None = None
        self.linear: tuple[Tensor, Tensor] | None = None

    def __torch_function__(self, called, types, args=(), kwargs=None) -> object:  # torch's own signature
        result = called(*args, **(kwargs or {}))
        if called in _AVERAGES and _over_all_places(args[0], result):
            if self.noise is not None:
                result = result + torch.randn(result.shape, generator=self.noise)
            self.features, self.averages, self.linear = args[0], result, None
        elif called is F.linear:
            self.linear = args[1], args[2]
        return result

    def activation(self) -> Tensor:
        """What each place adds to each output: float32 (N, K, h, w)."""
        if self.linear is None:
            return self.features
        return F.conv2d(self.features, self.linear[0][:, :, None, None])

    def raw(self) -> Tensor | None:
        """The raw outputs (N, K), if the averages and the last linear layer make them; None if they do not fit."""
        if self.averages is None:
            return None
        averages = self.averages.flatten(1)
        if self.linear is None:
            return averages
        weight, bias = self.linear
        return F.linear(averages, weight, bias) if weight.shape[1] == averages.shape[1] else None


def _over_all_places(features: Tensor, averages: Tensor) -> bool:
    """Whether (N, C, h, w) became (N, C) or (N, C, 1, 1)."""
    return (
        features.ndim == 4
        and averages.ndim in (2, 4)
        and averages.shape[1] == features.shape[1]
        and all(side == 1 for side in averages.shape[2:])
    )
