"""Figures of a data set before a network sees it: examples, measures by class, classes that meet, people and views."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medic import plots
from medic.data.competition import Selection
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared
from medic.data.records import class_counts, targets
from medic.data.stores import Store
from medic.plots import COLOURS, SEQUENTIAL
from medic.task import Task

if TYPE_CHECKING:
    from medic.data.competition import Selection
    from medic.data.prepare import Prepared


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


def save_balance(selection: Selection, prepared: Prepared) -> None:
    """Write ``balance.png`` beside a selection of the competition's images: classes before and after it."""
    place = SimpleNamespace(synthetic=prepared.synthetic, images=prepared.folder)
    with plt.rc_context():
        plots.use_style()
        figure = balance_before_after(selection.balance(prepared.records), selection.settings["per_class"])
        reached = len(selection.before) - len(selection.short(prepared.records))
        finding = (
            f"{reached} of {len(selection.before)} classes reach {selection.settings['per_class']} training images"
        )
        plots.title(figure, finding, place)
        plots.save(figure, "balance", place)
        plt.close(figure)
