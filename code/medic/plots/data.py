"""The figure of a selection of the competition's images: classes before and after it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from medic import plots

if TYPE_CHECKING:
    from medic.data.competition import Selection
    from medic.data.prepare import Prepared


def save_balance(selection: Selection, prepared: Prepared) -> None:
    """Write ``balance.png`` beside a selection of the competition's images: classes before and after it."""
    balance, wanted = selection.balance(prepared.records), selection.settings["per_class"]
    place = SimpleNamespace(synthetic=prepared.synthetic, images=prepared.folder)
    from_main = balance["train"] - balance["train_extra"]
    with plt.rc_context():
        plots.use_style()
        figure, (before, after) = plt.subplots(1, 2, figsize=(8.6, 3.8))
        for axes, bottom, top, align, width in (
            (before, balance["main"], balance["extra"], "center", 0.7),
            (after, from_main, balance["train_extra"], "edge", -0.4),
        ):
            style = {"align": align, "width": width}
            axes.bar(balance.index, bottom, color=plots.COLOURS[0], label="main archive", **style)
            bars = axes.bar(balance.index, top, bottom=bottom, color=plots.COLOURS[1], label="extra archive", **style)
            axes.bar_label(bars, labels=[f"{count}" for count in bottom + top], fontsize=8, padding=2)
            axes.tick_params(axis="x", labelsize=8)
        style = {"align": "edge", "width": 0.4, "color": plots.COLOURS[2], "label": "validation (main archive)"}
        after.bar_label(after.bar(balance.index, balance["validation"], **style), fontsize=8, padding=2)
        after.axhline(wanted, color="0.4", ls="--", lw=1, label=f"asked for: {wanted}")
        before.set(ylabel="images", xlabel="before: listed in the archives")
        after.set_xlabel("after: training and validation")
        figure.legend(*after.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        reached = len(selection.before) - len(selection.short(prepared.records))
        plots.title(figure, f"{reached} of {len(selection.before)} classes reach {wanted} training images", place)
        plots.save(figure, "balance", place)
        plt.close(figure)
