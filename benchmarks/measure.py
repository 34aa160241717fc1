"""How every benchmark here measures and reports: interleaved rounds, medians, quartiles, one table, one CSV.

Only ratios of medians from one interleaved run are compared: the speed of a shared machine changes by the minute, and
changes for all methods of a round alike.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

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
        low: lower quartile of the rounds; where a benchmark says so, the lower end of a bootstrap interval. None for a
            single figure.
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
        methods: name to what is timed.
        rounds: how often each is timed.
        warm_up: run each once before, untimed.

    Returns:
        float64 (rounds,) wall-clock seconds by name.
    """
    names = list(methods)
    seconds = {name: np.zeros(rounds) for name in names}
    if warm_up:
        for name in names:
            methods[name]()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start = time.perf_counter()
            methods[name]()
            seconds[name][turn] = time.perf_counter() - start
    return seconds


def rows(
    benchmark: str,
    seconds: Mapping[str, np.ndarray],
    *,
    reference: str,
    work: float | Mapping[str, float] | None = None,
    metric: str = "images_per_s",
    targets: Mapping[str, float] | None = None,
) -> list[Row]:
    """Rows of timed methods: medians with quartiles, and the ratio to the reference method.

    Args:
        benchmark: name of the script.
        seconds: what ``interleave`` gave.
        reference: the method that the others are compared with.
        work: units of work (images, say) in one call, for all or by method: values are units a second. None gives
            milliseconds a call, and the metric ``ms``.
        metric: what a value with ``work`` is called.
        targets: least ratio to reach, by method.
    """
    units = {name: work.get(name, 1) if isinstance(work, Mapping) else (work or 1) for name in seconds}
    cost = {name: np.asarray(times) / units[name] for name, times in seconds.items()}  # seconds a unit
    made = []
    for name, times in cost.items():
        low, middle, high = np.percentile(times, (25, 50, 75))
        ratio = float(np.median(cost[reference]) / middle)
        target = (targets or {}).get(name)
        value = (1000 * middle, 1000 * low, 1000 * high) if work is None else (1 / middle, 1 / high, 1 / low)
        made.append(
            Row(
                benchmark,
                name,
                "ms" if work is None else metric,
                *map(float, value),
                ratio=ratio,
                target=target,
                reached=_reached(ratio, target),
            )
        )
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
    """One method's time over another's (``time_over_<to>``), from the medians, with a 95 % bootstrap interval.

    The interval is the percentile bootstrap over rounds (Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    p. 170); a round stays together, because its methods met the same machine.

    Args:
        benchmark: name of the script.
        seconds: what ``interleave`` gave; both must have done the same work.
        method: the one looked at.
        to: the one it is divided by, a physical limit for instance.
        target: what was to be reached.
        at_most: whether reaching means staying at or below the target.
    """
    above, below = np.asarray(seconds[method]), np.asarray(seconds[to])
    drawn = np.random.default_rng(0).integers(0, len(above), (1000, len(above)))
    low, high = np.percentile(np.median(above[drawn], axis=1) / np.median(below[drawn], axis=1), (2.5, 97.5))
    value = float(np.median(above) / np.median(below))
    name = f"time_over_{to}".replace(" ", "_")
    return Row(
        benchmark, method, name, value, float(low), float(high), target=target, reached=_reached(value, target, at_most)
    )


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
    """A figure that is no time: quality, memory, size. ``at_most``: reached when it stays at or below the target."""
    low, high = spread or (None, None)
    return Row(
        benchmark, method, metric, float(value), low, high, target=target, reached=_reached(value, target, at_most)
    )


def _reached(value: float, target: float | None, at_most: bool = False) -> str:
    if target is None:
        return ""
    return "yes" if (value <= target if at_most else value >= target) else "no"


def show(table: Iterable[Row], *notes: str) -> None:
    """Print rows as a table, the machine above it and notes (which data, synthetic or not) below."""
    made = Table(title=machine(), title_justify="left")
    for field in fields(Row):
        words = field.name in ("benchmark", "method", "metric", "reached")
        made.add_column(field.name, justify="left" if words else "right", overflow="fold")
    for row in table:
        made.add_row(*(_short(value) for value in asdict(row).values()))
    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(made)
    for note in ("low and high: quartiles of the rounds; of time_over_..., a 95 % bootstrap interval", *notes):
        console.print(note, highlight=False)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


def write(table: Iterable[Row], name: str, options: argparse.Namespace | None = None) -> Path:
    """Write rows as CSV, and this machine's line for ``name`` into ``machine.txt`` beside it.

    Args:
        table: the rows.
        name: of the file, without suffix.
        options: what ``arguments`` parsed. A quick run goes to ``outputs/benchmarks/``, so that it never replaces
            committed figures; ``--to`` names another folder. None writes to ``benchmarks/results/``.

    Returns:
        The CSV file.
    """
    folder = RESULTS
    if options is not None:
        folder = options.to or (ROOT / "outputs" / "benchmarks" if options.quick else RESULTS)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    for row in table:
        values = asdict(row).values()
        writer.writerow([f"{value:.5g}" if isinstance(value, float) else value for value in values])
    path = folder / f"{name}.csv"
    write_text(path, text.getvalue())
    machines = folder / "machine.txt"
    lines = machines.read_text(encoding="utf-8").splitlines() if machines.is_file() else []
    lines = [line for line in lines if not line.startswith(f"{name}: ")] + [f"{name}: {machine()}"]
    write_text(machines, "\n".join(sorted(lines)) + "\n")
    print(f"written: {os.path.relpath(path)}")
    return path


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has; a script adds its own and calls ``parse_args``.

    Options: ``quick`` (at most 60 s), ``data`` (folder that holds ``retinopathy/``), ``to`` (folder for the CSV).
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few rounds: at most 60 s in all, written to outputs/")
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
    """Which photographs a run used, for the table: real ones, or synthetic ones.

    Raises:
        MedicError: ``folder`` holds no ``retinopathy/``.
    """
    store = open_store(folder / "retinopathy")
    if is_synthetic(store):
        return "data: SYNTHETIC photographs, drawn by a program"
    return "data: real fundus photographs"


def machine() -> str:
    """One line: processor, cores that may be used, GPU, versions."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{model}, {usable_cores()} cores, {_gpu()}; {', '.join(versions)}"


def _gpu() -> str:
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"
    return ", ".join(asked.stdout.split("\n")).strip(", ") or "no GPU"


def run(main: Callable[[], object]) -> None:
    """Run a script's main function; what a person has to know ends it in one sentence."""
    try:
        main()
    except MedicError as error:
        sys.exit(f"error: {error}")


def peak_memory() -> float:
    """The most memory that this process has held so far (resident), in MiB. Linux only: elsewhere it is an error.

    ``getrusage`` is no measure in a child process: on Linux it starts from what the parent held.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise MedicError("peak memory is read from /proc/self/status, which this system lacks; use Linux") from error
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def in_own_process(script: str | os.PathLike, *options: str, environment: Mapping[str, str] | None = None) -> dict:
    """Run a script with this interpreter, and give back the JSON object on the last line that it prints.

    Args:
        script: path of the script.
        options: its arguments.
        environment: added to this process's (``OMP_NUM_THREADS``, for instance).

    Raises:
        MedicError: it failed; the message ends with what it said.
    """
    ended = subprocess.run(
        [sys.executable, os.fspath(script), *options],
        capture_output=True,
        text=True,
        env=os.environ | dict(environment or {}),
        check=False,
    )
    if ended.returncode:
        raise MedicError(
            f"{Path(script).name} {' '.join(options)} ended with {ended.returncode}; see its last words: "
            f"{ended.stderr.strip()[-2000:]}"
        )
    return json.loads(ended.stdout.strip().splitlines()[-1])
