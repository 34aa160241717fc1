"""One chart a benchmark, and the page of all tables: ``image/benchmarks/NAME.png`` and ``docs/benchmarks.md``.

Everything is drawn and written from ``benchmarks/results/*.csv`` and ``machine.txt`` beside them; nothing is measured.
What is said by hand, above all what limits a target that was missed, is in ``limits.md`` beside this file.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from measure import RESULTS, ROOT, run

from medic import plots
from medic.errors import MedicError
from medic.files import write_text

ORDER = (
    *(
        "preparation",
        "preparation_scale",
        "chest_table",
        "loading",
        "plans_retinopathy",
        "plans_skin_lesion",
        "quality_in_time",
        "training",
        "inference",
        "serving",
        "batch",
    ),
    "series",
)
SYNTHETIC = ("preparation_scale", "chest_table", "series")
"""Benchmarks that always run on synthetic photographs."""
OURS, LIMIT, OTHERS = plots.COLOURS[0], "0.75", plots.COLOURS[5]
PANELS = 2
"""Metrics that are drawn, the first ones that are compared with a reference; all of them are in the tables."""
LIMITS = Path(__file__).with_name("limits.md")


@dataclass(frozen=True)
class Drawn:
    """What ``medic.plots`` asks of whoever draws."""

    synthetic: bool
    images: Path


def chart(name: str, table: pd.DataFrame) -> Figure:
    """Bars of the compared metrics, as multiples of the reference; of the plain values where nothing is compared."""
    compared = table[table["ratio"].notna()]
    if len(compared):
        metrics, column = list(dict.fromkeys(compared["metric"]))[:PANELS], "ratio"
    else:
        metrics, column = list(table["metric"].value_counts().index)[:PANELS], "value"
    parts = [table[(table["metric"] == metric) & table[column].notna()] for metric in metrics]
    height = 0.9 + 0.32 * max(map(len, parts))
    figure, panels = plt.subplots(1, len(parts), figsize=(2.2 + 4.6 * len(parts), height), squeeze=False, sharey=False)
    for panel, part, metric in zip(panels[0], parts, metrics, strict=True):
        part = part.iloc[::-1]
        bars = panel.barh(range(len(part)), part[column], color=[_colour(method) for method in part["method"]])
        # White around the numbers, for those that stand on a target's mark.
        halo = [withStroke(linewidth=3, foreground="white")]
        panel.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=8, path_effects=halo)
        for place, target in enumerate(part["target"]):
            if target == target:
                panel.plot([target] * 2, [place - 0.45, place + 0.45], color="black", lw=1.6)
        panel.set_yticks(range(len(part)), part["method"], fontsize=8)
        panel.set_xlabel("times the reference" if column == "ratio" else _words(metric))
        panel.set_title(_words(metric), fontweight="normal", loc="center")
        panel.grid(axis="y", visible=False)
        panel.grid(axis="x", visible=True)
        panel.margins(x=0.12)
    plots.title(figure, _finding(name, table), Drawn(name in SYNTHETIC, Path()))
    return figure


def over_time(table: pd.DataFrame) -> Figure:
    """Quality over minutes on the clock, a line a method; a method without epochs is a point and a dotted line."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    for panel, metric, name in zip(panels, ("kappa", "macro_f1"), ("quadratic kappa", "macro F1"), strict=True):
        for number, method in enumerate(dict.fromkeys(table["method"])):
            values = table[table["method"] == method].set_index("metric")["value"]
            budgets = [m.removeprefix(f"{metric}_after_") for m in values.index if m.startswith(f"{metric}_after_")]
            minutes = [values[f"seconds_taken_after_{budget}"] / 60 for budget in budgets]
            reached = [values[f"{metric}_after_{budget}"] for budget in budgets]
            look = {"color": plots.COLOURS[number], "lw": 2.6 if method.startswith("medic") else 1.4}
            panel.plot(minutes, reached, "o-", label=method, **look)
            if len(reached) == 1:
                panel.axhline(reached[0], ls=":", **look | {"lw": 0.8})
        panel.set_xscale("log", base=2)
        panel.set_xlabel("minutes on the clock, imports included")
        panel.set_ylabel(name)
    panels[1].legend(fontsize=8)
    kappa = table[table["metric"].str.startswith("kappa_after_")]
    best = kappa.loc[kappa.groupby("metric")["value"].idxmax(), "method"]
    ahead = sum(best.str.startswith("medic"))
    plots.title(figure, f"medic has the highest kappa at {ahead} of {len(best)} budgets", Drawn(False, Path()))
    return figure


def _colour(method: str) -> str:
    if "medic" in method:
        return OURS
    return LIMIT if "limit" in method or "raw" in method else OTHERS


def _words(metric: str) -> str:
    return metric.replace("_per_s", " a second").replace("_", " ")


def _finding(name: str, table: pd.DataFrame) -> str:
    """The title: how many targets were reached."""
    asked = table[table["target"].notna()]
    if asked.empty:
        return f"{name}: no target was set"
    reached = int((asked["reached"] == "yes").sum())
    return f"{name}: {reached} of {len(asked)} targets reached (black marks)"


def page(tables: dict[str, pd.DataFrame], machines: dict[str, str], said: dict[str, str], images: str) -> str:
    """The page as Markdown.

    Args:
        tables: results by benchmark, in the order of the page.
        machines: the machine's line by benchmark.
        said: the hand-written text by benchmark, and under ``""`` the text that opens the page.
        images: path from the page to the folder of the charts.
    """
    parts = [f"# Benchmarks\n\n{said.get('', '')}".rstrip()]
    for name, table in tables.items():
        missed = table[table["reached"] == "no"]
        part = [f"## {name}"]
        part.append(f"![{name}]({images}/{name}.png)")
        if name in machines:
            part.append(f"Machine: {machines[name]}.")
        part.append(_markdown(table))
        if len(missed):
            listed = "\n".join(
                f"- {row.method}, {_words(row.metric)}: {_got(row)}, asked for {_number(row.target)}"
                for row in missed.itertuples()
            )
            part.append(f"Missed:\n\n{listed}")
        elif table["target"].notna().any():
            part.append("Every target was reached.")
        if name in said:
            part.append(said[name])
        elif len(missed):
            part.append(f"What limits it has not been written yet: it belongs in `benchmarks/{LIMITS.name}`.")
        parts.append("\n\n".join(part))
    return "\n\n".join(parts) + "\n"


def _got(row: object) -> str:
    """The figure that is held against the target: the ratio where there is one."""
    return _number(row.ratio if row.ratio == row.ratio else row.value)


def _markdown(table: pd.DataFrame) -> str:
    head = (
        "| method | metric | value | low | high | times reference | target | reached |\n| --- | --- "
        + "| ---: " * 5
        + "| --- |"
    )
    lines = [
        f"| {row.method} | {_words(row.metric)} | {_number(row.value)} | {_number(row.low)} | {_number(row.high)} "
        f"| {_number(row.ratio)} | {_number(row.target)} | {row.reached} |"
        for row in table.itertuples()
    ]
    return "\n".join([head, *lines])


def _number(value: float) -> str:
    if value != value:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The results by benchmark: the known ones in the order of the pipeline, then the others by name.

    Raises:
        MedicError: there are none, or a file is none of ours.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    if not found:
        raise MedicError(f"there are no results in {folder}; run make bench first")
    names = [name for name in ORDER if name in found] + [name for name in found if name not in ORDER]
    tables = {}
    for name in names:
        table = pd.read_csv(
            found[name], keep_default_na=False, na_values={c: [""] for c in ("value", "low", "high", "ratio", "target")}
        )
        if not {"method", "metric", "value", "low", "high", "ratio", "target", "reached"} <= set(table.columns):
            continue  # a curve beside the results, such as memory by number of images
        tables[name] = table
    return tables


def read_machines(folder: Path) -> dict[str, str]:
    """The machine's line by benchmark."""
    path = folder / "machine.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: line for name, _, line in (line.partition(": ") for line in lines)}


def read_said(path: Path) -> dict[str, str]:
    """The hand-written text by benchmark: what stands under each heading of the second level."""
    opening, *rest = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    said = {name.strip(): text.strip() for name, text in zip(rest[::2], rest[1::2], strict=True)}
    return {"": opening.strip()} | {name: text for name, text in said.items() if text}


def main() -> None:
    """Draw the charts and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the CSV files")
    parser.add_argument("--images", type=Path, default=ROOT / "image" / "benchmarks", help="folder for the charts")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page")
    options = parser.parse_args()
    plots.use_style()
    tables = read_tables(options.results)
    for name, table in tables.items():
        figure = over_time(table) if name == "quality_in_time" else chart(name, table)
        plots.save(figure, name, Drawn(name in SYNTHETIC, options.images))
        plt.close(figure)
    images = Path(os.path.relpath(options.images, options.page.parent)).as_posix()
    write_text(options.page, page(tables, read_machines(options.results), read_said(LIMITS), images))
    print(f"drawn: {', '.join(tables)}; written: {options.page.name}")


if __name__ == "__main__":
    run(main)
