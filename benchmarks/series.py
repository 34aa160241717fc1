"""What a run of the series costs: seconds a notebook, and how much of them is the start of the kernel and imports.

Every notebook is run once as ``medic run`` runs it (quick profile, the committed sample, a fresh folder for outputs).
``--quick`` runs the first notebook alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from measure import ROOT, Row, arguments, figure, run, show, write
from nbformat.v4 import new_code_cell, new_notebook

from medic.errors import MedicError
from medic.notebooks.run import find_notebooks

NAME = "series"
NOTEBOOK_LIMIT, SERIES_LIMIT = 90.0, 20 * 60.0
FIRST = "01_data_acquisition_and_understanding/01_acquire_data"
STARTS = {
    "import medic": [sys.executable, "-c", "import medic"],
    "medic --help": [sys.executable, "-m", "medic.cli", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}
START_LIMIT = 1.0
"""Seconds: longer, and a command feels stuck. Far less than importing torch takes, which neither may do."""


def starts(rounds: int) -> list[Row]:
    """How long until Python has imported the package, has printed the command's help, and, to compare, has torch."""
    found = []
    for name, command in STARTS.items():
        times = sorted(_seconds(command) for _ in range(rounds))
        limit = None if name == "import torch" else START_LIMIT
        spread = times[len(times) // 4], times[-1 - len(times) // 4]
        middle = times[len(times) // 2]
        found.append(figure(NAME, name, "seconds", middle, spread=spread, target=limit, at_most=True))
    return found


def kernel(folder: Path) -> list[Row]:
    """An empty notebook, and one that does no more than the opening imports of a notebook that trains."""
    imports = "import torch\nimport torchvision\nimport lightning\nfrom medic.notebooks.session import begin"
    found = []
    for method, source in (("a kernel's start", "pass"), ("a kernel's start and the imports", imports)):
        path = folder / "start.ipynb"
        parameters = new_code_cell('DATA = "sample_data"', metadata={"tags": ["parameters"]})
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[parameters, new_code_cell(source)], metadata=metadata), path)
        script = (
            "import sys, pathlib, medic.notebooks.run as s, papermill; here = pathlib.Path(sys.argv[1]);"
            "import time; start = time.perf_counter();"
            "failure = s.execute(here / 'start.ipynb', here / 'copy.ipynb', {});"
            "print(time.perf_counter() - start); sys.exit(failure is not None)"
        )
        ended = _run([sys.executable, "-c", script, str(folder)])
        found.append(figure(NAME, method, "seconds", float(ended.stdout.split()[-1])))
    return found


def notebooks(folder: Path, only: str | None) -> list[Row]:
    """Every notebook's seconds as the runner counts them, against the limits of the series.

    Raises:
        MedicError: a notebook failed; its time would mean nothing.
    """
    command = [sys.executable, "-m", "medic.cli", "run", "--outputs", str(folder), "--data", "sample_data"]
    ended = _run([*command, *(["--only", only] if only else [])])
    outcomes = json.loads((folder / "series.json").read_text())
    failed = [one["notebook"] for one in outcomes if one["status"] != "done"]
    if failed or not outcomes:
        raise MedicError(f"{', '.join(failed) or 'the series'} did not finish; see {ended.stdout.strip()[-300:]}")
    found = []
    for one in outcomes:
        name = one["notebook"].removesuffix(".ipynb")
        found.append(figure(NAME, name, "seconds", one["seconds"], target=NOTEBOOK_LIMIT, at_most=True))
    if not only:
        total = sum(one["seconds"] for one in outcomes)
        found.append(figure(NAME, "all notebooks", "seconds", total, target=SERIES_LIMIT, at_most=True))
    return found


def shares(found: list[Row]) -> list[Row]:
    """How much of each notebook's time is the start of its kernel and the imports, at most: few need all of them."""
    opening = next(row.value for row in found if row.method == "a kernel's start and the imports")
    return [
        figure(NAME, row.method, "share_of_start_and_imports", min(1.0, opening / row.value))
        for row in found
        if "/" in row.method
    ]


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    _run(command)
    return time.perf_counter() - start


def _run(command: list[str]) -> subprocess.CompletedProcess:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), check=False)
    if ended.returncode:
        raise MedicError(f"{' '.join(command[1:4])} ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return ended


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [*starts(3 if options.quick else 7), *kernel(Path(folder))]
        found += notebooks(Path(folder) / "outputs", FIRST if options.quick else None)
    found += shares(found)
    count = len(find_notebooks(ROOT))
    show(found, f"SYNTHETIC sample, quick profile; the series has {count} notebooks, each run once (no spread)")
    write(found, NAME, options)


if __name__ == "__main__":
    run(main)
