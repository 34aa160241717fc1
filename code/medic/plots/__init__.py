"""One look for every figure of the series, the figures themselves, and the one way to save them."""

import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from medic.data.records import class_counts
from medic.errors import MedicError
from medic.files import replacing
from medic.task import Task

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


def headline(figure: Figure, text: str) -> None:
    """Give a figure its title, in as many lines as it takes: what stands last in it must not be cut off."""
    figure.suptitle(textwrap.fill(text, int(9.2 * figure.get_figwidth())), x=0.01, ha="left")


def title(drawing: Axes | Figure, text: str, session: Source) -> None:
    """Give axes or a figure its title, with "(synthetic sample)" behind it where the data is synthetic."""
    if session.synthetic:
        text = f"{text} (synthetic sample)"
    if isinstance(drawing, Figure):
        headline(drawing, text)
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


def show(figure: Figure, dpi: int = 75) -> None:
    """Show a figure of photographs in a notebook, in 256 colours and `dpi` dots an inch, and close it.

    Photographs as PNG are large, and a committed notebook has to stay small; what `save` writes is not affected.
    """
    from IPython.display import Image, display

    display(Image(small_png(figure, dpi)))


def small_png(figure: Figure, dpi: int = 75) -> bytes:
    """A figure as PNG in 256 colours and `dpi` dots an inch; the figure is closed."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    plt.close(figure)
    PIL.Image.open(drawn).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def present(figure: Figure, text: str, name: str, session: Source, *, dpi: int = 75) -> None:
    """Title a figure, save it as ``<name>.png`` and show it small: ``title``, ``save`` and ``show`` in one."""
    title(figure, text, session)
    save(figure, name, session)
    show(figure, dpi=dpi)


def image_grid(images: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = 5, side: float = 1.7) -> Figure:
    """Pictures in rows, each with its caption above.

    Args:
        images: uint8 (H, W, 3) RGB each.
        captions: one for each image.
        columns: pictures in a row.
        side: width of a picture in inches.
    """
    rows = -(-len(images) // columns)
    ratio = max(image.shape[0] / image.shape[1] for image in images)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side * ratio + 0.25) * rows + 0.2), squeeze=False
    )
    for place in axes.flat:
        place.set_axis_off()
    for place, image, caption in zip(axes.flat, images, captions, strict=False):
        place.imshow(image)
        place.set_title(caption, fontsize=8, fontweight="normal", loc="center", pad=3)
    return figure


def label_distribution(records: pd.DataFrame, task: Task) -> Figure:
    """Images by class, a bar for each split, with the counts on the bars.

    The classes of a multilabel task have no order of their own: they stand by frequency, and names without a code.
    Names too long to stand side by side make the bars lie.
    """
    several = task.kind == "multilabel"
    counts = class_counts(records, task)
    if several:
        counts = counts.sort_values("total", ascending=False, kind="stable")
    counts = counts.drop(columns="total")
    names = list(counts.index) if several else [f"{code} {name}" for code, name in enumerate(counts.index)]
    lying = sum(map(len, names)) > 80
    figure, axes = plt.subplots(figsize=(7.0, 1.0 + 0.3 * len(names)) if lying else None)
    width = 0.8 / len(counts.columns)
    for place, split in enumerate(counts.columns):
        middle = np.arange(len(counts)) + (place - (len(counts.columns) - 1) / 2) * width
        bars = (axes.barh if lying else axes.bar)(middle, counts[split], width, label=split)
        axes.bar_label(bars, fontsize=7 if lying else 8, padding=2)
    what = "grade" if task.kind == "ordinal" else "class"
    how_many = "images (one of several classes counts in each)" if several else "images"
    if lying:
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(how_many)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
    else:
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel(how_many)
        axes.set_xlabel(what)
    axes.legend()
    return figure


def balance_before_after(balance: pd.DataFrame, wanted: int) -> Figure:
    """Images by class in two archives, and beside it what was chosen from them.

    Args:
        balance: one row a class, int columns ``main``, ``extra``, ``train``, ``train_extra`` and ``validation``, as
            ``medic.data.competition.Selection.balance`` gives it.
        wanted: training images of each class that were asked for, drawn as a line.
    """
    figure, (before, after) = plt.subplots(1, 2, figsize=(8.6, 3.8))
    places = np.arange(len(balance))
    both = [balance["train"] - balance["train_extra"], balance["train_extra"]]
    for axes, bottom, top, left, width in (
        (before, balance["main"], balance["extra"], places, 0.7),
        (after, *both, places - 0.2, 0.4),
    ):
        axes.bar(left, bottom, width, color=COLOURS[0], label="main archive")
        bars = axes.bar(left, top, width, bottom, color=COLOURS[1], label="extra archive")
        axes.bar_label(bars, labels=[f"{count}" for count in bottom + top], fontsize=8, padding=2)
        axes.set_xticks(places, [f"{code}\n{name}" for code, name in enumerate(balance.index)], fontsize=8)
        axes.set_xlabel("grade")
    held = after.bar(places + 0.2, balance["validation"], 0.4, color=COLOURS[2], label="validation (main archive)")
    after.bar_label(held, fontsize=8, padding=2)
    after.axhline(wanted, color="0.4", ls="--", lw=1, label=f"asked for: {wanted}")
    before.set_ylim(0, 1.1 * max(1, (balance["main"] + balance["extra"]).max()))
    after.set_ylim(0, 1.1 * max(wanted, balance["validation"].max()))
    before.set_ylabel("images")
    before.set_title("before: listed in the archives", fontweight="normal", fontsize=10)
    after.set_title("after: training and validation", fontweight="normal", fontsize=10)
    figure.legend(*after.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def confusion_matrix(confusion: np.ndarray, task: Task, text: str) -> Figure:
    """A confusion matrix: colour and upper figure the share of the row, lower figure the count.

    Args:
        confusion: int (C, C), rows are the truth.
        task: names the classes.
        text: the title.
    """
    images = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, images, out=np.zeros(confusion.shape), where=images > 0)
    figure, axes = plt.subplots(figsize=(6.2, 5.2))
    picture = axes.imshow(share, vmin=0, vmax=1, cmap=SEQUENTIAL)
    for truth in range(len(confusion)):
        for decided in range(len(confusion)):
            axes.text(
                decided,
                truth,
                f"{share[truth, decided]:.0%}\n{confusion[truth, decided]}",
                ha="center",
                va="center",
                fontsize=9,
                color="black" if share[truth, decided] > 0.5 else "white",
            )
    axes.set_xticks(range(len(task.classes)), task.classes, rotation=20, ha="right")
    axes.set_yticks(
        range(len(task.classes)), [f"{name} ({n})" for name, n in zip(task.classes, images[:, 0], strict=True)]
    )
    axes.set_xlabel("decided")
    axes.set_ylabel("truth (images)")
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label="share of the truth's row", format="{x:.0%}")
    headline(figure, text)
    return figure


def accuracy_by_epoch(histories: dict[str, dict[str, pd.DataFrame]], *, watched: str = "test") -> Figure:
    """Accuracy by epoch, a panel for each network: training images dashed, the watched split drawn through.

    Args:
        histories: network, then start (such as ``from scratch``), then the run's history.
        watched: the split beside ``train``.
    """
    figure, panels = plt.subplots(1, len(histories), figsize=(4.2 * len(histories), 3.8), sharey=True, squeeze=False)
    for panel, (network, starts) in zip(panels[0], histories.items(), strict=True):
        for colour, (start, history) in zip(COLOURS, starts.items(), strict=False):
            panel.plot(
                history["epoch"], history["train_accuracy"], "--", color=colour, alpha=0.7, label=f"{start}, train"
            )
            panel.plot(
                history["epoch"], history[f"{watched}_accuracy"], "-o", color=colour, ms=3, label=f"{start}, {watched}"
            )
        panel.set_title(network, fontweight="normal", loc="center")
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    panels[0, 0].set_ylabel("accuracy (share of images)")
    panels[0, 0].set_ylim(0, 1)
    panels[0, -1].legend(fontsize=8, loc="upper left")
    return figure


def deploy_flow() -> Figure:
    """How a checkpoint becomes an answer: the steps, and what each hands to the next."""
    steps = [
        ("checkpoint", "weights as\nsafetensors"),
        ("export", "model.onnx\nparity checked"),
        ("compress", "int8, kept if\nits gate passes"),
        ("package", "bundle with\nhashes and card"),
        ("store", "a version\nin a space"),
        ("deploy", "a service\non a port"),
        ("score", "image in,\ngrade out"),
    ]
    figure, axes = plt.subplots(figsize=(10, 2.3))
    axes.set_xlim(-0.6, len(steps) - 0.4)
    axes.set_ylim(-0.95, 0.75)
    axes.set_axis_off()
    rooms = {"modeling": (0, 0, COLOURS[2]), "deployment": (1, 6, COLOURS[0])}
    for name, (first, last, colour) in rooms.items():
        axes.plot([first - 0.4, last + 0.4], [-0.72, -0.72], color=colour, lw=3, solid_capstyle="butt")
        axes.text((first + last) / 2, -0.79, f"medic.{name}", ha="center", va="top", color=colour, fontsize=10)
    for place, (step, product) in enumerate(steps):
        colour = COLOURS[2] if place == 0 else COLOURS[0]
        box = FancyBboxPatch(
            (place - 0.36, -0.5), 0.72, 1.0, boxstyle="round,pad=0.02,rounding_size=0.08", fc="white", ec=colour, lw=1.8
        )
        axes.add_patch(box)
        axes.text(place, 0.25, step, ha="center", va="center", fontweight="bold", fontsize=10)
        axes.text(place, -0.18, product, ha="center", va="center", fontsize=8)
        if place:
            axes.annotate(
                "", (place - 0.38, 0), (place - 0.62, 0), arrowprops={"arrowstyle": "-|>", "color": "0.3", "lw": 1.4}
            )
    return figure


def latency(milliseconds: dict[int, np.ndarray], per_second: dict[int, float]) -> Figure:
    """Time to the answer as histograms, and answers a second, each by the number of clients that ask at once.

    Args:
        milliseconds: float (N,) for each number of clients.
        per_second: answers a second, for the same numbers.
    """
    figure, (times, rates) = plt.subplots(1, 2, figsize=(8.4, 3.3))
    bins = np.histogram_bin_edges(np.concatenate(list(milliseconds.values())), bins=30)
    for colour, (clients, values) in zip(COLOURS, milliseconds.items(), strict=False):
        middle, late = np.percentile(values, [50, 95])
        label = f"{clients} client{'s' * (clients > 1)}: median {middle:.0f} ms"
        times.hist(values, bins, color=colour, alpha=0.75, label=label)
        times.axvline(late, color=colour, ls="--", lw=1.2, label=f"95th percentile {late:.0f} ms")
        rates.bar_label(rates.bar(str(clients), per_second[clients], color=colour, width=0.5), fmt="{:.0f}", padding=2)
    times.set_xlabel("time to the answer (ms)")
    times.set_ylabel("requests")
    times.legend(fontsize=8)
    rates.set_xlabel("clients at the same time")
    rates.set_ylabel("answers a second")
    rates.margins(y=0.12)
    return figure


def annotated(
    images: Sequence[np.ndarray], captions: Sequence[str], marks: Sequence[dict[str, tuple[float, float]]]
) -> Figure:
    """Pictures side by side with the names of what they show, an arrow from each name to its place.

    Args:
        images: uint8 (H, W, 3) RGB each.
        captions: one for each image.
        marks: for each image, the names and their places (x, y) in pixels.
    """
    figure, axes = plt.subplots(1, len(images), figsize=(3.5 * len(images), 4.0), squeeze=False)
    for place, image, caption, named in zip(axes.flat, images, captions, marks, strict=True):
        height, width = image.shape[:2]
        place.imshow(image)
        place.set_axis_off()
        place.set_title(caption, fontsize=10, fontweight="normal", loc="center")
        for name, (x, y) in named.items():
            away = 0.24 if y > 0.4 * height else -0.2
            place.annotate(
                name,
                (x, y),
                (min(max(x, 0.15 * width), 0.85 * width), y + away * height),
                color="white",
                fontsize=9,
                ha="center",
                va="center",
                arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.2, "shrinkA": 2},
                bbox={"boxstyle": "round,pad=0.2", "fc": "black", "ec": "none", "alpha": 0.6},
            )
    return figure


def cross_table(counts: pd.DataFrame, task: Task, x: str, y: str) -> Figure:
    """Counts of two labels of one patient, such as those of the two eyes, as a table whose cells are coloured by count.

    Args:
        counts: int (C, C); rows are codes of ``y``, columns of ``x``.
        task: names the classes.
        x: what the columns are.
        y: what the rows are.
    """
    figure, axes = plt.subplots(figsize=(5.6, 4.6))
    picture = axes.imshow(counts, cmap=SEQUENTIAL)
    middle = counts.to_numpy().max() / 2
    for row in range(len(counts)):
        for column in range(len(counts)):
            count = counts.iloc[row, column]
            axes.text(column, row, count, ha="center", va="center", color="black" if count > middle else "white")
    axes.set_xticks(range(len(task.classes)), task.classes, rotation=20, ha="right")
    axes.set_yticks(range(len(task.classes)), task.classes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label="patients")
    return figure


def compared(table: pd.DataFrame, baselines: dict[str, float], names: dict[str, str], *, always: str) -> Figure:
    """Figures of several models with their intervals, a panel for each figure, best on top by the first one.

    Args:
        table: one row a model; for each figure the columns ``<figure>``, ``<figure>_low`` and ``<figure>_high``.
        baselines: the figures to show, each with the value that the most frequent class alone gets.
        names: of the figures, for the axes.
        always: what the baseline always says.
    """
    ordered = table.sort_values(next(iter(baselines)), kind="stable")
    places = np.arange(len(ordered))
    figure, panels = plt.subplots(
        1, len(baselines), figsize=(4.3 * len(baselines), 1.1 + 0.42 * len(ordered)), sharey=True, squeeze=False
    )
    for panel, colour, (metric, baseline) in zip(panels[0], COLOURS, baselines.items(), strict=False):
        value, low, high = (ordered[column] for column in (metric, f"{metric}_low", f"{metric}_high"))
        panel.barh(places, value, 0.62, color=colour, alpha=0.3)
        panel.errorbar(value, places, xerr=[value - low, high - value], fmt="o", color=colour, capsize=3, lw=1.6, ms=5)
        for place, number, end in zip(places, value, high, strict=True):
            panel.annotate(f"{number:.2f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
        panel.axvline(baseline, color="0.3", ls="--", lw=1.2, label=f"{always}: {baseline:.2f}")
        panel.set_xlabel(f"{names[metric]}, with its 95 % interval")
        panel.margins(x=0.12)
        panel.grid(axis="y", visible=False)
        panel.grid(axis="x", visible=True)
        panel.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    panels[0, 0].set_yticks(places, ordered.index)
    return figure


def against_time(table: pd.DataFrame, metric: str, groups: pd.Series, *, baseline: float, named: str) -> Figure:
    """A figure of several models over the time that their training took, with its intervals.

    Args:
        table: one row a model, ``network, ...`` by name; the columns ``training_seconds``, ``<metric>``,
            ``<metric>_low`` and ``<metric>_high``.
        metric: the figure.
        groups: what sets the colour of each model; the same index.
        baseline: the value that the most frequent class alone gets.
        named: the figure, for the axis.
    """
    figure, axes = plt.subplots(figsize=(8.4, 4.0))
    grouped = groups.groupby(groups, sort=False).groups.items()
    for colour, (group, names) in zip(itertools.cycle(COLOURS), grouped, strict=False):
        columns = ["training_seconds", metric, f"{metric}_low", f"{metric}_high"]
        seconds, values, lows, highs = table.loc[names, columns].to_numpy(float).T
        reach = [values - lows, highs - values]
        axes.errorbar(seconds, values, reach, fmt="o", color=colour, lw=0.7, alpha=0.8, label=group)
        for name, *place in zip(names, seconds, values, strict=True):
            axes.annotate(name.partition(",")[0], place, (6, 4), textcoords="offset points", fontsize=8)
    axes.axhline(baseline, color="0.3", ls="--", lw=1.2)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set(xlabel="seconds of training (logarithmic)", ylabel=f"{named}, validation, 95 % interval")
    axes.legend(fontsize=8, ncols=len(set(groups)), loc="lower right", bbox_to_anchor=(1, 1))
    return figure
