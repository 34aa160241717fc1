"""Figures of tuning: the loss over learning rates, and what a study found, in which order, why and at what cost."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medic.plots import COLOURS


def learning_rates(table: pd.DataFrame, suggestion: float, lowest: float) -> Figure:
    """The loss while the learning rate rose.

    Args:
        table: one row a step, ``learning_rate``, ``loss`` and ``smoothed``.
        suggestion: the rate to mark as the one to take.
        lowest: the rate to mark as the end of the useful range.
    """
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    axes.plot(table["learning_rate"], table["loss"], ".", color="0.65", ms=4, label="one batch")
    axes.plot(table["learning_rate"], table["smoothed"], color=COLOURS[0], label="smoothed")
    marks = ((suggestion, "falls most steeply", COLOURS[1], "-"), (lowest, "lowest", COLOURS[2], "--"))
    for rate, what, colour, style in marks:
        axes.axvline(rate, color=colour, ls=style, lw=1.4, label=f"{what}: {rate:.1e}")
    axes.set_xscale("log")
    # The end of the range is where training breaks, and its losses would leave nothing of the rest to see.
    top = table["smoothed"].iloc[: max(2, len(table) // 2)].max()
    axes.set_ylim(0, 2 * top)
    axes.set_xlabel("learning rate of the step")
    axes.set_ylabel("training loss")
    axes.legend(fontsize=8, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def history(table: pd.DataFrame, metric: str) -> Figure:
    """Each trial's figure in the order of the study, and the best so far.

    Args:
        table: one row a trial, indexed by its place, with the columns ``metric`` and ``state``.
        metric: the figure; higher is better.
    """
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    marks = {"finished": ("o", COLOURS[0]), "pruned": ("x", COLOURS[1]), "failed": ("v", "0.5")}
    lowest = np.nanmin(table[metric]) if table[metric].notna().any() else 0.0
    for state, (mark, colour) in marks.items():
        rows = table[table["state"] == state]
        if len(rows):
            axes.plot(rows.index, rows[metric].fillna(lowest), mark, color=colour, ms=7, label=state)
    best = table[metric].where(table["state"] == "finished").cummax().ffill().dropna()
    axes.plot(best.index, best, drawstyle="steps-post", color=COLOURS[2], label="best finished so far")
    axes.set_xlabel("trial, in the order of the study")
    axes.set_ylabel(f"{metric.replace('_', ' ')} on validation")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.12)
    axes.legend(fontsize=8, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def importance(table: pd.DataFrame, metric: str) -> Figure:
    """A bar a setting, with the range over leaving out one trial after the other.

    Args:
        table: ``importance``, ``low`` and ``high``, indexed by setting, the most important first.
        metric: the figure that is explained.
    """
    figure, axes = plt.subplots(figsize=(7.0, 1.3 + 0.42 * len(table)))
    places, value = np.arange(len(table))[::-1], table["importance"]
    axes.barh(places, value, 0.62, color=COLOURS[0], alpha=0.35)
    axes.hlines(places, table["low"], table["high"], color=COLOURS[0], lw=2)
    axes.plot(value, places, "o", color=COLOURS[0], ms=5)
    for place, number, high in zip(places, value, table["high"], strict=True):
        axes.annotate(
            f"{number:.0%}", (max(high, number), place), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, [name.replace("_", " ") for name in table.index])
    axes.set_xlim(0, 1.08)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel(f"share of the spread of {metric.replace('_', ' ')} explained (line: one trial left out)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    return figure


def trade_off(table: pd.DataFrame, front: pd.DataFrame, metric: str) -> Figure:
    """Each finished trial's figure over the seconds an epoch takes; the recommended ones joined and named.

    Args:
        table: one row a trial, with ``metric``, ``seconds_an_epoch`` and ``state``.
        front: the recommended trials, the quickest first, with ``trial`` and the same columns.
        metric: the figure; higher is better.
    """
    figure, axes = plt.subplots(figsize=(7.0, 3.8))
    rows = table[table["state"] == "finished"]
    axes.plot(rows["seconds_an_epoch"], rows[metric], "o", color="0.6", ms=6, label="finished trial")
    axes.plot(
        front["seconds_an_epoch"], front[metric], "-o", color=COLOURS[1], ms=8, drawstyle="steps-post",
        label="recommended: none is better and quicker",
    )  # fmt: skip
    for row in front.to_dict("records"):
        axes.annotate(
            f"trial {row['trial']}",
            (row["seconds_an_epoch"], row[metric]),
            (6, 6),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlim(0, 1.15 * max(rows["seconds_an_epoch"]))
    axes.margins(y=0.15)
    axes.set_xlabel("seconds an epoch, with validation and writing")
    axes.set_ylabel(f"{metric.replace('_', ' ')} on validation")
    axes.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
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
