"""What the widgets share: messages of the page, images on demand, and a picture for readers without a kernel."""

import base64
from pathlib import Path
from typing import Any

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

SIZES = {"thumbnail": 128, "large": 800}  # pixels of the longer side at most


def front_end(name: str, ending: str) -> str:
    """Return the JavaScript (``js``) or style (``css``) of a widget: what all share, then its own."""
    here = Path(__file__).parent
    return "\n".join((here / f"{part}.{ending}").read_text(encoding="utf-8") for part in ("shared", name))


class PicturedWidget(anywidget.AnyWidget):
    """A widget that leaves a static picture behind.

    A subclass gives ``static``, a figure of the widget as it now is, ``__repr__``, the same in one line, and
    ``_choices``, the values that traits of text may have. Its page draws the trait ``state``, which only Python sets.
    """

    state = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, title: str, synthetic: bool, **traits: Any):
        super().__init__(**traits)
        self._title = f"{title} (synthetic images)" if synthetic and "synthetic" not in title else title

    @traitlets.validate("filter_label", "filter_suspicion", "finding", "outcome", "chosen")
    def _is_known(self, proposal: Any) -> str:
        name, known = proposal.trait.name, list(self._choices[proposal.trait.name])
        if proposal.value not in known:
            raise traitlets.TraitError(f"{name} cannot be {proposal.value!r}; there is: {', '.join(known[:30])}")
        return proposal.value

    def show(self, **state: Any) -> None:
        """Give the page what it shows."""
        self.set_trait("state", {"title": self._title, "notice": "", "error": "", **state})

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """Return the live widget for a page with a kernel, and beside it the picture and the line for all others."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        with mpl.rc_context():
            plots.use_style()
            picture = plots.encoded(self.static(), dpi=130)
        kind = "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"
        return data | {kind: base64.b64encode(picture).decode()}, metadata


class ImagesWidget(PicturedWidget):
    """A widget that shows images of a store: it lists names in ``shown`` and pages through them by ``position``.

    A subclass gives ``_draw``, and may override ``_do``.
    """

    position = traitlets.Int(0).tag(sync=True)

    def __init__(self, title: str, synthetic: bool, store: Store, shown: list[str], **traits: Any):
        self._store, self.shown = store, shown
        super().__init__(title, synthetic, **traits)
        self.on_msg(lambda _, message, __: self._receive(message))
        self.observe(lambda _: self._draw(), ["position"])

    @traitlets.validate("position")
    def _within(self, proposal: Any) -> int:
        return max(0, min(proposal.value, len(self.shown) - 1))

    def _list(self, names: list[str]) -> None:
        self.shown, self.position = names, 0
        self._draw()

    def _receive(self, message: Any) -> None:
        """Do what a message from the page asks; what cannot be done is said on the page, and changes nothing."""
        try:
            match message:
                case {"do": "images", "names": list(names), "size": "thumbnail" | "large" as size}:
                    for name in names:
                        self._send_image(str(name), size)
                case _:
                    self._do(message)
        except MedicError as error:
            self.set_trait("state", self.state | {"error": str(error), "notice": ""})

    def _do(self, message: Any) -> None:
        raise MedicError(f"the page asks {type(self).__name__} for {str(message)[:60]!r}; run the cell again")

    def _send_image(self, name: str, size: str) -> None:
        about = {"image": name, "size": size}
        try:
            pixels = cv2.cvtColor(self._pixels(name, SIZES[size]), cv2.COLOR_RGB2BGR)
        except ImageError as error:
            self.send(about | {"reason": error.reason, "detail": str(error)})
        else:
            self.send(about | {"type": "image/jpeg"}, buffers=[cv2.imencode(".jpg", pixels)[1].tobytes()])

    def _pixels(self, name: str, side: int) -> np.ndarray:
        """An image, its longer side ``side`` pixels at most, uint8 (H, W, 3) RGB."""
        if name not in self._store:
            raise ImageError(
                f"{name} is not in {self._store.location.name}; put it there or drop its row", "unreadable"
            )
        return shrunk(decode(self._store.read(name), at_least=side), side)

    def _grid(self, cards: list[dict], captions: list[str], columns: int, text: str) -> Figure:
        """Return pictures of cards with captions, in colour where ``amiss``; grey where an image cannot be shown."""
        images = []
        for card in cards:
            try:
                images.append(self._pixels(card["image"], 160))
            except ImageError:
                images.append(np.full((160, 160, 3), 200, np.uint8))
        figure = plots.image_grid(images, captions, columns=min(columns, len(images)), side=1.5)
        for axes, card in zip(figure.axes, cards, strict=False):
            axes.title.set_color(plots.COLOURS[1] if card["amiss"] else "black")
        plots.headline(figure, f"{self._title}: {text}")
        return figure


def facts(row: pd.Series, task: Task) -> list[list[str]]:
    """Return what the records know of an image beside its name and its labels: up to 12 names and values."""
    known = row.drop(["image", "label", "class", "note", "corrected", NO_FINDING, *task.classes], errors="ignore")
    return [[str(name).replace("_", " "), str(value)] for name, value in known.dropna().items()][:12]
