"""One look for every figure of the series, the figures themselves, and the one way to save them."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from medic.errors import MedicError
from medic.files import replacing

# Okabe and Ito's palette (Color Universal Design, 2008), which people with the common kinds of colour blindness can
# tell apart; its yellow is left out because it vanishes on white, and its black because text has it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Ordered classes (grades) read as a ramp, and cividis is the same ramp for every kind of colour vision.
SEQUENTIAL = "cividis"


class Source(Protocol):
    """What a figure needs to know about the run that draws it; `medic.notebooks.session.Session` is one."""

    synthetic: bool
    images: Any


def use_style() -> None:
    """Set matplotlib's defaults for the series: colours, fonts, spines and a size that keeps notebooks small."""
    plt.style.use(Path(__file__).with_name("medic.mplstyle"))
    mpl.rcParams.update({"axes.prop_cycle": mpl.cycler(color=COLOURS), "image.cmap": SEQUENTIAL})


def headline(figure: Figure, text: str) -> None:
    """Give a figure its title, in as many lines as it takes: what stands last in it must not be cut off."""
    figure.suptitle(textwrap.fill(text, int(9.2 * figure.get_figwidth())), x=0.01, ha="left")


def title(figure: Figure, text: str, session: Source) -> None:
    """Give a figure its title, and a stamp in its lower right corner where the data is synthetic."""
    headline(figure, text)
    if session.synthetic:
        figure.supxlabel("synthetic sample", x=0.995, ha="right", fontsize=8, color="0.4")


def save(figure: Figure, name: str, session: Source) -> None:
    """Write ``figure`` as ``<session.images>/<name>.png``: whole or not at all, the same bytes for the same picture.

    Raises:
        MedicError: ``name`` is a path or carries an ending, the folder cannot be written, or the data is synthetic
            and the figure has no stamp that says so.
    """
    if not name or name != name.strip() or any(mark in name for mark in "/\\."):
        raise MedicError(f"a figure is saved by its bare name, and {name!r} is not one; write for example 'preview'")
    if session.synthetic and "synthetic" not in figure.get_supxlabel():
        raise MedicError(f"figure {name!r} shows synthetic data and does not say so; title it with medic.plots.title")
    figure.draw_without_rendering()  # the layout settles only at the second drawing
    with replacing(session.images / f"{name}.png") as temporary:
        # Matplotlib writes its version by default; without it the file depends on the picture alone.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def show(figure: Figure, dpi: int = 144) -> None:
    """Show a figure in a notebook at `dpi` dots an inch (``encoded``), and close it."""
    from IPython.display import Image, display

    display(Image(encoded(figure, dpi)))


def encoded(figure: Figure, dpi: int = 144) -> bytes:
    """Return a figure as PNG or, where that is smaller, as of photographs, as JPEG; the figure is closed."""
    drawn, png, jpeg = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    plt.close(figure)
    picture = PIL.Image.open(drawn).convert("RGB")
    picture.save(png, format="png", optimize=True)
    picture.save(jpeg, format="jpeg", quality=90, subsampling=0)
    return min(png.getvalue(), jpeg.getvalue(), key=len)


def present(figure: Figure, text: str, name: str, session: Source, *, dpi: int = 144) -> None:
    """Title a figure, save it as ``<name>.png`` and show it: ``title``, ``save`` and ``show`` in one."""
    title(figure, text, session)
    save(figure, name, session)
    show(figure, dpi=dpi)


def image_grid(images: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = 5, side: float = 1.7) -> Figure:
    """Draw pictures in rows, each with its caption above.

    Args:
        images: uint8 (H, W, 3) RGB each.
        captions: one for each image.
        columns: pictures in a row.
        side: width of a picture in inches.
    """
    rows, ratio = -(-len(images) // columns), max(image.shape[0] / image.shape[1] for image in images)
    size = (side * columns, (side * ratio + 0.25) * rows + 0.2)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, image, caption in zip(axes.flat, images, captions, strict=False):
        place.imshow(image)
        place.set_title(caption, fontsize=8, fontweight="normal", loc="center", pad=3)
    return figure


def annotated(
    images: Sequence[np.ndarray], captions: Sequence[str], marks: Sequence[dict[str, tuple[float, float]]]
) -> Figure:
    """Draw pictures side by side with the names of what they show, an arrow from each name to its place.

    Args:
        images: uint8 (H, W, 3) RGB each.
        captions: one for each image.
        marks: for each image, the names and their places (x, y) in pixels.
    """
    figure = image_grid(images, captions, columns=len(images), side=3.5)
    arrow = {"arrowstyle": "->", "color": "white", "lw": 1.2, "shrinkA": 2}
    box = {"boxstyle": "round,pad=0.2", "fc": "black", "ec": "none", "alpha": 0.6}
    for axes, image, named in zip(figure.axes, images, marks, strict=True):
        height, width = image.shape[:2]
        axes.title.set_fontsize(10)
        for name, (x, y) in named.items():
            text = np.clip(x, 0.15 * width, 0.85 * width), y + (0.24 if y > 0.4 * height else -0.2) * height
            style = {"color": "white", "fontsize": 9, "ha": "center", "va": "center"}
            axes.annotate(name, (x, y), text, arrowprops=arrow, bbox=box, **style)
    return figure


STEPS = {
    "checkpoint": "weights as\nsafetensors",
    "export": "model.onnx\nparity checked",
    "compress": "int8, kept if\nits gate passes",
    "package": "bundle with\nhashes and card",
    "store": "a version\nin a space",
    "deploy": "a service\non a port",
    "score": "image in,\ngrade out",
}


def deploy_flow() -> Figure:
    """Draw how a checkpoint becomes an answer: the steps, and what each hands to the next."""
    figure, axes = plt.subplots(figsize=(10, 2.3))
    axes.set(xlim=(-0.6, len(STEPS) - 0.4), ylim=(-0.95, 0.75))
    axes.set_axis_off()
    for name, first, last, colour in (("modeling", 0, 0, COLOURS[2]), ("deployment", 1, 6, COLOURS[0])):
        axes.plot([first - 0.4, last + 0.4], [-0.72, -0.72], color=colour, lw=3, solid_capstyle="butt")
        axes.text((first + last) / 2, -0.79, f"medic.{name}", ha="center", va="top", color=colour)
    for place, (step, product) in enumerate(STEPS.items()):
        box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": COLOURS[0 if place else 2], "lw": 1.8}
        axes.text(place, 0, product, ha="center", va="center", fontsize=8, linespacing=1.4, bbox=box)
        axes.text(place, 0.47, step, ha="center", va="center", fontweight="bold", bbox={"fc": "white", "ec": "none"})
        if place:
            arrow = {"arrowstyle": "-|>", "color": "0.3", "lw": 1.4}
            axes.annotate("", (place - 0.42, 0), (place - 0.58, 0), arrowprops=arrow)
    return figure
