"""Augmentation with torchvision's transforms (v2): two presets for recipes, or transforms of your own.

``transforms(size)`` gives a ``v2.Compose`` of PIL images, which Pillow varies faster than torch does tensors.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image

from medic.errors import MedicError

if TYPE_CHECKING:
    from torchvision.transforms import v2


class _Preset:
    """What all augmentations do the same way; each has ``transforms(size)``."""

    kind: ClassVar[str] = ""

    def apply(self, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Vary one image and bring it to the size that the network wants.

        The same ``random`` gives the same pixels, whichever worker asks and whatever went before.

        Args:
            pixels: uint8 (S, S, 3) RGB, a prepared image; it is not changed.
            size: side of the result, uint8 (size, size, 3) RGB.
            random: source of all that is drawn; one number is taken from it.

        Raises:
            MedicError: the transforms return something else than an RGB image.
        """
        # Seeded for one image and put back; fork_rng would start the generators of GPUs, too.
        before = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(int(random.integers(2**63)))
            image = _transforms(self, size)(Image.fromarray(pixels))
        finally:
            torch.default_generator.set_state(before)
        if getattr(image, "mode", "") != "RGB":
            raise MedicError(
                f"an augmentation returned {type(image).__name__} instead of an RGB image of Pillow's; leave ToImage, "
                "ToDtype and Normalize to the model"
            )
        return np.array(image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR))

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return ({"kind": self.kind} if self.kind else {}) | asdict(self)


@lru_cache(maxsize=32)
def _transforms(augmentation: _Preset, size: int) -> "v2.Compose":
    return augmentation.transforms(size)


@dataclass(frozen=True)
class Augmentation(_Preset):
    """How far a training image may be varied: a light augmentation for any medical image.

    Attributes:
        flip: mirror left and right in half of the cases.
        rotate: largest angle either way, in degrees. A retina has no up and down that matters, 180 is allowed.
        scale: largest relative change of size either way, 0..1.
        shift: largest move either way, as a share of the side.
        brightness: largest relative change either way, 0..1.
        contrast: the same for contrast.
        colour: the same for saturation.
    """

    flip: bool = True
    rotate: float = 15.0
    scale: float = 0.1
    shift: float = 0.03
    brightness: float = 0.1
    contrast: float = 0.1
    colour: float = 0.03

    def transforms(self, size: int) -> "v2.Compose":
        """Return the steps that make images of ``size`` pixels."""
        from torchvision.transforms import v2  # it takes seconds, and only a training varies images

        steps: list[v2.Transform] = [v2.Resize((size, size))]
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.rotate or self.shift or self.scale:
            zoom = (1 - self.scale, 1 + self.scale)
            bilinear = v2.InterpolationMode.BILINEAR
            steps.append(v2.RandomAffine(self.rotate, (self.shift, self.shift), zoom, interpolation=bilinear))
        if self.brightness or self.contrast or self.colour:
            steps.append(v2.ColorJitter(self.brightness, self.contrast, self.colour))
        return v2.Compose(steps)


@dataclass(frozen=True)
class PublishedAugmentation(_Preset):
    """The chain with which the EfficientNetV2 recipe for retinopathy was published; slower than ``Augmentation``.

    Of its elastic deformation the affine part is kept; the random field, which moved pixels by some thousandths of one,
    is left out. The contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994, p. 474) is of
    the lightness, in 8 x 8 tiles. Each step is taken in half of the cases.
    """

    kind: ClassVar = "published"

    def transforms(self, size: int) -> "v2.Compose":
        """Return the steps that make images of ``size`` pixels."""
        from torchvision.transforms import v2

        bilinear = v2.InterpolationMode.BILINEAR
        steps = [
            [v2.RandomResizedCrop(size, (0.75**2, 1), (1, 1))],
            [v2.RandomAffine(8, (0.04, 0.04), (0.93, 1.07), shear=8, interpolation=bilinear)],
            [v2.RandomRotation(45, bilinear)],
            [v2.ColorJitter(saturation=0.1, hue=0.055)],
            [v2.Lambda(equalise)],
            [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()],
            [v2.ColorJitter(brightness=0.12, contrast=0.12)],
            [v2.GaussianBlur(5)],
        ]
        return v2.Compose([v2.Resize((size, size)), *map(v2.RandomApply, steps)])


@dataclass(frozen=True)
class Pipeline(_Preset):
    """Transforms of your own, one after the other: ``Recipe(augmentation=Pipeline((v2.RandomRotation(10),)))``.

    Attributes:
        steps: transforms that take and return an RGB image of Pillow's; the result is resized where needed.
    """

    steps: "tuple[v2.Transform, ...]"

    def transforms(self, size: int) -> "v2.Compose":
        """Return the steps, whatever the size."""
        from torchvision.transforms import v2

        return v2.Compose(self.steps)

    def to_dict(self) -> dict:
        """Return what PyTorch prints of each step, for JSON."""
        return {"kind": "pipeline", "steps": [repr(step) for step in self.steps]}


def equalise(image: Image.Image, limit: float = 4.0) -> Image.Image:
    """Equalise the lightness of an RGB image in tiles, with a clip limit that is drawn from 1 to ``limit``."""
    lab = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(float(torch.empty(1).uniform_(1, limit)), (8, 8)).apply(lab[..., 0])
    return Image.fromarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
