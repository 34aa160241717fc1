"""What the three widgets share: checked messages, images on demand, and a picture for readers without a kernel."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import anywidget
import matplotlib as mpl
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from medic import plots
from medic.data.stores import Store
from medic.errors import ImageError, MedicError
from medic.task import NO_FINDING, Task
from medic.widgets.small_copies import SIZES, small_copy

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
            picture = plots.small_png(self.static())
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
