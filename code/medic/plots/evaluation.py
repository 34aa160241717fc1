"""Figures of what a threshold does: ROC and precision-recall curves, reliability, areas beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from medic.plots import COLOURS, SEQUENTIAL, headline, image_grid
from medic.task import Task

if TYPE_CHECKING:
    from medic.deployment.bundle.heatmap import Explanation


class Ranked(NamedTuple):
    """What one curve is drawn from.

    Attributes:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        threshold: the operating point, marked on the curve.
        bands: of the ROC and of the precision-recall curve the lower and the upper end of the interval, float (2, 2, G)
            at G shares from 0 to 1 on the horizontal axis; None draws none.
    """

    truth: np.ndarray
    scores: np.ndarray
    threshold: float
    bands: np.ndarray | None = None


def curves(ranked: Mapping[str, Ranked], text: str) -> Figure:
    """ROC curves on the left, precision-recall curves on the right, a dot where the operating point is.

    Args:
        ranked: by the name that the legend shows, six at most in distinct colours.
        text: the title.
    """
    figure, (roc, precise) = plt.subplots(1, 2, figsize=(9.4, 4.3))
    for number, (name, one) in enumerate(ranked.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "ls": ("-", "--", ":")[number // len(COLOURS) % 3]}
        truth, called = np.asarray(one.truth) == 1, np.asarray(one.scores) >= one.threshold
        false_positives, true_positives, _ = roc_curve(truth, one.scores, drop_intermediate=False)
        area = float(np.trapezoid(true_positives, false_positives))
        roc.plot(false_positives, true_positives, **style, label=f"{name} ({truth.sum()}): {area:.2f}")
        precision, recall, _ = precision_recall_curve(truth, one.scores)
        precise.plot(recall, precision, **style, drawstyle="steps-post")
        for axes, band in zip((roc, precise), () if one.bands is None else one.bands, strict=False):
            axes.fill_between(np.linspace(0, 1, band.shape[1]), *band, color=style["color"], alpha=0.14, lw=0)
        precise.axhline(truth.mean(), color=style["color"], lw=0.8, ls=":")
        found = (called & truth).sum() / truth.sum()
        roc.plot((called & ~truth).sum() / (~truth).sum(), found, "o", color=style["color"], ms=6)
        if called.any():
            precise.plot(found, (called & truth).sum() / called.sum(), "o", color=style["color"], ms=6)
    roc.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls=":")
    roc.set_xlabel("1 - specificity (share of images without it that are called)")
    roc.set_ylabel("sensitivity (share of images with it that are called)")
    roc.legend(fontsize=8, title="finding (images): area", title_fontsize=8, loc="lower right")
    precise.set_xlabel("sensitivity")
    precise.set_ylabel("precision (share of those called that have it)")
    precise.set_ylim(0, 1.03)
    headline(figure, text)
    return figure


def auroc_by_finding(by_class: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """The area under the ROC curve of each finding with its interval, beside those that papers report.

    Args:
        by_class: one row a finding with ``auroc``, ``low``, ``high`` and ``images``.
        published: columns of areas, one a paper, by finding; None shows ours alone.
    """
    ordered = by_class.dropna(subset="auroc").sort_values("auroc", kind="stable")
    places = np.arange(len(ordered))
    figure, axes = plt.subplots(figsize=(8.6, 1.3 + 0.34 * max(len(ordered), 3)))
    reach = np.abs(ordered[["low", "high"]].to_numpy().T - ordered["auroc"].to_numpy())
    axes.errorbar(
        ordered["auroc"], places, xerr=reach, fmt="o", color=COLOURS[0], capsize=3, lw=1.6, label="this model"
    )
    for colour, mark, name in zip(COLOURS[1:], "s^Dv", () if published is None else published.columns, strict=False):
        axes.plot(published[name].reindex(ordered.index), places, mark, color=colour, mfc="none", ms=6, label=name)
    axes.axvline(0.5, color="0.4", ls="--", lw=1)
    axes.set_yticks(places, [f"{name} ({count})" for name, count in ordered["images"].items()])
    axes.set_xlabel("area under the ROC curve, 95 % interval over patients (0.5 is chance)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def reliability(tables: Mapping[str, pd.DataFrame], limit: float = 1.0) -> Figure:
    """Stated probability against observed share, a panel for each model; the area of a dot is the number of images.

    Args:
        tables: as ``medic.modeling.calibrate.reliability`` gives them, by name.
        limit: where both axes end; less than 1 where findings are rare and no probability is high.
    """
    figure, panels = plt.subplots(1, len(tables), figsize=(4.1 * len(tables), 4.0), sharey=True, squeeze=False)
    for panel, colour, (name, table) in zip(panels[0], COLOURS, tables.items(), strict=False):
        panel.plot([0, 1], [0, 1], color="0.5", lw=0.9, ls=":")
        panel.plot(table["stated"], table["observed"], color=colour, lw=1.2)
        panel.scatter(
            table["stated"], table["observed"], s=12 + 300 * table["count"] / table["count"].sum(), color=colour
        )
        panel.set_title(name, fontweight="normal", loc="center")
        panel.set_xlabel("stated probability")
        panel.set_xlim(0, limit)
        panel.set_ylim(0, limit)
    panels[0, 0].set_ylabel("observed share of images with the finding")
    return figure


def ensembles(gains: pd.DataFrame, single: float, name: str) -> Figure:
    """Members and their average on the left, the average's gains with their intervals on the right.

    Args:
        gains: as ``medic.modeling.ensemble.gains`` gives them.
        single: the figure of the network that stands alone.
        name: what the figure is called.
    """
    figure, (values, ahead) = plt.subplots(1, 2, figsize=(9.4, 1.7 + 0.6 * len(gains)), sharey=True)
    rows = np.arange(len(gains))[::-1]
    own = [(one, row) for row, figures in zip(rows, gains["members"], strict=True) for one in figures]
    values.plot(*zip(*own, strict=True), "o", color=COLOURS[0], mfc="none", ms=7, label="a member")
    values.plot(gains["average"], rows, "D", color=COLOURS[1], ms=7, label="their average")
    values.axvline(single, color="0.4", ls="--", lw=1, label="one network alone")
    values.set_yticks(rows, list(gains.index))
    values.set_xlabel(name)
    for column, beaten, mark, colour, up in (
        ("over_member", "over the mean member", "s", COLOURS[2], 0.12),
        ("over_single", "over one network alone", "D", COLOURS[1], -0.12),
    ):
        leads = gains[column]
        middle = np.array([lead.value for lead in leads])
        reach = np.abs(np.array([(lead.low, lead.high) for lead in leads]).T - middle)
        ahead.errorbar(middle, rows + up, xerr=reach, fmt=mark, color=colour, capsize=3, label=beaten)
    ahead.axvline(0, color="0.4", ls="--", lw=1)
    ahead.set_xlabel(f"gain in {name}, 95 % interval over patients")
    for panel in (values, ahead):
        panel.set_ylim(-0.5, len(gains) - 0.5)
        panel.grid(axis="y", visible=False)
        panel.grid(axis="x", visible=True)
        handles, labels = panel.get_legend_handles_labels()
        panel.legend(handles, labels, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def over(pixels: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """A picture with a heatmap over it: Viridis, transparent where there is little evidence.

    Args:
        pixels: uint8 (S, S, 3) RGB.
        heatmap: float32 (h, w) in 0..1, of the same square.
        opacity: of the strongest place, 0 to 1.

    Returns:
        uint8 (S, S, 3) RGB.
    """
    fine = np.clip(cv2.resize(heatmap, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)[:, :, None]
    colours = 255 * mpl.colormaps["viridis"](fine[:, :, 0])[:, :, :3]
    return (pixels + opacity * fine * (colours - pixels)).round().astype(np.uint8)


def heatmaps(explanations: Sequence[Explanation]) -> Figure:
    """Pictures with what was decided above, the same with their heatmaps below; grey where a network has none."""
    names = [one.prediction.task.classes[int(one.prediction.decided[0])] for one in explanations]
    covered = [
        np.full_like(one.pixels, 200) if one.heatmap is None else over(one.pixels, one.heatmap) for one in explanations
    ]
    captions = ["no heatmap from this network" if one.of is None else f"for {one.of}" for one in explanations]
    pictures = [*(one.pixels for one in explanations), *covered]
    return image_grid(pictures, [*names, *captions], columns=len(explanations))


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


def cross_table(counts: pd.DataFrame, task: Task, x: str, y: str) -> Figure:
    """Counts of two labels of one patient, such as those of the two eyes, as a table whose cells are coloured by count.

    Args:
        counts: int (C, C); rows are codes of ``y``, columns of ``x``.
        task: names the classes.
        x: what the columns are.
        y: what the rows are.
    """
    figure, axes = plt.subplots(figsize=(5.6, 4.6))
    named = counts.set_axis(task.classes, axis=0).set_axis(task.classes, axis=1)
    sns.heatmap(named, ax=axes, annot=True, fmt="d", cmap=SEQUENTIAL, square=True, cbar_kws={"label": "patients"})
    axes.set(xlabel=x, ylabel=y)
    axes.tick_params(axis="x", rotation=20)
    axes.grid(False)
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
