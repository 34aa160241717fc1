"""How every benchmark here measures and reports: interleaved rounds, medians, quartiles, one table, one CSV.

Only ratios of medians from one interleaved run are compared: the speed of a shared machine changes by the minute, and
changes for all methods of a round alike.

    python benchmarks/measure.py      # draw the charts of benchmarks/results, put its tables into docs/benchmarks.md
"""

import argparse
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.parallel import usable_cores
from medic.data.stores import is_synthetic, open_store
from medic.errors import MedicError
from medic.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("numpy", "opencv-python-headless", "pillow", "torch", "torchvision", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """One line of a result; the fields are the columns of the CSV, in this order.

    Attributes:
        benchmark: name of the script.
        method: what was measured.
        metric: what of it, with the unit (``images_per_s``, ``ms``, ``psnr_db``, ``peak_mib``).
        value: the median over the rounds, or the single figure.
        low: lower quartile of the rounds; where a benchmark says so, the lower end of an interval. None for a single
            figure.
        high: the upper one.
        ratio: how many times as fast as the benchmark's reference method, from the medians; above 1 is faster.
        target: what was to be reached, None where nothing was asked.
        reached: ``yes``, ``no``, or empty without a target.
    """

    benchmark: str
    method: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    target: float | None = None
    reached: str = ""


def interleave(
    methods: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, np.ndarray]:
    """Time methods against each other: every round runs each of them once, and starts with another one.

    Args:
        methods: name to what is timed; a method that gives back a float has timed itself, in seconds.
        rounds: how often each is timed.
        warm_up: run each once before, untimed.

    Returns:
        float64 (rounds,) wall-clock seconds by name.
    """
    names, seconds = list(methods), {name: np.zeros(rounds) for name in methods}
    for turn in range(-1 if warm_up else 0, rounds):
        first = max(0, turn) % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start = time.perf_counter()
            own = methods[name]()
            if turn >= 0:
                seconds[name][turn] = own if isinstance(own, float) else time.perf_counter() - start
    return seconds


def rows(
    benchmark: str,
    seconds: Mapping[str, np.ndarray],
    *,
    reference: str,
    work: float | Mapping[str, float],
    metric: str = "images_per_s",
    targets: Mapping[str, float] | None = None,
) -> list[Row]:
    """Return rows of timed methods: units of work a second, with quartiles, and the ratio to the reference method.

    Args:
        benchmark: name of the script.
        seconds: what ``interleave`` gave.
        reference: the method that the others are compared with.
        work: units of work (images, say) in one call, for all or by method.
        metric: what such a value is called.
        targets: least ratio to reach, by method.
    """
    rates = {n: (work[n] if isinstance(work, Mapping) else work) / np.asarray(times) for n, times in seconds.items()}
    made = []
    for name, rate in rates.items():
        low, middle, high = map(float, np.percentile(rate, (25, 50, 75)))
        ratio, target = float(middle / np.median(rates[reference])), (targets or {}).get(name)
        made.append(Row(benchmark, name, metric, middle, low, high, ratio, target, _reached(ratio, target)))
    return made


def compared(
    benchmark: str,
    seconds: Mapping[str, np.ndarray],
    method: str,
    to: str,
    *,
    target: float | None = None,
    at_most: bool = False,
) -> Row:
    """Return one method's time over another's (``time_over_<to>``), from the medians, with a 95 % interval.

    The interval is the percentile bootstrap over rounds (Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    p. 170); a round stays together, because its methods met the same machine. ``seconds`` is what ``interleave`` gave,
    for the same work; ``at_most``: the target is reached at or below it.
    """
    above, below = np.asarray(seconds[method]), np.asarray(seconds[to])
    drawn = np.random.default_rng(0).integers(0, len(above), (1000, len(above)))
    low, high = np.percentile(np.median(above[drawn], axis=1) / np.median(below[drawn], axis=1), (2.5, 97.5))
    value, name = float(np.median(above) / np.median(below)), f"time_over_{to}".replace(" ", "_")
    return figure(benchmark, method, name, value, spread=(float(low), float(high)), target=target, at_most=at_most)


def figure(
    benchmark: str,
    method: str,
    metric: str,
    value: float,
    *,
    spread: tuple[float, float] | None = None,
    target: float | None = None,
    at_most: bool = False,
) -> Row:
    """Return the row of a single figure: quality, memory, size; ``at_most``: the target is reached at or below it."""
    low, high = spread or (None, None)
    reached = _reached(value, target, at_most)
    return Row(benchmark, method, metric, float(value), low, high, target=target, reached=reached)


def _reached(value: float, target: float | None, at_most: bool = False) -> str:
    if target is None:
        return ""
    return "yes" if (value <= target if at_most else value >= target) else "no"


def show(table: Iterable[Row], *notes: str) -> None:
    """Print rows as a table, the machine above it and notes (which data, synthetic or not) below."""
    print(machine(), pd.DataFrame(map(asdict, table)).map(_short).to_string(index=False), sep="\n")
    print("low and high: quartiles of the rounds; of time_over_..., a 95 % bootstrap interval", *notes, sep="\n")


def _short(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def write(table: Iterable[Row], name: str, options: argparse.Namespace) -> Path:
    """Write rows as CSV, and this machine's line for ``name`` into ``machine.txt`` beside it.

    Args:
        table: the rows.
        name: of the file, without suffix.
        options: what ``arguments`` parsed. A quick run goes to ``outputs/benchmarks/``, so that it never replaces
            committed figures; ``--to`` names another folder.

    Returns:
        The CSV file.
    """
    folder = options.to or (ROOT / "outputs" / "benchmarks" if options.quick else RESULTS)
    path, machines = folder / f"{name}.csv", folder / "machine.txt"
    write_text(path, pd.DataFrame(map(asdict, table)).to_csv(index=False, float_format="%.5g"))
    lines = machines.read_text(encoding="utf-8").splitlines() if machines.is_file() else []
    git = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    lines = [line for line in lines if not line.startswith(f"{name}: ")]
    lines.append(f"{name}: commit {git.stdout.strip() or 'unknown'}, {machine()}")
    write_text(machines, "\n".join(sorted(lines)) + "\n")
    print(f"written: {os.path.relpath(path)}")
    return path


def arguments(description: str) -> argparse.ArgumentParser:
    """Return the options that every benchmark has; a script adds its own and calls ``parse_args``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few rounds: about a minute, written to outputs/")
    real = ROOT.parent / "shared" / "data"
    parser.add_argument(
        "--data",
        type=Path,
        default=real if (real / "retinopathy").is_dir() else ROOT / "sample_data",
        help="folder that holds retinopathy/; the real photographs where they are, else the synthetic sample",
    )
    parser.add_argument("--to", type=Path, help="folder for the CSV, instead of benchmarks/results")
    return parser


def origin(folder: Path) -> str:
    """Say which photographs a run used: real ones, or synthetic ones.

    Raises:
        MedicError: ``folder`` holds no ``retinopathy/``.
    """
    drawn = is_synthetic(open_store(folder / "retinopathy"))
    return f"data: {'SYNTHETIC photographs, drawn by a program' if drawn else 'real fundus photographs'}"


def machine() -> str:
    """Return one line: processor, cores that may be used, GPU, versions."""
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", information.read_text()) if information.is_file() else None
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip().replace("\n", ", ")
    except (OSError, subprocess.CalledProcessError):
        gpu = "no GPU"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    processor = found[1] if found else platform.machine()
    return f"{processor}, {usable_cores()} cores, {gpu}; Python {platform.python_version()}, {versions}"


def run(main: Callable[[], object]) -> None:
    """Run a script's main function; what a person has to know ends it in one sentence."""
    try:
        main()
    except MedicError as error:
        sys.exit(f"error: {error}")


def peak_memory() -> float:
    """Return the most memory that this process has held so far (resident), in MiB. Linux only.

    ``getrusage`` is no measure in a child process: on Linux it starts from what the parent held.
    """
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def worker(make: Callable[..., Callable], *arguments: object) -> ProcessPoolExecutor:
    """Return a process of its own that holds ``make(*arguments)``; it takes no core until ``ask`` calls that.

    Two runtimes in one process, or two that work at the same time, would fight over the cores.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_hold, initargs=(make, arguments))


def ask(process: ProcessPoolExecutor, *arguments: object) -> object:
    """Call the function that a ``worker`` holds, and return its result."""
    return process.submit(_call, *arguments).result()


def _hold(make: Callable[..., Callable], arguments: tuple) -> None:
    globals()["_held"] = make(*arguments)


def _call(*arguments: object) -> object:
    return globals()["_held"](*arguments)


def page(results: Path, images: Path, text: str) -> str:
    """Return the page with the table of each result between ``<!-- results: NAME -->`` and ``<!-- end -->``.

    A chart of each is drawn into ``images``; a result without marks in ``text`` gets a section at the end.
    """
    machines = dict(line.split(": ", 1) for line in (results / "machine.txt").read_text(encoding="utf-8").splitlines())
    for path in sorted(results.glob("*.csv")):
        name, table = path.stem, pd.read_csv(path)
        draw(table, images / f"{name}.png")
        cells = table.drop(columns="benchmark").map(_short)
        cells["metric"] = cells["metric"].str.replace("_per_s", " a second").str.replace("_", " ")
        cells = cells[[column for column in cells if cells[column].any()]]
        lines = [cells.columns, ["---" if c in ("method", "metric") else "---:" for c in cells], *cells.to_numpy()]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        made = f"<!-- results: {name} -->\n\n![{name}](../image/benchmarks/{name}.png)\n\n{body}\n\n"
        made += f"Measured at {machines.get(name, 'an unknown commit')}.\n\n<!-- end -->"
        marks = re.compile(rf"<!-- results: {name} -->.*?<!-- end -->", re.DOTALL)
        text = marks.sub(lambda _, made=made: made, text) if marks.search(text) else f"{text}\n## {name}\n\n{made}\n"
    return text


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the first compared metric as multiples of the reference; quality over minutes where budgets are told."""
    from matplotlib.figure import Figure

    from medic import plots

    plots.use_style()
    shown = Figure(figsize=(9, 4), layout="constrained")
    axes, in_time = shown.subplots(), table["metric"].str.startswith("kappa_after")
    for method, part in table[in_time].groupby("method", sort=False):
        taken = table[(table["method"] == method) & table["metric"].str.startswith("seconds_taken")]["value"] / 60
        axes.plot(taken, part["value"], "o-", label=method, lw=2.6 if method.startswith("medic") else 1.4)
        axes.set(xscale="log", xlabel="minutes on the clock, imports included", ylabel="quadratic weighted kappa")
        axes.legend()
    if not in_time.any():
        column = "ratio" if table["ratio"].notna().any() else "value"
        some = table[table[column].notna()]
        some = some[some["metric"] == some["metric"].iloc[0]].iloc[::-1]
        colours = [plots.COLOURS[0] if "medic" in method else "0.7" for method in some["method"]]
        axes.bar_label(axes.barh(some["method"], some[column], color=colours), fmt="{:.3g}", padding=3)
        axes.set_xlabel(f"{some['metric'].iloc[0].replace('_', ' ')}{', times the reference' * (column == 'ratio')}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.savefig(path, dpi=110)


def main() -> None:
    """Draw the charts and renew the page's tables."""
    place = ROOT / "docs" / "benchmarks.md"
    write_text(place, page(RESULTS, ROOT / "image" / "benchmarks", place.read_text(encoding="utf-8")))


if __name__ == "__main__":
    run(main)
