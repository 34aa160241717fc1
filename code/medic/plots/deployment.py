"""Figures of a service: how a bundle gets there, and how fast it answers."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from medic.plots import COLOURS

STEPS = {
    "checkpoint": "weights as\nsafetensors",
    "export": "model.onnx\nparity checked",
    "compress": "int8, kept if\nits gate passes",
    "package": "bundle with\nhashes and card",
    "store": "a version\nin a space",
    "deploy": "a service\non a port",
    "score": "image in,\ngrade out",
}


def deploy_flow() -> Figure:
    """Draw how a checkpoint becomes an answer: the steps, and what each hands to the next."""
    figure, axes = plt.subplots(figsize=(10, 2.3))
    axes.set(xlim=(-0.6, len(STEPS) - 0.4), ylim=(-0.95, 0.75))
    axes.set_axis_off()
    for name, first, last, colour in (("modeling", 0, 0, COLOURS[2]), ("deployment", 1, 6, COLOURS[0])):
        axes.plot([first - 0.4, last + 0.4], [-0.72, -0.72], color=colour, lw=3, solid_capstyle="butt")
        axes.text((first + last) / 2, -0.79, f"medic.{name}", ha="center", va="top", color=colour)
    for place, (step, product) in enumerate(STEPS.items()):
        box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": COLOURS[0 if place else 2], "lw": 1.8}
        axes.text(place, 0, product, ha="center", va="center", fontsize=8, linespacing=1.4, bbox=box)
        axes.text(place, 0.47, step, ha="center", va="center", fontweight="bold", bbox={"fc": "white", "ec": "none"})
        if place:
            arrow = {"arrowstyle": "-|>", "color": "0.3", "lw": 1.4}
            axes.annotate("", (place - 0.42, 0), (place - 0.58, 0), arrowprops=arrow)
    return figure


def latency(milliseconds: dict[int, np.ndarray], per_second: dict[int, float]) -> Figure:
    """Draw the time to the answer as histograms, and answers a second, by the number of clients that ask at once.

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
    times.set(xlabel="time to the answer (ms)", ylabel="requests")
    times.legend(fontsize=8)
    rates.set(xlabel="clients at the same time", ylabel="answers a second")
    rates.margins(y=0.12)
    return figure
