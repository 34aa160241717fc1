"""Augmentation with torchvision's transforms (v2): a ready-made pipeline for skin lesions, or one of your own."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from medic.errors import MedicError

_HAIR = (45, 30, 20)
"""RGB of the bars that stand for hairs: dark brown."""

_THIN = (1 / 40, 1 / 25)
"""Height of such a bar as a share of its length."""

_DRAWING = threading.Lock()
"""torchvision draws from torch's one generator: threads take turns at it."""


@contextlib.contextmanager
def drawing_from(random: np.random.Generator) -> Iterator[None]:
    """Let torchvision draw from ``random``: one number of it seeds torch's generator, which is put back afterwards.

    Meanwhile torch computes in one thread. An image is too small to share out, and where the cores are busy, as beside
    a training or other loading processes, the threads of one image wait for each other: ten times as long, measured.
    """
    seed = int(random.integers(2**63))
    # Not fork_rng and manual_seed: these reach for the generators of every device, which a worker must not start.
    generator = torch.default_generator
    with _DRAWING:
        before, threads = generator.get_state(), torch.get_num_threads()
        try:
            generator.manual_seed(seed)
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
            generator.set_state(before)


@dataclass(frozen=True)
class Pipeline:
    """Transforms of ``torchvision.transforms.v2``, one after the other, as a recipe's augmentation.

    torchvision draws what it does from torch's global generator. Here that generator is seeded from the one that
    belongs to the image and the epoch, and afterwards put back to where it was: the result depends on seed, epoch and
    image alone, in worker processes and threads too, and nothing else (dropout, new weights) notices.

    Attributes:
        steps: the transforms. They get a uint8 tensor (3, S, S) RGB and may return any tensor of that kind; what is not
            of the network's size in the end is resized.

    Raises:
        MedicError: a step is no transform of torchvision's v2, or holds something that settings cannot say, such as
            the function of a ``Lambda``.
    """

    steps: tuple[v2.Transform, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        self.to_dict()

    def apply(self, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Vary one image and bring it to the size that the network wants.

        Args:
            pixels: uint8 (S, S, 3) RGB, a prepared image.
            size: side of the result in pixels.
            random: source of all that is drawn; one number is taken from it.

        Returns:
            uint8 (size, size, 3) RGB.

        Raises:
            MedicError: the steps made something else of the image than uint8 with three channels.
        """
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        with drawing_from(random):
            for step in self.steps:
                image = step(image)
        if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
            raise MedicError(
                f"the transforms {', '.join(type(step).__name__ for step in self.steps)} made {image.dtype} "
                f"{tuple(image.shape)} of an image; they have to keep uint8 and three channels, because the model "
                "itself normalises (leave ToDtype, Normalize and Grayscale to one channel away)"
            )
        if image.shape[1:] != (size, size):
            image = functional.resize(image, [size, size], antialias=True)
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())

    def to_dict(self) -> dict:
        """Plain values, for JSON; ``kind`` tells them from those of other augmentations."""
        return {"kind": "torchvision pipeline", "steps": [_described(step) for step in self.steps]}


@dataclass(frozen=True)
class Transforms:
    """A ready-made pipeline of torchvision's transforms for dermoscopic images of skin lesions.

    A lesion is judged by its symmetry, its border, its colours and the structures in it. So each setting is what two
    photographs of one lesion differ by, and no more. In this order:

    Attributes:
        crop: smallest share of the area that is cut out and enlarged again. 0.7 keeps a lesion in view; torchvision's
            own default of 0.08 is for photographs of objects, and cuts into every third lesion.
        stretch: largest change of the aspect ratio. Kept small, because asymmetry is a sign.
        flip: mirror left and right, and up and down, each in half of the cases. Skin under a dermatoscope has no up.
        hairs: largest share of the area under a thin dark bar, in half of the cases: a hair or the edge of a ruler,
            which says nothing about the lesion. It is ``RandomErasing`` with an extreme ratio; its usual squares would
            cover structures. 0 draws none.
        rotate: largest angle either way, in degrees. 180 for the reason that flips are allowed.
        brightness: largest relative change either way, 0..1: exposure.
        contrast: the same for contrast: skin and camera.
        saturation: the same for saturation.
        hue: largest shift either way, as a share of the colour circle, 0..0.5. Two cameras' white balances differ by a
            few hundredths; more makes other colours of brown, blue-grey and red, which are what is judged.
        blur: largest standard deviation of a Gaussian blur, in pixels of the result, in half of the cases: focus. 0 is
            off, which is right for small pictures, where dots and network are a pixel or two wide.
    """

    crop: float = 0.7
    stretch: float = 0.1
    flip: bool = True
    hairs: float = 0.015
    rotate: float = 180.0
    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.15
    hue: float = 0.02
    blur: float = 0.0

    def __post_init__(self) -> None:
        limits = {"stretch": 1, "hairs": 0.05, "rotate": 180, "brightness": 1, "contrast": 1, "saturation": 1}
        for name, most in (limits | {"hue": 0.5, "blur": 20, "crop": 1}).items():
            value, least = getattr(self, name), 0.01 if name == "crop" else 0
            if not least <= value <= most:
                raise MedicError(f"{name} of the transforms lies between {least} and {most}, not at {value}")

    def apply(self, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Vary one image and bring it to the size that the network wants.

        Args:
            pixels: uint8 (S, S, 3) RGB, a prepared image.
            size: side of the result in pixels.
            random: source of all that is drawn.

        Returns:
            uint8 (size, size, 3) RGB.
        """
        return self.pipeline(size).apply(pixels, size, random)

    def pipeline(self, size: int) -> Pipeline:
        """The transforms that make pictures of ``size`` pixels; print its ``steps`` to see them."""
        return _pipeline(self, size)

    def singles(self, size: int) -> dict[str, Pipeline]:
        """Each transform that is switched on, alone and at its limit, by a caption: for pictures of what they do.

        Where any angle is allowed, the picture is turned by 135 degrees, as 180 would look like two flips.
        """
        return {caption: Pipeline((step,)) for caption, step in _parts(self, size, limit=True).items()}

    def to_dict(self) -> dict:
        """Plain values, for JSON; ``kind`` tells them from those of other augmentations."""
        return {"kind": "torchvision"} | asdict(self)


@lru_cache(maxsize=32)
def _pipeline(settings: Transforms, size: int) -> Pipeline:
    return Pipeline(tuple(_parts(settings, size).values()))


def _parts(settings: Transforms, size: int, limit: bool = False) -> dict[str, v2.Transform]:
    """The transforms in their order, by caption; ``limit`` has each applied always, as far as it goes."""
    chance = 1.0 if limit else 0.5

    def change(most: float) -> tuple[float, float]:
        return (1 + most if limit else 1 - most, 1 + most)

    s, wide = settings, 1 + settings.stretch
    angle = s.rotate if s.rotate < 180 else 135
    parts: dict[str, v2.Transform] = {
        # It also brings the image to the network's size, so that all the others have fewer pixels to work on.
        f"crop {s.crop:.0%}, stretch {s.stretch:.0%}": v2.RandomResizedCrop(
            size, (s.crop, s.crop if limit else 1), (wide if limit else 1 / wide, wide), antialias=True
        )
    }
    if s.flip:
        parts["flip left and right"] = v2.RandomHorizontalFlip(chance)
        parts["flip up and down"] = v2.RandomVerticalFlip(chance)
    if s.hairs:
        # Before the rotation, which then turns the bars to any angle.
        least = s.hairs if limit else s.hairs / 3
        parts["a hair"] = v2.RandomErasing(chance, (least, s.hairs), _THIN, _HAIR)
    if s.rotate:
        turned = (angle, angle) if limit else (-s.rotate, s.rotate)
        parts[f"rotate {angle:g}°" if limit else "rotate"] = v2.RandomRotation(turned, v2.InterpolationMode.BILINEAR)
    for name in ("brightness", "contrast", "saturation"):
        if most := getattr(s, name):
            parts[f"{name} +{most:.0%}"] = v2.ColorJitter(**{name: change(most)})
    if s.hue:
        parts[f"hue +{s.hue:g}"] = v2.ColorJitter(hue=(s.hue if limit else -s.hue, s.hue))
    if s.blur:
        blur = v2.GaussianBlur(2 * math.ceil(3 * s.blur) + 1, (s.blur if limit else 0.01, s.blur))
        parts[f"blur {s.blur:g} px"] = v2.RandomApply([blur], chance)
    return parts


def _described(step: object) -> dict:
    """Name and plain settings of a transform and of those inside it.

    Raises:
        MedicError: it is none, or holds something that JSON cannot.
    """
    if not isinstance(step, v2.Transform):
        raise MedicError(
            f"a pipeline is made of transforms of torchvision.transforms.v2, and {step!r} is none; wrap it in a "
            "subclass of v2.Transform with plain attributes"
        )
    inner = getattr(step, "transforms", ())
    # What begins with an underscore is derived from the rest, or PyTorch's own.
    settings = {
        name: _to_json(value, type(step).__name__)
        for name, value in vars(step).items()
        if not name.startswith("_") and name not in ("training", "transforms")
    }
    return {"name": type(step).__name__} | settings | ({"steps": [_described(one) for one in inner]} if inner else {})


def _to_json(value: object, owner: str) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, torch.dtype):
        return str(value)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise MedicError(
            f"the transform {owner} holds {value!r}, which cannot be written down with a run's settings; use a "
            "transform whose settings are plain values"
        ) from error
