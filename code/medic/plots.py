"""One look for every figure of the series, and the one way to save them."""

from typing import Any, Protocol

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medic.errors import MedicError
from medic.files import replacing

# Okabe and Ito's palette (Color Universal Design, 2008), which people with the common kinds of colour blindness can
# tell apart; its yellow is left out because it vanishes on white, and its black because text has it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Ordered classes (grades) read as a ramp, and cividis is the same ramp for every kind of colour vision.
SEQUENTIAL = "cividis"


class Source(Protocol):
    """What a figure needs to know about the run that draws it; `medic.notebooks.Session` is one."""

    synthetic: bool
    images: Any


def use_style() -> None:
    """Set matplotlib's defaults for the series: colours, fonts, spines and a size that keeps notebooks small."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.labelsize": 10,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 90,
            "figure.figsize": (7.0, 4.0),
            "figure.titlesize": 12,
            "figure.titleweight": "bold",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 10,
            "grid.alpha": 0.3,
            "grid.linewidth": 0.6,
            "image.cmap": SEQUENTIAL,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 110,
        }
    )


def title(drawing: Axes | Figure, text: str, session: Source) -> None:
    """Give axes or a figure its title, with "(synthetic sample)" behind it where the data is synthetic."""
    if session.synthetic:
        text = f"{text} (synthetic sample)"
    if isinstance(drawing, Figure):
        drawing.suptitle(text, x=0.01, ha="left")
    else:
        drawing.set_title(text)


def save(figure: Figure, name: str, session: Source) -> None:
    """Write ``figure`` as ``<session.images>/<name>.png``: whole or not at all, the same bytes for the same picture.

    Raises:
        MedicError: ``name`` is a path or carries an ending, the folder cannot be written, or the data is synthetic
            and no title of the figure says so.
    """
    if not name or name != name.strip() or any(mark in name for mark in "/\\."):
        raise MedicError(f"a figure is saved by its bare name, and {name!r} is not one; write for example 'preview'")
    titles = [figure.get_suptitle(), *(axes.get_title("left") + axes.get_title() for axes in figure.axes)]
    if session.synthetic and not any("synthetic" in text for text in titles):
        raise MedicError(
            f"figure {name!r} shows synthetic data and no title says so; set its title with medic.plots.title"
        )
    with replacing(session.images / f"{name}.png") as temporary:
        # Matplotlib writes its version by default; without it the file depends on the picture alone.
        figure.savefig(temporary, format="png", metadata={"Software": None})
