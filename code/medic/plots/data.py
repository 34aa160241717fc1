"""The figure of a selection of the competition's images: classes before and after it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medic import plots
from medic.plots import COLOURS

if TYPE_CHECKING:
    from medic.data.competition import Selection
    from medic.data.prepare import Prepared


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
