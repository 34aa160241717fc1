"""The one way from an image's bytes to the pixels a model sees: in training, in the bundle and behind the service."""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from medic.data.images.crop import CROPS
from medic.data.images.decode import decode
from medic.errors import MedicError


@dataclass(frozen=True)
class Preprocessing:
    """How bytes become pixels.

    Attributes:
        size: side of the square that comes out, in pixels. The model's own antialiased resize starts from here.
        crop: a name in ``medic.data.images.crop.CROPS``: ``fundus`` cuts to the retina, ``square`` pads.
        grey: make one grey channel of the three (ITU-R BT.601 luma) and repeat it, for radiographs, which some files
            hold as RGB or RGBA.
        bits: how many of 16 bits the set's PNG and TIFF files use (``medic.data.prepare`` measures it); None takes all.
    """

    size: int = 384
    crop: str = "fundus"
    grey: bool = False
    bits: int | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise MedicError(f"preprocessing size {self.size} is outside 16..4096 pixels; 384 is a good start")
        if self.bits is not None and not 9 <= self.bits <= 16:
            raise MedicError(f"{self.bits} of 16 bits cannot be what a set uses; give 9 to 16, or None for all")
        if self.crop not in CROPS:
            raise MedicError(f"no crop is called {self.crop!r}; there is: {', '.join(CROPS)}")

    def pixels(self, data: bytes) -> np.ndarray:
        """Decode, crop and scale one image file: uint8 (size, size, 3) RGB, channels equal when ``grey``.

        A large JPEG is decoded at reduced scale, chosen for the frame; should the subject turn out smaller than
        ``size`` there, it is decoded once more, finer, so that nothing is scaled up that the file holds sharp.

        Raises:
            ImageError: the bytes cannot become pixels; the message says why and what to do.
        """
        subject = CROPS[self.crop](frame := decode(data, at_least=self.size, bits=self.bits))
        if len(subject) < self.size:
            finer = decode(data, at_least=-(-self.size * min(frame.shape[:2]) // len(subject)), bits=self.bits)
            subject = subject if finer.shape == frame.shape else CROPS[self.crop](finer)
        # Up to 1.5 times the size, the four pixels that bilinear interpolation reads smooth as much as an area's mean
        # does (48 to 50 dB against it), in a sixth of the time; beyond that it would alias.
        how = cv2.INTER_AREA if len(subject) > 1.5 * self.size else cv2.INTER_LINEAR
        subject = cv2.resize(subject, (self.size, self.size), interpolation=how)
        return cv2.cvtColor(cv2.cvtColor(subject, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) if self.grey else subject

    def to_dict(self) -> dict:
        """Return the arguments as plain values, for JSON; without ``bits`` where all 16 are used."""
        return {key: value for key, value in asdict(self).items() if key != "bits" or value is not None}
