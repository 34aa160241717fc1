"""Figures of a data set before a network sees it: examples, measures by class, classes that meet, people and views."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medic import plots
from medic.data.images.preprocess import Preprocessing
from medic.data.records import targets
from medic.data.stores import Store
from medic.plots import COLOURS, SEQUENTIAL
from medic.task import Task


def preview(records: pd.DataFrame, store: Store, preprocessing: Preprocessing, captions: pd.Series, **grid) -> Figure:
    """The records' images through ``preprocessing``, in their order, each with its caption above.

    Args:
        records: readable images, at least one.
        store: where they are.
        preprocessing: how they become pixels.
        captions: one for each.
        **grid: ``columns`` and ``side`` of ``medic.plots.image_grid``.
    """
    return plots.image_grid([preprocessing.pixels(store.read(name)) for name in records["image"]], captions, **grid)


def measures_by_class(measures: pd.DataFrame, units: dict[str, str], x: str) -> Figure:
    """A panel for each measure: a box a class, and how well the measure orders the classes.

    Args:
        measures: with the column ``label`` and those measures, a row an image.
        units: the measures to show, each with its unit.
        x: what the classes are, such as "grade".
    """
    figure, axes = plt.subplots(1, len(units), figsize=(4.2 * len(units), 3.4), squeeze=False)
    for panel, (name, unit) in zip(axes[0], units.items(), strict=True):
        groups = measures.groupby("label")[name]
        panel.boxplot([group for _, group in groups], tick_labels=list(groups.groups), widths=0.6)
        panel.set(xlabel=x, ylabel=f"{name} ({unit})")
        rho = measures[name].corr(measures["label"], "spearman")
        panel.set_title(f"rank correlation with the {x} {rho:+.2f}", fontweight="normal")
    return figure


def co_occurrence(together: pd.DataFrame) -> Figure:
    """Which classes come together: the number the images with both, the colour their share of the row's images.

    Args:
        together: int (C, C), as ``medic.data.explore.co_occurrence`` gives it; C is at least 1.
    """
    counts = together.to_numpy()
    share = counts / np.diag(counts)[:, None]
    np.fill_diagonal(share, np.nan)
    figure, axes = plt.subplots(figsize=(1.9 + 0.46 * len(counts), 1.1 + 0.36 * len(counts)))
    highest = np.nanmax(share, initial=0.01, where=np.isfinite(share))
    picture = axes.imshow(share, vmin=0, vmax=highest, cmap=SEQUENTIAL, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        own, light = row == column, share[row, column] > highest / 2
        axes.text(
            column,
            row,
            counts[row, column] or "",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if own else "normal",
            color="black" if own or light else "white",
        )
    axes.set_xticks(range(len(counts)), together.columns, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(counts)), together.index, fontsize=8)
    axes.set_xlabel("also show")
    axes.set_ylabel("images that show")
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label="share of the row's images", format="{x:.0%}")
    return figure


def people_and_views(records: pd.DataFrame, task: Task) -> Figure:
    """Who was imaged and how: patients by age and sex, and the share of images with each class by view.

    Args:
        records: with the columns ``patient``, ``follow_up``, ``age`` (years), ``sex`` and ``view``; missing values are
            left out. A patient counts once in the left panel, with the age at the first image here.
        task: multilabel; its classes are shown where they occur, and "any finding" for at least one.
    """
    figure, (people, views) = plt.subplots(1, 2, figsize=(9.6, 4.6), width_ratios=(1, 1.15))
    first = records.sort_values("follow_up", kind="stable").drop_duplicates("patient")
    ages = {sex: group["age"].dropna().to_numpy(float) for sex, group in first.groupby("sex")}
    oldest = max((values.max() for values in ages.values() if len(values)), default=100)
    if ages:
        labels = [f"{sex} ({len(values)} patients)" for sex, values in ages.items()]
        people.hist(list(ages.values()), np.arange(0, oldest + 11, 10), label=labels, color=COLOURS[: len(ages)])
        people.legend(fontsize=8, loc="upper left")
    people.set_xlabel("age at the first image (years)")
    people.set_ylabel("patients")
    present = pd.DataFrame(targets(records, task), columns=list(task.classes), index=records.index)
    present = present.loc[:, present.any()].assign(**{"any finding": present.max(axis=1)})
    known = records["view"].dropna()
    shares = present.loc[known.index].groupby(known).mean().T
    shares = shares.loc[present.mean().sort_values(kind="stable").index]
    places = np.arange(len(shares))
    views.hlines(places, shares.min(axis=1), shares.max(axis=1), color="0.7", lw=1.2)
    # Other colours than the sexes have in the panel beside.
    for colour, mark, view in zip(COLOURS[2:], "oD", shares.columns, strict=False):
        label = f"{view} ({(known == view).sum()} images)"
        views.plot(shares[view], places, mark, color=colour, ms=5, label=label)
    views.set_yticks(places, shares.index, fontsize=8)
    views.set_xlabel("share of the view's images")
    views.xaxis.set_major_formatter("{x:.0%}")
    views.grid(axis="y", visible=False)
    views.grid(axis="x", visible=True)
    if len(shares.columns):
        views.legend(fontsize=8, loc="lower right")
    return figure
