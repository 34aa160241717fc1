"""The class activation map: what each place of an image adds to each raw output, as one more output of the graph.

A network that averages its last feature map over all places and then applies one linear layer may as well apply the
layer first, place by place, and average afterwards (Zhou et al., Learning Deep Features for Discriminative
Localization, CVPR 2016, section 2). The mean of the map over the places plus the layer's bias is the raw output,
exactly. Grad-CAM (Selvaraju et al., ICCV 2017) is its positive part divided by the number of places.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medic.modeling.classifier import Classifier


class WithActivation(nn.Module):
    """A classifier in evaluation mode that gives its class activation map, too, last: float32 (N, K, h, w).

    K is the number of raw outputs. With the mirror image averaged in, so is its map, mirrored back.
    """

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classify uint8 (N, H, W, 3) and append the map to what ``Classifier.forward`` gives."""
        with _Ending() as ending:
            answers = self.model.outputs(self.model.inputs(images))
        activation = F.conv2d(ending.features, ending.weight[:, :, None, None])
        if self.model.flips:
            count = images.shape[0]
            activation = (activation[:count] + activation[count:].flip(3)) / 2
        return (*answers, activation)


@torch.inference_mode()
def has_activation(model: Classifier) -> bool:
    """Try, on noise, whether the raw outputs of a model (in evaluation mode, on the CPU) are averages of such a map."""
    generator = torch.Generator().manual_seed(0)
    with _Ending() as ending:
        raw = model.backbone(torch.randn((2, 3, model.image_size, model.image_size), generator=generator))
    if ending.features is None or ending.weight.shape != (raw.shape[1], ending.features.shape[1]):
        return False
    expected = F.linear(ending.features.mean(dim=(2, 3)), ending.weight, ending.bias)
    return torch.allclose(expected, raw, rtol=1e-4, atol=1e-4)


class _Ending(TorchFunctionMode):
    """Notes the last feature map that a network averages over all places, and the last linear layer after it.

    Hooks on layers would not do: many networks average by a function in ``forward``.
    """

    features: Tensor | None = None

    def __torch_function__(self, called, types, args=(), kwargs=None) -> object:  # torch's own signature
        result = called(*args, **(kwargs or {}))
        if called in (F.adaptive_avg_pool2d, torch.mean, Tensor.mean) and args[0].ndim == 4:
            channels = args[0].shape[1]
            if result.shape[1:] in ((channels,), (channels, 1, 1)):
                # The identity stays where no layer follows.
                self.features, self.weight, self.bias = args[0], torch.eye(channels, dtype=args[0].dtype), None
        elif called is F.linear:
            self.weight, self.bias = args[1], args[2] if len(args) > 2 else None
        return result
