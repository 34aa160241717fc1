"""How far an image lies from those of the training: what tells a radiograph from an eye."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

AXES = 16
"""Principal axes of the training images' features in which distances are measured; the rest counts as one more."""


class FeatureDistance(nn.Module):
    """How far an image lies from those of the training, in feature space.

    Features are scaled to length 1. In the principal axes of the training images a Mahalanobis distance is measured;
    what lies outside of them counts by the variance that is left there (probabilistic principal component analysis;
    Tipping & Bishop, J. R. Stat. Soc. B 61, 1999, p. 611, with the residual weighed as one axis). Lee et al. (NeurIPS
    2018) tell images of another kind by such a distance.

    Args:
        centre: float32 (D,), the mean.
        axes: float32 (D, A), the principal axes, of length 1.
        variances: float32 (A + 1,), along each axis, and in sum along all others.
    """

    def __init__(self, centre: Tensor, axes: Tensor, variances: Tensor):
        super().__init__()
        for name, value in (("centre", centre), ("axes", axes), ("variances", variances)):
            self.register_buffer(name, value)

    @classmethod
    def fit(cls, features: np.ndarray) -> "FeatureDistance":
        """Return the distance to training images with these features, float (N, D); N at least 3."""
        x = features.astype(np.float64) / np.linalg.norm(features, axis=1, keepdims=True)
        _, sizes, axes = np.linalg.svd(x - (centre := x.mean(axis=0)), full_matrices=False)
        variances, kept = np.square(sizes) / (len(x) - 1), min(AXES, len(x) // 2)
        variances = np.append(variances[:kept], variances[kept:].sum()) + 1e-9  # no axis may be without any spread
        return cls(*(torch.tensor(value, dtype=torch.float32) for value in (centre, axes[:kept].T, variances)))

    def forward(self, features: Tensor) -> Tensor:
        """Return the distance of each image, float32 (N,); about 1.4 for images like those of the training."""
        offset = F.normalize(features.float().flatten(1), dim=1) - self.centre
        along = (offset @ self.axes).square()
        outside = (offset.square().sum(dim=1) - along.sum(dim=1)).clamp(min=0) / self.variances[-1]
        return ((along / self.variances[:-1]).mean(dim=1) + outside).sqrt()


class LastInput(TorchFunctionMode):
    """Notes what a network hands to its last linear layer, in this thread alone, which a hook could not."""

    features: Tensor | None = None

    def __torch_function__(self, called, types, args=(), kwargs=None) -> object:  # torch's own signature
        if called is F.linear:
            self.features = args[0]
        return called(*args, **(kwargs or {}))
