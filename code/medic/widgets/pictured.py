"""Small copies of images: what a page can show of a photograph without being sent all of it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from medic import plots
from medic.data.images.decode import decode, shrunk
from medic.data.stores import Store
from medic.errors import ImageError, MedicError
from medic.task import NO_FINDING, Task

SIZES = {"thumbnail": 128, "large": 800}
"""Pixels of the longer side; smaller images are not enlarged."""

_LOSSLESS = 160
"""Pixels up to which PNG is small enough; JPEG would blur a digit of 28 x 28 pixels."""


class Copy(NamedTuple):
    """An encoded picture: its media type and its bytes."""

    kind: str
    data: bytes


def pixels_of(store: Store, name: str, side: int) -> np.ndarray:
    """An image of a store, scaled down.

    Args:
        store: where the image is.
        name: of the image.
        side: pixels of the longer side at most.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ImageError: it is absent or cannot be decoded.
    """
    if name not in store:
        raise ImageError(f"{name} is not in {store.location.name}; put it there or drop its row", "unreadable")
    return shrunk(decode(store.read(name), at_least=side), side)


def small_copy(store: Store, name: str, side: int) -> Copy:
    """The same as a file: PNG where the picture is tiny, otherwise JPEG; raises as ``pixels_of``."""
    pixels = cv2.cvtColor(pixels_of(store, name, side), cv2.COLOR_RGB2BGR)
    if max(pixels.shape[:2]) < _LOSSLESS and side > _LOSSLESS:
        return Copy("image/png", cv2.imencode(".png", pixels)[1].tobytes())
    return Copy("image/jpeg", cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


def pixels_or_grey(store: Store, name: str, side: int) -> np.ndarray:
    """As ``pixels_of``, and a grey square where the image cannot be shown."""
    try:
        return pixels_of(store, name, side)
    except ImageError:
        return np.full((side, side, 3), 200, np.uint8)


_HERE = Path(__file__).parent
_AT_ONCE = 64
"""Images that one message may ask for; a page has far fewer."""


def front_end(name: str, ending: str) -> str:
    """The JavaScript (``js``) or style (``css``) of a widget: what all share, then its own."""
    return "\n".join((_HERE / f"{part}.{ending}").read_text(encoding="utf-8") for part in ("shared", name))


class PicturedWidget(anywidget.AnyWidget):
    """A widget that answers its page and leaves a static picture behind.

    A subclass gives ``static`` and ``summary``, draws its page from the trait ``state``, and overrides ``received``.

    Attributes:
        state: all that the page shows, as plain values; only Python sets it.
    """

    state = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, store: Store | None, names: list[str], **traits: Any):
        super().__init__(**traits)
        self._store = store
        self._names = frozenset(names)
        self.on_msg(lambda _, message, __: self.receive(message))

    def static(self) -> Figure:
        """The widget as a matplotlib figure, as it now is."""
        raise NotImplementedError

    def summary(self) -> str:
        """The widget in one line."""
        raise NotImplementedError

    def receive(self, message: Any) -> None:
        """Do what a message from the page asks; what cannot be done is said on the page, and changes nothing."""
        try:
            match message:
                case {"do": "images", "names": list(names), "size": str(size)} if len(names) <= _AT_ONCE:
                    self._send_images(names, size)
                case _:
                    self.received(message)
        except MedicError as error:
            self.say(error=str(error))

    def received(self, message: Any) -> None:
        """Do what a message asks, other than for images.

        Raises:
            MedicError: the widget does not know such a message, or it cannot be done.
        """
        asked = message.get("do") if isinstance(message, dict) else message
        raise MedicError(
            f"the page asks for {str(asked)[:80]!r}, which {type(self).__name__} does not do; run the cell again"
        )

    def say(self, **words: str) -> None:
        """Show ``error`` or ``notice`` on the page; what it said before is gone."""
        self.set_trait("state", self.state | {"error": "", "notice": ""} | words)

    def known(self, image: object) -> str:
        """The name of an image, if it is one of these records.

        Raises:
            MedicError: it is not.
        """
        if not isinstance(image, str) or image not in self._names:
            raise MedicError(f"the page asks for the image {str(image)[:80]!r}, which is not among these records")
        return image

    def _send_images(self, names: list[Any], size: str) -> None:
        if size not in SIZES or self._store is None:
            raise MedicError(f"the page asks for images of the size {size[:80]!r}; there is {', '.join(SIZES)}")
        # One message each: the first are seen while the others are still decoded.
        for name in [self.known(name) for name in names]:
            about = {"image": name, "size": size}
            try:
                copy = small_copy(self._store, name, SIZES[size])
                self.send(about | {"type": copy.kind}, buffers=[copy.data])
            except ImageError as error:
                self.send(about | {"reason": error.reason, "detail": str(error)})

    def __repr__(self) -> str:
        return self.summary()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The live widget for a front end that has a kernel, and beside it the picture and the line for all others."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        with mpl.rc_context():
            plots.use_style()
            picture = plots.small_png(self.static(), dpi=110)
        return data | {"image/png": base64.b64encode(picture).decode()}, metadata


def facts(row: pd.Series, task: Task) -> list[list[str]]:
    """What the records know of an image beside its name and its labels: name and value, in words."""
    known = row.drop(
        labels=["image", "label", "class", "note", "corrected", NO_FINDING, *task.classes], errors="ignore"
    ).dropna()
    found = [[str(name).replace("_", " "), str(value)] for name, value in known.items() if str(value).strip()]
    sides = dict(found)
    if {"width", "height"} <= set(sides):
        found = [pair for pair in found if pair[0] not in ("width", "height")]
        found.append(["size", f"{sides['width']} x {sides['height']} pixels"])
    return found[:12]


def marked(text: str, synthetic: bool) -> str:
    """A title, with "(synthetic images)" behind it where they are, unless it says so already."""
    return f"{text} (synthetic images)" if synthetic and "synthetic" not in text else text


def titled(figure: Figure, text: str, synthetic: bool) -> Figure:
    """The figure with this title, which says where the images are synthetic."""
    plots.headline(figure, marked(text, synthetic))
    return figure
