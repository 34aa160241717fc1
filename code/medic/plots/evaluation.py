"""Figures of how well a model does: ROC and precision-recall curves, confusion, calibration, slices, heatmaps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from medic.plots import COLOURS, SEQUENTIAL, image_grid
from medic.task import Task

if TYPE_CHECKING:
    from medic.deployment.bundle.heatmap import Explanation


def curves(questions: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Draw ROC curves on the left, precision-recall curves on the right, with a dot at the operating point.

    Args:
        questions: by the name that the legend shows, as ``Evaluation.questions`` has them: truth (N,) of 0 and 1,
            probabilities (N,), threshold. One without images of both kinds has no curve, and is left out.
    """
    figure, (roc, precise) = plt.subplots(1, 2, figsize=(9.4, 4.6))
    known = {name: one for name, one in questions.items() if 0 < np.mean(one[0]) < 1}
    for number, (name, (present, scores, threshold)) in enumerate(known.items()):
        truth, called = np.asarray(present) == 1, np.asarray(scores) >= threshold
        style = {"color": COLOURS[number % len(COLOURS)], "ls": ("-", "--", ":")[number // len(COLOURS) % 3]}
        label = f"{name} ({truth.sum()})"
        RocCurveDisplay.from_predictions(
            truth, scores, ax=roc, name=label, curve_kwargs=style,
            plot_chance_level=number == len(known) - 1, chance_level_kw={"color": "0.6", "lw": 1},
        )  # fmt: skip
        PrecisionRecallDisplay.from_predictions(truth, scores, ax=precise, name=label, curve_kwargs=style)
        precise.axhline(truth.mean(), color=style["color"], lw=0.8, ls=":")
        found, alarms = called[truth].mean(), called[~truth].mean()
        roc.plot(alarms, found, "o", color=style["color"], ms=6)
        if called.any():
            precise.plot(found, truth[called].mean(), "o", color=style["color"], ms=6)
    roc.set(xlabel="1 - specificity (share of images without it that are called)", ylabel="sensitivity")
    precise.set(xlabel="sensitivity", ylabel="precision (share of those called that have it)", ylim=(0, 1.03))
    for axes in (roc, precise) if known else ():
        axes.legend(fontsize=8, title="finding (images), area; dot: operating point", title_fontsize=8)
    return figure


def confusion_matrix(confusion: np.ndarray, task: Task) -> Figure:
    """Draw a confusion matrix: colour and upper number the share of the row, lower number the count.

    Args:
        confusion: int (C, C), rows are the truth.
        task: names the classes.
    """
    images = confusion.sum(axis=1)
    share = confusion / np.maximum(images, 1)[:, None]
    cells = np.array([f"{part:.0%}\n{count}" for part, count in zip(share.flat, confusion.flat, strict=True)])
    figure, axes = plt.subplots(figsize=(6.4, 5.2))
    sns.heatmap(
        share, ax=axes, vmin=0, vmax=1, cmap=SEQUENTIAL, annot=cells.reshape(share.shape), fmt="", square=True,
        xticklabels=task.classes, yticklabels=[f"{name} ({n})" for name, n in zip(task.classes, images, strict=True)],
        cbar_kws={"label": "share of the truth's row", "format": "{x:.0%}"},
    )  # fmt: skip
    axes.set(xlabel="decided", ylabel="truth (images)")
    axes.tick_params(axis="x", rotation=20)
    axes.tick_params(axis="y", rotation=0)
    return figure


def forest(slices: pd.DataFrame, overall: float) -> Figure:
    """Draw the value of each slice with its interval, beside that of all images (a forest plot).

    Orange differs from the rest by more than chance (p < 0.05 after Holm's correction); grey is not judged.

    Args:
        slices: of ``medic.modeling.slices.slices``.
        overall: the metric of all images.
    """
    figure, axes = plt.subplots(figsize=(7.4, 1.4 + 0.3 * len(slices)))
    axes.axvline(overall, color="0.6", lw=1, ls="--")
    differs, judged = slices["p_holm"] < 0.05, slices["p_holm"].notna()
    colours = np.where(differs, COLOURS[1], np.where(judged, COLOURS[0], "0.6"))
    for place, (row, colour) in enumerate(zip(slices.itertuples(), colours, strict=True)):
        axes.plot([row.low, row.high], [place, place], color=colour)
        axes.plot(row.value, place, "s", color=colour, ms=5, fillstyle="full" if row.p_holm == row.p_holm else "none")
        said = f"{row.patients:,} patients, " + (f"p {row.p_holm:.3f}" if row.p_holm == row.p_holm else "not judged")
        axes.text(1.02, place, said, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(slices)), slices["column"] + ": " + slices["slice"].astype(str))
    axes.grid(axis="y", visible=False)
    metric = slices["metric"].iloc[0].replace("_", " ")
    axes.set(xlabel=f"{metric} (dashed: all images)", ylim=(len(slices) - 0.5, -0.5))
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw stated probabilities against observed shares, with their intervals, beside the diagonal.

    Args:
        tables: of ``medic.modeling.calibrate.reliability``, by name.
    """
    figure, axes = plt.subplots(figsize=(5.2, 4.6))
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
    for (name, table), colour in zip(tables.items(), COLOURS, strict=False):
        axes.vlines(table["stated"], table["low"], table["high"], color=colour, lw=1, alpha=0.6)
        axes.plot(table["stated"], table["observed"], "o-", color=colour, ms=5, label=name)
    axes.set(xlabel="stated probability", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend()
    return figure


def risk_coverage(table: pd.DataFrame) -> Figure:
    """Draw the error among the answers that are kept over their share; ``medic.modeling.thresholds.risk_coverage``."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    axes.plot(table["kept"], table["error"], drawstyle="steps-post")
    axes.set(xlabel="share of answers kept, the most confident first", ylabel="share of them that are wrong")
    axes.set(xlim=(0, 1), ylim=(0, None))
    return figure


def decision_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the net benefit of the model, of acting on all and on none over thresholds, one panel a question.

    Args:
        tables: of ``medic.modeling.thresholds.decision_curve``, by question.
    """
    columns = min(len(tables), 3)
    rows = -(-len(tables) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(1.6 + 2.9 * columns, 3.1 * rows), squeeze=False, sharex=True)
    for axes in panels.flat[len(tables) :]:
        axes.set_axis_off()
    for (name, table), axes in zip(tables.items(), panels.flat, strict=False):
        top = max(table["net_benefit"].max(), table["treat_all"].max(), 0.01)
        axes.axhline(0, color="0.6", lw=1, label="act on none")
        axes.plot(table["threshold"], table["treat_all"], color="0.6", lw=1, ls="--", label="act on all")
        axes.fill_between(table["threshold"], table["low"], table["high"], alpha=0.2, lw=0)
        axes.plot(table["threshold"], table["net_benefit"], label="act on the model")
        axes.set(xlim=(0, 1), ylim=(-0.15 * top, 1.1 * top), xlabel="threshold probability")
        axes.set_title(name, fontsize=10)
    panels[0, 0].set_ylabel("net benefit")
    panels[0, 0].legend(fontsize=8)
    return figure


def over(pixels: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Return a picture with a heatmap over it: Viridis, transparent where there is little evidence.

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


def heatmaps(explanations: "Sequence[Explanation]") -> Figure:
    """Draw pictures with what was decided above, the same with their heatmaps below; grey where a network has none."""
    names = [one.prediction.task.classes[int(one.prediction.decided[0])] for one in explanations]
    covered = [
        np.full_like(one.pixels, 200) if one.heatmap is None else over(one.pixels, one.heatmap) for one in explanations
    ]
    captions = ["no heatmap from this network" if one.of is None else f"for {one.of}" for one in explanations]
    pictures = [*(one.pixels for one in explanations), *covered]
    return image_grid(pictures, [*names, *captions], columns=len(explanations), side=2.4)
