"""Figures of a service: how a bundle gets there, and how fast it answers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from medic.plots import COLOURS


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
