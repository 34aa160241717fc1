"""The same training in several frameworks, side by side: its course by epoch, its time, its length."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def watched(
    name: str,
    training: Iterable[tuple[Any, float, float]],
    scores: Callable[[Any, np.ndarray], np.ndarray],
    judges: tuple[np.ndarray, np.ndarray],
) -> tuple[Any, pd.DataFrame]:
    """Run a training that yields after each epoch, judge the network then, and print a line.

    Args:
        name: what the lines begin with.
        training: yields the network as it is now, the epoch's mean loss and its seconds.
        scores: what a network says of images, (N, C).
        judges: images and their labels, by which each epoch's accuracy is told; that takes no part in its seconds.

    Returns:
        The network of the last epoch; and one row an epoch, ``loss``, ``accuracy``, ``seconds``, from epoch 1.
    """
    rows, network = [], None
    for network, loss, seconds in training:
        right = share_right(scores(network, judges[0]), judges[1])
        rows.append({"loss": float(loss), "accuracy": right, "seconds": seconds})
        print(f"{name}, epoch {len(rows)}: loss {loss:.3f}, accuracy {right:.1%}")
    return network, by_epoch(rows)


def share_right(scores: np.ndarray, labels: np.ndarray) -> float:
    """How many of the images have their highest score (N, C) at their label (N,), 0..1."""
    return float((np.asarray(scores).argmax(axis=1) == labels).mean())


def by_epoch(rows: Iterable[Mapping[str, float]]) -> pd.DataFrame:
    """One row an epoch, counted from 1, of what each epoch reported; reports without a loss are left out."""
    table = pd.DataFrame([row for row in rows if "loss" in row], columns=["loss", "accuracy", "seconds"])
    return table.set_index(pd.RangeIndex(1, len(table) + 1, name="epoch"))


def source_of(*things: Callable) -> str:
    """The source of functions and classes, one after the other: of those of a notebook, the cells they stand in."""
    parts = []
    for thing in things:
        code = getattr(getattr(thing, "__init__", thing) if isinstance(thing, type) else thing, "__code__", None)
        in_notebook = thing.__module__ == "__main__" and code is not None
        # `inspect` finds no class of a notebook before Python 3.13; IPython keeps each cell as a file of lines.
        parts.append("".join(linecache.getlines(code.co_filename)) if in_notebook else inspect.getsource(thing))
    return "".join(parts)


def lines_of_code(source: str) -> int:
    """Lines that are neither blank nor only a comment or a docstring of one line; ``#`` in Python as in Julia."""
    lines = (line.strip() for line in source.splitlines())
    return sum(bool(line) and not line.startswith(("#", '"""')) for line in lines)


def side_by_side(
    histories: Mapping[str, pd.DataFrame], sources: Mapping[str, str], test_accuracy: Mapping[str, float]
) -> pd.DataFrame:
    """One row a framework: lines of code, seconds of the first and of a later epoch, accuracy on test images.

    The first epoch is apart because compilation falls into it. What is not known is missing.
    """
    empty = by_epoch([])
    rows = {}
    for name, source in sources.items():
        seconds = histories.get(name, empty)["seconds"]
        rows[name] = {
            "lines of code": lines_of_code(source),
            "first epoch, s": seconds.iloc[:1].mean(),
            "later epochs, s": seconds.iloc[1:].median(),
            "test accuracy": test_accuracy.get(name, float("nan")),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def training_curves(histories: Mapping[str, pd.DataFrame], missing: Mapping[str, str]) -> Figure:
    """Loss and accuracy by epoch, one line a framework.

    Args:
        histories: as ``by_epoch`` makes them.
        missing: frameworks that did not run, and why; named in the figure, so that nobody takes two for all.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    marks = dict(zip([*histories, *missing], "osD^v", strict=False))
    for panel, column in zip(axes, ("loss", "accuracy"), strict=True):
        for name, table in histories.items():
            panel.plot(table.index, table[column], marker=marks[name], markersize=5, label=name, alpha=0.85)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_xlabel("epoch")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("training loss (cross-entropy)")
    axes[1].set_ylabel("accuracy, validation")
    axes[1].yaxis.set_major_formatter("{x:.1%}")
    for name, why in missing.items():
        axes[1].plot([], [], linestyle="none", label=f"{name}: not run, {why}")
    axes[1].legend(loc="lower right", fontsize=9)
    return figure
